//! softmax(scale * Q K^T + mask) V, whatever moves the heads about before and after it.

use super::shape::{extent, floats, letters, only_taker, other_operand, scalar, unnamed};
use crate::planned::Planned;
use glowplug_pack::plan::{FILTER_PANEL, Op};
use tract_core::internal::*;
use tract_core::ops::nn::{Softmax, SoftmaxKind};

/// What the width of a head's values is a multiple of.
const WIDTH: usize = FILTER_PANEL;

pub(super) fn rule(model: &TypedModel, node: &TypedNode) -> TractResult<Option<TypedModelPatch>> {
    let Some(softmax) = node.op_as::<Softmax>() else { return Ok(None) };
    let Some(shape) = floats(model, node.id.into())? else { return Ok(None) };
    let plain = softmax.kind == SoftmaxKind::Softmax && softmax.quant_output_dt.is_none();
    if !plain || *softmax.axes != [shape.len().wrapping_sub(1)] {
        return Ok(None);
    }
    let Some(scores) = scores(model, node.inputs[0], &shape)? else { return Ok(None) };
    let Some(mixed) = only_taker(model, node) else { return Ok(None) };
    let Some(heads) = heads(model, scores.product, node, mixed)? else { return Ok(None) };
    let Heads { batch, heads, queries, keys, v } = heads;
    if scores.mask.is_some() && *shape != [batch, heads, queries, keys] {
        return Ok(None);
    }
    let Some(out) = floats(model, mixed.id.into())? else { return Ok(None) };
    let op = Op::Attention { batch, heads, queries, keys, scale: scores.scale };
    let op = Planned { op, weight: None, shape: out };
    let operands = [scores.product.inputs[0], scores.product.inputs[1], v].map(|o| unnamed(model, o));
    let operands: TVec<OutletId> = operands.into_iter().chain(scores.mask).collect();
    let mut patch = TypedModelPatch::new(format!("attention {}", node.name));
    let taps = patch.taps(model, &operands)?;
    let by = patch.wire_node(&node.name, op, &taps)?;
    patch.shunt_outside(model, mixed.id.into(), by[0])?;
    Ok(Some(patch))
}

/// Where the scores come from.
struct Scores<'a> {
    product: &'a TypedNode,
    scale: f32,
    mask: Option<OutletId>,
}

/// `product * scale + mask`, each of which may be missing.
fn scores<'a>(model: &'a TypedModel, outlet: OutletId, shape: &[usize]) -> TractResult<Option<Scores<'a>>> {
    let mut node = model.node(outlet.node);
    let (mut scale, mut mask) = (1.0, None);
    let whole = |outlet: OutletId| Ok::<_, TractError>(floats(model, outlet)?.as_deref() == Some(shape));
    // A mask is smaller than the scores, by its heads at least; of two that are not, neither can be told from the other.
    if let [a, b] = *node.inputs.as_slice()
        && other_operand(node, "Add", a).is_some()
    {
        let (of_product, added) = match (is_scaled_product(model, a), is_scaled_product(model, b)) {
            (true, false) => (a, b),
            (false, true) => (b, a),
            _ => return Ok(None),
        };
        let Some(extents) = floats(model, added)? else { return Ok(None) };
        let fits = extents.len() == shape.len()
            && extents.last() == shape.last()
            && extents.iter().zip(shape).all(|(m, n)| *m == 1 || m == n);
        if !fits || only_taker(model, model.node(of_product.node)).is_none() {
            return Ok(None);
        }
        (node, mask) = (model.node(of_product.node), Some(added));
    }
    if let [a, b] = *node.inputs.as_slice()
        && other_operand(node, "Mul", a).is_some()
    {
        let (of_product, factor) = match (scalar(model, a), scalar(model, b)) {
            (Some(factor), None) => (b, factor),
            (None, Some(factor)) => (a, factor),
            _ => return Ok(None),
        };
        if only_taker(model, model.node(of_product.node)).is_none() {
            return Ok(None);
        }
        (node, scale) = (model.node(of_product.node), factor);
    }
    if !whole(node.id.into())? {
        return Ok(None);
    }
    Ok(Some(Scores { product: node, scale, mask }))
}

/// Whether an outlet is an einsum, or one times a number.
fn is_scaled_product(model: &TypedModel, outlet: OutletId) -> bool {
    let is_einsum = |id: usize| model.node(id).op_is::<tract_core::ops::einsum::EinSum>();
    let node = model.node(outlet.node);
    is_einsum(node.id)
        || node.inputs.iter().any(|i| {
            is_einsum(i.node) && other_operand(node, "Mul", *i).is_some_and(|f| scalar(model, f).is_some())
        })
}

/// How the operands are shared out.
struct Heads {
    batch: usize,
    heads: usize,
    queries: usize,
    keys: usize,
    v: OutletId,
}

/// The roles of the letters of both products, where every operand is `[batch, rows, heads, width]` in memory.
fn heads(
    model: &TypedModel,
    product: &TypedNode,
    softmax: &TypedNode,
    mixed: &TypedNode,
) -> TractResult<Option<Heads>> {
    let Some(([q, k, scores], extents)) = letters(model, product)? else { return Ok(None) };
    let Some((ends, mixed_extents)) = letters(model, mixed)? else { return Ok(None) };
    if only_taker(model, product).is_none() {
        return Ok(None);
    }
    let (probabilities, values) = if mixed.inputs[0] == softmax.id.into() { (0, 1) } else { (1, 0) };
    let (p, v, out) = (&ends[probabilities], &ends[values], &ends[2]);
    let depth: Vec<char> = q.iter().copied().filter(|l| k.contains(l) && !scores.contains(l)).collect();
    let shared: Vec<char> = q.iter().copied().filter(|l| k.contains(l) && scores.contains(l)).collect();
    let rows: Vec<char> = q.iter().copied().filter(|l| !k.contains(l)).collect();
    let keys: Vec<char> = k.iter().copied().filter(|l| !q.contains(l)).collect();
    let width: Vec<char> = v.iter().copied().filter(|l| !p.contains(l)).collect();
    let ([depth], [key], [width]) = (depth.as_slice(), keys.as_slice(), width.as_slice()) else {
        return Ok(None);
    };
    if rows.len() > 1 || p.len() != scores.len() || v.len() != k.len() {
        return Ok(None);
    }
    // The last letter that both share is the heads, those before it the batch.
    let Some((head, batch)) = shared.split_last() else { return Ok(None) };
    let lies =
        |letters: &[char], rows: &[char], width: char| letters == [batch, rows, &[*head, width]].concat();
    // The second einsum has letters of its own for the same axes.
    let renamed = |l: char| scores.iter().position(|s| *s == l).map(|i| p[i]);
    let rename = |letters: &[char]| letters.iter().map(|l| renamed(*l)).collect::<Option<Vec<char>>>();
    let (Some(batch_2), Some(rows_2), Some(head_2), Some(key_2)) =
        (rename(batch), rename(&rows), renamed(*head), renamed(*key))
    else {
        return Ok(None);
    };
    let lies_2 = |letters: &[char], rows: &[char]| letters == [&*batch_2, rows, &[head_2, *width]].concat();
    let fits = lies(&q, &rows, *depth)
        && lies(&k, &[*key], *depth)
        && scores == [batch, &[*head], &rows, &[*key]].concat()
        && lies_2(v, &[key_2])
        && lies_2(out, &rows_2)
        && mixed_extents[width].is_multiple_of(WIDTH);
    Ok(fits.then(|| Heads {
        batch: extent(&extents, batch),
        heads: extents[head],
        queries: extent(&extents, &rows),
        keys: extents[key],
        v: mixed.inputs[values],
    }))
}
