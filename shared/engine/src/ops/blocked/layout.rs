//! Into blocks of channels and back.

use crate::ops::plan_op;
use glowplug_pack::plan::CHANNEL_BLOCK;
use tract_core::internal::{
    EvalContext, EvalOp, IntoTValue, TValue, TVec, Tensor, TractResult, args_1, not_out_of_plan, tvec,
};

/// `[N, C, H, W]` as `[N, ceil(C / 8), H, W, 8]`; channels beyond C are 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlockChannels {
    /// C.
    pub(crate) channels: usize,
    /// What it gives.
    pub(crate) shape: Vec<usize>,
}
plan_op!(BlockChannels);

impl EvalOp for BlockChannels {
    not_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        Ok(tvec!(self.output(&input)?.into_tvalue()))
    }
}

impl BlockChannels {
    pub(super) fn output(&self, input: &Tensor) -> TractResult<Tensor> {
        let [_, blocks, height, width, _] = self.shape[..] else {
            return Err(super::not_blocked(&self.shape));
        };
        let mut output = Tensor::zero::<f32>(&self.shape)?;
        let (from, mut to) = (input.try_as_plain_ram()?, output.try_as_plain_ram_mut()?);
        let plane = height * width;
        let (from, to) = (from.as_slice::<f32>()?, to.as_slice_mut::<f32>()?);
        let images = from.chunks_exact(self.channels * plane);
        for (image, to) in images.zip(to.as_chunks_mut().0.chunks_exact_mut(blocks * plane)) {
            let of_blocks = image.chunks(CHANNEL_BLOCK * plane).zip(to.chunks_exact_mut(plane));
            of_blocks.for_each(|(from, to)| block(from, to));
        }
        Ok(output)
    }
}

/// Planes, up to eight, into one block.
fn block(planes: &[f32], to: &mut [[f32; CHANNEL_BLOCK]]) {
    let len = to.len();
    if planes.len() == CHANNEL_BLOCK * len {
        for (i, to) in to.iter_mut().enumerate() {
            *to = std::array::from_fn(|lane| planes[lane * len + i]);
        }
        return;
    }
    for (lane, plane) in planes.chunks_exact(len).enumerate() {
        to.iter_mut().zip(plane).for_each(|(to, value)| to[lane] = *value);
    }
}

/// `[N, ceil(C / 8), H, W, 8]` as `[N, C, H, W]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnblockChannels {
    /// What it gives.
    pub(crate) shape: Vec<usize>,
}
plan_op!(UnblockChannels);

impl EvalOp for UnblockChannels {
    not_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        Ok(tvec!(self.output(&input)?.into_tvalue()))
    }
}

impl UnblockChannels {
    pub(super) fn output(&self, input: &Tensor) -> TractResult<Tensor> {
        let [_, channels, height, width] = self.shape[..] else {
            return Err(super::not_blocked(&self.shape));
        };
        let mut output = Tensor::zero::<f32>(&self.shape)?;
        let (from, mut to) = (input.try_as_plain_ram()?, output.try_as_plain_ram_mut()?);
        let (plane, blocks) = (height * width, channels.div_ceil(CHANNEL_BLOCK));
        let from = from.as_slice::<f32>()?.as_chunks::<CHANNEL_BLOCK>().0;
        for (image, to) in to.as_slice_mut::<f32>()?.chunks_exact_mut(channels * plane).enumerate() {
            let from = &from[image * blocks * plane..][..blocks * plane];
            for (from, to) in from.chunks_exact(plane).zip(to.chunks_mut(CHANNEL_BLOCK * plane)) {
                for (lane, to) in to.chunks_exact_mut(plane).enumerate() {
                    to.iter_mut().zip(from).for_each(|(to, from)| *to = from[lane]);
                }
            }
        }
        Ok(output)
    }
}
