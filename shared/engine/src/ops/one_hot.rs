//! OneHotRows: the product of one-hot rows and a matrix, which is to look up its rows.

use super::plan_op;
use crate::kernels::activation::Activation;
use crate::kernels::expand;
use crate::kernels::rows::add_and_activate;
use crate::panels::deadline;
use crate::values::floats;
use glowplug_pack::{Encoding, Region};
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
    /// How its values are stored, where not as f32.
    pub(crate) encoding: Option<Encoding>,
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
        let bytes = self.region.wait(self.table.clone(), deadline())?;
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
        let table = match self.encoding {
            Some(encoding) => {
                Table::Encoded(encoding, encoding.row_bytes(columns).unwrap_or(usize::MAX), bytes)
            }
            None => Table::Floats(floats(bytes)?),
        };
        let mut expanded = vec![0.0; columns];
        let mut write = |index: Option<usize>, out: &mut [f32]| {
            let row = index.and_then(|i| table.row(i, &mut expanded)).unwrap_or(&zeros);
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

/// A table as it lies in the pack.
enum Table<'a> {
    Floats(&'a [f32]),
    /// With the bytes of a row.
    Encoded(Encoding, usize, &'a [u8]),
}

impl<'a> Table<'a> {
    /// Row `i`, expanded into `to` where it is encoded; `None` where there is no such row.
    fn row<'r>(&self, i: usize, to: &'r mut [f32]) -> Option<&'r [f32]>
    where
        'a: 'r,
    {
        match *self {
            Table::Floats(table) => table.get(i.checked_mul(to.len())?..)?.get(..to.len()),
            Table::Encoded(encoding, row_bytes, table) => {
                expand::row(encoding, table.get(i.checked_mul(row_bytes)?..)?.get(..row_bytes)?, to);
                Some(to)
            }
        }
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
