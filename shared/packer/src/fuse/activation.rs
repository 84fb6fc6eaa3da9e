//! Activations, recognised by what they compute and not by how it is spelled: exporters have a dozen ways to write GELU.

use super::shape::{floats, scalar};
use glowplug_pack::plan::Activation;
use tract_core::internal::*;
use tract_core::ops::binary::TypedBinOp;
use tract_core::ops::element_wise::ElementWiseOp;

/// The most nodes that an activation is made of.
const MOST_NODES: usize = 16;
/// How far a function may be from the one it is taken for, relative to its argument: what f32 and approximations lose; no two of those
/// that are known come closer than 3e-4.
const TOLERANCE: f32 = 5e-6;

/// Every activation, simplest first.
const KNOWN: [Activation; 4] = [Activation::Relu, Activation::Gelu, Activation::GeluTanh, Activation::Silu];

/// The node that gives an activation of `from`, which nothing else takes, and which activation it is.
pub(super) fn after(model: &TypedModel, from: OutletId) -> TractResult<Option<(usize, Activation)>> {
    let Some(shape) = floats(model, from)? else { return Ok(None) };
    let arguments = arguments();
    let mut known: Vec<(OutletId, Tensor)> = vec![(from, arguments.clone())];
    // The nodes of the function so far, which are in an order of execution.
    let mut found = None;
    for _ in 0..MOST_NODES {
        let Some((node, values)) = next(model, &known, &shape)? else { break };
        known.push((node.id.into(), values));
        if only_last_is_taken(model, &known)
            && let Some(activation) = name(&arguments, &known[known.len() - 1].1)?
        {
            found = Some((node.id, activation));
        }
    }
    Ok(found)
}

/// Values that tell the functions apart.
fn arguments() -> Tensor {
    let values: Vec<f32> = (-240i16..=240).map(|i| f32::from(i) / 24.0 + 0.007).collect();
    tensor1(&values)
}

/// A node all of whose operands are known or constant, and its values.
fn next<'a>(
    model: &'a TypedModel,
    known: &[(OutletId, Tensor)],
    shape: &[usize],
) -> TractResult<Option<(&'a TypedNode, Tensor)>> {
    for (outlet, _) in known {
        for taker in &model.node(outlet.node).outputs[outlet.slot].successors {
            let node = model.node(taker.node);
            let new = known.iter().all(|(k, _)| k.node != node.id);
            if new
                && floats(model, node.id.into())?.as_deref() == Some(shape)
                && let Some(values) = values(model, node, known)?
            {
                return Ok(Some((node, values)));
            }
        }
    }
    Ok(None)
}

fn values(model: &TypedModel, node: &TypedNode, known: &[(OutletId, Tensor)]) -> TractResult<Option<Tensor>> {
    let operand = |outlet: &OutletId| -> Option<Tensor> {
        let found = known.iter().find(|(k, _)| k == outlet).map(|(_, values)| values.clone());
        found.or_else(|| scalar(model, *outlet).map(|value| tensor1(&[value])))
    };
    let Some(operands) = node.inputs.iter().map(operand).collect::<Option<TVec<_>>>() else {
        return Ok(None);
    };
    if let (Some(op), [a, b]) = (node.op_as::<TypedBinOp>(), operands.as_slice()) {
        if op.1.is_some() || op.0.result_datum_type(DatumType::F32, DatumType::F32)? != DatumType::F32 {
            return Ok(None);
        }
        return Ok(Some(op.0.eval(a.clone().into_tvalue(), b.clone().into_tvalue(), DatumType::F32)?));
    }
    if let (Some(op), [x]) = (node.op_as::<ElementWiseOp>(), operands.as_slice()) {
        if op.1.is_some() || op.0.output_type(DatumType::F32).is_some_and(|dt| dt != DatumType::F32) {
            return Ok(None);
        }
        let mut values = x.clone();
        return Ok(op.0.eval_in_place(&mut values, None).is_ok().then_some(values));
    }
    Ok(None)
}

/// Whether nobody outside takes any value but the last one.
fn only_last_is_taken(model: &TypedModel, known: &[(OutletId, Tensor)]) -> bool {
    known[..known.len() - 1].iter().all(|(outlet, _)| {
        let takers = &model.node(outlet.node).outputs[outlet.slot].successors;
        !model.outputs.contains(outlet) && takers.iter().all(|t| known.iter().any(|(k, _)| k.node == t.node))
    })
}

/// The activation that gives these values, if one does.
fn name(arguments: &Tensor, values: &Tensor) -> TractResult<Option<Activation>> {
    let (arguments, values) = (arguments.try_as_plain_ram()?, values.try_as_plain_ram()?);
    let (arguments, values) = (arguments.as_slice::<f32>()?, values.as_slice::<f32>()?);
    let agrees = |activation: &Activation| {
        let close = |(x, y): (&f32, &f32)| (y - of(*activation, *x)).abs() <= TOLERANCE * x.abs().max(1.0);
        arguments.len() == values.len() && arguments.iter().zip(values).all(close)
    };
    Ok(KNOWN.into_iter().find(agrees))
}

#[allow(clippy::cast_possible_truncation, reason = "rounded to what the functions give")]
fn of(activation: Activation, x: f32) -> f32 {
    let x = f64::from(x);
    let y = match activation {
        Activation::Identity => x,
        Activation::Relu => x.max(0.0),
        Activation::Gelu => x / 2.0 * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        Activation::GeluTanh => {
            let inner = x + 0.044_715 * x * x * x;
            x / 2.0 * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * inner).tanh())
        }
        Activation::Silu => x / (1.0 + (-x).exp()),
    };
    y as f32
}

/// The error function by its series, none of whose terms is negative.
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    sum * (-x * x).exp() * std::f64::consts::FRAC_2_SQRT_PI
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_function_is_that_of_tables() {
        // Abramowitz and Stegun, table 7.1.
        for (x, y) in
            [(0.1, 0.112_462_916), (1.0, 0.842_700_793), (2.0, 0.995_322_265), (5.9, 1.0), (7.0, 1.0)]
        {
            assert!((erf(x) - y).abs() < 1e-9 && (erf(-x) + y).abs() < 1e-9, "erf({x}) = {}", erf(x));
        }
    }

    #[test]
    fn every_activation_is_told_from_the_others() {
        let arguments = arguments();
        let plain = arguments.try_as_plain_ram().unwrap();
        for activation in KNOWN {
            let values: Vec<f32> =
                plain.as_slice::<f32>().unwrap().iter().map(|x| of(activation, *x)).collect();
            assert_eq!(name(&arguments, &tensor1(&values)).unwrap(), Some(activation));
            let moved: Vec<f32> = values.iter().map(|y| y + 1e-4).collect();
            assert_eq!(name(&arguments, &tensor1(&moved)).unwrap(), None);
        }
    }
}
