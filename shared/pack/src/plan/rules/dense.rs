//! Rules of what transformers are made of: rows stay inside of their tensor, heads and masks divide theirs.

use super::super::validate::Context;
use super::super::{FILTER_PANEL, Fact, PanelFormat, RowStrides};
use super::{Checked, f32, gives, operands, tensor};
use crate::dtype::Dtype;
use crate::tensor::element_count;
use crate::weights::WeightId;

/// The widest head of an attention: its keys are copied in panels of 16 rows, however few they are.
const WIDEST_HEAD: usize = 1 << 16;
/// Columns of a panel, and what the width of a head's values is a multiple of.
const WIDTH: usize = FILTER_PANEL;

pub(super) fn dense(
    context: &Context<'_>,
    weight: WeightId,
    rows: &RowStrides,
    (bias, residual): (bool, bool),
    inputs: &[&Fact],
    output: &Fact,
) -> Checked {
    let wanted = 1 + usize::from(bias) + usize::from(residual);
    if inputs.len() != wanted {
        return Err(format!("{} operands, expected {wanted}", inputs.len()));
    }
    let (depth, columns) = context.panel_extents(weight)?;
    let format = PanelFormat { dtype: Dtype::F32, r: WIDTH, align: 4, end_padding: 0 };
    context.f32_panels(weight, &format, depth, columns)?;
    let x = f32(inputs[0])?;
    let end = end(rows, depth).zip(element_count(x));
    if end.is_none_or(|(end, len)| end > len) {
        return Err(format!("{rows:?} of {depth} values reach outside of {x:?}"));
    }
    let shape = f32(output)?;
    let values = rows.outer.checked_mul(rows.inner).and_then(|rows| rows.checked_mul(columns));
    if values.is_none() || element_count(shape) != values {
        return Err(format!("gives {shape:?}, expected the {columns} columns of {rows:?}"));
    }
    if bias && element_count(f32(inputs[1])?) != Some(columns) {
        return Err(format!("a bias of {:?}, expected {columns} values", inputs[1]));
    }
    if residual && inputs[wanted - 1] != output {
        return Err(format!("a residual of {:?}, expected {output:?}", inputs[wanted - 1]));
    }
    Ok(())
}

/// Where the last row ends. `None` where that overflows or there is no row.
fn end(rows: &RowStrides, depth: usize) -> Option<usize> {
    let outer = rows.outer.checked_sub(1)?.checked_mul(rows.outer_stride)?;
    let inner = rows.inner.checked_sub(1)?.checked_mul(rows.inner_stride)?;
    outer.checked_add(inner)?.checked_add(depth)
}

/// Rows of several heads, each of which has the width that this gives.
fn width(shape: &[usize], extents: [usize; 3]) -> Result<usize, String> {
    let bad = || format!("found {shape:?}, expected the values of {extents:?} and some more");
    let [batch, rows, heads] = extents;
    let rows =
        batch.checked_mul(rows).and_then(|n| n.checked_mul(heads)).filter(|n| *n > 0).ok_or_else(bad)?;
    let len = element_count(shape).filter(|len| *len > 0 && len.is_multiple_of(rows)).ok_or_else(bad)?;
    Ok(len / rows)
}

pub(super) fn attention(
    [batch, heads, queries, keys]: [usize; 4],
    inputs: &[&Fact],
    output: &Fact,
) -> Checked {
    let ([q, k, v] | [q, k, v, _]) = inputs else {
        return Err(format!("{} operands, expected 3 or 4", inputs.len()));
    };
    let d = width(f32(q)?, [batch, queries, heads])?;
    let k_d = width(f32(k)?, [batch, keys, heads])?;
    let e = width(f32(v)?, [batch, keys, heads])?;
    let given = width(f32(output)?, [batch, queries, heads])?;
    if d != k_d || e != given || !e.is_multiple_of(WIDTH) {
        return Err(format!(
            "heads of {d} and {k_d} values, and of {e} and {given}, expected two pairs, the second of multiples of {WIDTH}"
        ));
    }
    if d > WIDEST_HEAD {
        return Err(format!("heads of {d} values, expected {WIDEST_HEAD} at most"));
    }
    if let [_, _, _, mask] = inputs {
        let (mask, whole) = (f32(mask)?, [batch, heads, queries, keys]);
        let fits =
            mask.len() == 4 && mask[3] == keys && mask.iter().zip(whole).all(|(m, n)| *m == 1 || *m == n);
        if !fits {
            return Err(format!("a mask of {mask:?}, expected extents of {whole:?} or 1"));
        }
    }
    Ok(())
}

pub(super) fn layer_norm(inputs: &[&Fact], output: &Fact) -> Checked {
    let [x, scale, bias] = operands(inputs)?;
    let (x, scale, bias) = (f32(x)?, f32(scale)?, f32(bias)?);
    let Some(n) = x.last() else { return Err("a scalar, expected rows".into()) };
    if element_count(scale) != Some(*n) || element_count(bias) != Some(*n) {
        return Err(format!("scale of {scale:?} and bias of {bias:?}, expected {n} values each"));
    }
    gives(output, inputs[0])
}

pub(super) fn one_hot_rows(
    context: &Context<'_>,
    table: WeightId,
    inputs: &[&Fact],
    output: &Fact,
) -> Checked {
    let [indices, bias] = operands(inputs)?;
    let (dtype, indices) = tensor(indices)?;
    if !matches!(dtype, Dtype::I64 | Dtype::I32) {
        return Err(format!("indices of {dtype}, expected i64 or i32"));
    }
    let (Dtype::F32, [_, columns]) = context.rows(table)? else {
        return Err(format!("weight {} is no matrix of f32", table.0));
    };
    if element_count(f32(bias)?) != Some(*columns) {
        return Err(format!("a bias of {bias:?}, expected {columns} values"));
    }
    let values = element_count(indices).and_then(|n| n.checked_mul(*columns));
    if values.is_none() || element_count(f32(output)?) != values {
        return Err(format!("gives {output:?}, expected {columns} columns for each of {indices:?}"));
    }
    Ok(())
}
