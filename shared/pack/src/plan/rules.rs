//! One rule per operator: what its operands and its outputs have to be.

mod blocked;
mod dense;
mod int8;
mod moves;
mod scan;
mod windows;

pub use blocked::conv_copies_little;
pub(super) use int8::{laid_out, made_in_bytes};

use super::validate::Context;
use super::{Fact, Function, Op, Reducer, Share, Step, matmul};
use crate::dtype::Dtype;
use crate::tensor::element_count;
use crate::weights::WeightId;

/// Extents above this are refused where they enter products of several: no index arithmetic overflows.
const MAX_EXTENT: usize = 1 << 24;

type Checked = Result<(), String>;

/// Whether `op` may be applied to `inputs` and gives `outputs`.
pub(super) fn check(context: &Context<'_>, op: &Op, inputs: &[&Fact], outputs: &[Fact]) -> Checked {
    match (op, outputs) {
        (Op::Scan { body, inputs: from, outputs: to }, _) => {
            scan::check(context, *body, (from, to), inputs, outputs)
        }
        (Op::LstmCell, [h, c]) => scan::lstm_cell(inputs, h, c),
        (Op::LstmCell, _) => Err(format!("{} outputs, expected 2", outputs.len())),
        (_, [output]) => one(context, op, inputs, output),
        _ => Err(format!("{} outputs, expected 1", outputs.len())),
    }
}

/// As [`check`], for the operators with one output.
fn one(context: &Context<'_>, op: &Op, inputs: &[&Fact], output: &Fact) -> Checked {
    match op {
        Op::Source => operands::<0>(inputs).and_then(|_| tensor(output).map(drop)),
        Op::Constant { weight } => constant(context, *weight, inputs, output),
        Op::Panels { weights } => panels(context, weights, inputs, output),
        Op::Prepack { format, k_axis, mn_axis } => {
            let [x] = operands(inputs)?;
            let (batch, k, mn) = without(f32(x)?, *k_axis, *mn_axis)?;
            gives(output, &Fact::Panels { format: *format, batch, k, mn })
        }
        Op::Im2col { format, window, group } => windows::im2col(format, window, *group, inputs, output),
        Op::MatMul { kernel, a, b, m_axis, n_axis, fused } => {
            let product = matmul::Product { a, b, m_axis: *m_axis, n_axis: *n_axis, fused };
            matmul::check(context, *kernel, &product, inputs, f32(output)?)
        }
        Op::DepthwiseConv { window, kernel } => windows::depthwise(context, window, *kernel, inputs, output),
        Op::DirectConv { window, kernel } => windows::direct_conv(context, window, *kernel, inputs, output),
        Op::BlockChannels => blocked::block(inputs, output),
        Op::UnblockChannels => blocked::unblock(inputs, output),
        Op::BlockedConv { window, kernel, steps } => {
            blocked::conv(context, window, *kernel, steps, inputs, output)
        }
        Op::BlockedDepthwiseConv { window, kernel, steps } => {
            blocked::depthwise(context, window, *kernel, steps, inputs, output)
        }
        Op::QuantizeImage { inverse, zero } => int8::quantize(*inverse, *zero, inputs, output),
        Op::DequantizeImage { scale, zero } => int8::dequantize(*scale, *zero, inputs, output),
        Op::Int8Conv { window, kernel, zero, residual, tail } => {
            int8::activation(*zero)?;
            int8::conv(context, window, *kernel, *residual, tail, inputs, output)
        }
        Op::Int8DepthwiseConv { window, kernel, zero, tail } => {
            int8::activation(*zero)?;
            int8::depthwise(context, window, *kernel, tail, inputs, output)
        }
        Op::Int8MaxPool { window } => int8::max_pool(window, inputs, output),
        Op::Col2Im { window } => windows::col2im(window, inputs, output),
        Op::MaxPool { window } | Op::AveragePool { window, .. } => {
            let [x] = operands(inputs)?;
            gives(output, &Fact::f32(&windows::slid(f32(x)?, window)?))
        }
        Op::Chain { steps } => chain(steps, inputs, output),
        Op::Binary { .. } => {
            let [x, y] = operands(inputs)?;
            gives(output, &Fact::f32(&broadcast(f32(x)?, f32(y)?)?))
        }
        Op::Unary { .. } => {
            let [x] = operands(inputs)?;
            gives(output, &Fact::f32(f32(x)?))
        }
        Op::Compare { .. } => {
            let [x, y] = operands(inputs)?;
            let ((dtype, x), (other, y)) = (tensor(x)?, tensor(y)?);
            if dtype != other || dtype == Dtype::Bool {
                return Err(format!("compares {dtype} with {other}, expected numbers of one dtype"));
            }
            gives(output, &Fact::Tensor { dtype: Dtype::Bool, shape: broadcast(x, y)? })
        }
        Op::Logic { .. } => {
            let [x, y] = operands(inputs)?;
            let shape = broadcast(bools(x)?, bools(y)?)?;
            gives(output, &Fact::Tensor { dtype: Dtype::Bool, shape })
        }
        Op::Function { op } => {
            let [x] = operands(inputs)?;
            if *op == Function::Not { bools(x) } else { f32(x) }?;
            gives(output, x)
        }
        Op::Where => {
            let [condition, x, y] = operands(inputs)?;
            let ((dtype, x), (other, y)) = (tensor(x)?, tensor(y)?);
            if dtype != other {
                return Err(format!("chooses between {dtype} and {other}, expected one dtype"));
            }
            let shape = broadcast(&broadcast(bools(condition)?, x)?, y)?;
            gives(output, &Fact::Tensor { dtype, shape })
        }
        Op::Reduce { axes, reducer } => {
            let [x] = operands(inputs)?;
            let mut shape = f32(x)?.to_vec();
            distinct(axes, shape.len())?;
            if !axes.is_sorted() {
                return Err(format!("axes {axes:?}, expected them in order"));
            }
            axes.iter().for_each(|a| shape[*a] = 1);
            let index = matches!(reducer, Reducer::ArgMax | Reducer::ArgMin);
            if index && axes.len() != 1 {
                return Err(format!("{reducer:?} over {axes:?}, expected one axis"));
            }
            let dtype = if index { Dtype::I64 } else { Dtype::F32 };
            gives(output, &Fact::Tensor { dtype, shape })
        }
        Op::Softmax { axes } => {
            let [x] = operands(inputs)?;
            distinct(axes, f32(x)?.len())?;
            gives(output, x)
        }
        Op::RmsNorm { axis, .. } => {
            let [x] = operands(inputs)?;
            distinct(&[*axis], f32(x)?.len())?;
            gives(output, x)
        }
        Op::Reshape => reshape(inputs, output),
        Op::MoveAxis { from, to } => move_axis(*from, *to, inputs, output),
        Op::Cast => {
            let [x] = operands(inputs)?;
            let (dtype, _) = tensor(output)?;
            gives(output, &Fact::Tensor { dtype, shape: tensor(x)?.1.to_vec() })
        }
        Op::GatherRows { table } => gather_rows(context, *table, inputs, output),
        Op::Slice { axis, start, step } => moves::slice(*axis, *start, *step, inputs, output),
        Op::Concat { axis } => moves::concat(*axis, inputs, output),
        Op::Pad { pads, mode } => moves::pad(pads, *mode, inputs, output),
        Op::Upsample { scales } => moves::upsample(scales, inputs, output),
        Op::Expand => moves::expand(inputs, output),
        Op::Gather { axis } => moves::gather(*axis, inputs, output),
        Op::Dense { weight, rows, bias, residual, .. } => {
            dense::dense(context, *weight, rows, (*bias, *residual), inputs, output)
        }
        Op::Attention { batch, heads, queries, keys, .. } => {
            dense::attention([*batch, *heads, *queries, *keys], inputs, output)
        }
        Op::LayerNorm { .. } => dense::layer_norm(inputs, output),
        Op::OneHotRows { table, .. } => dense::one_hot_rows(context, *table, inputs, output),
        Op::LstmCell | Op::Scan { .. } => Err("1 output, expected another number".into()),
    }
}

fn operands<'a, const N: usize>(inputs: &[&'a Fact]) -> Result<[&'a Fact; N], String> {
    inputs.try_into().map_err(|_| format!("{} operands, expected {N}", inputs.len()))
}

fn tensor(fact: &Fact) -> Result<(Dtype, &[usize]), String> {
    match fact {
        Fact::Tensor { dtype, shape } => Ok((*dtype, shape)),
        Fact::Panels { .. } => Err(format!("found {fact:?}, expected a tensor")),
    }
}

/// The shape of an f32 tensor.
pub(super) fn f32(fact: &Fact) -> Result<&[usize], String> {
    match tensor(fact)? {
        (Dtype::F32, shape) => Ok(shape),
        (dtype, _) => Err(format!("found a tensor of {dtype}, expected f32")),
    }
}

fn gives(output: &Fact, wanted: &Fact) -> Checked {
    if output == wanted { Ok(()) } else { Err(format!("gives {output:?}, expected {wanted:?}")) }
}

/// Axes in range, none twice.
fn distinct(axes: &[usize], rank: usize) -> Checked {
    // First: the search below is quadratic, and the list itself too long to print.
    if axes.len() > rank {
        return Err(format!("{} axes, expected distinct ones below {rank}", axes.len()));
    }
    let repeated = axes.iter().enumerate().any(|(i, a)| axes[..i].contains(a));
    if axes.is_empty() || repeated || axes.iter().any(|a| *a >= rank) {
        return Err(format!("axes {axes:?}, expected distinct ones below {rank}"));
    }
    Ok(())
}

/// `shape` without two axes, and their extents.
fn without(shape: &[usize], k_axis: usize, mn_axis: usize) -> Result<(Vec<usize>, usize, usize), String> {
    distinct(&[k_axis, mn_axis], shape.len())?;
    let rest = shape.iter().enumerate().filter(|(i, _)| *i != k_axis && *i != mn_axis);
    Ok((rest.map(|(_, d)| *d).collect(), shape[k_axis], shape[mn_axis]))
}

fn constant(context: &Context<'_>, weight: WeightId, inputs: &[&Fact], output: &Fact) -> Checked {
    operands::<0>(inputs)?;
    let (dtype, shape) = context.plain(weight)?;
    gives(output, &Fact::Tensor { dtype, shape: shape.to_vec() })
}

fn panels(context: &Context<'_>, weights: &[WeightId], inputs: &[&Fact], output: &Fact) -> Checked {
    operands::<0>(inputs)?;
    let Fact::Panels { format, batch, k, mn } = output else {
        return Err(format!("gives {output:?}, expected panels"));
    };
    if element_count(batch) != Some(weights.len()) {
        return Err(format!("{} weights, expected one for each of the batch {batch:?}", weights.len()));
    }
    weights.iter().try_for_each(|w| context.panels(*w, format, *k, *mn))
}

fn chain(steps: &[Step], inputs: &[&Fact], output: &Fact) -> Checked {
    let [x, operands @ ..] = inputs else {
        return Err("0 operands, expected 1 more than steps".into());
    };
    if operands.len() != steps.len() {
        return Err(format!("{} operands for {} steps, expected 1 more", inputs.len(), steps.len()));
    }
    let shape = f32(x)?;
    for (step, operand) in steps.iter().zip(operands) {
        let small = f32(operand)?;
        let differs = |d: &(&usize, &usize)| d.0 != d.1;
        let pairs = || shape.iter().zip(small);
        let fits = small.len() == shape.len()
            && match step.share {
                Share::Lockstep => !pairs().skip_while(|(_, s)| **s == 1).any(|d| differs(&d)),
                Share::PerBlock => pairs().skip_while(|d| !differs(d)).all(|(_, s)| *s == 1),
            };
        if !fits {
            return Err(format!("operand of shape {small:?} for {:?} over {shape:?}", step.share));
        }
    }
    gives(output, x)
}

/// ONNX broadcasting between shapes of one rank.
/// The shape of a tensor of bools.
fn bools(fact: &Fact) -> Result<&[usize], String> {
    match tensor(fact)? {
        (Dtype::Bool, shape) => Ok(shape),
        (dtype, _) => Err(format!("found {dtype}, expected bool")),
    }
}

fn broadcast(x: &[usize], y: &[usize]) -> Result<Vec<usize>, String> {
    let bad = || format!("shapes {x:?} and {y:?} do not broadcast");
    if x.len() != y.len() {
        return Err(bad());
    }
    x.iter()
        .zip(y)
        .map(|(a, b)| {
            if *a == *b || *b == 1 {
                Ok(*a)
            } else if *a == 1 {
                Ok(*b)
            } else {
                Err(bad())
            }
        })
        .collect()
}

fn reshape(inputs: &[&Fact], output: &Fact) -> Checked {
    let [x] = operands(inputs)?;
    let ((from, old), (to, new)) = (tensor(x)?, tensor(output)?);
    if from != to || element_count(old) != element_count(new) {
        return Err(format!("gives {to} {new:?}, expected as many values of {from} as {old:?} has"));
    }
    Ok(())
}

fn move_axis(from: usize, to: usize, inputs: &[&Fact], output: &Fact) -> Checked {
    let [x] = operands(inputs)?;
    let (dtype, shape) = tensor(x)?;
    if from >= shape.len() || to >= shape.len() {
        return Err(format!("axis {from} to {to}, expected both below {}", shape.len()));
    }
    let mut shape = shape.to_vec();
    let extent = shape.remove(from);
    shape.insert(to, extent);
    gives(output, &Fact::Tensor { dtype, shape })
}

fn gather_rows(context: &Context<'_>, table: WeightId, inputs: &[&Fact], output: &Fact) -> Checked {
    let [indices] = operands(inputs)?;
    let (Dtype::I64, indices) = tensor(indices)? else {
        return Err(format!("indices are {indices:?}, expected i64"));
    };
    let (dtype, [_, row @ ..]) = context.rows(table)? else {
        return Err("the table is a scalar, expected rows".into());
    };
    gives(output, &Fact::Tensor { dtype, shape: [indices, row].concat() })
}
