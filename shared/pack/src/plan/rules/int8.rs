//! Rules of convolutions in bytes.

use super::super::validate::Context;
use super::super::{CHANNEL_BLOCK, FILTER_PANEL, Fact, Int8Tail, Op, Window};
use super::windows::{planes, window};
use super::{Checked, MAX_EXTENT, blocked, conv_copies_little, f32, gives, operands, tensor};
use crate::dtype::Dtype;
use crate::int8::{FEW, MOST, MOST_STEPS, MOST_TAPS, PIXEL, Runs, pixel, taps_bytes};
use crate::tensor::element_count;
use crate::weights::WeightId;

/// `[N, H, W, S]` of an image of bytes.
fn image(fact: &Fact) -> Result<[usize; 4], String> {
    match tensor(fact)? {
        (Dtype::U8, &[n, h, w, s])
            if [n, h, w, s].iter().all(|d| *d <= MAX_EXTENT) && (s == FEW || s.is_multiple_of(PIXEL)) =>
        {
            Ok([n, h, w, s])
        }
        (dtype, shape) => Err(format!(
            "a tensor of {dtype} {shape:?}, expected bytes [N, H, W, S] up to {MAX_EXTENT}, S being {FEW} or a multiple of {PIXEL}"
        )),
    }
}

fn bytes(shape: [usize; 4]) -> Fact {
    Fact::Tensor { dtype: Dtype::U8, shape: shape.to_vec() }
}

/// Whether a position of `s` bytes holds `channels` and not many more.
fn holds(s: usize, channels: usize) -> Checked {
    if pixel(channels) == Some(s) || (s == FEW && channels <= FEW) {
        return Ok(());
    }
    Err(format!("positions of {s} bytes for {channels} channels"))
}

/// A factor that gives numbers.
fn factor(value: f32) -> Checked {
    if value.is_finite() { Ok(()) } else { Err(format!("a factor of {value}")) }
}

/// A byte that stands for 0, which padding is.
pub(super) fn activation(zero: u8) -> Checked {
    if zero <= MOST { Ok(()) } else { Err(format!("{zero} for 0, expected at most {MOST}")) }
}

/// The images that `op` sums up, or hands on to who does, are given by operators that keep to [`MOST`]. `maker` tells what
/// gives an operand.
pub(in super::super) fn made_in_bytes<'a>(op: &Op, maker: impl Fn(usize) -> Option<&'a Op>) -> Checked {
    let images: &[usize] = match op {
        Op::Int8Conv { residual: Some(_), .. } => &[0, 3],
        Op::Int8Conv { .. } | Op::Int8DepthwiseConv { .. } | Op::Int8MaxPool { .. } => &[0],
        _ => &[],
    };
    images.iter().try_for_each(|slot| match maker(*slot) {
        Some(
            Op::QuantizeImage { .. }
            | Op::Int8Conv { .. }
            | Op::Int8DepthwiseConv { .. }
            | Op::Int8MaxPool { .. },
        ) => Ok(()),
        other => {
            let name = other.map_or("nothing", Op::name);
            Err(format!(
                "operand {slot} is given by {name}, expected an operator that gives bytes up to {MOST}"
            ))
        }
    })
}

/// Bytes that the weights of `op`, which was checked, take in the order of its kernel, beside the pack.
pub(in super::super) fn laid_out(context: &Context<'_>, op: &Op, inputs: &[&Fact]) -> Result<usize, String> {
    let pixel = || Ok::<_, String>(image(inputs.first().ok_or("0 operands")?)?[3]);
    Ok(match op {
        Op::Int8Conv { window, kernel, .. } => {
            let (depth, filters) = context.int8_panels(*kernel)?;
            let panel = runs(window, pixel()?, depth)?.panel_bytes();
            filters.div_ceil(FILTER_PANEL).saturating_mul(panel)
        }
        Op::Int8DepthwiseConv { window, .. } => {
            let sixteen = taps_bytes(window.kernel.0.saturating_mul(window.kernel.1));
            (pixel()? / PIXEL).saturating_mul(sixteen)
        }
        _ => 0,
    })
}

pub(super) fn quantize(inverse: f32, zero: u8, inputs: &[&Fact], output: &Fact) -> Checked {
    let [x] = operands(inputs)?;
    factor(inverse)?;
    activation(zero)?;
    let (given, shape) = (image(output)?, f32(x)?);
    match shape.len() {
        // A block of eight more than half full tells no more than that.
        5 => {
            let [n, blocks, h, w] = blocked::extents(shape)?;
            let s = pixel(blocks.saturating_mul(CHANNEL_BLOCK)).unwrap_or(0);
            gives(output, &bytes([n, h, w, s]))
        }
        _ => {
            let [n, channels, h, w] = planes(shape)?;
            holds(given[3], channels)?;
            gives(output, &bytes([n, h, w, given[3]]))
        }
    }
}

pub(super) fn dequantize(scale: f32, zero: u8, inputs: &[&Fact], output: &Fact) -> Checked {
    let [x] = operands(inputs)?;
    factor(scale)?;
    activation(zero)?;
    let ([n, h, w, s], [m, blocks, oh, ow]) = (image(x)?, blocked::extents(f32(output)?)?);
    let fits = (n, h, w) == (m, oh, ow) && pixel(blocks.saturating_mul(CHANNEL_BLOCK)) == Some(s);
    if fits { Ok(()) } else { Err(format!("gives {output:?} of {x:?}")) }
}

/// How a window over positions of `s` bytes meets filters that are `depth` deep.
fn runs(w: &Window, s: usize, depth: usize) -> Result<Runs, String> {
    let taps = element_count(&[w.kernel.0, w.kernel.1]).ok_or("kernel overflows")?;
    let channels = depth / taps;
    if channels == 0 || !depth.is_multiple_of(taps) {
        return Err(format!("panels {depth} deep, expected a multiple of {taps} taps"));
    }
    holds(s, channels)?;
    let runs = Runs::of(w, channels, s);
    let steps = runs.steps();
    if steps > MOST_STEPS {
        return Err(format!("sums of {steps} steps, at most {MOST_STEPS} fit 32 bits"));
    }
    Ok(runs)
}

pub(super) fn conv(
    context: &Context<'_>,
    w: &Window,
    kernel: WeightId,
    residual: Option<f32>,
    tail: &Int8Tail,
    inputs: &[&Fact],
    output: &Fact,
) -> Checked {
    window(w)?;
    let (depth, filters) = context.int8_panels(kernel)?;
    let wanted = 3 + usize::from(residual.is_some());
    if inputs.len() != wanted {
        return Err(format!("{} operands, expected {wanted}", inputs.len()));
    }
    let ([n, height, width, s], of_output) = (image(inputs[0])?, pixel(filters).ok_or("filters overflow")?);
    runs(w, s, depth)?;
    slides(w, s, (height, width))?;
    let floats = matches!(tensor(output)?, (Dtype::F32, _));
    let blocks = filters.div_ceil(CHANNEL_BLOCK);
    let (oh, ow) = w.output;
    let wanted = match floats {
        true => Fact::f32(&[n, blocks, oh, ow, CHANNEL_BLOCK]),
        false => bytes([n, oh, ow, of_output]),
    };
    gives(output, &wanted)?;
    if let (Some(scale), Some(other)) = (residual, inputs.get(3)) {
        factor(scale)?;
        gives(other, &bytes([n, oh, ow, of_output]))?;
    }
    constants(inputs, of_output)?;
    limits(tail, floats)
}

pub(super) fn depthwise(
    context: &Context<'_>,
    w: &Window,
    kernel: WeightId,
    tail: &Int8Tail,
    inputs: &[&Fact],
    output: &Fact,
) -> Checked {
    let [x, _, _] = operands(inputs)?;
    window(w)?;
    let [n, height, width, s] = image(x)?;
    let [channels, row @ ..] = context.int8_rows(kernel)? else { return Err("rows without an axis".into()) };
    let taps = element_count(&[w.kernel.0, w.kernel.1]);
    if element_count(row) != taps || pixel(*channels) != Some(s) {
        return Err(format!("kernels {row:?} of {channels} channels for {w:?} over {x:?}"));
    }
    if taps.is_none_or(|taps| taps > MOST_TAPS) {
        return Err(format!("sums of {taps:?} taps, at most {MOST_TAPS} fit 32 bits"));
    }
    slides(w, s, (height, width))?;
    gives(output, &bytes([n, w.output.0, w.output.1, s]))?;
    constants(inputs, s)?;
    limits(tail, false)
}

pub(super) fn max_pool(w: &Window, inputs: &[&Fact], output: &Fact) -> Checked {
    let [x] = operands(inputs)?;
    window(w)?;
    let [n, _, _, s] = image(x)?;
    gives(output, &bytes([n, w.output.0, w.output.1, s]))
}

/// A plan may not ask for an unreasonable copy of its padded input.
fn slides(w: &Window, s: usize, (height, width): (usize, usize)) -> Checked {
    if conv_copies_little(w, s, (height, width)) {
        return Ok(());
    }
    Err(format!("{w:?} reaches far beyond an input of {height} x {width}"))
}

/// Multiplier and bias for each of `s` bytes.
fn constants(inputs: &[&Fact], s: usize) -> Checked {
    inputs.iter().skip(1).take(2).try_for_each(|constant| match element_count(f32(constant)?) {
        Some(n) if n == s => Ok(()),
        _ => Err(format!("constants of {constant:?}, expected {s} values")),
    })
}

fn limits(tail: &Int8Tail, floats: bool) -> Checked {
    let Int8Tail { scale, zero, low, high, .. } = *tail;
    let (least, most) = if floats { (f32::MIN, f32::MAX) } else { (0.0, f32::from(MOST)) };
    // Of what is no number, no comparison holds.
    if scale.is_finite() && zero.is_finite() && least <= low && low <= high && high <= most {
        return Ok(());
    }
    Err(format!("{tail:?}, expected limits from {least} to {most}"))
}
