//! `resize` and `center_crop` on 8-bit pixels.
//!
//! Resampling is Pillow's: pixel centers at half, the filter widened by the factor when it shrinks
//! (antialiased), each pass rounded to 8 bits. That is what torchvision does to a PIL image, too.
//! `nearest` is equal; the others differ in a few elements by 1 of 255, because fast_image_resize keeps
//! filter weights in 16 bits, which its vector code is made of, and Pillow in 22.

use super::Limits;
use super::decode::{Pixels, check_pixels};
use crate::error::{ProcessingError, Result};
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use glowplug_pack::manifest::ResizeMode;

/// A step that moves pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Geometry {
    /// To `[height, width]`.
    Resize([u32; 2], ResizeMode),
    /// The shorter side to this; the longer one keeps the aspect, rounded down, as torchvision's does.
    ResizeShorter(u32, ResizeMode),
    /// The middle `[height, width]`.
    CenterCrop([u32; 2]),
}

impl Geometry {
    /// Errors: `TooLarge` where the result is; `InvalidInput` for a crop larger than the image.
    pub(super) fn apply(self, image: Pixels, limits: &Limits) -> Result<Pixels> {
        match self {
            Geometry::Resize(size, mode) => resize(image, size.map(u64::from), mode, limits),
            Geometry::ResizeShorter(shorter, mode) => {
                let [shorter, w, h] = [shorter, image.width, image.height].map(u64::from);
                let longer = |side: u64, by: u64| (shorter * side / by.max(1)).max(1);
                let size = if w <= h { [longer(h, w), shorter] } else { [shorter, longer(w, h)] };
                resize(image, size, mode, limits)
            }
            Geometry::CenterCrop(size) => center_crop(&image, size),
        }
    }
}

fn resize(image: Pixels, [height, width]: [u64; 2], mode: ResizeMode, limits: &Limits) -> Result<Pixels> {
    check_pixels(width, height, limits)?;
    let side =
        |n: u64| u32::try_from(n).map_err(|_| ProcessingError::invalid(format!("side {n} is too long")));
    let (width, height) = (side(width)?, side(height)?);
    let rows = image.height;
    check_pixels(width.into(), rows.into(), limits)?;
    // Pillow's order, width before height; the crate by itself goes the other way, and bicubic's overshoot,
    // which is clipped between the passes, then differs by up to 14 of 255.
    let wide = resample(image, width, rows, mode)?;
    resample(wide, width, height, mode)
}

fn resample(image: Pixels, width: u32, height: u32, mode: ResizeMode) -> Result<Pixels> {
    if (image.width, image.height) == (width, height) {
        return Ok(image);
    }
    let refused = |e: &dyn std::error::Error| {
        ProcessingError::invalid(format!("{}x{} cannot be resized: {e}", image.width, image.height))
    };
    let kind = if image.channels == 1 { PixelType::U8 } else { PixelType::U8x3 };
    let source = ImageRef::new(image.width, image.height, &image.data, kind).map_err(|e| refused(&e))?;
    let mut resized = Image::new(width, height, kind);
    let options = ResizeOptions::new().resize_alg(algorithm(mode));
    Resizer::new().resize(&source, &mut resized, &options).map_err(|e| refused(&e))?;
    Ok(Pixels { width, height, channels: image.channels, data: resized.into_vec() })
}

fn algorithm(mode: ResizeMode) -> ResizeAlg {
    match mode {
        ResizeMode::Nearest => ResizeAlg::Nearest,
        ResizeMode::Bilinear => ResizeAlg::Convolution(FilterType::Bilinear),
        // Pillow's BICUBIC is the cubic with a = -0.5, which is Catmull-Rom.
        ResizeMode::Bicubic => ResizeAlg::Convolution(FilterType::CatmullRom),
    }
}

fn center_crop(image: &Pixels, [height, width]: [u32; 2]) -> Result<Pixels> {
    if height > image.height || width > image.width {
        return Err(ProcessingError::invalid(format!(
            "the image is {}x{} where it is cropped, expected at least {width}x{height}",
            image.width, image.height
        )));
    }
    let [top, left] = [middle(image.height - height), middle(image.width - width)];
    let [row, left, len] = [image.width, left, width].map(|n| n as usize * image.channels);
    let rows = image.data.chunks_exact(row).skip(top as usize).take(height as usize);
    let data = rows.flat_map(|r| &r[left..left + len]).copied().collect();
    Ok(Pixels { width, height, channels: image.channels, data })
}

/// Half of `spare`, ties to even: Python's `round(spare / 2)`, hence torchvision's offset.
fn middle(spare: u32) -> u32 {
    let half = spare / 2;
    half + (spare % 2) * (half % 2)
}
