//! GatherRows: an embedding lookup that reads its rows from the region.

use super::plan_op;
use crate::panels::deadline;
use glowplug_pack::Region;
use std::fmt;
use std::sync::Arc;
use tract_core::internal::{
    DatumType, EvalContext, EvalOp, IntoTValue, TValue, TVec, Tensor, TractResult, args_1, ensure,
    not_out_of_plan, tvec,
};

/// Rows of a table that stays in the pack.
#[derive(Clone)]
pub(crate) struct GatherRows {
    pub(crate) region: Arc<Region>,
    /// Offset in the file of row 0.
    pub(crate) start: u64,
    pub(crate) rows: usize,
    pub(crate) row_shape: Vec<usize>,
    pub(crate) datum_type: DatumType,
}
plan_op!(GatherRows);

impl EvalOp for GatherRows {
    not_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let indices = args_1!(inputs);
        let row_bytes = self.row_shape.iter().product::<usize>() * self.datum_type.size_of();
        let shape: TVec<usize> = indices.shape().iter().chain(&self.row_shape).copied().collect();
        let mut output = Tensor::zero_dt(self.datum_type, &shape)?;
        let plain = indices.try_as_plain_ram()?;
        for (index, row) in
            plain.as_slice::<i64>()?.iter().zip(output.as_bytes_mut().chunks_exact_mut(row_bytes))
        {
            row.copy_from_slice(self.row(*index, row_bytes)?);
        }
        Ok(tvec!(output.into_tvalue()))
    }
}

impl GatherRows {
    /// Row `index`, negative ones from the end, once its bytes are there.
    fn row(&self, index: i64, row_bytes: usize) -> TractResult<&[u8]> {
        let from_end = if index < 0 { index.saturating_add_unsigned(self.rows as u64) } else { index };
        let row = usize::try_from(from_end).ok().filter(|row| *row < self.rows);
        ensure!(row.is_some(), "index {index} into a table of {} rows", self.rows);
        let start = self.start + (row.unwrap_or_default() * row_bytes) as u64;
        Ok(self.region.wait(start..start + row_bytes as u64, deadline())?)
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
