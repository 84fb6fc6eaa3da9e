//! Rules of what moves values about without computing.

use super::super::{Fact, PadMode};
use super::{Checked, MAX_EXTENT, f32, gives, operands, tensor};
use crate::dtype::Dtype;

fn in_range(axis: usize, shape: &[usize]) -> Checked {
    if axis < shape.len() { Ok(()) } else { Err(format!("axis {axis} of {shape:?}")) }
}

pub(super) fn slice(axis: usize, start: usize, step: usize, inputs: &[&Fact], output: &Fact) -> Checked {
    let [x] = operands(inputs)?;
    let (dtype, shape) = tensor(x)?;
    in_range(axis, shape)?;
    let taken = tensor(output)?.1.get(axis).copied().unwrap_or_default();
    let wanted = format!("slice of {taken} from {start} by {step} of axis {axis} of {shape:?}");
    let last = taken.checked_sub(1).and_then(|n| n.checked_mul(step)?.checked_add(start));
    // The strided copy runs to the end of the axis.
    let whole = step == 1 || (step > 1 && (shape[axis].saturating_sub(start)).div_ceil(step) == taken);
    if !whole || last.is_none_or(|last| last >= shape[axis]) {
        return Err(format!("{wanted} reaches outside"));
    }
    let mut shape = shape.to_vec();
    shape[axis] = taken;
    gives(output, &Fact::Tensor { dtype, shape })
}

pub(super) fn concat(axis: usize, inputs: &[&Fact], output: &Fact) -> Checked {
    let [first, rest @ ..] = inputs else { return Err("0 operands, expected at least 1".into()) };
    let (dtype, shape) = tensor(first)?;
    in_range(axis, shape)?;
    let mut total = shape.to_vec();
    for operand in rest {
        let (other, found) = tensor(operand)?;
        let along = found.get(axis).copied().unwrap_or_default();
        let mut wanted = shape.to_vec();
        wanted[axis] = along;
        if other != dtype || found != wanted {
            return Err(format!("operands {dtype} {shape:?} and {other} {found:?} along axis {axis}"));
        }
        total[axis] = total[axis].checked_add(along).ok_or("extent overflows")?;
    }
    gives(output, &Fact::Tensor { dtype, shape: total })
}

pub(super) fn pad(pads: &[(usize, usize)], mode: PadMode, inputs: &[&Fact], output: &Fact) -> Checked {
    let [x] = operands(inputs)?;
    let shape = f32(x)?;
    if pads.len() != shape.len() {
        return Err(format!("{} pads, expected {}", pads.len(), shape.len()));
    }
    let mirrors = mode == PadMode::Reflect;
    let padded = shape.iter().zip(pads).map(|(extent, (before, after))| {
        let most = if mirrors { extent - 1 } else { MAX_EXTENT };
        if *before > most || *after > most || *extent > MAX_EXTENT {
            return Err(format!("pads ({before}, {after}) of {extent}, expected at most {most}"));
        }
        Ok(before + extent + after)
    });
    gives(output, &Fact::f32(&padded.collect::<Result<Vec<_>, _>>()?))
}

pub(super) fn upsample(scales: &[usize], inputs: &[&Fact], output: &Fact) -> Checked {
    let [x] = operands(inputs)?;
    let shape = f32(x)?;
    if scales.len() != shape.len() || scales.contains(&0) {
        return Err(format!("{} scales, expected {} above 0", scales.len(), shape.len()));
    }
    let scaled = shape.iter().zip(scales).map(|(extent, scale)| extent.checked_mul(*scale));
    gives(output, &Fact::f32(&scaled.collect::<Option<Vec<_>>>().ok_or("extent overflows")?))
}

pub(super) fn expand(inputs: &[&Fact], output: &Fact) -> Checked {
    let [x] = operands(inputs)?;
    let ((from, old), (to, new)) = (tensor(x)?, tensor(output)?);
    let repeats = old.len() == new.len() && old.iter().zip(new).all(|(o, n)| o == n || *o == 1);
    if from == to && repeats { Ok(()) } else { Err(format!("expands {from} {old:?} to {to} {new:?}")) }
}

pub(super) fn gather(axis: usize, inputs: &[&Fact], output: &Fact) -> Checked {
    let [data, indices] = operands(inputs)?;
    let (dtype, data) = tensor(data)?;
    in_range(axis, data)?;
    let (Dtype::I64, indices) = tensor(indices)? else {
        return Err(format!("indices are {indices:?}, expected i64"));
    };
    gives(output, &Fact::Tensor { dtype, shape: [&data[..axis], indices, &data[axis + 1..]].concat() })
}
