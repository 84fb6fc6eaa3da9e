//! How a window slides over images of bytes, and the rows that it sees, with their padding.

use crate::ops::window::Axis;
use glowplug_pack::int8::OCTET;
use std::ops::Range;

/// What slides over what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Slide {
    pub(crate) vertical: Axis,
    pub(crate) horizontal: Axis,
    /// Images.
    pub(crate) images: usize,
    /// Bytes of a position of the input.
    pub(crate) pixel: usize,
    /// What padding is: the byte that stands for 0.
    pub(crate) zero: u8,
}

impl Slide {
    /// Bytes of one image.
    pub(super) fn image(&self) -> usize {
        self.vertical.input * self.horizontal.input * self.pixel
    }

    /// Positions of one image of the output.
    pub(super) fn outputs(&self) -> usize {
        self.vertical.output * self.horizontal.output
    }

    /// Whether no window sees padding.
    pub(super) fn is_inside(&self) -> bool {
        let inside = |a: &Axis| a.interior() == (0..a.output);
        inside(&self.vertical) && inside(&self.horizontal)
    }

    /// Rows of the input that `rows` rows of output see, and columns that a whole row sees.
    fn seen(&self, rows: usize) -> (usize, usize) {
        let reach = |a: &Axis, n: usize| (n - 1) * a.stride + (a.kernel - 1) * a.dilation + 1;
        (reach(&self.vertical, rows), reach(&self.horizontal, self.horizontal.output))
    }

    /// Rows of output whose inputs take at most `bytes`, one at least.
    pub(super) fn rows_within(&self, bytes: usize) -> usize {
        let (reach, width) = self.seen(1);
        let more = (bytes / (width * self.pixel).max(1)).saturating_sub(reach) / self.vertical.stride;
        (1 + more).min(self.vertical.output)
    }

    /// The rows of `image` that the rows `rows` of output see, with their padding: `(bytes, bytes of a row, where the first
    /// window begins)`. Read in place where `in_place`; else copied, with an octet more behind them.
    pub(super) fn rows<'a>(
        &self,
        image: &'a [u8],
        rows: &Range<usize>,
        in_place: bool,
        scratch: &'a mut Vec<u8>,
    ) -> (&'a [u8], usize) {
        let (v, h, pixel) = (&self.vertical, &self.horizontal, self.pixel);
        let (top, left) = (v.origin(rows.start), h.origin(0));
        let row = h.input * pixel;
        if in_place {
            return (&image[top.max(0).cast_unsigned() * row + left.max(0).cast_unsigned() * pixel..], row);
        }
        let (height, width) = self.seen(rows.len());
        let to_row = width * pixel;
        let len = height * to_row + OCTET;
        if scratch.len() < len {
            scratch.resize(len, 0);
        }
        let before = left.min(0).unsigned_abs().min(width);
        let start = left.max(0).cast_unsigned().min(h.input);
        let count = (h.input - start).min(width - before);
        for (y, to) in scratch[..height * to_row].chunks_exact_mut(to_row).enumerate() {
            let from = usize::try_from(top + y.cast_signed()).ok().filter(|y| *y < v.input);
            let Some(from) = from else {
                to.fill(self.zero);
                continue;
            };
            to[..before * pixel].fill(self.zero);
            to[before * pixel..][..count * pixel]
                .copy_from_slice(&image[from * row + start * pixel..][..count * pixel]);
            to[(before + count) * pixel..].fill(self.zero);
        }
        (&scratch[..len], to_row)
    }
}

/// What a thread lays out for the piece of work at hand; kept, so that no run allocates.
pub(super) struct Scratch {
    /// Rows of the input with their padding.
    pub(super) rows: Vec<u8>,
    /// Where each output's window begins, or each tap.
    pub(super) places: Vec<usize>,
}

impl Scratch {
    pub(super) const fn new() -> Scratch {
        Scratch { rows: Vec::new(), places: Vec::new() }
    }
}
