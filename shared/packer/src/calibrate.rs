//! What weights are multiplied with, measured on calibration data: the float model is run, and the second moments of the
//! inputs of each weight's readers are summed.

use crate::error::{PackerError, guard};
use crate::evaluate::Feed;
use crate::quantize::{Candidate, Moments};
use std::collections::HashMap;
use tract_core::internal::tract_ndarray::{Array2, ArrayD, Axis, Ix2};
use tract_core::internal::*;
use tract_core::ops::cnn::{Conv, KernelFormat};
use tract_core::ops::einsum::EinSum;

/// Weights of more depth are rounded each by itself: the moments are `depth^2` values and their factors take
/// `depth^3 / 3` multiplications.
const MOST_DEPTH: usize = 2400;
/// Rows of inputs for each weight, at least, where calibration data have as many; and as a multiple of its depth.
const ROWS: usize = 2048;
const ROWS_FOR_DEPTH: usize = 2;

/// A reader of a weight, and where in the graph its other operand is.
struct Reader {
    weight: String,
    input: OutletId,
    rows: Rows,
}

/// How an input becomes rows of a weight's depth.
enum Rows {
    /// Axes that are not summed over, then those that are, in the weight's order.
    Product { rows: Vec<usize>, depth: Vec<usize> },
    /// Windows of an image, as `[C, kernel axes]`.
    Windows(Box<Conv>),
}

/// The second moments of the inputs of `candidates`, by name, over all of `feed`. Tables, depthwise kernels and
/// what is deeper than [`MOST_DEPTH`] have none. Errors: the model cannot be run on these data.
pub(crate) fn moments(
    model: &TypedModel,
    candidates: &[Candidate],
    feed: &Feed<'_>,
    progress: &mut dyn FnMut(usize),
) -> Result<HashMap<String, Moments>, PackerError> {
    guard("calibrate", || {
        collect(model, candidates, feed, progress).map_err(|e| PackerError::model("calibrate", &e))
    })
}

fn collect(
    model: &TypedModel,
    candidates: &[Candidate],
    feed: &Feed<'_>,
    progress: &mut dyn FnMut(usize),
) -> TractResult<HashMap<String, Moments>> {
    let mut model = model.clone();
    let readers = readers(&model, candidates)?;
    let mut outlets: Vec<OutletId> = Vec::new();
    readers.iter().for_each(|r| {
        if !outlets.contains(&r.input) {
            outlets.push(r.input);
        }
    });
    let mut found = HashMap::new();
    if readers.is_empty() {
        return Ok(found);
    }
    model.select_output_outlets(&outlets)?;
    let model = model.into_optimized()?.into_runnable()?;
    for run in 0..feed.runs() {
        progress(run);
        let values = model.run(feed.values(run)?)?;
        for reader in &readers {
            let Some(at) = outlets.iter().position(|o| *o == reader.input) else { continue };
            let rows = reader.rows.of(&values[at], run, feed.runs())?;
            let moments = found.entry(reader.weight.clone()).or_insert_with(|| Moments::new(rows.ncols()));
            moments.add(rows.t().dot(&rows));
        }
    }
    Ok(found)
}

fn readers(model: &TypedModel, candidates: &[Candidate]) -> TractResult<Vec<Reader>> {
    let mut readers = Vec::new();
    for candidate in candidates {
        let Some(node) = model.nodes.iter().find(|n| n.name == candidate.name) else { continue };
        let depth = candidate.tensor.len()
            / candidate.axes.iter().map(|a| candidate.tensor.shape()[*a]).product::<usize>().max(1);
        if depth > MOST_DEPTH {
            continue;
        }
        for inlet in &node.outputs[0].successors {
            let reader = model.node(inlet.node);
            let found = if let Some(conv) = reader.op_as::<Conv>() {
                (conv.group == 1).then(|| (reader.inputs[0], Rows::Windows(Box::new(conv.clone()))))
            } else if let Some(product) = reader.op_as::<EinSum>().filter(|p| p.axes.input_count() == 2) {
                let other = 1 - inlet.slot;
                let weight = candidate.tensor.rank();
                let letter = |slot, axis| product.axes.axis((InOut::In(slot), axis)).map(|a| a.repr);
                let others = (0..weight).filter(|a| !candidate.axes.contains(a));
                let depth = others.map(|a| letter(inlet.slot, a)).collect::<TractResult<Vec<_>>>()?;
                let rank = model.outlet_fact(reader.inputs[other])?.rank();
                let own = (0..rank).map(|a| letter(other, a)).collect::<TractResult<Vec<_>>>()?;
                let at = |l: &char| own.iter().position(|o| o == l);
                let depth = depth.iter().map(at).collect::<Option<Vec<_>>>();
                depth.map(|depth| {
                    let rows = (0..rank).filter(|a| !depth.contains(a)).collect();
                    (reader.inputs[other], Rows::Product { rows, depth })
                })
            } else {
                None
            };
            readers.extend(found.map(|(input, rows)| Reader { weight: candidate.name.clone(), input, rows }));
        }
    }
    Ok(readers)
}

impl Rows {
    /// Rows `[rows, depth]` of run `run` of `runs`: some of them, evenly spread, where there are more than needed.
    fn of(&self, input: &TValue, run: usize, runs: usize) -> TractResult<Array2<f32>> {
        let all = match self {
            Rows::Product { rows, depth } => {
                let plain = input.try_as_plain_ram()?;
                let view = plain.to_array_view::<f32>()?;
                let order: Vec<usize> = rows.iter().chain(depth).copied().collect();
                let count = rows.iter().map(|a| view.shape()[*a]).product::<usize>();
                let turned = view.permuted_axes(order);
                let wide = turned.len() / count.max(1);
                turned.as_standard_layout().into_owned().into_shape_with_order((count, wide))?
            }
            Rows::Windows(conv) => {
                let depth = depth_of(conv);
                return windows(conv, input, run, &|rows| step(rows, depth, runs));
            }
        };
        let step = step(all.nrows(), all.ncols(), runs);
        let chosen: Vec<usize> = (run % step..all.nrows()).step_by(step).collect();
        Ok(all.select(Axis(0), &chosen))
    }
}

/// Every how many rows one is taken.
fn step(rows: usize, depth: usize, runs: usize) -> usize {
    let wanted = ROWS.max(depth * ROWS_FOR_DEPTH).div_ceil(runs.max(1)).max(1);
    (rows / wanted).max(1)
}

/// How many values a filter has.
fn depth_of(conv: &Conv) -> usize {
    conv.pool_spec.input_channels * conv.pool_spec.kernel_shape.iter().product::<usize>()
}

/// Windows of an image of one or two axes, each as `[C, kernel axes]`, which is how filters `O I h w` lie; of filters in
/// another order, in that order. `step` tells of how many rows one is taken.
pub(crate) fn windows(
    conv: &Conv,
    input: &TValue,
    run: usize,
    step: &dyn Fn(usize) -> usize,
) -> TractResult<Array2<f32>> {
    let shape = conv.pool_spec.data_format.shape(input.shape())?;
    let plain = input.try_as_plain_ram()?;
    let view = plain.to_array_view::<f32>()?;
    let (n, channels, space) = (*shape.n().unwrap_or(&1), *shape.c(), shape.hw_dims().to_vec());
    let kernel = conv.pool_spec.kernel_shape.to_vec();
    let geometry = conv.pool_spec.computed_padding(&space);
    let outs: Vec<usize> = geometry.iter().map(|g| g.convoluted).collect();
    let (c_axis, first) = (shape.c_axis(), shape.h_axis());
    let depth = channels * kernel.iter().product::<usize>();
    let count = n * outs.iter().product::<usize>();
    let step = step(count);
    let mut values = Vec::new();
    let mut rows = 0;
    let mut at = vec![0; view.ndim()];
    for index in (run % step..count).step_by(step) {
        let mut left = index;
        let mut position = vec![0; outs.len()];
        for (p, out) in position.iter_mut().zip(&outs).rev() {
            (*p, left) = (left % out, left / out);
        }
        if let Some(axis) = shape.n_axis() {
            at[axis] = left;
        }
        let start = values.len();
        values.resize(start + depth, 0f32);
        let taps = kernel.iter().product::<usize>();
        for tap in 0..taps {
            let (mut left, mut inside) = (tap, true);
            for axis in (0..kernel.len()).rev() {
                let k = left % kernel[axis];
                left /= kernel[axis];
                let x = position[axis] * conv.pool_spec.stride(axis) + k * conv.pool_spec.dilation(axis);
                match x.checked_sub(geometry[axis].pad_before).filter(|x| *x < space[axis]) {
                    Some(x) => at[first + axis] = x,
                    None => inside = false,
                }
            }
            for c in 0..channels {
                at[c_axis] = c;
                let to = match conv.kernel_fmt {
                    KernelFormat::OIHW => c * taps + tap,
                    KernelFormat::OHWI | KernelFormat::HWIO => tap * channels + c,
                };
                values[start + to] = if inside { view[at.as_slice()] } else { 0.0 };
            }
        }
        rows += 1;
    }
    ArrayD::from_shape_vec(vec![rows, depth], values)?.into_dimensionality::<Ix2>().map_err(Into::into)
}
