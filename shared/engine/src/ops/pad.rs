//! Pad: whole runs of values at a time; tract goes value by value.

use super::plan_op;
use glowplug_pack::plan::PadMode;
use tract_core::internal::{
    EvalContext, EvalOp, IntoTValue, TValue, TVec, Tensor, TractResult, args_1, ensure, not_out_of_plan, tvec,
};

/// ONNX Pad of f32.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pad {
    /// Positions before and after, for each axis.
    pub(crate) pads: Vec<(usize, usize)>,
    pub(crate) mode: PadMode,
}
impl Eq for Pad {}
plan_op!(Pad);

impl EvalOp for Pad {
    not_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let extents = input.shape();
        ensure!(extents.len() == self.pads.len(), "{} pads for {extents:?}", self.pads.len());
        let shape: TVec<usize> = extents.iter().zip(&self.pads).map(|(n, (b, a))| b + n + a).collect();
        let mut output = Tensor::zero::<f32>(&shape)?;
        let values = input.try_as_plain_ram()?;
        let mut plain = output.try_as_plain_ram_mut()?;
        // Behind the last axis that is padded, values stay as they lie.
        let rank = self.pads.iter().rposition(|p| *p != (0, 0)).map_or(0, |last| last + 1);
        let run = extents[rank..].iter().product();
        let axes: TVec<_> = extents[..rank].iter().copied().zip(self.pads.iter().copied()).collect();
        self.fill(&axes, run, values.as_slice::<f32>()?, plain.as_slice_mut::<f32>()?);
        Ok(tvec!(output.into_tvalue()))
    }
}

impl Pad {
    /// `values` along `axes`, each with its pads, and runs of `run` values behind them, into `out`.
    fn fill(&self, axes: &[(usize, (usize, usize))], run: usize, values: &[f32], out: &mut [f32]) {
        let [(extent, (before, _)), axes @ ..] = axes else { return out.copy_from_slice(values) };
        let from = values.len().checked_div(*extent).unwrap_or(0);
        let to = out.len().checked_div(self.extent(axes, run)).unwrap_or(0);
        let inside = if axes.is_empty() {
            // The whole of the last axis lies in one piece.
            out[before * run..(before + extent) * run].copy_from_slice(values);
            *before..before + extent
        } else {
            0..0
        };
        let step = out.len() / to.max(1);
        for (at, out) in out.chunks_exact_mut(step.max(1)).enumerate() {
            if inside.contains(&at) {
                continue;
            }
            match source(at, *before, *extent, self.mode) {
                Some(i) => self.fill(axes, run, &values[i * from..][..from], out),
                None => {
                    if let PadMode::Constant { value } = self.mode {
                        out.fill(value);
                    }
                }
            }
        }
    }

    /// How many values the axes have with their pads.
    fn extent(&self, axes: &[(usize, (usize, usize))], run: usize) -> usize {
        axes.iter().map(|(n, (before, after))| before + n + after).product::<usize>() * run
    }
}

/// The position of an axis of `extent` that position `at` of the padded one takes its values from; `None` where it is
/// a constant.
fn source(at: usize, before: usize, extent: usize, mode: PadMode) -> Option<usize> {
    let i = at.cast_signed() - before.cast_signed();
    let last = extent.cast_signed() - 1;
    let i = match mode {
        PadMode::Constant { .. } => i,
        PadMode::Edge => i.clamp(0, last),
        PadMode::Reflect if i < 0 => -i,
        PadMode::Reflect if i > last => 2 * last - i,
        PadMode::Reflect => i,
    };
    usize::try_from(i).ok().filter(|i| *i < extent)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shape, and the pads of each axis.
    type Case = (&'static [usize], &'static [(usize, usize)]);

    #[test]
    fn every_position_is_what_the_definition_says() {
        let shapes: [Case; 6] = [
            (&[5], &[(0, 0)]),
            (&[5], &[(2, 4)]),
            (&[2, 3, 4], &[(0, 0), (2, 1), (0, 0)]),
            (&[3, 2, 4], &[(1, 2), (0, 1), (3, 0)]),
            (&[3, 1, 2], &[(2, 0), (0, 0), (1, 1)]),
            (&[2, 2, 3, 2], &[(1, 1), (0, 0), (0, 2), (0, 0)]),
        ];
        for (shape, pads) in shapes {
            for mode in [PadMode::Constant { value: 7.5 }, PadMode::Edge, PadMode::Reflect] {
                let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| i as f32).collect();
                let x = Tensor::from_shape(shape, &values).unwrap().into_tvalue();
                let pad = Pad { pads: pads.to_vec(), mode };
                let context = EvalContext::out_of_plan();
                let found = pad.eval(&context, tvec![x]).unwrap();
                let padded: Vec<usize> = shape.iter().zip(pads).map(|(n, (b, a))| b + n + a).collect();
                assert_eq!(found[0].shape(), padded);
                let plain = found[0].try_as_plain_ram().unwrap();
                for (at, found) in plain.as_slice::<f32>().unwrap().iter().enumerate() {
                    // From the last axis on: the index that `at` has there, and what it stands for.
                    let (mut rest, mut step, mut index) = (at, 1, Some(0));
                    for axis in (0..shape.len()).rev() {
                        let i = rest % padded[axis];
                        rest /= padded[axis];
                        let from = source(i, pads[axis].0, shape[axis], mode);
                        index = index.zip(from).map(|(sum, i)| sum + i * step);
                        step *= shape[axis];
                    }
                    let wanted = index.map_or(7.5, |i| values[i]);
                    assert_eq!(*found, wanted, "{shape:?} {pads:?} {mode:?} at {at}");
                }
            }
        }
    }

    #[test]
    fn sources_are_those_of_numpy() {
        let all = |mode| (0..8).map(|at| source(at, 3, 3, mode)).collect::<Vec<_>>();
        assert_eq!(all(PadMode::Edge), [0, 0, 0, 0, 1, 2, 2, 2].map(Some));
        assert_eq!(all(PadMode::Reflect)[1..], [2, 1, 0, 1, 2, 1, 0].map(Some));
        assert_eq!(all(PadMode::Constant { value: 0.0 })[2..7], [None, Some(0), Some(1), Some(2), None]);
    }
}
