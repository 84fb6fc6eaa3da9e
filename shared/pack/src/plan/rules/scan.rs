//! Rules of recurrence: a loop agrees with its body, its operands and its outputs.

use super::super::validate::Context;
use super::super::{Fact, ScanInput, ScanOutput, fact_of};
use super::{Checked, f32, gives, operands, tensor};
use crate::tensor::element_count;

/// The most runs of a body: each leaves some hundred bytes beside its values.
const MOST_RUNS: usize = 1 << 20;

pub(super) fn lstm_cell(inputs: &[&Fact], h: &Fact, c: &Fact) -> Checked {
    let [gates, cell] = operands(inputs)?;
    let shape = f32(cell)?;
    let four = element_count(shape).and_then(|n| n.checked_mul(4));
    if shape.is_empty() || element_count(f32(gates)?) != four {
        return Err(format!("gates are {gates:?}, expected four times {cell:?}"));
    }
    gives(h, cell)?;
    gives(c, cell)
}

pub(super) fn check(
    context: &Context<'_>,
    body: usize,
    (from, to): (&[ScanInput], &[ScanOutput]),
    inputs: &[&Fact],
    outputs: &[Fact],
) -> Checked {
    let bodies = context.bodies;
    let body = bodies.get(body).ok_or_else(|| format!("body {body} of {}", bodies.len()))?;
    let counts = (from.len(), inputs.len(), to.len());
    if counts != (body.inputs.len(), body.inputs.len(), body.outputs.len()) {
        return Err(format!(
            "(inputs, operands, outputs) are {counts:?}, the body has {} inputs and {} outputs",
            body.inputs.len(),
            body.outputs.len()
        ));
    }
    let taken = |i: usize| fact_of(&body.nodes, super::super::Outlet { node: body.inputs[i], slot: 0 });
    let mut iterations = None;
    let mut states = Vec::new();
    for (i, (from, operand)) in from.iter().zip(inputs).enumerate() {
        let wanted = match from {
            ScanInput::Full => (*operand).clone(),
            ScanInput::State => {
                states.push(*operand);
                (*operand).clone()
            }
            ScanInput::Position { axis, .. } => {
                let (extent, one) = position(operand, *axis)?;
                if *iterations.get_or_insert(extent) != extent {
                    return Err(format!("operand {i} has {extent} positions, expected {iterations:?}"));
                }
                one
            }
        };
        if taken(i) != Some(&wanted) {
            return Err(format!("operand {i} gives the body {wanted:?}, expected {:?}", taken(i)));
        }
    }
    let iterations = iterations.ok_or("no operand is scanned")?;
    if iterations > MOST_RUNS {
        return Err(format!("runs {iterations} times, expected {MOST_RUNS} at most"));
    }
    let mut filled = vec![false; outputs.len()];
    let mut fill = |slot: usize, wanted: &Fact| {
        let again = filled.get_mut(slot).is_none_or(|f| std::mem::replace(f, true));
        if again {
            return Err(format!("output {slot} of {} is filled twice or is none", outputs.len()));
        }
        gives(&outputs[slot], wanted)
    };
    let mut carried = Vec::new();
    for (to, outlet) in to.iter().zip(&body.outputs) {
        let given = fact_of(&body.nodes, *outlet).ok_or("an output that the body has not")?;
        if to.state {
            carried.push(given);
        }
        if let Some(last) = to.last {
            fill(last, given)?;
        }
        if let Some(all) = to.positions {
            let (extent, _) = position(given, all.axis)?;
            let Fact::Tensor { dtype, mut shape } = given.clone() else {
                return Err(format!("collects {given:?}, expected a tensor"));
            };
            if extent != 1 {
                return Err(format!("collects {extent} positions per run, expected 1"));
            }
            shape[all.axis] = iterations;
            fill(all.slot, &Fact::Tensor { dtype, shape })?;
        }
    }
    if carried != states {
        return Err(format!("states {states:?} become {carried:?}"));
    }
    if filled.contains(&false) {
        return Err(format!("filled outputs are {filled:?}, expected all"));
    }
    Ok(())
}

/// The extent of an axis, and the fact of one position along it.
fn position(fact: &Fact, axis: usize) -> Result<(usize, Fact), String> {
    let (dtype, shape) = tensor(fact)?;
    let extent = *shape.get(axis).ok_or_else(|| format!("axis {axis} of {shape:?}"))?;
    let mut shape = shape.to_vec();
    shape[axis] = 1;
    Ok((extent, Fact::Tensor { dtype, shape }))
}
