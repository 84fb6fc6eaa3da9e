//! OneHotRows: the product of one-hot rows and a matrix, which is to look up its rows.

use super::plan_op;
use super::window::floats;
use crate::kernels::activation::Activation;
use crate::kernels::rows::add_and_activate;
use crate::panels::deadline;
use glowplug_pack::Region;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use tract_core::internal::{
    DatumType, EvalContext, EvalOp, IntoTValue, TValue, TVec, Tensor, TractResult, args_2, bail, ensure,
    not_out_of_plan, tvec,
};

/// `activation(table[i] + bias)`; a number that is no row's is a row of zeros.
#[derive(Clone)]
pub(crate) struct OneHotRows {
    pub(crate) region: Arc<Region>,
    /// The table's bytes in the file.
    pub(crate) table: Range<u64>,
    pub(crate) activation: Activation,
    pub(crate) shape: Vec<usize>,
}
plan_op!(OneHotRows);

impl EvalOp for OneHotRows {
    not_out_of_plan!();

    #[allow(unsafe_code, reason = "zeroing what is written anyway takes time")]
    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let (indices, bias) = args_2!(inputs);
        let bias = bias.try_as_plain_ram()?;
        let bias = bias.as_slice::<f32>()?;
        let table = floats(self.region.wait(self.table.clone(), deadline())?)?;
        // SAFETY: all of it is written below, row by row, before anybody reads it: there are as many indices as rows.
        let mut output = unsafe { Tensor::uninitialized::<f32>(&self.shape) }?;
        let mut plain = output.try_as_plain_ram_mut()?;
        let out = plain.as_slice_mut::<f32>()?;
        let columns = bias.len();
        ensure!(
            columns > 0 && out.len() == indices.len() * columns,
            "{} indices for {:?}",
            indices.len(),
            self.shape
        );
        let zeros = vec![0.0; columns];
        let write = |index: Option<usize>, out: &mut [f32]| {
            let row =
                index.and_then(|i| table.get(i.checked_mul(columns)?..)?.get(..columns)).unwrap_or(&zeros);
            add_and_activate(row, bias, self.activation, out);
        };
        let indices = indices.try_as_plain_ram()?;
        let rows = out.chunks_exact_mut(columns);
        match indices.datum_type() {
            DatumType::I64 => {
                rows.zip(indices.as_slice::<i64>()?)
                    .for_each(|(out, i)| write(usize::try_from(*i).ok(), out));
            }
            DatumType::I32 => {
                rows.zip(indices.as_slice::<i32>()?)
                    .for_each(|(out, i)| write(usize::try_from(*i).ok(), out));
            }
            other => bail!("indices of {other:?}"),
        }
        Ok(tvec!(output.into_tvalue()))
    }
}

impl PartialEq for OneHotRows {
    fn eq(&self, other: &OneHotRows) -> bool {
        Arc::ptr_eq(&self.region, &other.region) && self.table == other.table
    }
}

impl Eq for OneHotRows {}

impl fmt::Debug for OneHotRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OneHotRows({:?} at byte {})", self.shape, self.table.start)
    }
}
