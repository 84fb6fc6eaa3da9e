//! What operators make of their operands' types and extents, one rule each.

use super::op::LoopScan;
use crate::dtype::Dtype;

/// A fact with its extents.
pub(super) type Shaped = (Dtype, Vec<usize>);

pub(super) type Inferred = Result<Vec<Shaped>, String>;

/// How many slices a tensor is cut into; all of them whole.
pub(super) fn slices(scan: &LoopScan, shape: &[usize]) -> Result<usize, String> {
    in_range(scan.axis, shape)?;
    let extent = shape[scan.axis];
    if scan.chunk == 0 || !extent.is_multiple_of(scan.chunk) {
        return Err(format!("slices of {} from {extent} positions", scan.chunk));
    }
    Ok(extent / scan.chunk)
}

pub(super) fn in_range(axis: usize, shape: &[usize]) -> Result<(), String> {
    if axis < shape.len() { Ok(()) } else { Err(format!("axis {axis} of {shape:?}")) }
}

pub(super) fn floats(dtype: Dtype) -> Result<(), String> {
    let float = matches!(dtype, Dtype::F32 | Dtype::F16);
    if float { Ok(()) } else { Err(format!("an operand of {dtype}, expected a float")) }
}

pub(super) fn same_type(inputs: &[Shaped]) -> Result<Dtype, String> {
    match inputs {
        [(dtype, _), rest @ ..] if rest.iter().all(|(other, _)| other == dtype) => Ok(*dtype),
        _ => Err(format!("operands of different types: {inputs:?}")),
    }
}

/// ONNX broadcasting between tensors of one rank.
pub(super) fn broadcast(inputs: &[Shaped]) -> Result<Vec<usize>, String> {
    let [(_, first), rest @ ..] = inputs else { return Err("no operands".into()) };
    let mut out = first.clone();
    for (_, shape) in rest {
        if shape.len() != out.len() {
            return Err(format!("operands of different rank: {inputs:?}"));
        }
        for (have, more) in out.iter_mut().zip(shape) {
            match (*have, *more) {
                (1, more) => *have = more,
                (have, more) if more == 1 || more == have => {}
                _ => return Err(format!("operands that do not broadcast: {inputs:?}")),
            }
        }
    }
    Ok(out)
}

/// Kernel and bias of a convolution.
pub(super) fn convolved(inputs: &[Shaped], kernel: &[usize], channels: usize) -> Result<(), String> {
    let [(dtype, _), (_, found), (_, bias)] = inputs else { return Err("expected x, kernel, bias".into()) };
    floats(*dtype)?;
    same_type(inputs)?;
    if found != kernel || !(bias.is_empty() || *bias == [channels]) {
        return Err(format!("kernel {found:?} and bias {bias:?}, expected {kernel:?} and [{channels}]"));
    }
    Ok(())
}

pub(super) fn einsum(equation: &str, inputs: &[Shaped]) -> Inferred {
    let (left, right) = equation.split_once("->").ok_or("an equation without an arrow")?;
    let mut letters: Vec<(char, usize)> = Vec::new();
    for (operand, (_, shape)) in left.split(',').zip(inputs) {
        if operand.len() != shape.len() {
            return Err(format!("{operand:?} for {shape:?}"));
        }
        for (letter, extent) in operand.chars().zip(shape) {
            match letters.iter_mut().find(|(l, _)| *l == letter) {
                Some((_, known)) if *known == 1 => *known = *extent,
                Some((_, known)) if *extent == 1 || known == extent => {}
                Some((_, known)) => return Err(format!("{letter} is {known} and {extent}")),
                None => letters.push((letter, *extent)),
            }
        }
    }
    let extent = |letter: char| letters.iter().find(|(l, _)| *l == letter).map_or(1, |(_, extent)| *extent);
    let dtype = same_type(inputs)?;
    if dtype == Dtype::Bool {
        return Err("operands of bool".into());
    }
    Ok(vec![(dtype, right.chars().map(extent).collect())])
}

pub(super) fn reduced(axes: &[usize], shape: &[usize]) -> Result<Vec<usize>, String> {
    let mut out = shape.to_vec();
    for axis in axes {
        in_range(*axis, shape)?;
        out[*axis] = 1;
    }
    Ok(out)
}

pub(super) fn gathered(axis: usize, inputs: &[Shaped]) -> Result<Vec<usize>, String> {
    let [(_, data), (Dtype::I64, indices)] = inputs else {
        return Err(format!("{inputs:?}, expected data and i64 indices"));
    };
    in_range(axis, data)?;
    let mut out = data.clone();
    out.splice(axis..=axis, indices.iter().copied()).for_each(drop);
    Ok(out)
}

pub(super) fn joined(axis: usize, inputs: &[Shaped]) -> Result<Vec<usize>, String> {
    same_type(inputs)?;
    let [(_, first), rest @ ..] = inputs else { return Err("no operands".into()) };
    in_range(axis, first)?;
    let mut out = first.clone();
    for (_, shape) in rest {
        let others_agree = shape.len() == out.len()
            && shape.iter().zip(first).enumerate().all(|(i, (a, b))| i == axis || a == b);
        if !others_agree {
            return Err(format!("{inputs:?} along axis {axis}"));
        }
        out[axis] = out[axis].checked_add(shape[axis]).ok_or("its size overflows")?;
    }
    Ok(out)
}

pub(super) fn chosen(inputs: &[Shaped]) -> Inferred {
    let [(Dtype::Bool, _), values @ ..] = inputs else {
        return Err(format!("{inputs:?}, expected a bool condition and two values"));
    };
    Ok(vec![(same_type(values)?, broadcast(inputs)?)])
}

pub(super) fn lstm(hidden: usize, inputs: &[Shaped]) -> Inferred {
    let [(_, gates), (dtype, cell)] = inputs else { return Err("expected gates and cell".into()) };
    floats(*dtype)?;
    same_type(inputs)?;
    let rows = |shape: &[usize], width: Option<usize>| match shape {
        [rows @ .., last] if Some(*last) == width => Some(rows.to_vec()),
        _ => None,
    };
    match (rows(gates, hidden.checked_mul(4)), rows(cell, Some(hidden))) {
        (Some(a), Some(b)) if a == b => Ok(vec![(*dtype, cell.clone()); 2]),
        _ => Err(format!("gates {gates:?} and cell {cell:?} of {hidden} values")),
    }
}
