//! Convolutions along one axis, channels last: every window is a row of values that lie one after the other, and
//! windows overlap. A product reads them so, nothing is laid out. Where channels come first they are moved behind, and back.

use super::shape::{constant, floats, scalar};
use super::{activation, product};
use crate::planned::{NOT_YET, Planned};
use glowplug_pack::plan::{Activation, Op, RowStrides};
use tract_core::internal::*;
use tract_core::ops::array::{Pad, PadMode};
use tract_core::ops::cnn::{Conv, KernelFormat};
use tract_core::ops::nn::DataFormat;

pub(super) fn rule(model: &TypedModel, node: &TypedNode) -> TractResult<Option<TypedModelPatch>> {
    let Some(conv) = node.op_as::<Conv>().filter(|c| c.q_params.is_none() && c.group == 1) else {
        return Ok(None);
    };
    let [x, kernel, bias] = *node.inputs.as_slice() else { return Ok(None) };
    let (Some(mut x_shape), Some(mut shape)) = (floats(model, x)?, floats(model, node.id.into())?) else {
        return Ok(None);
    };
    let (Some(weight), Some(offsets)) = (constant(model, kernel), constant(model, bias)) else {
        return Ok(None);
    };
    let channels_first = matches!(conv.pool_spec.data_format, DataFormat::NCHW | DataFormat::CHW);
    let Some(axis) = x_shape.len().checked_sub(2).filter(|_| shape.len() == x_shape.len()) else {
        return Ok(None);
    };
    if channels_first {
        x_shape.swap(axis, axis + 1);
        shape.swap(axis, axis + 1);
    }
    let Some(Windows { rows, pads, columns }) = windows(conv, &x_shape, &shape) else { return Ok(None) };
    // `[O, I, k]` to `[k, I, O]`.
    let order = match conv.kernel_fmt {
        KernelFormat::OIHW => [2, 1, 0],
        KernelFormat::OHWI => [1, 2, 0],
        KernelFormat::HWIO => [0, 1, 2],
    };
    let shared = offsets.rank() == 0;
    if weight.rank() != 3 || columns < product::FEWEST_COLUMNS || (!shared && offsets.len() != columns) {
        return Ok(None);
    }
    let depth = weight.len() / columns;
    let weight = weight.into_tensor().permute_axes(&order)?.into_shape(&[depth, columns])?.into_arc_tensor();
    let mut patch = TypedModelPatch::new(format!("convolution {}", node.name));
    let mut operands = tvec![patch.tap_model(model, x)?];
    let behind = AxisOp::Move(axis, axis + 1);
    if channels_first {
        operands = patch.wire_node(format!("{}.channels-last", node.name), behind.clone(), &operands)?;
    }
    if pads != (0, 0) {
        let zero = PadMode::Constant(Arc::new(tensor0(0f32)));
        let mut all = vec![(0, 0); x_shape.len()];
        all[axis] = pads;
        let pad = Pad { pads: all, mode: zero };
        operands = patch.wire_node(format!("{}.pad", node.name), pad, &operands)?;
    }
    let has_bias = scalar(model, bias) != Some(0.0);
    if has_bias && shared {
        let all = offsets.broadcast_scalar_to_shape(&[columns])?;
        operands.push(patch.add_const(format!("{}.bias", node.name), all)?);
    } else if has_bias {
        operands.push(patch.tap_model(model, bias)?);
    }
    let after = activation::after(model, node.id.into())?;
    let (last, activation) = after.unwrap_or((node.id, Activation::Identity));
    let weight_name = model.node(kernel.node).name.clone();
    let op = Op::Dense { weight: NOT_YET, rows, bias: has_bias, residual: false, activation };
    let op = Planned { op, weight: Some((weight_name, weight)), shape };
    let mut by = patch.wire_node(&node.name, op, &operands)?;
    if channels_first {
        by = patch.wire_node(format!("{}.channels-first", node.name), behind, &by)?;
    }
    patch.shunt_outside(model, last.into(), by[0])?;
    Ok(Some(patch))
}

/// A convolution's windows.
struct Windows {
    /// As rows of the padded input.
    rows: RowStrides,
    /// Positions of zeros before and after the input.
    pads: (usize, usize),
    /// How many channels the output has.
    columns: usize,
}

fn windows(conv: &Conv, x: &[usize], out: &[usize]) -> Option<Windows> {
    let pool = &conv.pool_spec;
    let ([items, length, channels], columns, count) = match (pool.data_format, x, out) {
        (DataFormat::NHWC | DataFormat::NCHW, [n, l, c], [_, windows, columns]) => {
            ([*n, *l, *c], *columns, *windows)
        }
        (DataFormat::HWC | DataFormat::CHW, [l, c], [windows, columns]) => ([1, *l, *c], *columns, *windows),
        _ => return None,
    };
    if pool.kernel_shape.len() != 1 || pool.dilation(0) != 1 || count == 0 {
        return None;
    }
    let padding = pool.computed_padding(&[length]);
    let pads = (padding[0].pad_before, padding[0].pad_after);
    let outer_stride = (pads.0 + length + pads.1) * channels;
    let inner_stride = pool.stride(0) * channels;
    let end = (count - 1) * inner_stride + pool.kernel_shape[0] * channels;
    let rows = RowStrides { outer: items, outer_stride, inner: count, inner_stride };
    (end <= outer_stride).then_some(Windows { rows, pads, columns })
}
