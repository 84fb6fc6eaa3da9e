//! PNG and JPEG bytes to upright 8-bit pixels.
//!
//! The image's dimensions are checked in its header, before its pixels get memory. What a pixel becomes
//! follows Pillow's `convert("RGB")` and `convert("L")`, with which models are trained: alpha is dropped,
//! not composited; gray is ITU-R BT.601 luma. 16 bits become 8 by rounding x / 257.

use super::Limits;
use crate::error::{ErrorKind, ProcessingError, Result};
use glowplug_pack::manifest::Channels;
use image::codecs::{jpeg::JpegDecoder, png::PngDecoder};
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat};
use std::io::Cursor;

/// 8-bit pixels `[height, width, channels]`, channels being 1 (gray) or 3 (RGB).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pixels {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) channels: usize,
    pub(super) data: Vec<u8>,
}

/// The image in `bytes`, gray for [`Channels::Gray`], else RGB; turned upright by its EXIF orientation.
pub(super) fn decode(bytes: &[u8], channels: Channels, limits: &Limits) -> Result<Pixels> {
    let image = match image::guess_format(bytes) {
        Ok(ImageFormat::Png) => {
            let decoder = PngDecoder::with_limits(Cursor::new(bytes), decoder_limits(limits));
            read(decoder.map_err(|e| undecodable("PNG", &e))?, "PNG", limits)?
        }
        Ok(ImageFormat::Jpeg) => {
            check_jpeg_end(bytes)?;
            read(JpegDecoder::new(Cursor::new(bytes)).map_err(|e| undecodable("JPEG", &e))?, "JPEG", limits)?
        }
        Ok(other) => {
            let text = format!("the image is {other:?}, expected PNG or JPEG");
            return Err(ProcessingError::new(ErrorKind::UnsupportedMedia, text));
        }
        Err(_) => {
            let found = bytes.len();
            return Err(ProcessingError::invalid(format!(
                "the {found} bytes are no image, expected PNG or JPEG"
            )));
        }
    };
    Ok(to_pixels(image, channels))
}

/// 16-bit RGBA is the most that a pixel takes; the rest is for tables and metadata.
fn decoder_limits(limits: &Limits) -> image::Limits {
    let mut own = image::Limits::no_limits();
    own.max_alloc = Some(limits.max_pixels.saturating_mul(8).saturating_add(16 << 20));
    own
}

fn read(mut decoder: impl ImageDecoder, format: &str, limits: &Limits) -> Result<DynamicImage> {
    let (width, height) = decoder.dimensions();
    check_pixels(width.into(), height.into(), limits)?;
    decoder.set_limits(decoder_limits(limits)).map_err(|e| undecodable(format, &e))?;
    let orientation = decoder.orientation().map_err(|e| undecodable(format, &e))?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(|e| undecodable(format, &e))?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// That `width` x `height` is within the limit. Errors: `TooLarge`, with both numbers.
pub(super) fn check_pixels(width: u64, height: u64, limits: &Limits) -> Result<()> {
    let (found, limit) = (width.saturating_mul(height), limits.max_pixels);
    if found <= limit {
        return Ok(());
    }
    let text = format!("the image is {width}x{height} = {found} pixels, expected at most {limit}");
    Err(ProcessingError::new(ErrorKind::TooLarge, text))
}

/// That a JPEG goes on to its end-of-image marker, as Pillow asks. The decoder would fill what a cut
/// file lacks with gray, and the model would be asked about that. What follows the end is of no interest:
/// phones append videos.
fn check_jpeg_end(bytes: &[u8]) -> Result<()> {
    let mut rest = bytes;
    while let Some((marker, after)) = next_marker(rest) {
        if marker == JPEG_END {
            return Ok(());
        }
        let len = after.first_chunk().map_or(0, |len| u16::from_be_bytes(*len));
        rest = after.get(usize::from(len)..).unwrap_or_default();
    }
    Err(ProcessingError::invalid(format!("the JPEG is cut off after {} bytes", bytes.len())))
}

const JPEG_END: u8 = 0xD9;

/// The next marker that has a segment or ends the image, and the bytes behind it. Skipped: coded data with
/// its stuffed zeros and restarts, fill bytes, the start of an image.
fn next_marker(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let is_marker = |w: &[u8]| w[0] == 0xFF && !matches!(w[1], 0x00 | 0x01 | 0xD0..=0xD8 | 0xFF);
    let at = bytes.windows(2).position(is_marker)?;
    Some((bytes[at + 1], &bytes[at + 2..]))
}

fn undecodable(format: &str, e: &ImageError) -> ProcessingError {
    match e {
        ImageError::Limits(_) => {
            ProcessingError::new(ErrorKind::TooLarge, format!("the {format} needs too much memory: {e}"))
        }
        ImageError::Unsupported(_) => ProcessingError::new(
            ErrorKind::UnsupportedMedia,
            format!("the {format} is of an unknown kind: {e}"),
        ),
        _ => ProcessingError::invalid(format!("the {format} does not decode: {e}")),
    }
}

fn to_pixels(image: DynamicImage, channels: Channels) -> Pixels {
    let (width, height) = (image.width(), image.height());
    let is_gray = matches!(
        image,
        DynamicImage::ImageLuma8(_)
            | DynamicImage::ImageLumaA8(_)
            | DynamicImage::ImageLuma16(_)
            | DynamicImage::ImageLumaA16(_)
    );
    let (channels, data) = match channels {
        Channels::Gray if is_gray => (1, image.into_luma8().into_raw()),
        Channels::Gray => (1, image.into_rgb8().into_raw().as_chunks().0.iter().map(luma).collect()),
        Channels::Rgb | Channels::Bgr => (3, image.into_rgb8().into_raw()),
    };
    Pixels { width, height, channels, data }
}

/// ITU-R BT.601 luma in Pillow's fixed point: 0.299 R + 0.587 G + 0.114 B, rounded.
fn luma(&[r, g, b]: &[u8; 3]) -> u8 {
    let sum = u32::from(r) * 19_595 + u32::from(g) * 38_470 + u32::from(b) * 7_471 + 0x8000;
    // The weights sum to 65,536: at most 255 is left after the shift.
    u8::try_from(sum >> 16).unwrap_or(u8::MAX)
}
