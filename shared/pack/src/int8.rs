//! Convolutions in bytes: how images and weights lie, and which weights may stand together.
//!
//! An activation is a byte from 0 to [`MOST`], seven bits: `real = (q - zero) * scale`. Images are `[N, H, W, S]`, all
//! channels of a position side by side, S being [`pixel`] of them. A weight is a byte from -127 to 127 with a scale for each
//! output channel.
//!
//! Vector instructions of x86-64 add products in 16 bits before they widen them. [`Runs::group`] and [`tap_group`] tell
//! which products are added so; where the weights of each group fit ([`fits`]), no sum is ever cut off, and integer
//! arithmetic gives the same on every CPU. Sums of 32 bits hold a window of [`MOST_STEPS`] or [`MOST_TAPS`].

use crate::plan::{FILTER_PANEL, Window};

/// Channels of a position that are worked on together: S is a multiple of it.
pub const PIXEL: usize = 16;
/// S of an image of as many channels, or fewer, that a model is given.
pub const FEW: usize = 4;
/// The largest activation.
pub const MOST: u8 = 127;
/// What weights of one sign in a group may amount to: `127 * 258 <= 32767`.
pub const SUM_LIMIT: i32 = 258;
/// Bytes of depth that are summed up in one step.
pub const OCTET: usize = 8;

const _: () = assert!(MOST as i32 * SUM_LIMIT <= i16::MAX as i32);

/// Taps of a depthwise convolution that are summed up before anything is added in 32 bits.
pub const CHUNK: usize = 10;
/// The first taps of a chunk are a group, the others another.
pub const FIRST_TAPS: usize = 4;
/// The most steps of a window: each has two groups for every filter.
pub const MOST_STEPS: usize = 32_768;
/// The most taps of a depthwise convolution: two groups for every chunk.
pub const MOST_TAPS: usize = MOST_STEPS * CHUNK;

const _: () = assert!(2 * (MOST as i64 * SUM_LIMIT as i64) * MOST_STEPS as i64 <= i32::MAX as i64);

/// Bytes of a position of `channels`. `None` where that overflows.
#[must_use]
pub fn pixel(channels: usize) -> Option<usize> {
    channels.checked_next_multiple_of(PIXEL)
}

/// How the taps of a window lie in an image: in runs of bytes, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Runs {
    /// Channels.
    pub channels: usize,
    /// Bytes from one position to the next.
    pub pixel: usize,
    /// Extents of the window.
    pub kernel: (usize, usize),
    /// Whether the taps of a row are neighbours, hence one run; else each tap is one.
    pub joined: bool,
}

impl Runs {
    /// Of a window over an image of `channels`, `pixel` bytes for each position.
    #[must_use]
    pub fn of(window: &Window, channels: usize, pixel: usize) -> Runs {
        Runs { channels, pixel, kernel: window.kernel, joined: window.dilations.1 == 1 }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        if self.joined { self.kernel.0 } else { self.kernel.0 * self.kernel.1 }
    }

    /// Steps of one of them.
    #[must_use]
    pub fn octets(&self) -> usize {
        let bytes = if self.joined { self.kernel.1 * self.pixel } else { self.pixel };
        bytes.div_ceil(OCTET)
    }

    /// Steps of all of them.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.count().saturating_mul(self.octets())
    }

    /// Bytes of a panel of [`FILTER_PANEL`] filters, as kernels read it.
    #[must_use]
    pub fn panel_bytes(&self) -> usize {
        self.steps().saturating_mul(OCTET * FILTER_PANEL)
    }

    /// Where the weight of `channel` and `tap`, counted row by row, is met: the step, and the byte within it.
    #[must_use]
    pub fn place(&self, channel: usize, tap: usize) -> (usize, usize) {
        let (run, byte) = match self.joined {
            true => (tap / self.kernel.1, tap % self.kernel.1 * self.pixel + channel),
            false => (tap, channel),
        };
        (run * self.octets() + byte / OCTET, byte % OCTET)
    }

    /// Weights of one filter with the same group are summed up in 16 bits: two and two of an octet.
    #[must_use]
    pub fn group(&self, channel: usize, tap: usize) -> usize {
        let (step, byte) = self.place(channel, tap);
        step * 2 + byte % 4 / 2
    }
}

/// Bytes of the `taps` of [`PIXEL`] channels, as kernels read them: in pairs, each pair twice.
#[must_use]
pub fn taps_bytes(taps: usize) -> usize {
    taps.div_ceil(2).saturating_mul(4 * PIXEL)
}

/// As [`Runs::group`], for the taps of one channel of a depthwise convolution.
#[must_use]
pub fn tap_group(tap: usize) -> usize {
    tap / CHUNK * 2 + usize::from(tap % CHUNK >= FIRST_TAPS)
}

/// Whether no group of weights can exceed 16 bits, each weight with its group. Groups need not be in order.
#[must_use]
pub fn fits(weights: impl Iterator<Item = (usize, i8)>) -> bool {
    most_of_a_group(weights.map(|(group, weight)| (group, f32::from(weight)))) <= SUM_LIMIT as f32
}

/// The most that weights of one sign in one group amount to.
#[must_use]
pub fn most_of_a_group(weights: impl Iterator<Item = (usize, f32)>) -> f32 {
    let mut sums: Vec<[f32; 2]> = Vec::new();
    for (group, weight) in weights {
        if sums.len() <= group {
            sums.resize(group + 1, [0.0; 2]);
        }
        sums[group][usize::from(weight < 0.0)] += weight.abs();
    }
    sums.into_iter().flatten().fold(0.0, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_weight_has_a_place_of_its_own_and_groups_are_of_four() {
        for (channels, pixel, kernel, joined) in
            [(3, 4, (7, 7), true), (20, 32, (1, 1), true), (24, 32, (3, 2), true), (5, 16, (2, 3), false)]
        {
            let runs = Runs { channels, pixel, kernel, joined };
            let (steps, mut seen) = (runs.steps(), std::collections::HashSet::new());
            let mut groups = vec![0; steps * 2];
            for channel in 0..channels {
                for tap in 0..kernel.0 * kernel.1 {
                    let (step, byte) = runs.place(channel, tap);
                    assert!(step < steps && byte < OCTET && seen.insert((step, byte)), "{runs:?}");
                    groups[runs.group(channel, tap)] += 1;
                }
            }
            assert!(groups.into_iter().all(|n| n <= 4), "{runs:?}");
        }
    }

    #[test]
    fn weights_of_one_sign_in_one_group_are_limited() {
        let group = |weights: &[i8]| fits(weights.iter().enumerate().map(|(tap, w)| (tap_group(tap), *w)));
        assert!(group(&[127, 127, 4, -127, 127, 127, 4]));
        assert!(!group(&[127, 127, 5, 0]));
        assert!(!group(&[-127, -127, 0, -5]));
        assert!(group(&[127, 127, 4, 0, 4, 127, 127, 0, 0, 0, 127, 127]));
        assert!(!group(&[0, 0, 0, 0, 100, 100, 0, 0, 59, 0]));
        assert!(group(&[]));
    }
}
