//! The constants of a portable graph, read back from whatever form the plans store them in.

use crate::values::from_bytes;
use glowplug_pack::portable::{Split, Stored};
use glowplug_pack::{Dtype, Form, Pack, Region, WeightId};
use std::borrow::Cow;
use std::time::Instant;
use tract_core::internal::{Tensor, TractResult, bail, ensure};

/// Where constants are found.
pub(super) struct Constants<'a> {
    pub(super) pack: &'a Pack,
    pub(super) region: &'a Region,
    /// The tensors that the graph itself owns.
    pub(super) data: &'a [u8],
    pub(super) deadline: Option<Instant>,
}

impl Constants<'_> {
    /// The tensor that `stored` refers to: one copy. Errors: bytes that do not come; a bool that is neither
    /// 0 nor 1.
    pub(super) fn read(&self, stored: &Stored) -> TractResult<Tensor> {
        match stored {
            Stored::Plain { weight, shape } => {
                let (form, bytes) = self.expanded(*weight)?;
                let Form::Plain { dtype, .. } = form else { bail!("a plain constant in panels") };
                from_bytes(dtype, shape, &bytes)
            }
            Stored::Panels { weights, shape, split } => self.unpack(weights, shape, split),
            Stored::Own { offset, dtype, shape } => {
                let len = shape.iter().product::<usize>() * dtype.size();
                let Some(bytes) = self.data.get(*offset..).and_then(|d| d.get(..len)) else {
                    bail!("{len} bytes at {offset} of {}", self.data.len())
                };
                if *dtype == Dtype::Bool { bools(shape, bytes) } else { from_bytes(*dtype, shape, bytes) }
            }
        }
    }

    /// A weight without its encoding, if it has one: exactly the values that plans compute with.
    fn expanded(&self, weight: WeightId) -> TractResult<(Form, Cow<'_, [u8]>)> {
        let bytes = self.region.wait(self.pack.weight_range(weight)?, self.deadline)?;
        let form = &self.pack.weight(weight)?.form;
        Ok(match form.encoding() {
            None => (form.clone(), bytes.into()),
            Some(_) => form.expand(bytes).map(|(form, bytes)| (form, bytes.into()))?,
        })
    }

    /// The plain tensor whose matrices `weights` hold in panels.
    fn unpack(&self, weights: &[WeightId], shape: &[usize], split: &Split) -> TractResult<Tensor> {
        let mut values = vec![0f32; shape.iter().product()];
        let rows = Split::offsets(shape, &split.rows);
        let depth = Split::offsets(shape, &split.depth);
        for (weight, start) in weights.iter().zip(Split::offsets(shape, &split.batch)) {
            let (form, bytes) = self.expanded(*weight)?;
            let Form::Panels { r, panel_bytes, k, mn, .. } = form else {
                bail!("a plain constant where panels are wanted")
            };
            ensure!((mn, k) == (rows.len(), depth.len()), "panels of mn={mn}, k={k} for {shape:?}");
            let panels = bytes.chunks(panel_bytes);
            for (panel, rows) in panels.zip(rows.chunks(r)) {
                for (record, at_depth) in panel.chunks_exact(r * size_of::<f32>()).zip(&depth) {
                    for (bytes, row) in record.as_chunks().0.iter().zip(rows) {
                        values[start + row + at_depth] = f32::from_le_bytes(*bytes);
                    }
                }
            }
        }
        Tensor::from_shape(shape, &values)
    }
}

fn bools(shape: &[usize], bytes: &[u8]) -> TractResult<Tensor> {
    ensure!(bytes.iter().all(|b| *b <= 1), "a bool that is neither 0 nor 1");
    Tensor::from_shape(shape, &bytes.iter().map(|b| *b == 1).collect::<Vec<_>>())
}
