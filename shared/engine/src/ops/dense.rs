//! Dense: rows that are read in place, times a weight that is read in place, and what follows.

use super::plan_op;
use crate::expanded::{Matrix, PANELS_AT_ONCE};
use crate::kernels::activation::Activation;
use crate::kernels::product::{MOST_ROWS, Panels, Rows, Tail, WIDTH, product};
use crate::panels::has_helpers;
use glowplug_pack::plan::RowStrides;
use std::fmt;
use tract_core::internal::{
    EvalContext, EvalOp, IntoTValue, TValue, TVec, Tensor, TractResult, ensure, not_out_of_plan, tvec,
};

/// `activation(x W + bias + residual)`.
#[derive(Clone)]
pub(crate) struct Dense {
    pub(crate) weight: Matrix,
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
        for first in (0..panels).step_by(at_once) {
            let end = panels.min(first + at_once);
            let weights = w.panels.get(first..end)?;
            let (column, until) = (first * WIDTH, w.columns.min(end * WIDTH));
            let panels = Panels {
                values: weights,
                panel: w.panels.stride(),
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
        self.weight.panels == other.weight.panels
            && (self.rows, self.activation) == (other.rows, other.activation)
    }
}

impl Eq for Dense {}

impl fmt::Debug for Dense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dense({:?} at byte {} of the pack)", self.shape, self.weight.panels.start())
    }
}
