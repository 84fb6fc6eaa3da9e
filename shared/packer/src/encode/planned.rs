//! Operators of plans that our own passes put into tract's graph.

use super::{Encoded, Encoder, WIDTH};
use crate::planned::Planned;
use glowplug_pack::plan::Op;
use glowplug_pack::{Place, WeightId};
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
        let mut panels = vec![0.0; mn.div_ceil(WIDTH) * k * WIDTH];
        let values = kernel.try_as_plain_ram()?;
        for (row, values) in values.as_slice::<f32>()?.chunks_exact(k).enumerate() {
            let panel = &mut panels[row / WIDTH * k * WIDTH..][..k * WIDTH];
            for (record, value) in panel.chunks_exact_mut(WIDTH).zip(values) {
                record[row % WIDTH] = *value;
            }
        }
        self.float_panels(name, (k, mn), &panels)
    }
}
