//! What treats every plane of an image as one: sums over it, and one value for all of it.

use super::lanes::{Array, Lanes};
use crate::kernels::has_avx2;
use crate::ops::plan_op;
use crate::ops::pool::maximum;
use glowplug_pack::plan::{BinaryOp, CHANNEL_BLOCK};
use tract_core::internal::{
    EvalContext, EvalOp, IntoTValue, IntoTensor, TValue, TVec, Tensor, TractResult, args_1, args_2, ensure,
    not_out_of_plan, tvec,
};

/// What becomes of the values of a plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlaneReducer {
    Sum,
    Max,
}

/// `[N, ceil(C / 8), H, W, 8]` to `[N, ceil(C / 8), 1, 1, 8]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlaneReduce {
    pub(crate) reducer: PlaneReducer,
    /// What it gives.
    pub(crate) shape: Vec<usize>,
}
plan_op!(PlaneReduce);

impl EvalOp for PlaneReduce {
    not_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        Ok(tvec!(self.output(&input)?.into_tvalue()))
    }
}

impl PlaneReduce {
    pub(super) fn output(&self, input: &Tensor) -> TractResult<Tensor> {
        let mut output = Tensor::zero::<f32>(&self.shape)?;
        let (from, mut to) = (input.try_as_plain_ram()?, output.try_as_plain_ram_mut()?);
        let from = from.as_slice::<f32>()?.as_chunks::<CHANNEL_BLOCK>().0;
        let to = to.as_slice_mut::<f32>()?.as_chunks_mut::<CHANNEL_BLOCK>().0;
        let plane = from.len() / to.len().max(1);
        for (plane, to) in from.chunks_exact(plane.max(1)).zip(to) {
            *to = match self.reducer {
                PlaneReducer::Sum => reduce(plane, 0.0, |a, b| a + b),
                PlaneReducer::Max => reduce(plane, f32::NEG_INFINITY, maximum),
            };
        }
        Ok(output)
    }
}

/// `fold` over a plane, lane by lane, as four interleaved parts: a part's next step need not wait for the last.
fn reduce(
    plane: &[[f32; CHANNEL_BLOCK]],
    start: f32,
    fold: impl Fn(f32, f32) -> f32 + Copy,
) -> [f32; CHANNEL_BLOCK] {
    let both = |a: [f32; CHANNEL_BLOCK], b: &[f32; CHANNEL_BLOCK]| std::array::from_fn(|i| fold(a[i], b[i]));
    let (fours, rest) = plane.as_chunks::<4>();
    let mut parts = [[start; CHANNEL_BLOCK]; 4];
    for four in fours {
        parts = std::array::from_fn(|i| both(parts[i], &four[i]));
    }
    let all = parts.iter().skip(1).fold(parts[0], &both);
    rest.iter().fold(all, both)
}

/// `op(x, y)` for `x[N, ceil(C / 8), H, W, 8]` and one value of `y` for each channel, of each image or of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PerChannel {
    pub(crate) op: BinaryOp,
}
plan_op!(PerChannel);

impl EvalOp for PerChannel {
    not_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let (x, y) = args_2!(inputs);
        Ok(tvec!(self.output(x, &y)?.into_tvalue()))
    }
}

impl PerChannel {
    /// Written over `x` where nobody else reads it.
    pub(super) fn output(&self, x: TValue, y: &Tensor) -> TractResult<Tensor> {
        let [images, blocks, ..] = *x.shape() else { return Err(super::not_blocked(x.shape())) };
        let y = y.try_as_plain_ram()?;
        let y = y.as_slice::<f32>()?.as_chunks::<CHANNEL_BLOCK>().0;
        ensure!(y.len() == blocks || y.len() == images * blocks, "{} blocks for {blocks}", y.len());
        let mut x = x.into_tensor();
        let mut plain = x.try_as_plain_ram_mut()?;
        let values = plain.as_slice_mut::<f32>()?.as_chunks_mut::<CHANNEL_BLOCK>().0;
        let plane = values.len() / (images * blocks).max(1);
        for (i, plane) in values.chunks_exact_mut(plane.max(1)).enumerate() {
            apply(self.op, plane, &y[i % y.len()]);
        }
        Ok(x)
    }
}

fn apply(op: BinaryOp, plane: &mut [[f32; CHANNEL_BLOCK]], y: &[f32; CHANNEL_BLOCK]) {
    #[cfg(target_arch = "x86_64")]
    if has_avx2() {
        #[target_feature(enable = "avx2,fma")]
        #[allow(unsafe_code, reason = "vector instructions")]
        unsafe fn with_avx2(op: BinaryOp, plane: &mut [[f32; CHANNEL_BLOCK]], y: &[f32; CHANNEL_BLOCK]) {
            // SAFETY: the caller's promise.
            unsafe { each::<super::lanes::Avx2>(op, plane, y) }
        }
        // SAFETY: the CPU has AVX2 and FMA.
        #[allow(unsafe_code, reason = "kernels are chosen by what the CPU has")]
        return unsafe { with_avx2(op, plane, y) };
    }
    // SAFETY: any CPU runs it.
    #[allow(unsafe_code, reason = "as the trait")]
    unsafe {
        each::<Array>(op, plane, y);
    }
}

/// # Safety
/// As [`Lanes`].
#[inline(always)]
#[allow(unsafe_code, reason = "vectors")]
unsafe fn each<L: Lanes>(op: BinaryOp, plane: &mut [[f32; CHANNEL_BLOCK]], y: &[f32; CHANNEL_BLOCK]) {
    macro_rules! all {
        (|$a:ident, $b:ident| $f:expr) => {
            for x in plane {
                let ($a, $b) = (L::load(x.as_ptr()), L::load(y.as_ptr()));
                $f.store(x.as_mut_ptr());
            }
        };
    }
    // SAFETY: the caller's promise; every element is eight values.
    unsafe {
        match op {
            BinaryOp::Min => all!(|a, b| a.min(b)),
            BinaryOp::Max => all!(|a, b| a.max(b)),
            BinaryOp::Add => all!(|a, b| a.add(b)),
            BinaryOp::Mul => all!(|a, b| a.mul(b)),
            BinaryOp::Sub => all!(|a, b| a.sub(b)),
            BinaryOp::SubF => all!(|a, b| b.sub(a)),
            BinaryOp::Div => all!(|a, b| a.div(b)),
            BinaryOp::Pow => {
                plane.iter_mut().flatten().zip(y.iter().cycle()).for_each(|(a, b)| *a = a.powf(*b));
            }
        }
    }
}
