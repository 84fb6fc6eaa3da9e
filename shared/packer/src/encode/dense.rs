//! The operators of our own that groups of tract's were replaced with.

use super::ops::same;
use super::{Encoded, Encoder, WIDTH};
use crate::fuse::ops::{Attention, Dense, LayerNorm, OneHotRows};
use glowplug_pack::plan::Op;
use glowplug_pack::{Place, WeightId};
use tract_core::internal::*;

pub(super) fn dense<'a>(e: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    node.op_as::<Dense>().map(|o| {
        e.needs_vectors();
        let weight = e.matrix(&o.weight_name, &o.weight)?;
        let (bias, residual) = (o.bias, o.residual);
        Ok(same(node, Op::Dense { weight, rows: o.rows, bias, residual, activation: o.activation }))
    })
}

pub(super) fn attention<'a>(e: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    node.op_as::<Attention>().map(|o| {
        e.needs_vectors();
        let Attention { batch, heads, queries, keys, scale, .. } = *o;
        Ok(same(node, Op::Attention { batch, heads, queries, keys, scale }))
    })
}

pub(super) fn layer_norm<'a>(e: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    node.op_as::<LayerNorm>().map(|o| {
        e.needs_vectors();
        Ok(same(node, Op::LayerNorm { epsilon: o.epsilon }))
    })
}

pub(super) fn one_hot_rows<'a>(e: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    node.op_as::<OneHotRows>().map(|o| {
        e.needs_vectors();
        let table = e.table(&o.table_name, &o.table, Place::Blobs)?;
        Ok(same(node, Op::OneHotRows { table, activation: o.activation }))
    })
}

impl Encoder<'_> {
    /// `[depth, columns]` values in panels of 16 columns.
    fn matrix(&mut self, name: &str, matrix: &Tensor) -> TractResult<WeightId> {
        let [k, mn] = *matrix.shape() else { bail!("a weight of {:?}", matrix.shape()) };
        let plain = matrix.try_as_plain_ram()?;
        let values = plain.as_slice::<f32>()?;
        let mut panels = vec![0.0; mn.div_ceil(WIDTH) * k * WIDTH];
        for (p, panel) in panels.chunks_exact_mut(k * WIDTH).enumerate() {
            for (row, record) in values.chunks_exact(mn).zip(panel.chunks_exact_mut(WIDTH)) {
                record.iter_mut().zip(row.iter().skip(p * WIDTH)).for_each(|(place, value)| *place = *value);
            }
        }
        self.float_panels(name, (k, mn), &panels)
    }
}
