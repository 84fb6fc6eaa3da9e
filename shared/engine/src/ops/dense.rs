//! Dense: rows that are read in place, times a weight that is read in place, and what follows.

use super::plan_op;
use super::window::floats;
use crate::kernels::activation::Activation;
use crate::kernels::product::{MOST_ROWS, Panels, Rows, Tail, WIDTH, product};
use crate::panels::{deadline, has_helpers};
use glowplug_pack::Region;
use glowplug_pack::plan::RowStrides;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use tract_core::internal::{
    EvalContext, EvalOp, IntoTValue, TValue, TVec, Tensor, TractResult, ensure, not_out_of_plan, tvec,
};

/// Panels that are waited for at once, so that the first are used while later ones arrive.
const PANELS_AT_ONCE: usize = 8;

/// A matrix in panels of 16 columns.
#[derive(Clone)]
pub(crate) struct DenseWeight {
    pub(crate) region: Arc<Region>,
    /// Its bytes in the file.
    pub(crate) range: Range<u64>,
    /// From one panel to the next.
    pub(crate) panel_bytes: usize,
    pub(crate) depth: usize,
    pub(crate) columns: usize,
}

/// `activation(x W + bias + residual)`.
#[derive(Clone)]
pub(crate) struct Dense {
    pub(crate) weight: DenseWeight,
    pub(crate) rows: RowStrides,
    pub(crate) bias: bool,
    pub(crate) residual: bool,
    pub(crate) activation: Activation,
    pub(crate) shape: Vec<usize>,
}
plan_op!(Dense);

impl EvalOp for Dense {
    not_out_of_plan!();

    #[allow(unsafe_code, reason = "zeroing what is written anyway takes time")]
    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let mut operands = inputs.iter().map(|i| i.try_as_plain_ram()?.as_slice::<f32>());
        let mut next = |wanted: bool| wanted.then(|| operands.next()).flatten().transpose();
        let (x, bias, residual) = (next(true)?, next(self.bias)?, next(self.residual)?);
        let Some(values) = x else { tract_core::internal::bail!("no operand") };
        let RowStrides { outer, outer_stride, inner, inner_stride } = self.rows;
        let rows = Rows { values, outer, outer_stride, inner, inner_stride };
        // SAFETY: all of it is written below before anybody reads it: `product` writes every row of the panels it
        // is given, and all panels are given to it.
        let mut output = unsafe { Tensor::uninitialized::<f32>(&self.shape) }?;
        let mut plain = output.try_as_plain_ram_mut()?;
        let out = plain.as_slice_mut::<f32>()?;
        let w = &self.weight;
        ensure!(out.len() == rows.count() * w.columns, "{} rows for {:?}", rows.count(), self.shape);
        let panels = w.columns.div_ceil(WIDTH);
        // Helpers know no deadline: the executor waited for all of it already. Many rows are better gone through once,
        // and take so long that the weight is there anyway.
        let at_once = if has_helpers() || rows.count() > MOST_ROWS { panels } else { PANELS_AT_ONCE };
        let panel_bytes = w.panel_bytes as u64;
        for first in (0..panels).step_by(at_once) {
            let end = panels.min(first + at_once);
            let bytes = w.range.start + first as u64 * panel_bytes..w.range.start + end as u64 * panel_bytes;
            let weights = floats(w.region.wait(bytes, deadline())?)?;
            let (column, until) = (first * WIDTH, w.columns.min(end * WIDTH));
            let panels = Panels {
                values: weights,
                panel: w.panel_bytes / size_of::<f32>(),
                record: WIDTH,
                depth: w.depth,
                columns: until - column,
            };
            let tail = Tail {
                bias: bias.map(|bias| &bias[column..]),
                residual: residual.map(|residual| &residual[column..]),
                activation: self.activation,
            };
            product(&rows, &panels, &tail, &mut out[column..], w.columns)?;
        }
        Ok(tvec!(output.into_tvalue()))
    }
}

impl PartialEq for Dense {
    fn eq(&self, other: &Dense) -> bool {
        Arc::ptr_eq(&self.weight.region, &other.weight.region)
            && (&self.weight.range, self.rows, self.activation)
                == (&other.weight.range, other.rows, other.activation)
    }
}

impl Eq for Dense {}

impl fmt::Debug for Dense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dense({:?} at byte {} of the pack)", self.shape, self.weight.range.start)
    }
}
