//! Operators of plans that our own passes put into tract's graph.

use super::{Encoded, Encoder, WIDTH};
use crate::planned::Planned;
use glowplug_pack::plan::Op;
use glowplug_pack::{Encoding, Form, Place, WeightId};
use tract_core::internal::*;
use tract_linalg::isa::Isa;

pub(super) fn planned<'a>(e: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    node.op_as::<Planned>().map(|planned| {
        let mut op = planned.op.clone();
        if let Some((name, values)) = &planned.weight {
            let stored = match &op {
                Op::BlockedConv { .. } => e.filters(name, values, e.encodings)?,
                Op::Int8Conv { .. } => e.filters(name, values, &[Encoding::Int8])?,
                Op::Int8DepthwiseConv { .. } => e.rows(name, values)?,
                Op::Dense { .. } => e.matrix(name, values)?,
                Op::OneHotRows { .. } => e.table(name, values, Place::Blobs)?,
                _ => e.plain_weight(name, values, Place::Blobs)?,
            };
            op.weights_mut().into_iter().for_each(|id| *id = stored);
        }
        if !matches!(op, Op::BlockChannels | Op::UnblockChannels) {
            e.needs_vectors();
        }
        Ok(Encoded { op, inputs: node.inputs.iter().copied().collect() })
    })
}

impl Encoder<'_> {
    /// The operators' own kernels are made for these; where a CPU has them not, they work all the same, slowly.
    fn needs_vectors(&mut self) {
        if cfg!(target_arch = "x86_64") {
            self.isa = self.isa.with(Isa::X86_64Avx2).with(Isa::X86_64Fma);
        }
    }

    /// Filters `[O, I, kh, kw]`.
    fn filters(&mut self, name: &str, kernel: &Tensor, encodings: &[Encoding]) -> TractResult<WeightId> {
        let [mn, ..] = *kernel.shape() else { bail!("filters without an axis") };
        let k = kernel.len() / mn.max(1);
        let plain = kernel.try_as_plain_ram()?;
        let values = plain.as_slice::<f32>()?;
        self.panels_of(name, (k, mn), encodings, |depth, column| values[column * k + depth])
    }

    /// Kernels `[C, 1, kh, kw]` of one channel each, in int8.
    fn rows(&mut self, name: &str, kernel: &Tensor) -> TractResult<WeightId> {
        let plain = kernel.try_as_plain_ram()?;
        let row = kernel.shape().iter().skip(1).product::<usize>().max(1);
        let rows = plain.as_slice::<f32>()?.chunks(row).map(|row| Encoding::Int8.encode_row(row));
        let rows = rows.collect::<Option<Vec<_>>>().context("kernels that were not rounded")?;
        let form = Form::EncodedRows { encoding: Encoding::Int8, shape: kernel.shape().to_vec() };
        Ok(self.builder.weight(name, Place::Blobs, form, &rows.concat())?)
    }

    /// A matrix `[depth, columns]`.
    fn matrix(&mut self, name: &str, matrix: &Tensor) -> TractResult<WeightId> {
        let [k, mn] = *matrix.shape() else { bail!("a weight of {:?}", matrix.shape()) };
        let plain = matrix.try_as_plain_ram()?;
        let values = plain.as_slice::<f32>()?;
        self.panels_of(name, (k, mn), self.encodings, |depth, column| values[depth * mn + column])
    }

    /// `k` times `mn` values in panels of sixteen columns, in the layout that tract's kernels of that height read too.
    fn panels_of(
        &mut self,
        name: &str,
        (k, mn): (usize, usize),
        encodings: &[Encoding],
        value: impl Fn(usize, usize) -> f32,
    ) -> TractResult<WeightId> {
        let mut panels = vec![0.0; mn.div_ceil(WIDTH) * k * WIDTH];
        for (p, panel) in panels.chunks_exact_mut((k * WIDTH).max(1)).enumerate() {
            for (depth, record) in panel.chunks_exact_mut(WIDTH).enumerate() {
                let columns = p * WIDTH..mn.min((p + 1) * WIDTH);
                record.iter_mut().zip(columns).for_each(|(to, column)| *to = value(depth, column));
            }
        }
        self.float_panels(name, (k, mn), encodings, &panels)
    }
}
