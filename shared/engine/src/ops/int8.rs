//! Convolutions in bytes, and what brings images into bytes and back (`kernels::int8` has the arithmetic).

use super::{not_an_image, plan_op, too_few};
use crate::kernels::int8::conv::{Conv, Slide};
use crate::kernels::int8::depthwise::Depthwise;
use crate::kernels::int8::planes::{Dequantize, Floats, Quantize, max_pool};
use crate::kernels::int8::{Function, Output, Residual, Tail, To, vectors};
use crate::laid_out::LaidOut;
use crate::ops::window::axes;
use glowplug_pack::int8::{MOST, Runs};
use glowplug_pack::plan::{CHANNEL_BLOCK, Int8Function, Int8Tail, Window};
use std::fmt;
use std::sync::Arc;
use tract_core::internal::{
    EvalContext, EvalOp, IntoTValue, TValue, TVec, Tensor, TractResult, args_1, not_out_of_plan, tvec,
};

/// What slides over an image of `[n, h, w, pixel]`.
pub(crate) fn slide(window: &Window, image: &[usize], zero: u8) -> TractResult<Slide> {
    let [images, height, width, pixel] = *image else { return Err(not_an_image(image)) };
    let (vertical, horizontal) = axes(window, height, width);
    Ok(Slide { vertical, horizontal, images, pixel, zero })
}

/// How a window over such an image meets `depth` weights of a filter.
pub(crate) fn runs(slide: &Slide, depth: usize) -> Runs {
    let kernel = (slide.vertical.kernel, slide.horizontal.kernel);
    let channels = depth / (kernel.0 * kernel.1).max(1);
    Runs { channels, pixel: slide.pixel, kernel, joined: slide.horizontal.dilation == 1 }
}

fn tail<'a>(
    tail: &Int8Tail,
    multiplier: &'a TValue,
    bias: &'a TValue,
    residual: Option<Residual<'a>>,
) -> TractResult<Tail<'a>> {
    let Int8Tail { function, scale, zero, low, high } = *tail;
    let function = match function {
        Int8Function::Identity => Function::Identity,
        Int8Function::HardSwish => Function::HardSwish,
    };
    Ok(Tail {
        multiplier: multiplier.try_as_plain_ram()?.as_slice::<f32>()?,
        bias: bias.try_as_plain_ram()?.as_slice::<f32>()?,
        residual,
        function,
        to: To { scale, zero, low, high },
    })
}

/// A kernel of `C * kh * kw` taps for each output channel.
#[derive(Clone)]
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
            tail: tail(&self.tail, multiplier, bias, residual)?,
            vectors: vectors(),
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

impl PartialEq for Int8Conv {
    fn eq(&self, other: &Int8Conv) -> bool {
        Arc::ptr_eq(&self.weights, &other.weights) && self.slide == other.slide && self.tail == other.tail
    }
}

impl Eq for Int8Conv {}

impl fmt::Debug for Int8Conv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Int8Conv({:?}, {:?})", self.slide, self.tail)
    }
}

/// One kernel of `kh x kw` taps per channel.
#[derive(Clone)]
pub(crate) struct Int8DepthwiseConv {
    pub(crate) slide: Slide,
    pub(crate) weights: Arc<LaidOut>,
    pub(crate) tail: Int8Tail,
    /// `[N, OH, OW, S]`.
    pub(crate) shape: Vec<usize>,
}
plan_op!(Int8DepthwiseConv);

impl EvalOp for Int8DepthwiseConv {
    not_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [x, multiplier, bias] = &*inputs else { return Err(too_few(&inputs)) };
        let conv = Depthwise {
            slide: self.slide,
            input: x.try_as_plain_ram()?.as_slice::<u8>()?,
            weights: self.weights.get()?,
            tail: tail(&self.tail, multiplier, bias, None)?,
            vectors: vectors(),
        };
        // SAFETY: every byte is a u8, and the kernel writes all of them: its pieces of work cover all rows.
        #[allow(unsafe_code, reason = "as the SAFETY comment says")]
        let mut output = unsafe { Tensor::uninitialized::<u8>(&self.shape) }?;
        conv.run(output.try_as_plain_ram_mut()?.as_slice_mut::<u8>()?)?;
        Ok(tvec!(output.into_tvalue()))
    }
}

impl PartialEq for Int8DepthwiseConv {
    fn eq(&self, other: &Int8DepthwiseConv) -> bool {
        Arc::ptr_eq(&self.weights, &other.weights) && self.slide == other.slide && self.tail == other.tail
    }
}

impl Eq for Int8DepthwiseConv {}

impl fmt::Debug for Int8DepthwiseConv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Int8DepthwiseConv({:?}, {:?})", self.slide, self.tail)
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
        let x = args_1!(inputs);
        let mut output = Tensor::zero::<u8>(&self.shape)?;
        let to = &mut output.try_as_plain_ram_mut()?;
        max_pool(&self.slide, x.try_as_plain_ram()?.as_slice::<u8>()?, to.as_slice_mut::<u8>()?)?;
        Ok(tvec!(output.into_tvalue()))
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
        let x = args_1!(inputs);
        let [.., pixel] = self.shape[..] else { return Err(not_an_image(&self.shape)) };
        let mut output = Tensor::zero::<u8>(&self.shape)?;
        let quantize = Quantize { inverse: self.inverse, zero: f32::from(self.zero), most: f32::from(MOST) };
        let to = &mut output.try_as_plain_ram_mut()?;
        let from = x.try_as_plain_ram()?;
        quantize.run(from.as_slice::<f32>()?, &self.floats, to.as_slice_mut::<u8>()?, pixel, vectors())?;
        Ok(tvec!(output.into_tvalue()))
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
        let x = args_1!(inputs);
        let mut output = Tensor::zero::<f32>(&self.shape)?;
        let dequantize = Dequantize { scale: self.scale, zero: f32::from(self.zero) };
        let to = &mut output.try_as_plain_ram_mut()?;
        let from = x.try_as_plain_ram()?;
        dequantize.run(
            from.as_slice::<u8>()?,
            self.pixel,
            to.as_slice_mut::<f32>()?,
            &floats(&self.shape)?,
        )?;
        Ok(tvec!(output.into_tvalue()))
    }
}
