//! Upsample: every position of an image becomes a block of equal ones.

use super::{filled, plan_op};
use glowplug_pack::plan::CHANNEL_BLOCK;
use tract_core::internal::{EvalContext, EvalOp, TValue, TVec, TractResult, not_out_of_plan};

/// ONNX Resize, nearest, by whole numbers along the rows and columns of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Upsample {
    /// By how much, down and across.
    scales: (usize, usize),
    /// Columns of the input.
    width: usize,
    /// Whether each position holds a block of channels instead of one value.
    blocked: bool,
    /// `[.., OH, OW]`, or `[.., OH, OW, 8]`.
    shape: Vec<usize>,
}
plan_op!(Upsample);

impl Upsample {
    /// The operator for an input of `input`, if it is one over rows and columns alone.
    pub(crate) fn new(scales: &[usize], input: &[usize], shape: &[usize]) -> Option<Upsample> {
        let blocked = input.len() == 5 && input[4] == CHANNEL_BLOCK && scales[4] == 1;
        let positions = scales.len().checked_sub(usize::from(blocked))?;
        let [before @ .., down, across] = &scales[..positions] else { return None };
        let only = before.iter().all(|s| *s == 1);
        let width = *input.get(positions - 1)?;
        only.then(|| Upsample { scales: (*down, *across), width, blocked, shape: shape.to_vec() })
    }

    fn positions<const LANES: usize>(&self, input: &[f32], output: &mut [f32]) {
        let (down, across) = self.scales;
        let (input, output) = (input.as_chunks::<LANES>().0, output.as_chunks_mut::<LANES>().0);
        let row_out = self.width * across;
        for (row, to) in input.chunks_exact(self.width).zip(output.chunks_exact_mut(row_out * down)) {
            let (first, others) = to.split_at_mut(row_out);
            for (position, to) in row.iter().zip(first.chunks_exact_mut(across)) {
                to.fill(*position);
            }
            others.chunks_exact_mut(row_out).for_each(|to| to.copy_from_slice(first));
        }
    }
}

impl EvalOp for Upsample {
    not_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        filled(&inputs, &self.shape, |input, output| {
            match self.blocked {
                true => self.positions::<CHANNEL_BLOCK>(input, output),
                false => self.positions::<1>(input, output),
            }
            Ok(())
        })
    }
}
