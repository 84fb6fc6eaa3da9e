//! The operators of our own that groups of tract's were replaced with.

use super::ops::same;
use super::{Encoded, Encoder};
use crate::fuse::ops::{Attention, Dense, LayerNorm, OneHotRows};
use glowplug_pack::plan::Op;
use glowplug_pack::{Dtype, Form, Place, WeightId};
use tract_core::internal::*;

/// Columns of a panel, as the engine's products and tract's kernels of this height read them.
const WIDTH: usize = 16;

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
        let table = e.plain_weight(&o.table_name, &o.table, Place::Blobs)?;
        Ok(same(node, Op::OneHotRows { table, activation: o.activation }))
    })
}

impl Encoder<'_> {
    /// `[depth, columns]` values in panels of 16 columns, with room for a record that other kernels read ahead, so
    /// that a plan of theirs reads the same weight.
    fn matrix(&mut self, name: &str, matrix: &Tensor) -> TractResult<WeightId> {
        let [k, mn] = *matrix.shape() else { bail!("a weight of {:?}", matrix.shape()) };
        let values = matrix.try_as_plain_ram()?;
        let values = values.as_slice::<f32>()?;
        let record = WIDTH * size_of::<f32>();
        let panel_bytes = ((k + 1) * record).next_multiple_of(usize::try_from(glowplug_pack::header::ALIGN)?);
        let mut bytes = vec![0; mn.div_ceil(WIDTH) * panel_bytes];
        for (p, panel) in bytes.chunks_exact_mut(panel_bytes).enumerate() {
            for (row, record) in values.chunks_exact(mn).zip(panel.chunks_exact_mut(record)) {
                for (value, place) in row.iter().skip(p * WIDTH).zip(record.as_chunks_mut().0) {
                    *place = value.to_le_bytes();
                }
            }
        }
        let form = Form::Panels { dtype: Dtype::F32, k, mn, r: WIDTH, panel_bytes };
        Ok(self.builder.weight(name, Place::Blobs, form, &bytes)?)
    }
}
