//! Products with a constant, their bias, a residual and an activation.

use super::activation;
use super::shape::{Letters, constant, extent, floats, letters, only_taker, other_operand};
use crate::planned::{NOT_YET, Planned};
use glowplug_pack::plan::{Activation, Op, RowStrides};
use std::collections::HashMap;
use tract_core::internal::*;
use tract_core::ops::change_axes::perm_to_ops;

/// Products of fewer columns waste most of a panel.
pub(super) const FEWEST_COLUMNS: usize = 8;

pub(super) fn rule(model: &TypedModel, node: &TypedNode) -> TractResult<Option<TypedModelPatch>> {
    let Some(product) = product(model, node)? else { return turned(model, node) };
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
        let weight = matrix(weight, &ends[w], &extents, (&depth, &columns))?;
        let rows = RowStrides { outer: 1, outer_stride: 0, inner: count, inner_stride: depth_extent };
        let weight_name = model.node(node.inputs[w].node).name.clone();
        return Ok(Some(Product { x: node.inputs[x], weight, weight_name, rows }));
    }
    Ok(None)
}

/// A constant of axes `letters` as a matrix `[depth, columns]`.
fn matrix(
    weight: Arc<Tensor>,
    letters: &[char],
    extents: &HashMap<char, usize>,
    (depth, columns): (&[char], &[char]),
) -> TractResult<Arc<Tensor>> {
    let shape: TVec<usize> = letters.iter().map(|l| extents[l]).collect();
    let wanted = [depth, columns].concat();
    let weight = weight.into_tensor().into_shape(&shape)?.permute_axes(&order(letters, &wanted))?;
    let shape = [depth, columns].map(|letters| extent(extents, letters));
    Ok(weight.into_shape(&shape)?.into_arc_tensor())
}

/// Where in `from` each letter of `to` is.
fn order(from: &[char], to: &[char]) -> Vec<usize> {
    to.iter().filter_map(|l| from.iter().position(|f| f == l)).collect()
}

/// A product whose rows do not lie one after the other, as where channels come before positions: its rows are put
/// in order before and its columns after. What follows stays by itself.
fn turned(model: &TypedModel, node: &TypedNode) -> TractResult<Option<TypedModelPatch>> {
    let Some((ends, extents)) = letters(model, node)? else { return Ok(None) };
    for (x, w) in [(0, 1), (1, 0)] {
        let Some(weight) = constant(model, node.inputs[w]) else { continue };
        let [left, right, out] = [&ends[x], &ends[w], &ends[2]];
        let (depth, columns): (Letters, Letters) = right.iter().copied().partition(|l| left.contains(l));
        let rows: Letters = out.iter().copied().filter(|l| left.contains(l)).collect();
        let fits = !depth.is_empty()
            && depth.iter().all(|l| !out.contains(l))
            && columns.iter().all(|l| out.contains(l))
            && left.len() == rows.len() + depth.len()
            && out.len() == rows.len() + columns.len();
        let [depth_extent, columns_extent, count] = [&depth, &columns, &rows].map(|l| extent(&extents, l));
        // Turning takes a pass over both sides: not where there is hardly more to multiply.
        if !fits || columns_extent < FEWEST_COLUMNS || depth_extent < FEWEST_COLUMNS {
            continue;
        }
        let weight = matrix(weight, right, &extents, (&depth, &columns))?;
        let rows_of = RowStrides { outer: 1, outer_stride: 0, inner: count, inner_stride: depth_extent };
        let op = Op::Dense {
            weight: NOT_YET,
            rows: rows_of,
            bias: false,
            residual: false,
            activation: Activation::Identity,
        };
        let name = model.node(node.inputs[w].node).name.clone();
        let (given, wanted) = ([rows.as_slice(), &columns].concat(), [rows.as_slice(), &depth].concat());
        let shape = |letters: &[char]| letters.iter().map(|l| extents[l]).collect::<TVec<usize>>();
        let mut patch = TypedModelPatch::new(format!("turned product {}", node.name));
        let mut wire = Wire { patch: &mut patch, name: &node.name, steps: 0 };
        let tap = wire.patch.tap_model(model, node.inputs[x])?;
        let plain = wire.reshape(tap, &shape(left))?;
        let ordered = wire.turn(plain, &order(left, &wanted))?;
        let op = Planned { op, weight: Some((name, weight)), shape: shape(&given) };
        let product = wire.patch.wire_node(&node.name, op, &[ordered])?[0];
        let turned = wire.turn(product, &order(&given, out))?;
        let full = floats(model, node.id.into())?.context("a product that is not f32")?;
        let by = wire.reshape(turned, &full)?;
        patch.shunt_outside(model, node.id.into(), by)?;
        return Ok(Some(patch));
    }
    Ok(None)
}

/// Steps that only rename or move axes.
struct Wire<'a> {
    patch: &'a mut TypedModelPatch,
    name: &'a str,
    steps: usize,
}

impl Wire<'_> {
    fn step(&mut self, op: AxisOp, x: OutletId) -> TractResult<OutletId> {
        self.steps += 1;
        let name = format!("{}.turned.{}", self.name, self.steps);
        Ok(self.patch.wire_node(name, op, &[x])?[0])
    }

    fn reshape(&mut self, x: OutletId, to: &[usize]) -> TractResult<OutletId> {
        let from = self.patch.outlet_fact(x)?.shape.to_tvec();
        let to: TVec<TDim> = to.iter().map(|d| d.to_dim()).collect();
        if from == to { Ok(x) } else { self.step(AxisOp::Reshape(0, from, to), x) }
    }

    fn turn(&mut self, x: OutletId, order: &[usize]) -> TractResult<OutletId> {
        perm_to_ops(order).into_iter().try_fold(x, |x, op| self.step(op, x))
    }
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
