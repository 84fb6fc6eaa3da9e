//! Products with a constant, their bias, a residual and an activation.

use super::activation;
use super::shape::{Letters, constant, extent, floats, letters, only_taker, other_operand};
use crate::planned::{NOT_YET, Planned};
use glowplug_pack::plan::{Activation, Op, RowStrides};
use tract_core::internal::*;

/// Products of fewer columns waste most of a panel.
pub(super) const FEWEST_COLUMNS: usize = 8;

pub(super) fn rule(model: &TypedModel, node: &TypedNode) -> TractResult<Option<TypedModelPatch>> {
    let Some(product) = product(model, node)? else { return Ok(None) };
    let Product { x, weight, weight_name, rows } = product;
    let (mut last, mut operands) = (node, tvec![x]);
    let columns = weight.shape()[1];
    let next = |last: &TypedNode| -> Option<(&TypedNode, OutletId)> {
        let taker = only_taker(model, last)?;
        other_operand(taker, "Add", last.id.into()).map(|other| (taker, other))
    };
    let mut patch = TypedModelPatch::new(format!("product {}", node.name));
    let (mut bias, mut residual, mut activation) = (false, false, Activation::Identity);
    let shape = floats(model, node.id.into())?.context("a product that is not f32")?;
    if let Some((taker, other)) = next(last)
        && is_bias(model, other, &shape, columns)
        && keeps_shape(model, taker, &shape)?
    {
        (last, bias) = (taker, true);
        operands.push(other);
    }
    if let Some((taker, other)) = next(last)
        && floats(model, other)?.as_deref() == Some(&*shape)
        && constant(model, other).is_none()
        && keeps_shape(model, taker, &shape)?
    {
        (last, residual) = (taker, true);
        operands.push(other);
    }
    if let Some((id, found)) = activation::after(model, last.id.into())? {
        (last, activation) = (model.node(id), found);
    }
    let op = Op::Dense { weight: NOT_YET, rows, bias, residual, activation };
    let op = Planned { op, weight: Some((weight_name, weight)), shape };
    let taps = patch.taps(model, &operands)?;
    let by = patch.wire_node(&node.name, op, &taps)?;
    patch.shunt_outside(model, last.id.into(), by[0])?;
    Ok(Some(patch))
}

/// Rows times a constant.
struct Product {
    x: OutletId,
    weight: Arc<Tensor>,
    weight_name: String,
    rows: RowStrides,
}

fn product(model: &TypedModel, node: &TypedNode) -> TractResult<Option<Product>> {
    let Some((ends, extents)) = letters(model, node)? else { return Ok(None) };
    for (x, w) in [(0, 1), (1, 0)] {
        let Some(weight) = constant(model, node.inputs[w]) else { continue };
        let Some(Roles { depth, columns, rows }) = roles(&ends[x], &ends[w], &ends[2]) else { continue };
        let [depth_extent, columns_extent, count] = [&depth, &columns, &rows].map(|l| extent(&extents, l));
        if columns_extent < FEWEST_COLUMNS {
            continue;
        }
        // The constant's axes in the order of depth and columns.
        let wanted: Letters = depth.iter().chain(&columns).copied().collect();
        let shape: TVec<usize> = ends[w].iter().map(|l| extents[l]).collect();
        let order: Vec<usize> = wanted.iter().filter_map(|l| ends[w].iter().position(|w| w == l)).collect();
        let weight = weight.into_tensor().into_shape(&shape)?.permute_axes(&order)?;
        let weight = weight.into_shape(&[depth_extent, columns_extent])?.into_arc_tensor();
        let rows = RowStrides { outer: 1, outer_stride: 0, inner: count, inner_stride: depth_extent };
        let weight_name = model.node(node.inputs[w].node).name.clone();
        return Ok(Some(Product { x: node.inputs[x], weight, weight_name, rows }));
    }
    Ok(None)
}

/// What the letters of a product are.
struct Roles {
    depth: Letters,
    columns: Letters,
    rows: Letters,
}

/// The roles, where the left side ends in the depth and the output in the columns, rows being in the same order
/// before them: then both are rows that lie one after the other.
fn roles(x: &[char], w: &[char], out: &[char]) -> Option<Roles> {
    let (depth, rows): (Letters, Letters) = x.iter().copied().partition(|l| w.contains(l));
    let columns: Letters = out.iter().copied().filter(|l| w.contains(l)).collect();
    let fits = !depth.is_empty()
        && !columns.is_empty()
        && x.ends_with(&depth)
        && out == [rows.as_slice(), &columns].concat()
        && w.len() == depth.len() + columns.len()
        && depth.iter().all(|l| !out.contains(l));
    fits.then_some(Roles { depth, columns, rows })
}

/// Whether `outlet` is a value for each column: a constant of the last axes alone.
fn is_bias(model: &TypedModel, outlet: OutletId, shape: &[usize], columns: usize) -> bool {
    let Some(bias) = constant(model, outlet) else { return false };
    let mut left = columns;
    bias.len() == columns
        && bias.rank() == shape.len()
        && bias.shape().iter().zip(shape).rev().all(|(found, extent)| {
            let wanted = if left > 1 { *extent } else { 1 };
            left /= wanted.max(1);
            *found == wanted
        })
}

fn keeps_shape(model: &TypedModel, node: &TypedNode, shape: &[usize]) -> TractResult<bool> {
    Ok(floats(model, node.id.into())?.as_deref() == Some(shape))
}
