//! Convolutions over one axis with one channel per group, as two axes of which the first has one position: what the
//! operators in blocks know.

use super::conv::f32_constant;
use tract_core::internal::*;
use tract_core::ops::cnn::{Conv, KernelFormat, PaddingSpec, PoolSpec};
use tract_core::ops::nn::DataFormat;

/// Gives each of them its second axis. tract's own passes would take it away again, so it is done after them.
pub(super) fn widen(model: &mut TypedModel) -> TractResult<()> {
    let found: Vec<usize> = model.nodes.iter().filter(|node| is_narrow(node)).map(|node| node.id).collect();
    for id in found {
        let node = model.node(id);
        let (Some(conv), &[x, kernel, bias]) = (node.op_as::<Conv>(), node.inputs.as_slice()) else {
            continue;
        };
        let Some(kernel) = f32_constant(model, kernel) else { continue };
        let mut kernel = kernel.into_tensor();
        kernel.insert_axis(2)?;
        let (conv, name) = (Conv { pool_spec: wide(&conv.pool_spec), ..conv.clone() }, node.name.clone());
        let axis = conv.pool_spec.data_format.h_axis();
        let mut patch = TypedModelPatch::new("a second axis");
        let taps = patch.taps(model, &[x, bias])?;
        let x = patch.wire_node(format!("{name}.two"), AxisOp::Add(axis), &taps[..1])?[0];
        let kernel = patch.add_const(format!("{name}.kernel"), kernel)?;
        let wide = patch.wire_node(&name, conv, &[x, kernel, taps[1]])?;
        let narrow = patch.wire_node(format!("{name}.one"), AxisOp::Rm(axis), &wide)?[0];
        patch.shunt_outside(model, id.into(), narrow)?;
        patch.apply(model)?;
    }
    Ok(())
}

fn is_narrow(node: &TypedNode) -> bool {
    node.op_as::<Conv>().is_some_and(|conv| {
        let pool = &conv.pool_spec;
        let channels_first = matches!(pool.data_format, DataFormat::NCHW | DataFormat::CHW);
        let one_each =
            conv.group > 1 && conv.group == pool.input_channels && conv.group == pool.output_channels;
        let known = channels_first && conv.kernel_fmt == KernelFormat::OIHW && conv.q_params.is_none();
        known && one_each && pool.kernel_shape.len() == 1
    })
}

/// `pool` with an axis before its own, along which it does nothing.
fn wide(pool: &PoolSpec) -> PoolSpec {
    let with =
        |first: usize, rest: &TVec<usize>| std::iter::once(first).chain(rest.iter().copied()).collect();
    let padding = match &pool.padding {
        PaddingSpec::Explicit(before, after) => PaddingSpec::Explicit(with(0, before), with(0, after)),
        PaddingSpec::ExplicitOnnxPool(before, after, ceil) => {
            PaddingSpec::ExplicitOnnxPool(with(0, before), with(0, after), *ceil)
        }
        other => other.clone(),
    };
    PoolSpec {
        kernel_shape: with(1, &pool.kernel_shape),
        strides: pool.strides.as_ref().map(|strides| with(1, strides)),
        dilations: pool.dilations.as_ref().map(|dilations| with(1, dilations)),
        padding,
        ..pool.clone()
    }
}
