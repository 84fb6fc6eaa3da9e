//! Images: decode, resize and crop; then scale, normalize, channel order and layout as one table lookup per
//! element.

use super::affine::Affine;
use super::decode::{Pixels, decode};
use super::media::{self, Media};
use super::resample::Geometry;
use super::{Limits, check_shape, misplaced};
use crate::error::{ProcessingError, Result};
use glowplug_pack::manifest::{Channels, InputSpec, Layout, Step};
use glowplug_pack::{Dtype, Tensor, TensorData};

/// What an image becomes: `[1, C, H, W]` or `[1, H, W, C]`, with or without the leading 1.
#[derive(Debug)]
pub(super) struct ImagePipeline {
    channels: Channels,
    geometry: Vec<Geometry>,
    /// `[height, width]` that the model takes.
    size: [u32; 2],
    layout: Layout,
    values: Values,
    shape: Vec<usize>,
}

/// What a channel's byte becomes.
#[derive(Debug)]
enum Values {
    /// Itself, in a u8 tensor.
    Bytes,
    /// `table[channel][byte]`: all of scale and normalize, computed in binary64 and rounded once.
    Table(Vec<[f32; 256]>),
}

impl ImagePipeline {
    /// Errors have no input's name yet.
    pub(super) fn compile(input: &InputSpec) -> Result<ImagePipeline> {
        let Some((Step::Decode { channels }, steps)) = input.pipeline.split_first() else {
            return Err(ProcessingError::manifest("the first step must be decode"));
        };
        let count = if *channels == Channels::Gray { 1 } else { 3 };
        let mut affine = Affine::identity(count, Some(1.0 / 255.0));
        let (mut geometry, mut layout, mut has_values) = (Vec::new(), None, false);
        for (index, step) in (1..).zip(steps) {
            match step {
                Step::Layout { order } if layout.is_none() => layout = Some(*order),
                Step::Layout { .. } => return Err(misplaced(index, step, "there is a layout before it")),
                Step::Resize { .. } | Step::CenterCrop { .. } if has_values => {
                    return Err(misplaced(index, step, "must come before scale and normalize"));
                }
                Step::Resize { .. } | Step::CenterCrop { .. } => geometry.push(to_geometry(index, step)?),
                _ if affine.push(index, step)? => has_values = true,
                _ => return Err(misplaced(index, step, "is no step for images")),
            }
        }
        let layout = layout.unwrap_or_default();
        let size = image_size(input, layout, count, geometry.last())?;
        let values = to_values(input.dtype, &affine, count)?;
        Ok(ImagePipeline { channels: *channels, geometry, size, layout, values, shape: input.shape() })
    }

    pub(super) fn run(&self, content_type: Option<&str>, body: &[u8], limits: &Limits) -> Result<Tensor> {
        media::read(content_type, &[Media::Image], "image/png or image/jpeg")?;
        let mut image = decode(body, self.channels, limits)?;
        for step in &self.geometry {
            image = step.apply(image, limits)?;
        }
        if [image.height, image.width] != self.size {
            let ([height, width], found) = (self.size, (image.width, image.height));
            return Err(ProcessingError::invalid(format!(
                "the image is {}x{}, expected {width}x{height} (the model's pipeline does not resize it to that)",
                found.0, found.1
            )));
        }
        let data = self.to_data(&image);
        Tensor::new(self.shape.clone(), data).map_err(|e| ProcessingError::invalid(e.to_string()))
    }

    fn to_data(&self, image: &Pixels) -> TensorData {
        let order: &[usize] = match self.channels {
            Channels::Gray => &[0],
            Channels::Rgb => &[0, 1, 2],
            Channels::Bgr => &[2, 1, 0],
        };
        match &self.values {
            Values::Bytes => TensorData::U8(arrange(image, order, self.layout, |_, byte| byte)),
            Values::Table(table) => {
                TensorData::F32(arrange(image, order, self.layout, |c, byte| table[c][usize::from(byte)]))
            }
        }
    }
}

/// `value(c, byte)` of every pixel, in `layout`; channel `c` is the image's channel `order[c]`.
fn arrange<T: Copy + Default>(
    image: &Pixels,
    order: &[usize],
    layout: Layout,
    value: impl Fn(usize, u8) -> T,
) -> Vec<T> {
    let pixels = image.data.chunks_exact(image.channels);
    let mut out = vec![T::default(); image.data.len()];
    match layout {
        Layout::Nhwc => {
            for (elements, pixel) in out.chunks_exact_mut(image.channels).zip(pixels) {
                for (c, (element, from)) in elements.iter_mut().zip(order).enumerate() {
                    *element = value(c, pixel[*from]);
                }
            }
        }
        Layout::Nchw => {
            let plane_len = image.data.len() / image.channels;
            for (c, (plane, from)) in out.chunks_exact_mut(plane_len.max(1)).zip(order).enumerate() {
                for (element, pixel) in plane.iter_mut().zip(pixels.clone()) {
                    *element = value(c, pixel[*from]);
                }
            }
        }
    }
    out
}

fn to_geometry(index: usize, step: &Step) -> Result<Geometry> {
    let side = |n: usize| {
        u32::try_from(n)
            .ok()
            .filter(|n| (1..=1 << 16).contains(n))
            .ok_or_else(|| misplaced(index, step, &format!("a side of {n} pixels, expected 1 to 65536")))
    };
    let sides = |[height, width]: [usize; 2]| Ok([side(height)?, side(width)?]);
    match step {
        Step::Resize { size: Some(size), shorter: None, mode } => Ok(Geometry::Resize(sides(*size)?, *mode)),
        Step::Resize { size: None, shorter: Some(n), mode } => Ok(Geometry::ResizeShorter(side(*n)?, *mode)),
        Step::CenterCrop { size } => Ok(Geometry::CenterCrop(sides(*size)?)),
        _ => Err(misplaced(index, step, "takes one of size and shorter")),
    }
}

/// `[height, width]` from the input's axes, checked against the last step that moves pixels.
fn image_size(
    input: &InputSpec,
    layout: Layout,
    channels: usize,
    last: Option<&Geometry>,
) -> Result<[u32; 2]> {
    let shape = input.shape();
    let item = &shape[shape.len().saturating_sub(3)..];
    let (height, width) = match (last, layout, item) {
        (Some(Geometry::Resize([h, w], _) | Geometry::CenterCrop([h, w])), ..) => (*h as usize, *w as usize),
        (_, Layout::Nchw, [_, h, w]) | (_, Layout::Nhwc, [h, w, _]) => (*h, *w),
        _ => {
            let found = shape.len();
            return Err(ProcessingError::manifest(format!(
                "the input has {found} axes, an image needs 3 or 4"
            )));
        }
    };
    match layout {
        Layout::Nchw => check_shape(input, &[channels, height, width])?,
        Layout::Nhwc => check_shape(input, &[height, width, channels])?,
    }
    let side = |n: usize| {
        u32::try_from(n).map_err(|_| ProcessingError::manifest(format!("an image's side of {n} is too long")))
    };
    Ok([side(height)?, side(width)?])
}

fn to_values(dtype: Dtype, affine: &Affine, channels: usize) -> Result<Values> {
    match dtype {
        Dtype::U8 if affine.is_identity() => Ok(Values::Bytes),
        Dtype::F32 => {
            let row = |c| std::array::from_fn(|byte| affine.apply(c, byte as f64));
            Ok(Values::Table((0..channels).map(row).collect()))
        }
        Dtype::U8 => Err(ProcessingError::manifest("scale and normalize need an f32 input, it is u8")),
        other => Err(ProcessingError::manifest(format!("images become f32 or u8, the input is {other}"))),
    }
}
