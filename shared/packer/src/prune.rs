//! Whole channels out of a network, and the weights behind them re-solved: fewer multiply-adds, so that it runs faster.
//!
//! A pass over the ONNX graph, before anything is imported for planning: all that comes after sees a smaller model. `graph`
//! finds channels that can go and takes them out; `solve` tells what each of them is worth on calibration data, and
//! what weights make up for it. Channels are left in multiples of [`BLOCK`], since kernels compute so many at once.
//!
//! Which go is chosen over the whole network: always those that lose the least of their consumer's output, relative to its
//! variance, for each multiply-add. Restoring goes in the order of the graph: a consumer is fitted to the outputs of
//! the unpruned network given the inputs that the pruned one has by then, so that it makes up for earlier layers too.

mod graph;
mod solve;

use crate::calibrate;
use crate::error::{ErrorKind, PackerError};
use crate::evaluate::{Dataset, Feed, InputPort, Score, bad};
use crate::import::{Imported, Port, Source};
use crate::pack::guard;
use crate::pin::InputPin;
use graph::{Channels, Graph, Matrix};
use serde::Serialize;
use solve::{Sums, count};
use tract_core::internal::tract_ndarray::{Array2, ArrayView2, Axis};
use tract_core::internal::*;
use tract_core::ops::cnn::Conv;
use tract_onnx::pb;

/// How many channels kernels compute at once: what is left of fewer is computed all the same.
const BLOCK: usize = 8;
/// Channels whose consumer sums over more than this are left alone: to solve takes `depth^3`.
const MOST_DEPTH: usize = 2400;
/// Rows of inputs for each consumer, at least, where calibration data have as many; and as a multiple of its depth.
const ROWS: usize = 8192;
const ROWS_FOR_DEPTH: usize = 4;

/// How much is to be removed, and whether weights are re-solved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prune {
    /// The part of all multiply-adds that goes, above 0 and below 1. At least so many go.
    pub macs: f64,
    /// Whether the consumers of removed channels are fitted to the unpruned network's outputs.
    pub restore: bool,
}

/// What pruning did.
#[derive(Clone, Debug, Serialize)]
pub struct PruneReport {
    /// Multiply-adds of a run at the default shapes before: those of convolutions and of products with weights.
    pub macs_before: u64,
    /// And after.
    pub macs_after: u64,
    /// Whether weights were re-solved.
    pub restored: bool,
    /// Layers that lost channels.
    pub layers: Vec<PrunedLayer>,
    /// The metric of the pruned f32 model, where there are data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<Score>,
    /// The same with the same channels gone and no weight re-solved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score_without_restoring: Option<Score>,
}

/// A layer that lost channels.
#[derive(Clone, Debug, Serialize)]
pub struct PrunedLayer {
    /// The name of the convolution or product that computes them.
    pub name: String,
    /// How many there were.
    pub before: usize,
    /// How many are left.
    pub after: usize,
}

/// A smaller model.
pub(crate) struct Pruned {
    pub(crate) source: Source,
    /// The same without restoring, where there was any.
    pub(crate) unrestored: Option<Source>,
    pub(crate) report: PruneReport,
}

/// A node with a weight, and what it computes.
struct Work {
    node: usize,
    macs: f64,
    /// The channels it computes, takes or passes on.
    of: Vec<usize>,
}

/// What is known of channels from calibration.
struct Seen {
    sums: Sums,
    weights: Matrix,
    /// What the consumer gives for the rows that were taken, without bias, `[rows, outputs]` for each run.
    outputs: Vec<Array2<f32>>,
}

/// `source` with channels removed, after what `data` show of them at the shapes of `pins`.
///
/// Errors: a part that is none; data that do not fit; a model without channels that can go, or with too few of them.
pub(crate) fn prune(
    source: &Source,
    pins: &[InputPin],
    data: &Dataset,
    prune: Prune,
    progress: &mut dyn FnMut(&str),
) -> Result<Pruned, PackerError> {
    if !(prune.macs > 0.0 && prune.macs < 1.0) {
        let text =
            format!("{} of all multiply-adds cannot be pruned: wanted above 0 and below 1", prune.macs);
        return Err(bad(text));
    }
    let mut source = source.clone();
    graph::plain_constants(source.graph_mut()?);
    let channels = channels(source.graph()?);
    if channels.is_empty() {
        let text = "no channels of this model can be pruned: none go from one convolution or product with weights to \
                    one other only, through operators that take each channel by itself";
        return Err(PackerError::new(ErrorKind::Unsupported, text));
    }
    let work = work(&mut source, pins, &channels)?;
    progress("pruning: calibration");
    let seen = see(&mut source, pins, data, &channels)?;
    let mut orders = Vec::new();
    let mut curves = Vec::new();
    for (channels, seen) in channels.iter().zip(&seen) {
        progress(&format!("pruning: what the {} channels of {:?} are worth", channels.width, channels.name));
        let found = solve::order(&seen.sums, &seen.weights.values, channels.each);
        let (order, losses) = found.ok_or_else(|| {
            bad(format!(
                "what {:?} gives on the calibration data has no finite second moments",
                channels.name
            ))
        })?;
        let energy = energy(seen).max(f64::MIN_POSITIVE);
        orders.push(order);
        curves.push(losses.iter().map(|loss| loss / energy).collect::<Vec<f64>>());
    }
    let left = choose(&channels, &curves, &work, prune.macs)?;
    let kept: Vec<Vec<usize>> = (channels.iter().zip(&orders).zip(&left))
        .map(|((channels, order), left)| {
            let gone = &order[..channels.width - left];
            (0..channels.width).filter(|c| !gone.contains(c)).collect()
        })
        .collect();
    let report = PruneReport {
        macs_before: whole(macs(&work, &channels, &channels.iter().map(|c| c.width).collect::<Vec<_>>())),
        macs_after: whole(macs(&work, &channels, &left)),
        restored: prune.restore,
        layers: (channels.iter().zip(&left).filter(|(channels, left)| **left < channels.width))
            .map(|(channels, left)| PrunedLayer {
                name: channels.name.clone(),
                before: channels.width,
                after: *left,
            })
            .collect(),
        score: None,
        score_without_restoring: None,
    };
    for (channels, kept) in channels.iter().zip(&kept).filter(|(c, kept)| kept.len() < c.width) {
        graph::remove(source.graph_mut()?, channels, kept)?;
    }
    let unrestored = prune.restore.then(|| source.clone());
    if prune.restore {
        restore(&mut source, (pins, data), channels, &seen, &kept, progress)?;
    }
    Ok(Pruned { source, unrestored, report })
}

/// Those channels that may lose some.
fn channels(graph: &pb::GraphProto) -> Vec<Channels> {
    let graph = Graph::of(graph);
    let mut channels = graph.channels();
    channels.retain(|c| {
        c.width > BLOCK
            && c.width * c.each <= MOST_DEPTH
            && graph::has_simple_bias(&graph, &graph.proto.node[c.consumer])
    });
    channels
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
fn whole(macs: f64) -> u64 {
    macs.round() as u64
}

/// The variance of a consumer's outputs on calibration data, over all of them.
fn energy(seen: &Seen) -> f64 {
    let n = seen.sums.n;
    let h = seen.sums.moments();
    let of_row = |w: &[f32]| {
        let mut sum = 0.0;
        for (a, row) in w.iter().zip(h.chunks_exact(n)) {
            sum += f64::from(*a) * row.iter().zip(w).map(|(h, b)| h * f64::from(*b)).sum::<f64>();
        }
        sum
    };
    seen.weights.values.chunks_exact(n).map(of_row).sum()
}

/// All multiply-adds with `left` of each of `channels`.
fn macs(work: &[Work], channels: &[Channels], left: &[usize]) -> f64 {
    let part = |of: &usize| count(left[*of]) / count(channels[*of].width);
    work.iter().map(|work| work.macs * work.of.iter().map(part).product::<f64>()).sum()
}

/// How many of each of `channels` are left, so that the part `wanted` of all multiply-adds goes. `curves` is what is lost
/// when so many are gone.
fn choose(
    channels: &[Channels],
    curves: &[Vec<f64>],
    work: &[Work],
    wanted: f64,
) -> Result<Vec<usize>, PackerError> {
    let mut left: Vec<usize> = channels.iter().map(|c| c.width).collect();
    let before = macs(work, channels, &left);
    loop {
        let now = macs(work, channels, &left);
        if now <= before * (1.0 - wanted) {
            return Ok(left);
        }
        let mut best: Option<(f64, usize)> = None;
        for (index, curve) in curves.iter().enumerate() {
            let (width, had) = (channels[index].width, left[index]);
            // Further ahead too: a step may cost more than those behind it.
            let mut fewer = next(had);
            while let Some(to) = fewer {
                left[index] = to;
                let saved = now - macs(work, channels, &left);
                let ratio = (curve[width - to] - curve[width - had]) / saved.max(f64::MIN_POSITIVE);
                if best.is_none_or(|(than, _)| ratio < than) {
                    best = Some((ratio, index));
                }
                fewer = next(to);
            }
            left[index] = had;
        }
        let Some((_, index)) = best else {
            let text = format!(
                "{:.1} % of this model's multiply-adds cannot be pruned: with {BLOCK} channels left of each layer that \
                 may lose some, {:.1} % are gone",
                wanted * 100.0,
                (1.0 - now / before) * 100.0
            );
            return Err(PackerError::new(ErrorKind::Unsupported, text));
        };
        left[index] = next(left[index]).unwrap_or(left[index]);
    }
}

/// The next smaller number of channels that is worth it.
fn next(left: usize) -> Option<usize> {
    (left.saturating_sub(1) / BLOCK).checked_mul(BLOCK).filter(|next| *next > 0)
}

/// `source` with the values `names` as its outputs.
fn probe(source: &mut Source, pins: &[InputPin], names: &[String]) -> Result<Imported, PackerError> {
    let outputs = source.graph()?.output.clone();
    graph::set_outputs(source.graph_mut()?, names);
    let imported = guard("prune", || source.import(pins));
    source.graph_mut()?.output = outputs;
    imported
}

/// Every node with a weight, and its multiply-adds.
fn work(source: &mut Source, pins: &[InputPin], channels: &[Channels]) -> Result<Vec<Work>, PackerError> {
    let graph = Graph::of(source.graph()?);
    let nodes = graph.proto.node.iter().enumerate();
    let found: Vec<(usize, usize)> = nodes.filter_map(|(i, node)| Some((i, graph.depth(node)?))).collect();
    let names: Vec<String> = found.iter().map(|(i, _)| graph.proto.node[*i].output[0].clone()).collect();
    let imported = probe(source, pins, &names)?;
    let mut work = Vec::new();
    for (at, (node, depth)) in found.into_iter().enumerate() {
        let fact = imported.typed.output_fact(at).map_err(|e| PackerError::model("prune", &e))?;
        let shape = fact.shape.as_concrete().ok_or_else(|| {
            PackerError::new(ErrorKind::Unsupported, format!("output {:?} has an open shape", names[at]))
        })?;
        let touches = |c: &Channels| c.producer == node || c.consumer == node || c.depthwise.contains(&node);
        let of = (0..channels.len()).filter(|c| touches(&channels[*c])).collect();
        work.push(Work { node, macs: count(shape.iter().product::<usize>() * depth), of });
    }
    debug_assert!(channels.iter().all(|c| work.iter().any(|w| w.node == c.consumer)));
    Ok(work)
}

/// Runs `source` on `data` and gives the inputs of the consumers of `channels` to `each`, row by row: the place in
/// `channels`, the run, and `[rows, depth]`. Of those in the unpruned network, `depths` tell how many are taken.
fn run(
    source: &mut Source,
    (pins, data): (&[InputPin], &Dataset),
    channels: &[&Channels],
    depths: &[usize],
    each: &mut dyn FnMut(usize, usize, Array2<f32>),
) -> Result<(), PackerError> {
    let graph = source.graph()?;
    let names: Vec<String> = channels.iter().map(|c| graph.node[c.consumer].input[0].clone()).collect();
    let results = channels.iter().map(|c| graph.node[c.consumer].output[0].clone());
    // The convolutions themselves are outputs too, so that they are there.
    let results = results.filter(|result| !names.contains(result));
    let wanted: Vec<String> = names.iter().cloned().chain(results).collect();
    let imported = probe(source, pins, &wanted)?;
    let port = |p: &Port| InputPort { name: p.name.clone(), dtype: p.dtype, shape: p.shape() };
    let feed = data.feed(imported.inputs.iter().map(port).collect())?;
    guard("prune", || rows(&imported.typed, &feed, depths, each).map_err(|e| PackerError::model("prune", &e)))
}

fn rows(
    model: &TypedModel,
    feed: &Feed<'_>,
    depths: &[usize],
    each: &mut dyn FnMut(usize, usize, Array2<f32>),
) -> TractResult<()> {
    let mut model = model.clone();
    let outlets: Vec<OutletId> = model.outputs[..depths.len()].to_vec();
    let conv = |outlet: &OutletId| {
        let readers = &model.node(outlet.node).outputs[outlet.slot].successors;
        readers.iter().find_map(|r| model.node(r.node).op_as::<Conv>().filter(|_| r.slot == 0).cloned())
    };
    let convs: Vec<Option<Conv>> = outlets.iter().map(conv).collect();
    let mut distinct: Vec<OutletId> = Vec::new();
    outlets.iter().for_each(|o| {
        if !distinct.contains(o) {
            distinct.push(*o);
        }
    });
    model.select_output_outlets(&distinct)?;
    let model = model.into_optimized()?.into_runnable()?;
    let runs = feed.runs();
    for run in 0..runs {
        let inputs = feed.inputs(run).map_err(|e| format_err!("{e}"))?;
        let inputs = inputs.iter().map(|t| Ok(glowplug_engine::to_tract(t)?.into_tvalue()));
        let values = model.run(inputs.collect::<TractResult<_>>()?)?;
        for (index, outlet) in outlets.iter().enumerate() {
            let Some(value) = distinct.iter().position(|o| o == outlet).map(|at| &values[at]) else {
                continue;
            };
            let wanted = ROWS.max(depths[index] * ROWS_FOR_DEPTH).div_ceil(runs).max(1);
            let step = |rows: usize| (rows / wanted).max(1);
            let rows: Array2<f32> = match &convs[index] {
                Some(conv) => calibrate::windows(conv, value, run, &step)?,
                None => {
                    let plain = value.try_as_plain_ram()?;
                    let depth = *value.shape().last().context("an operand without axes")?;
                    let rows = value.len() / depth.max(1);
                    let all = ArrayView2::from_shape((rows, depth), plain.as_slice::<f32>()?)?;
                    let step = step(rows);
                    all.select(Axis(0), &(run % step..rows).step_by(step).collect::<Vec<_>>())
                }
            };
            each(index, run, rows);
        }
    }
    Ok(())
}

/// What the consumers of `channels` have for inputs, in the network as it came.
fn see(
    source: &mut Source,
    pins: &[InputPin],
    data: &Dataset,
    channels: &[Channels],
) -> Result<Vec<Seen>, PackerError> {
    let chosen: Vec<&Channels> = channels.iter().collect();
    let graph = Graph::of(source.graph()?);
    let mut seen = Vec::new();
    for channels in &chosen {
        let weights = graph.matrix(&graph.proto.node[channels.consumer]).ok_or_else(lost)?;
        seen.push(Seen { sums: Sums::new(weights.depth, weights.outputs), weights, outputs: Vec::new() });
    }
    let depths: Vec<usize> = chosen.iter().map(|c| c.width * c.each).collect();
    run(source, (pins, data), &chosen, &depths, &mut |index, _, x| {
        let Seen { sums, weights, outputs } = &mut seen[index];
        let w = ArrayView2::from_shape((weights.outputs, weights.depth), &weights.values);
        let Some(w) = w.ok().filter(|w| w.ncols() == x.ncols()) else { return };
        let y = x.dot(&w.t());
        sums.add(x.nrows(), (x.sum_axis(Axis(0)), x.t().dot(&x)), (y.sum_axis(Axis(0)), y.t().dot(&x)));
        outputs.push(y);
    })?;
    if seen.iter().any(|seen| seen.outputs.is_empty()) {
        return Err(lost());
    }
    Ok(seen)
}

fn lost() -> PackerError {
    PackerError::new(ErrorKind::Internal, "pruning lost a weight")
}

/// Fits the consumers of what was removed, in the order of the graph.
fn restore(
    source: &mut Source,
    (pins, data): (&[InputPin], &Dataset),
    mut channels: Vec<Channels>,
    seen: &[Seen],
    kept: &[Vec<usize>],
    progress: &mut dyn FnMut(&str),
) -> Result<(), PackerError> {
    let mut order: Vec<usize> = (0..channels.len()).filter(|c| kept[*c].len() < channels[*c].width).collect();
    order.sort_by_key(|c| channels[*c].consumer);
    for index in order {
        let at = &channels[index];
        let consumer = at.consumer;
        progress(&format!("pruning: restoring what {:?} lost", at.name));
        // Outputs of the consumer may be gone too.
        let own = channels.iter().position(|c| c.producer == consumer);
        let outputs: Vec<usize> = match own {
            Some(own) => kept[own].clone(),
            None => (0..seen[index].weights.outputs).collect(),
        };
        let graph = Graph::of(source.graph()?);
        let mut weights = graph.matrix(&graph.proto.node[consumer]).ok_or_else(lost)?;
        let mut sums = Sums::new(weights.depth, weights.outputs);
        let depth = at.width * at.each;
        run(source, (pins, data), &[at], &[depth], &mut |_, run, x| {
            let y = seen[index].outputs[run].select(Axis(1), &outputs);
            sums.add(x.nrows(), (x.sum_axis(Axis(0)), x.t().dot(&x)), (y.sum_axis(Axis(0)), y.t().dot(&x)));
        })?;
        // Where there is nothing to go by, weights stay as they are.
        let Some((change, bias)) = sums.correction(&weights.values) else { continue };
        #[allow(clippy::cast_possible_truncation, reason = "weights are f32")]
        let narrow = |v: f64| v as f32;
        weights.values.iter_mut().zip(&change).for_each(|(w, c)| *w = narrow(f64::from(*w) + c));
        let bias: Vec<f32> = bias.into_iter().map(narrow).collect();
        let nodes = source.graph()?.node.len();
        graph::restore(source.graph_mut()?, consumer, &weights, &bias)?;
        let added = source.graph()?.node.len() - nodes;
        for c in &mut channels {
            for place in c.depthwise.iter_mut().chain([&mut c.producer, &mut c.consumer]) {
                *place += if *place > consumer { added } else { 0 };
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::Texts;
    use glowplug_pack::Tensor as PackTensor;
    use graph::{constant, integers};
    use tract_onnx::pb::tensor_proto::DataType;
    use tract_onnx::pb::{tensor_shape_proto, type_proto};

    /// Numbers that look random in -1..1.
    fn noise(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    fn node(op: &str, inputs: &[&str], output: &str, attribute: Vec<pb::AttributeProto>) -> pb::NodeProto {
        pb::NodeProto {
            op_type: op.into(),
            name: format!("{output} node"),
            input: inputs.iter().map(|i| (*i).to_owned()).collect(),
            output: vec![output.into()],
            attribute,
            ..Default::default()
        }
    }

    fn value(name: &str, dims: &[i64]) -> pb::ValueInfoProto {
        let dim = |d: &i64| tensor_shape_proto::Dimension {
            value: Some(tensor_shape_proto::dimension::Value::DimValue(*d)),
            ..Default::default()
        };
        let shape = pb::TensorShapeProto { dim: dims.iter().map(dim).collect() };
        let tensor = type_proto::Tensor { elem_type: DataType::Float.into(), shape: Some(shape) };
        let r#type =
            pb::TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
        pb::ValueInfoProto { name: name.into(), r#type: Some(r#type), ..Default::default() }
    }

    fn source(nodes: Vec<pb::NodeProto>, constants: Vec<pb::TensorProto>, input: &[i64]) -> Source {
        let graph = pb::GraphProto {
            node: nodes,
            initializer: constants,
            input: vec![value("x", input)],
            output: vec![pb::ValueInfoProto { name: "y".into(), ..Default::default() }],
            ..Default::default()
        };
        let opset = pb::OperatorSetIdProto { version: 13, ..Default::default() };
        Source::of(pb::ModelProto {
            ir_version: 7,
            opset_import: vec![opset],
            graph: Some(graph),
            ..Default::default()
        })
    }

    fn data(shape: &[usize], seed: u32) -> Dataset {
        let values = noise(shape.iter().product(), seed);
        let x = PackTensor::from_f32(shape.to_vec(), values).unwrap();
        Dataset::new(vec![("x".into(), x)], Texts::default(), String::new()).unwrap()
    }

    /// The first output for each sample.
    fn answers(source: &Source, data: &Dataset) -> Vec<f32> {
        let imported = source.import(&[]).unwrap();
        let port = |p: &Port| InputPort { name: p.name.clone(), dtype: p.dtype, shape: p.shape() };
        let feed = data.feed(imported.inputs.iter().map(port).collect()).unwrap();
        let model = imported.typed.into_runnable().unwrap();
        let run = |run| {
            let inputs = feed.inputs(run).unwrap();
            let inputs = inputs.iter().map(|t| glowplug_engine::to_tract(t).unwrap().into_tvalue()).collect();
            let found = model.run(inputs).unwrap();
            found[0].try_as_plain_ram().unwrap().as_slice::<f32>().unwrap().to_vec()
        };
        (0..feed.runs()).flat_map(run).collect()
    }

    /// Of the second, relative to the first.
    fn error(wanted: &[f32], found: &[f32]) -> f32 {
        let square = |v: f32| v * v;
        let error: f32 = wanted.iter().zip(found).map(|(w, f)| square(w - f)).sum();
        (error / wanted.iter().map(|w| square(*w)).sum::<f32>()).sqrt()
    }

    fn pruned(source: &Source, data: &Dataset, macs: f64, restore: bool) -> Result<Pruned, PackerError> {
        super::prune(source, &[], data, Prune { macs, restore }, &mut |_| ())
    }

    /// A convolution of 16 filters that `wanted` makes of noise, then a depthwise one, a norm, and a convolution.
    fn block(change: impl Fn(&mut [f32], &mut [f32])) -> Source {
        let (mut w1, mut b1) = (noise(16 * 3 * 9, 1), noise(16, 2));
        change(&mut w1, &mut b1);
        let mut dw: Vec<f32> = noise(9, 3).repeat(16);
        let mut scales: Vec<f32> = vec![0.7; 16];
        // What makes copies of channels leaves them copies.
        dw.iter_mut().for_each(|v| *v += 0.5);
        scales.iter_mut().for_each(|v| *v += 0.1);
        let constants = vec![
            constant("w1", &[16, 3, 3, 3], &w1),
            constant("b1", &[16], &b1),
            constant("dw", &[16, 1, 3, 3], &dw),
            constant("scale", &[16], &scales),
            constant("shift", &[16], &[0.05; 16]),
            constant("mean", &[16], &[0.1; 16]),
            constant("variance", &[16], &[0.5; 16]),
            constant("w2", &[4, 16, 3, 3], &noise(4 * 16 * 9, 4)),
        ];
        let pads = || integers("pads", &[1, 1, 1, 1]);
        let nodes = vec![
            node("Conv", &["x", "w1", "b1"], "a", vec![pads()]),
            node("Relu", &["a"], "b", vec![]),
            node("Conv", &["b", "dw"], "c", vec![pads(), integers("group", &[16])]),
            node("BatchNormalization", &["c", "scale", "shift", "mean", "variance"], "d", vec![]),
            node("Relu", &["d"], "e", vec![]),
            node("Conv", &["e", "w2"], "y", vec![pads()]),
        ];
        source(nodes, constants, &[1, 3, 12, 12])
    }

    #[test]
    fn copies_go_and_their_weights_are_added_to_the_others() {
        // Filters 8 to 15 are those from 0 to 7 again.
        let model = block(|w, b| {
            w.copy_within(0..8 * 27, 8 * 27);
            b.copy_within(0..8, 8);
        });
        let (calibration, fresh) = (data(&[200, 3, 12, 12], 7), data(&[10, 3, 12, 12], 8));
        let found = pruned(&model, &calibration, 0.3, true).unwrap();
        assert_eq!((found.report.layers[0].before, found.report.layers[0].after), (16, 8));
        // All three convolutions are half of what they were.
        assert_eq!(found.report.macs_after * 2, found.report.macs_before);
        let wanted = answers(&model, &fresh);
        let restored = error(&wanted, &answers(&found.source, &fresh));
        let without = error(&wanted, &answers(&found.unrestored.unwrap(), &fresh));
        assert!(restored < 2e-3, "{restored}");
        assert!(without > 0.1, "{without}");
    }

    #[test]
    fn dead_channels_go_without_any_change() {
        // Nothing of the input, and below 0 before each Relu.
        let model = block(|w, b| {
            w[8 * 27..].fill(0.0);
            b[8..].fill(-1.0);
        });
        let found = pruned(&model, &data(&[60, 3, 12, 12], 7), 0.5, true).unwrap();
        let fresh = data(&[10, 3, 12, 12], 9);
        let (wanted, found) = (answers(&model, &fresh), answers(&found.source, &fresh));
        assert!(error(&wanted, &found) < 1e-5, "{}", error(&wanted, &found));
    }

    /// A hidden layer of 32 features, of which the last 16 are dead.
    fn perceptron(product: &str) -> Source {
        let (mut w1, mut b1) = (noise(10 * 32, 1), noise(32, 2));
        w1.chunks_mut(32).for_each(|row| row[16..].fill(0.0));
        b1[16..].fill(-1.0);
        let constants = vec![
            constant("w1", &[10, 32], &w1),
            constant("b1", &[32], &b1),
            constant("w2", &[32, 5], &noise(32 * 5, 3)),
            constant("b2", &[5], &noise(5, 4)),
        ];
        let nodes = match product {
            "Gemm" => vec![
                node("Gemm", &["x", "w1", "b1"], "a", vec![]),
                node("Relu", &["a"], "b", vec![]),
                node("Gemm", &["b", "w2", "b2"], "y", vec![]),
            ],
            _ => vec![
                node("MatMul", &["x", "w1"], "p", vec![]),
                node("Add", &["b1", "p"], "a", vec![]),
                node("Relu", &["a"], "b", vec![]),
                node("MatMul", &["b", "w2"], "q", vec![]),
                node("Add", &["q", "b2"], "y", vec![]),
            ],
        };
        source(nodes, constants, &[1, 10])
    }

    #[test]
    fn dead_features_of_products_go_without_any_change() {
        for product in ["Gemm", "MatMul"] {
            let model = perceptron(product);
            let fresh = data(&[20, 10], 9);
            for restore in [false, true] {
                let found = pruned(&model, &data(&[300, 10], 7), 0.5, restore).unwrap();
                assert_eq!(found.report.layers[0].after, 16);
                assert_eq!((found.report.macs_before, found.report.macs_after), (32 * 15, 16 * 15));
                let error = error(&answers(&model, &fresh), &answers(&found.source, &fresh));
                assert!(error < 1e-5, "{product} {restore}: {error}");
            }
        }
    }

    #[test]
    fn restoring_makes_up_for_part_of_what_is_lost() {
        let model = block(|_, _| ());
        let found = pruned(&model, &data(&[200, 3, 12, 12], 7), 0.4, true).unwrap();
        let fresh = data(&[20, 3, 12, 12], 8);
        let wanted = answers(&model, &fresh);
        let restored = error(&wanted, &answers(&found.source, &fresh));
        let without = error(&wanted, &answers(&found.unrestored.unwrap(), &fresh));
        assert!(restored < 0.7 * without, "{restored} {without}");
    }

    #[test]
    fn what_else_is_read_stays() {
        let constants = vec![
            constant("w1", &[16, 16, 1, 1], &noise(256, 1)),
            constant("w2", &[16, 16, 1, 1], &noise(256, 2)),
            constant("w3", &[4, 16, 1, 1], &noise(64, 3)),
        ];
        // A residual connection around the second convolution: neither the first nor the second can lose channels.
        let nodes = vec![
            node("Conv", &["x", "w1"], "a", vec![]),
            node("Conv", &["a", "w2"], "b", vec![]),
            node("Add", &["a", "b"], "c", vec![]),
            node("Conv", &["c", "w3"], "y", vec![]),
        ];
        let model = source(nodes, constants, &[1, 16, 4, 4]);
        let e = pruned(&model, &data(&[4, 16, 4, 4], 1), 0.2, true).err().unwrap();
        assert_eq!(e.kind(), ErrorKind::Unsupported);
        assert!(e.to_string().starts_with("no channels of this model can be pruned"), "{e}");
    }

    #[test]
    fn parts_that_are_none_or_too_large_are_told() {
        let (model, data) = (perceptron("Gemm"), data(&[30, 10], 1));
        for macs in [0.0, 1.0, f64::NAN, -0.5] {
            let e = pruned(&model, &data, macs, true).err().unwrap();
            assert!(e.to_string().contains("wanted above 0 and below 1"), "{e}");
        }
        let e = pruned(&model, &data, 0.9, true).err().unwrap();
        assert!(e.to_string().contains("90.0 % of this model's multiply-adds cannot be pruned"), "{e}");
        assert!(e.to_string().contains("75.0 % are gone"), "{e}");
    }

    #[test]
    fn counts_left_are_whole_blocks() {
        let all = [100, 96, 17, 16, 9].map(next);
        assert_eq!(all, [Some(96), Some(88), Some(16), Some(8), Some(8)]);
        assert_eq!([8, 1].map(next), [None, None]);
    }
}
