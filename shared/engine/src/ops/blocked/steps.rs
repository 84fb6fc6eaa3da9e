//! What follows a convolution's sums while they are still in registers.

use super::lanes::{Lanes, exp};
use glowplug_pack::plan::{BinaryOp, CHANNEL_BLOCK, ConvStep, UnaryOp};
use tract_core::internal::{TValue, TVec, Tensor, TractResult, bail};

/// A step with the tensor that it reads.
#[derive(Clone, Copy)]
pub(super) enum Step<'a> {
    Scalar(BinaryOp, f32),
    /// As long as the output, and laid out as it.
    Tensor(BinaryOp, &'a [f32]),
    /// As many blocks as the output of an image has.
    Channel(BinaryOp, &'a [f32]),
    Unary(UnaryOp),
}

/// The steps of a node with `inputs`. Errors: a tensor of another length, which the plan's rules exclude.
pub(super) fn bind<'a>(
    steps: &[ConvStep],
    inputs: &'a [TValue],
    output: &Tensor,
) -> TractResult<TVec<Step<'a>>> {
    let channels = output.shape().get(1).map_or(0, |blocks| blocks * CHANNEL_BLOCK);
    let slice = |input: usize, len: usize| match inputs.get(input) {
        Some(tensor) if tensor.len() == len => tensor.try_as_plain_ram()?.as_slice::<f32>(),
        _ => bail!("operand {input} is not as long as a step needs it"),
    };
    let bound = |step: &ConvStep| {
        Ok(match *step {
            ConvStep::Scalar { op, value } => Step::Scalar(op, value),
            ConvStep::Unary { op } => Step::Unary(op),
            ConvStep::Tensor { op, input } => Step::Tensor(op, slice(input, output.len())?),
            ConvStep::Channel { op, input } => Step::Channel(op, slice(input, channels)?),
        })
    };
    steps.iter().map(bound).collect()
}

/// Applies the steps to the sums of `P` neighbouring positions and `V` blocks. `offset` is where the first sum goes
/// in the output, blocks are `block_stride` apart; `block` is the first block of the image's channels.
///
/// # Safety
/// As [`Lanes`]; every `offset + v * block_stride + p * 8` is the start of eight values of the output, which has
/// all `V` blocks from `block` on.
#[inline(always)]
#[allow(unsafe_code, reason = "vectors")]
pub(super) unsafe fn apply<L: Lanes, const P: usize, const V: usize>(
    steps: &[Step<'_>],
    mut sums: [[L; V]; P],
    (offset, block_stride): (usize, usize),
    block: usize,
) -> [[L; V]; P] {
    // SAFETY: the caller's promise; a step's tensor is as long as the output.
    unsafe {
        for step in steps {
            match step {
                Step::Scalar(op, value) => {
                    let value = L::splat(*value);
                    sums = binary(*op, sums, |_, _| value);
                }
                Step::Tensor(op, tensor) => {
                    let from = tensor.as_ptr();
                    sums = binary(*op, sums, |p, v| L::load(from.add(offset + v * block_stride + p * 8)));
                }
                Step::Channel(op, values) => {
                    let from = values.as_ptr();
                    sums = binary(*op, sums, |_, v| L::load(from.add((block + v) * CHANNEL_BLOCK)));
                }
                Step::Unary(op) => sums = unary(*op, sums),
            }
        }
    }
    sums
}

/// # Safety
/// As [`Lanes`].
#[inline(always)]
#[allow(unsafe_code, reason = "vectors")]
unsafe fn binary<L: Lanes, const P: usize, const V: usize>(
    op: BinaryOp,
    mut sums: [[L; V]; P],
    operand: impl Fn(usize, usize) -> L,
) -> [[L; V]; P] {
    macro_rules! each {
        (|$a:ident, $b:ident| $f:expr) => {
            for p in 0..P {
                for v in 0..V {
                    let ($a, $b) = (sums[p][v], operand(p, v));
                    sums[p][v] = $f;
                }
            }
        };
    }
    // SAFETY: the caller's promise.
    unsafe {
        match op {
            // In this order a sum that is NaN stays NaN.
            BinaryOp::Min => each!(|a, b| b.min(a)),
            BinaryOp::Max => each!(|a, b| b.max(a)),
            BinaryOp::Add => each!(|a, b| a.add(b)),
            BinaryOp::Mul => each!(|a, b| a.mul(b)),
            BinaryOp::Sub => each!(|a, b| a.sub(b)),
            BinaryOp::SubF => each!(|a, b| b.sub(a)),
            BinaryOp::Div => each!(|a, b| a.div(b)),
            // The plan's rules exclude it.
            BinaryOp::Pow => {}
        }
    }
    sums
}

/// # Safety
/// As [`Lanes`].
#[inline(always)]
#[allow(unsafe_code, reason = "vectors")]
unsafe fn unary<L: Lanes, const P: usize, const V: usize>(op: UnaryOp, mut sums: [[L; V]; P]) -> [[L; V]; P] {
    // SAFETY: the caller's promise.
    unsafe { L::activate(op, sums.as_flattened_mut()) };
    sums
}

/// # Safety
/// As [`Lanes`].
#[inline(always)]
#[allow(unsafe_code, reason = "vectors")]
pub(super) unsafe fn activation<L: Lanes>(op: UnaryOp, x: L) -> L {
    // SAFETY: the caller's promise.
    unsafe {
        match op {
            UnaryOp::HardSwish => {
                let gate = x.mul_add(L::splat(1.0 / 6.0), L::splat(0.5));
                x.mul(gate.max(L::splat(0.0)).min(L::splat(1.0)))
            }
            UnaryOp::Sigmoid => sigmoid(x),
            UnaryOp::Silu => x.mul(sigmoid(x)),
            // The plan's rules exclude all others.
            _ => x,
        }
    }
}

/// # Safety
/// As [`Lanes`].
#[inline(always)]
#[allow(unsafe_code, reason = "vectors")]
unsafe fn sigmoid<L: Lanes>(x: L) -> L {
    // SAFETY: the caller's promise.
    unsafe {
        let one = L::splat(1.0);
        one.div(one.add(exp(L::splat(0.0).sub(x))))
    }
}
