//! Weights as the kernels read them.

use glowplug_pack::int8::{OCTET, PIXEL, Runs, SUM_LIMIT, fits, tap_group};
use glowplug_pack::plan::FILTER_PANEL;

/// Weights of an octet of a panel: `[half of the octet, half of the panel, 8 filters, 4]`.
pub(super) const STEP: usize = OCTET * FILTER_PANEL;

/// Lays a panel out: `from` holds `[channels, taps, 16]` bytes, `to`, all zeros, takes [`Runs::panel_bytes`]
/// weights. Gives whether its sums fit 16 bits where they have to.
pub(crate) fn lay_out(runs: &Runs, from: &[u8], to: &mut [i8]) -> bool {
    let taps = runs.kernel.0 * runs.kernel.1;
    let channels = from.as_chunks::<FILTER_PANEL>().0.chunks_exact(taps.max(1));
    for (channel, of_channel) in channels.enumerate() {
        for (tap, weights) in of_channel.iter().enumerate() {
            let (step, byte) = runs.place(channel, tap);
            let place = step * STEP + byte / 4 * (STEP / 2) + byte % 4;
            let (low, high) = weights.split_at(FILTER_PANEL / 2);
            for (half, weights) in [low, high].into_iter().enumerate() {
                let to = &mut to[place + half * (STEP / 4)..][..4 * (FILTER_PANEL / 2) - 3];
                to.iter_mut().step_by(4).zip(weights).for_each(|(to, w)| *to = w.cast_signed());
            }
        }
    }
    sums_fit(to)
}

/// As [`fits`], of all filters of a panel that is laid out.
fn sums_fit(panel: &[i8]) -> bool {
    let mut most = 0;
    for step in panel.as_chunks::<STEP>().0 {
        let (first, second) = step.split_at(STEP / 2);
        for (a, b) in first.as_chunks::<2>().0.iter().zip(second.as_chunks::<2>().0) {
            let (mut above, mut below) = (0, 0);
            for weight in [a[0], a[1], b[0], b[1]] {
                above += i32::from(weight).max(0);
                below -= i32::from(weight).min(0);
            }
            most = above.max(below).max(most);
        }
    }
    most <= SUM_LIMIT
}

/// Lays out the taps of `lane`, a channel's place in its sixteen: pair of taps by pair, two bytes for each of channels 0
/// to 7 and the same again, then those of channels 8 to 15. `to`, all zeros at first, takes
/// [`taps_bytes`](glowplug_pack::int8::taps_bytes) weights. Gives whether their sums fit.
pub(crate) fn lay_out_taps(from: &[u8], lane: usize, to: &mut [i8]) -> bool {
    for (tap, weight) in from.iter().enumerate() {
        let place = tap / 2 * 4 * PIXEL + lane / 8 * 2 * PIXEL + lane % 8 * 2 + tap % 2;
        to[place] = weight.cast_signed();
        to[place + PIXEL] = weight.cast_signed();
    }
    fits(from.iter().enumerate().map(|(tap, weight)| (tap_group(tap), weight.cast_signed())))
}
