//! Inputs of other extents than a plan's: which plan serves them, filled up to its extents where the manifest allows
//! it, and its outputs cut back.

use crate::error::{ErrorKind, PredictError};
use glowplug_pack::manifest::Axis;
use glowplug_pack::{Manifest, Tensor, TensorData};

type Result<T> = std::result::Result<T, PredictError>;

/// A plan's shapes, and how inputs get there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fit {
    /// The shapes of the plan's inputs.
    pub(crate) shapes: Vec<Vec<usize>>,
    /// Axes that are filled up, by name, with their true extents.
    filled: Vec<(String, usize)>,
}

impl Fit {
    /// The cheapest of `plans` (shapes of all inputs each) for `inputs`: extents equal, the batch aside, or else
    /// larger along open axes of inputs that say what they may be filled up with. `None` where no plan will do.
    pub(crate) fn find<'a>(
        manifest: &Manifest,
        plans: impl Iterator<Item = Vec<&'a [usize]>>,
        inputs: &[Tensor],
    ) -> Option<Fit> {
        let cost = |shapes: &Vec<&[usize]>| shapes.iter().map(|s| s.iter().product::<usize>()).sum::<usize>();
        let candidates = plans.filter_map(|shapes| Some((fill(manifest, &shapes, inputs)?, shapes)));
        let (filled, shapes) = candidates.min_by_key(|(filled, shapes)| (filled.len(), cost(shapes)))?;
        Some(Fit { shapes: shapes.into_iter().map(<[usize]>::to_vec).collect(), filled })
    }

    /// Whether inputs are right as they are, the batch aside.
    pub(crate) fn is_exact(&self) -> bool {
        self.filled.is_empty()
    }

    /// `inputs` at the plan's extents, the batch as it is.
    pub(crate) fn fill(&self, manifest: &Manifest, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let one = |((spec, shape), tensor): ((&glowplug_pack::manifest::InputSpec, &Vec<usize>), &Tensor)| {
            let mut tensor = tensor.clone();
            for (axis, extent) in shape.iter().enumerate().skip(usize::from(has_batch(&spec.axes))) {
                tensor = with_extent(tensor, axis, *extent, spec.pad.unwrap_or_default())?;
            }
            Ok(tensor)
        };
        manifest.inputs.iter().zip(&self.shapes).zip(inputs).map(one).collect()
    }

    /// Outputs without what was only there because inputs were filled up: open axes of the same names.
    pub(crate) fn cut(&self, manifest: &Manifest, outputs: Vec<Tensor>) -> Result<Vec<Tensor>> {
        let one = |(spec, mut tensor): (&glowplug_pack::manifest::OutputSpec, Tensor)| {
            for (i, axis) in spec.axes.iter().enumerate().filter(|(_, axis)| axis.symbolic) {
                if let Some((_, extent)) = self.filled.iter().find(|(name, _)| *name == axis.name) {
                    tensor = with_extent(tensor, i, *extent, 0)?;
                }
            }
            Ok(tensor)
        };
        manifest.outputs.iter().zip(outputs).map(one).collect()
    }
}

fn has_batch(axes: &[Axis]) -> bool {
    axes.first().is_some_and(|axis| axis.symbolic)
}

/// The axes to fill up so that `inputs` have `shapes`, the batch aside. `None` where that cannot be.
fn fill(manifest: &Manifest, shapes: &[&[usize]], inputs: &[Tensor]) -> Option<Vec<(String, usize)>> {
    let mut filled: Vec<(String, usize)> = Vec::new();
    for ((spec, shape), tensor) in manifest.inputs.iter().zip(shapes).zip(inputs) {
        if spec.axes.len() != shape.len() || tensor.shape().len() != shape.len() {
            return None;
        }
        let pairs = spec.axes.iter().zip(*shape).zip(tensor.shape());
        for ((axis, wanted), found) in pairs.skip(usize::from(has_batch(&spec.axes))) {
            if found == wanted {
                continue;
            }
            spec.pad.filter(|_| axis.symbolic && found < wanted)?;
            match filled.iter().find(|(name, _)| *name == axis.name) {
                Some((_, other)) if other != found => return None,
                Some(_) => {}
                None => filled.push((axis.name.clone(), *found)),
            }
        }
    }
    Some(filled)
}

/// `tensor` with `extent` positions along `axis`: cut, or filled up with `value`. One copy, none where it has them.
fn with_extent(tensor: Tensor, axis: usize, extent: usize, value: i64) -> Result<Tensor> {
    let mut shape = tensor.shape().to_vec();
    let Some(found) = shape.get(axis).copied() else {
        return Err(PredictError::new(ErrorKind::Internal, format!("axis {axis} of {tensor}")));
    };
    if found == extent {
        return Ok(tensor);
    }
    let inner = shape[axis + 1..].iter().product::<usize>();
    let blocks = Blocks { from: found * inner, to: extent * inner };
    shape[axis] = extent;
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a small constant of the manifest"
    )]
    let data = match tensor.data() {
        TensorData::F32(v) => TensorData::F32(blocks.of(v, value as f32)),
        TensorData::F16(v) => TensorData::F16(blocks.of(v, half_bits(value))),
        TensorData::I64(v) => TensorData::I64(blocks.of(v, value)),
        TensorData::I32(v) => TensorData::I32(blocks.of(v, value as i32)),
        TensorData::I8(v) => TensorData::I8(blocks.of(v, value as i8)),
        TensorData::U8(v) => TensorData::U8(blocks.of(v, value as u8)),
        TensorData::Bool(v) => TensorData::Bool(blocks.of(v, value != 0)),
    };
    Tensor::new(shape, data).map_err(|e| PredictError::new(ErrorKind::Internal, e.to_string()))
}

/// 0 and 1 are all that an f16 is filled with: other values have no use and no exact conversion here.
fn half_bits(value: i64) -> u16 {
    if value == 0 { 0 } else { 0x3c00 }
}

/// Blocks of `from` values that become blocks of `to`.
struct Blocks {
    from: usize,
    to: usize,
}

impl Blocks {
    fn of<T: Copy>(&self, values: &[T], fill: T) -> Vec<T> {
        let mut out = Vec::with_capacity(values.len() / self.from.max(1) * self.to);
        for block in values.chunks_exact(self.from.max(1)) {
            out.extend_from_slice(&block[..self.from.min(self.to)]);
            out.extend(std::iter::repeat_n(fill, self.to.saturating_sub(self.from)));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use glowplug_pack::Dtype;
    use glowplug_pack::manifest::{InputSpec, OutputSpec};

    fn manifest(pad: Option<i64>) -> Manifest {
        let axis = |name: &str, size, symbolic| Axis { name: name.into(), size, symbolic };
        let axes = || vec![axis("batch", 1, true), axis("seq", 8, true)];
        let input = |name: &str| InputSpec {
            name: name.into(),
            dtype: Dtype::I64,
            axes: axes(),
            pipeline: vec![],
            pad,
        };
        let mut out = axes();
        out.push(axis("d2", 2, false));
        let output =
            OutputSpec { name: "y".into(), dtype: Dtype::F32, axes: out, post: vec![], labels: None };
        Manifest { inputs: vec![input("ids"), input("mask")], outputs: vec![output], ..Manifest::default() }
    }

    fn find(manifest: &Manifest, shapes: [[usize; 2]; 2]) -> Option<Fit> {
        let plans = [[1, 8], [1, 4], [1, 16]];
        let tensor = |s: [usize; 2]| Tensor::from_i64(s, vec![7; s[0] * s[1]]).unwrap();
        let plans = plans.iter().map(|s| vec![s.as_slice(), s.as_slice()]);
        Fit::find(manifest, plans, &shapes.map(tensor))
    }

    #[test]
    fn the_smallest_plan_that_holds_the_inputs_serves() {
        let m = manifest(Some(0));
        let chosen = |n: usize| find(&m, [[1, n], [1, n]]).map(|f| (f.shapes[0][1], f.is_exact()));
        assert_eq!(chosen(8), Some((8, true)));
        assert_eq!(chosen(3), Some((4, false)));
        assert_eq!(chosen(9), Some((16, false)));
        assert_eq!(chosen(17), None);
        assert_eq!(find(&m, [[3, 8], [3, 8]]).map(|f| f.is_exact()), Some(true), "the batch is left alone");
        assert_eq!(find(&m, [[1, 3], [1, 2]]), None, "one axis with two extents");
        let strict = manifest(None);
        assert!(find(&strict, [[1, 4], [1, 4]]).is_some() && find(&strict, [[1, 3], [1, 3]]).is_none());
    }

    #[test]
    fn inputs_are_filled_up_and_outputs_cut_back() {
        let m = manifest(Some(5));
        let fit = find(&m, [[2, 3], [2, 3]]).unwrap();
        let inputs: Vec<_> =
            (0..2).map(|_| Tensor::from_i64([2, 3], vec![1, 2, 3, 4, 5, 6]).unwrap()).collect();
        let filled = fit.fill(&m, &inputs).unwrap();
        assert_eq!(filled[1], Tensor::from_i64([2, 4], vec![1, 2, 3, 5, 4, 5, 6, 5]).unwrap());
        let output = Tensor::from_f32([1, 4, 2], (0u8..8).map(f32::from).collect()).unwrap();
        let cut = fit.cut(&m, vec![output]).unwrap();
        assert_eq!(cut[0], Tensor::from_f32([1, 3, 2], (0u8..6).map(f32::from).collect()).unwrap());
    }
}
