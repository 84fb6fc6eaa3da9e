//! Where the taps of a sliding window fall, along one axis, and the taps themselves.

use glowplug_pack::plan::Window;
use std::ops::Range;

/// One axis of a window over an input. Extents were validated to stay far below overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Axis {
    pub(crate) input: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) dilation: usize,
    pub(crate) pad: usize,
    pub(crate) output: usize,
}

/// The two axes of `window` over an input of `height x width`.
pub(crate) fn axes(window: &Window, height: usize, width: usize) -> (Axis, Axis) {
    let Window { kernel, strides, dilations, pads, output } = *window;
    let axis =
        |input, kernel, stride, dilation, pad, output| Axis { input, kernel, stride, dilation, pad, output };
    (
        axis(height, kernel.0, strides.0, dilations.0, pads.0, output.0),
        axis(width, kernel.1, strides.1, dilations.1, pads.1, output.1),
    )
}

impl Axis {
    /// Where tap 0 of output `o` falls; negative in the padding.
    pub(crate) fn origin(&self, o: usize) -> isize {
        (o * self.stride).cast_signed() - self.pad.cast_signed()
    }

    /// Where tap `k` of output `o` falls, if inside of the input.
    pub(crate) fn at(&self, o: usize, k: usize) -> Option<usize> {
        let at = self.origin(o) + (k * self.dilation).cast_signed();
        usize::try_from(at).ok().filter(|at| *at < self.input)
    }

    /// The taps of output `o` that fall inside of the input.
    pub(crate) fn taps(&self, o: usize) -> Range<usize> {
        let (at, pad) = (o * self.stride, self.pad);
        let first = pad.saturating_sub(at).div_ceil(self.dilation).min(self.kernel);
        let end = (self.input + pad).saturating_sub(at).div_ceil(self.dilation).min(self.kernel);
        first..end.max(first)
    }

    /// The outputs whose taps all fall inside of the input.
    pub(crate) fn interior(&self) -> Range<usize> {
        let reach = (self.kernel - 1) * self.dilation;
        let first = self.pad.div_ceil(self.stride).min(self.output);
        let end = match (self.input + self.pad).checked_sub(reach + 1) {
            Some(last) => (last / self.stride + 1).min(self.output),
            None => 0,
        };
        first..end.max(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taps_and_interior_agree_with_the_definition() {
        for case in 0..4000usize {
            let pick = |i: usize, n: usize| (case * 7919 + i * 104_729) / (i + 3) % n;
            let axis = Axis {
                input: 1 + pick(1, 9),
                kernel: 1 + pick(2, 5),
                stride: 1 + pick(3, 3),
                dilation: 1 + pick(4, 3),
                pad: pick(5, 6),
                output: 1 + pick(6, 12),
            };
            for o in 0..axis.output {
                let inside: Vec<_> = (0..axis.kernel).filter(|k| axis.at(o, *k).is_some()).collect();
                assert_eq!(axis.taps(o).collect::<Vec<_>>(), inside, "{axis:?} at {o}");
                assert_eq!(axis.interior().contains(&o), inside.len() == axis.kernel, "{axis:?} at {o}");
            }
        }
    }
}
