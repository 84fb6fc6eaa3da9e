//! Sliding windows over any number of spatial axes: convolutions and pools.

use super::op::{KernelLayout, Layout};
use crate::{wire_enum, wire_struct};

/// What lies around an image.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Padding {
    /// Nothing.
    Valid,
    /// So many positions before and after each spatial axis.
    Explicit {
        /// Before.
        before: Vec<usize>,
        /// After.
        after: Vec<usize>,
    },
    /// As Explicit, the last window being kept where it starts inside of the image (ONNX `ceil_mode`) if
    /// `ceil` is set.
    Pool {
        /// Before.
        before: Vec<usize>,
        /// After.
        after: Vec<usize>,
        /// ONNX `ceil_mode`.
        ceil: bool,
    },
    /// ONNX `SAME_UPPER`.
    SameUpper,
    /// ONNX `SAME_LOWER`.
    SameLower,
}
wire_enum!(Padding {
    0 => Valid {},
    1 => Explicit { before, after },
    2 => Pool { before, after, ceil },
    3 => SameUpper {},
    4 => SameLower {},
});

/// A sliding window and the channels it sees.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pool {
    /// Where the channels are.
    pub layout: Layout,
    /// Extents, by spatial axis.
    pub kernel: Vec<usize>,
    /// Steps between outputs.
    pub strides: Vec<usize>,
    /// Steps between taps.
    pub dilations: Vec<usize>,
    /// What lies around.
    pub padding: Padding,
    /// Channels of the operand.
    pub input_channels: usize,
    /// Channels of the result.
    pub output_channels: usize,
}
wire_struct!(Pool { layout, kernel, strides, dilations, padding, input_channels, output_channels });

/// No attribute of a window is larger: windows are small, and sums of these cannot overflow.
const LARGEST: usize = 1 << 20;

impl Pool {
    /// Axes of the image.
    pub(super) fn rank(&self) -> usize {
        self.kernel.len() + if self.has_batch() { 2 } else { 1 }
    }

    fn has_batch(&self) -> bool {
        matches!(self.layout, Layout::Nchw | Layout::Nhwc)
    }

    fn channel_axis(&self) -> usize {
        match self.layout {
            Layout::Nchw => 1,
            Layout::Chw => 0,
            Layout::Nhwc => self.kernel.len() + 1,
            Layout::Hwc => self.kernel.len(),
        }
    }

    fn first_spatial_axis(&self) -> usize {
        match self.layout {
            Layout::Nchw => 2,
            Layout::Nhwc | Layout::Chw => 1,
            Layout::Hwc => 0,
        }
    }

    /// Whether its lists agree and its numbers are those of a window.
    pub(super) fn check(&self) -> Result<(), String> {
        let n = self.kernel.len();
        let mut lists = vec![&self.kernel, &self.strides, &self.dilations];
        let pads: &[&Vec<usize>] = match &self.padding {
            Padding::Explicit { before, after } | Padding::Pool { before, after, .. } => &[before, after],
            _ => &[],
        };
        let steps = lists.iter().all(|l| l.iter().all(|v| (1..=LARGEST).contains(v)));
        lists.extend(pads);
        let sane = n > 0
            && lists.iter().all(|l| l.len() == n)
            && steps
            && pads.iter().all(|l| l.iter().all(|v| *v <= LARGEST))
            && (1..=LARGEST).contains(&self.input_channels)
            && (1..=LARGEST).contains(&self.output_channels);
        if sane {
            Ok(())
        } else {
            Err(format!("window {self:?}, expected lists of one length, 1 to {LARGEST}"))
        }
    }

    /// Taps from the first to the last, along a spatial axis.
    fn field(&self, axis: usize) -> Option<usize> {
        (self.kernel[axis] - 1).checked_mul(self.dilations[axis])?.checked_add(1)
    }

    /// What a forward window makes of an image: its shape with `channels` for the operand's.
    pub(super) fn forward(&self, shape: &[usize]) -> Result<Vec<usize>, String> {
        self.map(shape, |pool, axis, input| {
            let (field, stride) = (pool.field(axis)?, pool.strides[axis]);
            Some(match &pool.padding {
                Padding::Valid => (input + 1).saturating_sub(field).div_ceil(stride),
                Padding::Explicit { before, after } => {
                    (input + before[axis] + after[axis] + 1).saturating_sub(field).div_ceil(stride)
                }
                Padding::Pool { before, after, ceil } => {
                    let room = (input + before[axis] + after[axis]).checked_sub(field)?;
                    let outputs = if *ceil { room.div_ceil(stride) } else { room / stride } + 1;
                    let outside = *ceil && (outputs - 1) * stride >= input + before[axis];
                    outputs - usize::from(outside)
                }
                Padding::SameUpper | Padding::SameLower => input.div_ceil(stride),
            })
        })
    }

    /// What a transposed window makes of an image.
    pub(super) fn backward(&self, shape: &[usize], adjustments: &[usize]) -> Result<Vec<usize>, String> {
        self.map(shape, |pool, axis, input| {
            let (field, stride, more) = (pool.field(axis)?, pool.strides[axis], adjustments.get(axis)?);
            let spread =
                (input.checked_sub(1)?).checked_mul(stride)?.checked_add(field)?.checked_add(*more)?;
            match &pool.padding {
                Padding::Valid => Some(spread),
                Padding::Explicit { before, after } | Padding::Pool { before, after, .. } => {
                    spread.checked_sub(before[axis] + after[axis])
                }
                Padding::SameUpper | Padding::SameLower => None,
            }
        })
    }

    fn map(
        &self,
        shape: &[usize],
        extent: impl Fn(&Pool, usize, usize) -> Option<usize>,
    ) -> Result<Vec<usize>, String> {
        let channels = self.channel_axis();
        if shape.len() != self.rank() || shape.get(channels) != Some(&self.input_channels) {
            return Err(format!(
                "an image of {shape:?}, expected {} axes and {} channels at axis {channels}",
                self.rank(),
                self.input_channels
            ));
        }
        let mut output = shape.to_vec();
        output[channels] = self.output_channels;
        for axis in 0..self.kernel.len() {
            let at = self.first_spatial_axis() + axis;
            let found = extent(self, axis, shape[at]).filter(|n| *n > 0);
            output[at] =
                found.ok_or_else(|| format!("spatial axis {axis} of {} has no output", shape[at]))?;
        }
        Ok(output)
    }

    /// The kernel that a convolution of these channels takes.
    pub(super) fn kernel_shape(&self, layout: KernelLayout, group: usize) -> Result<Vec<usize>, String> {
        let (i, o) = (self.input_channels, self.output_channels);
        let grouped = group > 1 && layout != KernelLayout::Oihw;
        if group == 0 || !i.is_multiple_of(group) || !o.is_multiple_of(group) || grouped {
            return Err(format!("{group} groups of {i} to {o} channels with a kernel in {layout:?}"));
        }
        let mut shape = self.kernel.clone();
        match layout {
            KernelLayout::Oihw => shape.splice(0..0, [o, i / group]).for_each(drop),
            KernelLayout::Hwio => shape.extend([i, o]),
            KernelLayout::Ohwi => {
                shape.insert(0, o);
                shape.push(i);
            }
        }
        Ok(shape)
    }
}
