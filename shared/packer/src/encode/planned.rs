//! Operators of plans that our own passes put into tract's graph.

use super::{Encoded, Encoder};
use crate::planned::Planned;
use glowplug_pack::plan::{FILTER_PANEL, Op};
use glowplug_pack::{Dtype, Form, Place, WeightId};
use tract_core::internal::*;
use tract_linalg::isa::Isa;

pub(super) fn planned<'a>(e: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    node.op_as::<Planned>().map(|planned| {
        let mut op = planned.op.clone();
        if let Some(kernel) = &planned.kernel {
            let stored = match &op {
                Op::BlockedConv { .. } => e.filters(&node.name, kernel)?,
                _ => e.plain_weight(&node.name, kernel, Place::Blobs)?,
            };
            op.weights_mut().into_iter().for_each(|id| *id = stored);
        }
        if matches!(op, Op::BlockedConv { .. } | Op::BlockedDepthwiseConv { .. }) {
            e.needs_vectors();
        }
        Ok(Encoded { op, inputs: node.inputs.iter().copied().collect() })
    })
}

impl Encoder<'_> {
    /// The operators' own kernels are made for these; where a CPU has them not, they work all the same, slowly.
    pub(super) fn needs_vectors(&mut self) {
        if cfg!(target_arch = "x86_64") {
            self.isa = self.isa.with(Isa::X86_64Avx2).with(Isa::X86_64Fma);
        }
    }

    /// Filters `[O, I, kh, kw]` as panels of sixteen rows, in the layout that tract's kernels of that height read
    /// too.
    fn filters(&mut self, name: &str, kernel: &Tensor) -> TractResult<WeightId> {
        let [mn, ..] = *kernel.shape() else { bail!("filters without an axis") };
        let k = kernel.len() / mn.max(1);
        let record = FILTER_PANEL * size_of::<f32>();
        // Room for one record behind the values, as `panel_weight` leaves.
        let panel_bytes = ((k + 1) * record).next_multiple_of(usize::try_from(glowplug_pack::header::ALIGN)?);
        let mut bytes = vec![0; mn.div_ceil(FILTER_PANEL) * panel_bytes];
        let values = kernel.try_as_plain_ram()?;
        for (row, values) in values.as_slice::<f32>()?.chunks_exact(k).enumerate() {
            let panel = &mut bytes[row / FILTER_PANEL * panel_bytes..][..k * record];
            for (record, value) in panel.chunks_exact_mut(record).zip(values) {
                record.as_chunks_mut::<4>().0[row % FILTER_PANEL] = value.to_le_bytes();
            }
        }
        let form = Form::Panels { dtype: Dtype::F32, k, mn, r: FILTER_PANEL, panel_bytes };
        Ok(self.builder.weight(name, Place::Blobs, form, &bytes)?)
    }
}
