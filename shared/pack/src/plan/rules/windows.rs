//! Rules of what slides a window over the last two axes.

use super::super::validate::Context;
use super::super::{CHANNEL_BLOCK, Fact, PanelFormat, Window};
use super::{Checked, MAX_EXTENT, blocked, f32, gives, operands};
use crate::dtype::Dtype;
use crate::tensor::element_count;
use crate::weights::WeightId;

/// `[N, C, H, W]` of a tensor of rank 4, or of rank 3 with N = 1.
pub(super) fn planes(shape: &[usize]) -> Result<[usize; 4], String> {
    let full = match *shape {
        [n, c, h, w] => [n, c, h, w],
        [c, h, w] => [1, c, h, w],
        _ => return Err(format!("a tensor of shape {shape:?}, expected [N, C, H, W] or [C, H, W]")),
    };
    if full.iter().any(|d| *d > MAX_EXTENT) {
        return Err(format!("a tensor of shape {shape:?}, expected extents up to {MAX_EXTENT}"));
    }
    Ok(full)
}

/// Every extent of a window in `1..=MAX_EXTENT`, and no position that overflows.
pub(super) fn window(window: &Window) -> Checked {
    let Window { kernel, strides, dilations, pads, output } = *window;
    let positive = [kernel, strides, dilations, output];
    let small = |n: usize| n <= MAX_EXTENT;
    if positive.iter().any(|(y, x)| *y == 0 || *x == 0 || !small(*y) || !small(*x))
        || !small(pads.0)
        || !small(pads.1)
    {
        return Err(format!("{window:?}, expected extents from 1 to {MAX_EXTENT}"));
    }
    Ok(())
}

/// The shape after a window slid over the last two axes, or those before the last where channels are in blocks.
pub(super) fn slid(shape: &[usize], w: &Window) -> Result<Vec<usize>, String> {
    window(w)?;
    if let Ok([n, blocks, ..]) = blocked::extents(shape) {
        return Ok(vec![n, blocks, w.output.0, w.output.1, CHANNEL_BLOCK]);
    }
    planes(shape)?;
    let mut shape = shape.to_vec();
    let rank = shape.len();
    (shape[rank - 2], shape[rank - 1]) = w.output;
    Ok(shape)
}

pub(super) fn im2col(
    format: &PanelFormat,
    w: &Window,
    group: usize,
    inputs: &[&Fact],
    output: &Fact,
) -> Checked {
    let [x] = operands(inputs)?;
    let [n, c, ..] = planes(f32(x)?)?;
    window(w)?;
    if group == 0 || !c.is_multiple_of(group) {
        return Err(format!("{group} groups of {c} channels"));
    }
    let k = element_count(&[c / group, w.kernel.0, w.kernel.1]).ok_or("depth overflows")?;
    let mn = element_count(&[w.output.0, w.output.1]).ok_or("columns overflow")?;
    gives(output, &Fact::Panels { format: *format, batch: vec![n, group], k, mn })
}

pub(super) fn depthwise(
    context: &Context<'_>,
    w: &Window,
    kernel: WeightId,
    inputs: &[&Fact],
    output: &Fact,
) -> Checked {
    let [x, bias] = operands(inputs)?;
    let shape = f32(x)?;
    let [_, c, ..] = planes(shape)?;
    let out = slid(shape, w)?;
    taps(context, kernel, &[c, w.kernel.0, w.kernel.1])?;
    bias_of(bias, c)?;
    gives(output, &Fact::f32(&out))
}

/// A plain f32 kernel with one value for each of `extents`' product.
pub(super) fn taps(context: &Context<'_>, kernel: WeightId, extents: &[usize]) -> Checked {
    let taps = element_count(extents).ok_or("kernel overflows")?;
    match context.plain(kernel)? {
        (Dtype::F32, shape) if element_count(shape) == Some(taps) => Ok(()),
        (dtype, shape) => Err(format!("kernel is {dtype} {shape:?}, expected {taps} values of f32")),
    }
}

pub(super) fn bias_of(bias: &Fact, channels: usize) -> Checked {
    if element_count(f32(bias)?) == Some(channels) {
        return Ok(());
    }
    Err(format!("bias is {bias:?}, expected {channels} values"))
}

pub(super) fn direct_conv(
    context: &Context<'_>,
    w: &Window,
    kernel: WeightId,
    inputs: &[&Fact],
    output: &Fact,
) -> Checked {
    let [x, bias] = operands(inputs)?;
    let [_, channels, ..] = planes(f32(x)?)?;
    let [_, filters, ..] = planes(f32(output)?)?;
    let mut out = slid(f32(x)?, w)?;
    let rank = out.len();
    out[rank - 3] = filters;
    taps(context, kernel, &[filters, channels, w.kernel.0, w.kernel.1])?;
    bias_of(bias, filters)?;
    gives(output, &Fact::f32(&out))
}

pub(super) fn col2im(w: &Window, inputs: &[&Fact], output: &Fact) -> Checked {
    let [x, bias] = operands(inputs)?;
    let out = f32(output)?;
    let [n, c, ..] = planes(out)?;
    window(w)?;
    let columns = element_count(&[n, c, w.kernel.0, w.kernel.1, w.output.0, w.output.1]);
    if columns.is_none() || element_count(f32(x)?) != columns {
        return Err(format!("columns are {x:?}, expected {columns:?} values"));
    }
    if f32(bias)? == out { Ok(()) } else { bias_of(bias, c) }
}
