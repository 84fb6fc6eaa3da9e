//! Rules of what keeps channels in blocks of eight.

use super::super::validate::Context;
use super::super::{BinaryOp, CHANNEL_BLOCK, ConvStep, FILTER_PANEL, Fact, UnaryOp, Window};
use super::windows::{bias_of, planes, taps, window};
use super::{Checked, MAX_EXTENT, f32, gives, operands};
use crate::tensor::element_count;
use crate::weights::WeightId;

/// How much larger than its input a convolution's padded input may be, in values: each thread may hold one.
const PADDED_VALUES: usize = 16 << 20;

/// `[N, blocks, H, W]` of a tensor whose channels are in blocks.
pub(super) fn extents(shape: &[usize]) -> Result<[usize; 4], String> {
    match *shape {
        [n, blocks, h, w, CHANNEL_BLOCK] if [n, blocks, h, w].iter().all(|d| *d <= MAX_EXTENT) => {
            Ok([n, blocks, h, w])
        }
        _ => Err(format!(
            "a tensor of shape {shape:?}, expected [N, C / {CHANNEL_BLOCK}, H, W, {CHANNEL_BLOCK}] up to {MAX_EXTENT}"
        )),
    }
}

fn in_blocks(shape: &[usize]) -> Result<Fact, String> {
    let [n, c, h, w] = planes(shape)?;
    Ok(Fact::f32(&[n, c.div_ceil(CHANNEL_BLOCK), h, w, CHANNEL_BLOCK]))
}

pub(super) fn block(inputs: &[&Fact], output: &Fact) -> Checked {
    let [x] = operands(inputs)?;
    gives(output, &in_blocks(f32(x)?)?)
}

pub(super) fn unblock(inputs: &[&Fact], output: &Fact) -> Checked {
    let [x] = operands(inputs)?;
    extents(f32(x)?)?;
    gives(x, &in_blocks(f32(output)?)?)
}

pub(super) fn conv(
    context: &Context<'_>,
    w: &Window,
    kernel: WeightId,
    steps: &[ConvStep],
    inputs: &[&Fact],
    output: &Fact,
) -> Checked {
    let [x, bias, ..] = inputs else { return Err(format!("{} operands, expected 2 or more", inputs.len())) };
    window(w)?;
    let (k, filters) = context.panel_extents(kernel)?;
    context.filters(kernel, k, filters)?;
    let taps = element_count(&[w.kernel.0, w.kernel.1]).ok_or("kernel overflows")?;
    let channels = k / taps;
    if channels == 0 || !k.is_multiple_of(taps) {
        return Err(format!("panels {k} deep, expected a multiple of {taps} taps"));
    }
    let shape = f32(x)?;
    let [n, blocks, height, width] = match shape.len() {
        4 => planes(shape)?,
        _ => extents(shape)?,
    };
    let wanted = if shape.len() == 4 { channels } else { channels.div_ceil(CHANNEL_BLOCK) };
    if blocks != wanted {
        return Err(format!("an input of shape {shape:?} for filters of {channels} channels"));
    }
    let lanes = shape.get(4).copied().unwrap_or(1);
    if !conv_copies_little(w, blocks.saturating_mul(lanes), (height, width)) {
        return Err(format!("{w:?} reaches far beyond an input of {height} x {width}"));
    }
    bias_of(bias, filters)?;
    let blocks = filters.div_ceil(CHANNEL_BLOCK);
    gives(output, &Fact::f32(&[n, blocks, w.output.0, w.output.1, CHANNEL_BLOCK]))?;
    steps.iter().try_for_each(|s| step(*s, inputs, output))
}

pub(super) fn depthwise(
    context: &Context<'_>,
    w: &Window,
    kernel: WeightId,
    steps: &[ConvStep],
    inputs: &[&Fact],
    output: &Fact,
) -> Checked {
    let [x, bias, ..] = inputs else { return Err(format!("{} operands, expected 2 or more", inputs.len())) };
    window(w)?;
    let [n, blocks, ..] = extents(f32(x)?)?;
    let channels = element_count(f32(bias)?).filter(|c| c.div_ceil(CHANNEL_BLOCK) == blocks);
    let channels = channels.ok_or_else(|| format!("bias is {bias:?}, expected one for each channel"))?;
    taps(context, kernel, &[channels, w.kernel.0, w.kernel.1])?;
    gives(output, &Fact::f32(&[n, blocks, w.output.0, w.output.1, CHANNEL_BLOCK]))?;
    steps.iter().try_for_each(|s| step(*s, inputs, output))
}

/// Whether what the windows reach of an input of `channels`, copied with its padding some rows at a time, is not much
/// more than the input: a plan may not ask for an unreasonable copy.
#[must_use]
pub fn conv_copies_little(w: &Window, channels: usize, (height, width): (usize, usize)) -> bool {
    let reach = |output: usize, stride: usize, kernel: usize, dilation: usize| {
        let steps = output.checked_sub(1)?.checked_mul(stride)?;
        steps.checked_add(kernel.checked_sub(1)?.checked_mul(dilation)?)?.checked_add(1)
    };
    let rows = reach(w.output.0, w.strides.0, w.kernel.0, w.dilations.0);
    let columns = reach(w.output.1, w.strides.1, w.kernel.1, w.dilations.1);
    let taken = rows.zip(columns).and_then(|(rows, columns)| element_count(&[channels, rows, columns]));
    let given = element_count(&[channels, height, width]).unwrap_or(0);
    taken.is_some_and(|taken| taken <= given.saturating_add(PADDED_VALUES))
}

fn step(step: ConvStep, inputs: &[&Fact], output: &Fact) -> Checked {
    use ConvStep::{Channel, Scalar, Tensor, Unary};
    let operand = |input: usize| {
        let found = inputs.get(input).copied();
        found.ok_or_else(|| format!("a step reads operand {input} of {}", inputs.len()))
    };
    match step {
        Scalar { op: BinaryOp::Pow, .. }
        | Tensor { op: BinaryOp::Pow, .. }
        | Channel { op: BinaryOp::Pow, .. } => Err("a convolution followed by Pow".into()),
        Scalar { .. } => Ok(()),
        Tensor { input, .. } => gives(operand(input)?, output),
        Channel { input, .. } => {
            let [_, blocks, ..] = extents(f32(output)?)?;
            gives(operand(input)?, &Fact::f32(&[1, blocks, 1, 1, CHANNEL_BLOCK]))
        }
        Unary { op: UnaryOp::HardSwish | UnaryOp::Sigmoid | UnaryOp::Silu } => Ok(()),
        Unary { op } => Err(format!("a convolution followed by {op:?}")),
    }
}

impl Context<'_> {
    /// Checks that a weight is stored in panels of filters and that no panel is read past its end.
    fn filters(&self, id: WeightId, k: usize, filters: usize) -> Checked {
        let format = super::super::PanelFormat {
            dtype: crate::dtype::Dtype::F32,
            r: FILTER_PANEL,
            align: FILTER_PANEL * size_of::<f32>(),
            end_padding: 0,
        };
        self.f32_panels(id, &format, k, filters)
    }
}
