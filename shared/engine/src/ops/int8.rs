//! Convolutions in bytes, and what brings images into bytes and back (`kernels::int8` has the arithmetic).

use super::{filled, not_an_image, plan_op, too_few};
use crate::kernels::int8::conv::Conv;
use crate::kernels::int8::depthwise::Depthwise;
use crate::kernels::int8::planes::{Dequantize, Floats, Quantize, max_pool};
use crate::kernels::int8::slide::Slide;
use crate::kernels::int8::{Code, Output, Residual, Tail, vectors};
use crate::laid_out::LaidOut;
use crate::ops::window::axes;
use glowplug_pack::int8::{MOST, Runs};
use glowplug_pack::plan::{CHANNEL_BLOCK, Int8Tail, Window};
use std::sync::Arc;
use tract_core::internal::{
    EvalContext, EvalOp, IntoTValue, TValue, TVec, Tensor, TractResult, not_out_of_plan, tvec,
};

/// What slides over an image of `[n, h, w, pixel]`.
pub(crate) fn slide(window: &Window, image: &[usize], zero: u8) -> TractResult<Slide> {
    let [images, height, width, pixel] = *image else { return Err(not_an_image(image)) };
    let (vertical, horizontal) = axes(window, height, width);
    Ok(Slide { vertical, horizontal, images, pixel, zero })
}

fn tail<'a>(
    last: Int8Tail,
    multiplier: &'a TValue,
    bias: &'a TValue,
    residual: Option<Residual<'a>>,
) -> TractResult<Tail<'a>> {
    Ok(Tail {
        multiplier: multiplier.try_as_plain_ram()?.as_slice::<f32>()?,
        bias: bias.try_as_plain_ram()?.as_slice::<f32>()?,
        residual,
        last,
    })
}

/// A kernel of `C * kh * kw` taps for each output channel.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Int8Conv {
    pub(crate) slide: Slide,
    pub(crate) runs: Runs,
    pub(crate) filters: usize,
    pub(crate) weights: Arc<LaidOut>,
    pub(crate) residual: Option<f32>,
    pub(crate) tail: Int8Tail,
    /// `[N, OH, OW, S]` of bytes, or `[N, ceil(O / 8), OH, OW, 8]` of f32.
    pub(crate) shape: Vec<usize>,
}
plan_op!(Int8Conv);

impl Eq for Int8Conv {}

impl EvalOp for Int8Conv {
    not_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [x, multiplier, bias, rest @ ..] = &*inputs else { return Err(too_few(&inputs)) };
        let residual = match (self.residual, rest) {
            (None, _) => None,
            (Some(scale), [values, ..]) => {
                Some(Residual { values: values.try_as_plain_ram()?.as_slice::<u8>()?, scale })
            }
            (Some(_), []) => return Err(too_few(&inputs)),
        };
        let conv = Conv {
            slide: self.slide,
            runs: self.runs,
            filters: self.filters,
            input: x.try_as_plain_ram()?.as_slice::<u8>()?,
            weights: self.weights.get()?,
            tail: tail(self.tail, multiplier, bias, residual)?,
            code: Code::best(),
        };
        let floats = self.shape.len() == 5;
        // SAFETY: bytes and floats have no bit pattern that is none of theirs, and the kernel writes all of them: its
        // pieces of work cover all rows of all panels, and a panel of the last, odd block of floats that block alone.
        #[allow(unsafe_code, reason = "as the SAFETY comment says")]
        let mut output = unsafe {
            match floats {
                true => Tensor::uninitialized::<f32>(&self.shape),
                false => Tensor::uninitialized::<u8>(&self.shape),
            }
        }?;
        let to = &mut output.try_as_plain_ram_mut()?;
        conv.run(match floats {
            true => Output::Floats(to.as_slice_mut::<f32>()?),
            false => Output::Bytes(to.as_slice_mut::<u8>()?),
        })?;
        Ok(tvec!(output.into_tvalue()))
    }
}

/// One kernel of `kh x kw` taps per channel.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Int8DepthwiseConv {
    pub(crate) slide: Slide,
    pub(crate) weights: Arc<LaidOut>,
    pub(crate) tail: Int8Tail,
    /// `[N, OH, OW, S]`.
    pub(crate) shape: Vec<usize>,
}
plan_op!(Int8DepthwiseConv);

impl Eq for Int8DepthwiseConv {}

impl EvalOp for Int8DepthwiseConv {
    not_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [x, multiplier, bias] = &*inputs else { return Err(too_few(&inputs)) };
        let conv = Depthwise {
            slide: self.slide,
            input: x.try_as_plain_ram()?.as_slice::<u8>()?,
            weights: self.weights.get()?,
            tail: tail(self.tail, multiplier, bias, None)?,
            vectors: vectors(),
        };
        // SAFETY: every byte is a u8, and the kernel writes all of them: its pieces of work cover all rows.
        #[allow(unsafe_code, reason = "as the SAFETY comment says")]
        let mut output = unsafe { Tensor::uninitialized::<u8>(&self.shape) }?;
        conv.run(output.try_as_plain_ram_mut()?.as_slice_mut::<u8>()?)?;
        Ok(tvec!(output.into_tvalue()))
    }
}

/// The largest byte under each window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Int8MaxPool {
    pub(crate) slide: Slide,
    /// `[N, OH, OW, S]`.
    pub(crate) shape: Vec<usize>,
}
plan_op!(Int8MaxPool);

impl EvalOp for Int8MaxPool {
    not_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        filled(&inputs, &self.shape, |x, to| max_pool(&self.slide, x, to))
    }
}

/// An image of f32, in blocks or plain, as bytes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct QuantizeImage {
    pub(crate) inverse: f32,
    pub(crate) zero: u8,
    pub(crate) floats: Floats,
    /// `[N, H, W, S]`.
    pub(crate) shape: Vec<usize>,
}
plan_op!(QuantizeImage);

impl Eq for QuantizeImage {}

/// The images of an f32 tensor `[N, C, H, W]` or `[N, ceil(C / 8), H, W, 8]`, where one in blocks has `channels`.
pub(crate) fn floats(shape: &[usize]) -> TractResult<Floats> {
    match *shape {
        [_, channels, h, w] | [channels, h, w] => Ok(Floats { channels, plane: h * w, lanes: 1 }),
        [_, blocks, h, w, lanes @ CHANNEL_BLOCK] => {
            Ok(Floats { channels: blocks * lanes, plane: h * w, lanes })
        }
        _ => Err(not_an_image(shape)),
    }
}

impl EvalOp for QuantizeImage {
    not_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [.., pixel] = self.shape[..] else { return Err(not_an_image(&self.shape)) };
        let quantize = Quantize { inverse: self.inverse, zero: f32::from(self.zero), most: f32::from(MOST) };
        filled(&inputs, &self.shape, |x, to| quantize.run(x, &self.floats, to, pixel, vectors()))
    }
}

/// An image of bytes as f32 in blocks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DequantizeImage {
    pub(crate) scale: f32,
    pub(crate) zero: u8,
    /// Bytes of a position.
    pub(crate) pixel: usize,
    /// `[N, ceil(C / 8), H, W, 8]`.
    pub(crate) shape: Vec<usize>,
}
plan_op!(DequantizeImage);

impl Eq for DequantizeImage {}

impl EvalOp for DequantizeImage {
    not_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let dequantize = Dequantize { scale: self.scale, zero: f32::from(self.zero) };
        let layout = floats(&self.shape)?;
        filled(&inputs, &self.shape, |x, to| dequantize.run(x, self.pixel, to, &layout))
    }
}
