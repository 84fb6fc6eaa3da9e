//! Gather: of rows that stay in the region, encoded or not, and of computed tensors.

use super::plan_op;
use crate::kernels::expand;
use crate::panels::deadline;
use glowplug_pack::{Encoding, Region};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use tract_core::internal::{
    DatumType, EvalContext, EvalOp, IntoTValue, TValue, TVec, Tensor, TractErrorContext as _, TractResult,
    args_1, ensure, not_out_of_plan, tvec,
};
use tract_core::ops::array::Gather;

/// Rows of a table that stays in the pack.
#[derive(Clone)]
pub(crate) struct GatherRows {
    pub(crate) region: Arc<Region>,
    /// Offset in the file of row 0.
    pub(crate) start: u64,
    pub(crate) rows: usize,
    pub(crate) row_shape: Vec<usize>,
    /// Of what it gives.
    pub(crate) datum_type: DatumType,
    /// How the table's values are stored, where not as they are given.
    pub(crate) encoding: Option<Encoding>,
}
plan_op!(GatherRows);

impl EvalOp for GatherRows {
    not_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let indices = args_1!(inputs);
        let values = self.row_shape.iter().product::<usize>();
        let given_bytes = values * self.datum_type.size_of();
        let row_bytes = match self.encoding {
            Some(encoding) => encoding.row_bytes(values).context("rows too long to be stored")?,
            None => given_bytes,
        };
        let shape: TVec<usize> = indices.shape().iter().chain(&self.row_shape).copied().collect();
        let mut output = Tensor::zero_dt(self.datum_type, &shape)?;
        let plain = indices.try_as_plain_ram()?;
        let indices = plain.as_slice::<i64>()?;
        // All rows are told before one is waited for: they come side by side and not one after the other.
        for index in indices {
            self.region.want(&self.range(*index, row_bytes)?);
        }
        match self.encoding {
            Some(encoding) => {
                let mut output = output.try_as_plain_ram_mut()?;
                let rows = output.as_slice_mut::<f32>()?.chunks_exact_mut(values);
                for (index, row) in indices.iter().zip(rows) {
                    expand::row(encoding, self.row(*index, row_bytes)?, row);
                }
            }
            None => {
                for (index, row) in indices.iter().zip(output.as_bytes_mut().chunks_exact_mut(given_bytes)) {
                    row.copy_from_slice(self.row(*index, row_bytes)?);
                }
            }
        }
        Ok(tvec!(output.into_tvalue()))
    }
}

impl GatherRows {
    /// Where row `index` lies in the file, negative ones counted from the end. Errors: outside of the table.
    fn range(&self, index: i64, row_bytes: usize) -> TractResult<Range<u64>> {
        let row = resolve(index, self.rows)?;
        let start = self.start + (row * row_bytes) as u64;
        Ok(start..start + row_bytes as u64)
    }

    /// Row `index`, once its bytes are there.
    fn row(&self, index: i64, row_bytes: usize) -> TractResult<&[u8]> {
        Ok(self.region.wait(self.range(index, row_bytes)?, deadline())?)
    }
}

/// Where `index` points among `rows`; negative ones count from the end. Errors: outside.
fn resolve(index: i64, rows: usize) -> TractResult<usize> {
    let from_end = if index < 0 { index.saturating_add_unsigned(rows as u64) } else { index };
    let row = usize::try_from(from_end).ok().filter(|row| *row < rows);
    row.with_context(|| format!("index {index} into a table of {rows} rows"))
}

/// tract's Gather along an axis of a computed tensor. tract indexes unchecked by value; here every index is
/// looked at first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GatherAxis(pub(crate) Gather);
plan_op!(GatherAxis);

impl EvalOp for GatherAxis {
    not_out_of_plan!();

    fn eval(&self, context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        ensure!(inputs.len() == 2, "{} operands, expected 2", inputs.len());
        let rows = inputs[0].shape().get(self.0.axis).copied().unwrap_or_default();
        let indices = inputs[1].try_as_plain_ram()?;
        indices.as_slice::<i64>()?.iter().try_for_each(|i| resolve(*i, rows).map(drop))?;
        self.0.eval(context, inputs)
    }
}

impl PartialEq for GatherRows {
    fn eq(&self, other: &GatherRows) -> bool {
        Arc::ptr_eq(&self.region, &other.region) && self.start == other.start
    }
}

impl Eq for GatherRows {}

impl fmt::Debug for GatherRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GatherRows({} rows of {:?} at byte {})", self.rows, self.row_shape, self.start)
    }
}
