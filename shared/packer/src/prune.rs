//! Whole channels out of a network, and the weights behind them re-solved: fewer multiply-adds, so that it runs faster.
//!
//! A pass over the ONNX graph, before anything is imported for planning: all that comes after sees a smaller model. `graph`
//! finds channels that can go and takes them out; `runs` gives what layers have on calibration data; `solve` tells by it what
//! each channel is worth, and what weights make up for it; `choose` tells how many go. Channels are left in multiples of
//! [`BLOCK`], since kernels compute so many at once.
//!
//! Which go is chosen over the whole network: always those that the outputs miss least for each multiply-add. What a layer's
//! loss does to the outputs is measured, each by itself ([`sensitivities`]). Restoring goes in the order of the graph ([`restore`]):
//! a layer is fitted to what the unpruned network gives, given the inputs that the pruned one has by then, so that it makes up
//! for all layers before it.

mod choose;
mod graph;
mod report;
mod runs;
mod solve;
mod unpruned;

use crate::error::{ErrorKind, PackerError};
use crate::evaluate::{Dataset, bad};
use crate::import::Source;
use crate::import::constants::plain_constants;
use crate::pin::InputPin;
use choose::{choose, macs, work};
use graph::{Channels, Graph, Layer, Matrix};
pub use report::{Prune, PruneReport, PrunedLayer};
use runs::{outputs, run};
use solve::Sums;
use tract_core::internal::tract_ndarray::{Array2, ArrayView2, Axis};
use tract_onnx::pb;
pub(crate) use unpruned::Unpruned;

/// How many channels kernels compute at once: what is left of fewer is computed all the same.
const BLOCK: usize = 8;
/// Channels whose consumer sums over more than this are left alone: to solve takes `depth^3`.
const MOST_DEPTH: usize = 2400;

/// A smaller model.
struct Pruned {
    source: Source,
    /// The same without restoring, where there was any.
    unrestored: Option<Source>,
    report: PruneReport,
}

/// What is known of channels from calibration.
struct Seen {
    sums: Sums,
    weights: Matrix,
}

/// `source` with channels removed, after what `data` show of them at the shapes of `pins`.
///
/// Errors: a part that is none; data that do not fit; a model without channels that can go, or with too few of them.
fn prune(
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
    plain_constants(source.graph_mut()?);
    let channels = channels(source.graph()?);
    if channels.is_empty() {
        let text = "no channels of this model can be pruned: none go from one convolution or product with weights to \
                    one other only, through operators that take each channel by itself";
        return Err(PackerError::new(ErrorKind::Unsupported, text));
    }
    let work = work(&mut source, pins, &channels)?;
    progress("pruning: calibration");
    let seen = see(&mut source, (pins, data), &channels)?;
    let mut curves = Vec::new();
    for (channels, seen) in channels.iter().zip(&seen) {
        progress(&format!("pruning: the order of the {} channels of {:?}", channels.width, channels.name));
        let found = solve::order(&seen.sums, &seen.weights.values, channels.each);
        curves.push(found.ok_or_else(|| {
            bad(format!(
                "what {:?} gives on the calibration data has no finite second moments",
                channels.name
            ))
        })?);
    }
    let worth = sensitivities(&mut source, (pins, data), &channels, &seen, &curves, progress)?;
    drop(seen);
    for ((_, losses), worth) in curves.iter_mut().zip(&worth) {
        losses.iter_mut().for_each(|loss| *loss *= worth);
    }
    let left = choose(&channels, &curves, &work, prune.macs)?;
    let kept: Vec<Vec<usize>> = (channels.iter().zip(&curves).zip(&left))
        .map(|((channels, (order, _)), left)| kept(channels.width, &order[..channels.width - left]))
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
    let mut float = source.clone();
    for (channels, kept) in channels.iter().zip(&kept).filter(|(c, kept)| kept.len() < c.width) {
        graph::remove(source.graph_mut()?, channels, kept)?;
    }
    let unrestored = prune.restore.then(|| source.clone());
    if prune.restore {
        restore((&mut float, &mut source), (pins, data), &channels, &kept, progress)?;
    }
    Ok(Pruned { source, unrestored, report })
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
fn whole(macs: f64) -> u64 {
    macs.round() as u64
}

/// Those channels that may lose some.
fn channels(graph: &pb::GraphProto) -> Vec<Channels> {
    let graph = Graph::of(graph);
    let mut channels = graph.channels();
    channels.retain(|c| c.width > BLOCK && c.width * c.each <= MOST_DEPTH);
    channels
}

/// In f64: activations that a clip holds near one value vary by far less than their square is precise in f32.
fn add(sums: &mut Sums, x: &Array2<f32>, y: &Array2<f32>) {
    let (x, y) = (&x.mapv(f64::from), &y.mapv(f64::from));
    sums.add(x.nrows(), (x.sum_axis(Axis(0)), x.t().dot(x)), (y.sum_axis(Axis(0)), y.t().dot(x)));
}

/// What a layer gives without bias, `[rows, outputs]`.
fn product(x: &Array2<f32>, weights: &Matrix) -> Option<Array2<f32>> {
    let w = ArrayView2::from_shape((weights.outputs, weights.depth), &weights.values).ok()?;
    (w.ncols() == x.ncols()).then(|| x.dot(&w.t()))
}

/// What the consumers of `channels` have for inputs, in the network as it came.
fn see(
    source: &mut Source,
    of: (&[InputPin], &Dataset),
    channels: &[Channels],
) -> Result<Vec<Seen>, PackerError> {
    let graph = Graph::of(source.graph()?);
    let mut seen = Vec::new();
    let mut layers = Vec::new();
    for channels in channels {
        let weights = graph.matrix(&graph.proto.node[channels.consumer]).ok_or_else(lost)?;
        layers.push(Layer { node: channels.consumer, depth: weights.depth, residual: None });
        seen.push(Seen { sums: Sums::new(weights.depth, weights.outputs), weights });
    }
    let mut all = true;
    run(source, of, &layers, &mut |index, _, rows| match product(&rows.inputs, &seen[index].weights) {
        Some(y) => add(&mut seen[index].sums, &rows.inputs, &y),
        None => all = false,
    })?;
    if all { Ok(seen) } else { Err(lost()) }
}

fn lost() -> PackerError {
    PackerError::new(ErrorKind::Internal, "pruning lost a weight")
}

/// How far the outputs are from what they were, for what a consumer loses, for each of `channels` by itself: a quarter of them
/// goes, and the consumer is re-solved.
fn sensitivities(
    source: &mut Source,
    of: (&[InputPin], &Dataset),
    channels: &[Channels],
    seen: &[Seen],
    curves: &[(Vec<usize>, Vec<f64>)],
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<f64>, PackerError> {
    let float = outputs(source, of)?;
    let mut found = Vec::new();
    for ((channels, seen), (order, losses)) in channels.iter().zip(seen).zip(curves) {
        progress(&format!("pruning: what the {} channels of {:?} are worth", channels.width, channels.name));
        let left = (channels.width * 3 / 4 / BLOCK).max(1) * BLOCK;
        let gone = channels.width - left;
        let kept = kept(channels.width, &order[..gone]);
        let mut one = source.clone();
        graph::remove(one.graph_mut()?, channels, &kept)?;
        let inputs: Vec<usize> =
            kept.iter().flat_map(|c| c * channels.each..(c + 1) * channels.each).collect();
        fit(&mut one, channels.consumer, &seen.sums.only(&inputs))?;
        let error = error(&float, &outputs(&one, of)?);
        found.push(if losses[gone] > 0.0 { error / losses[gone] } else { 1.0 });
    }
    Ok(found)
}

/// The channels that are not `gone`, in order.
fn kept(width: usize, gone: &[usize]) -> Vec<usize> {
    (0..width).filter(|c| !gone.contains(c)).collect()
}

/// The squared difference of outputs, each relative to its square; infinite where that is no number.
fn error(wanted: &[Vec<f32>], found: &[Vec<f32>]) -> f64 {
    let square = |v: f64| v * v;
    let of_one = |(wanted, found): (&Vec<f32>, &Vec<f32>)| {
        let error: f64 = wanted.iter().zip(found).map(|(w, f)| square(f64::from(w - f))).sum();
        let of: f64 = wanted.iter().map(|w| square(f64::from(*w))).sum();
        error / of.max(f64::MIN_POSITIVE)
    };
    let all: f64 = wanted.iter().zip(found).map(of_one).sum();
    if all.is_nan() { f64::INFINITY } else { all }
}

/// Gives the layer at `node` the weights and the bias that `sums` ask for; how many nodes that adds. Where there is
/// nothing to go by, they stay as they are.
fn fit(source: &mut Source, node: usize, sums: &Sums) -> Result<usize, PackerError> {
    let graph = Graph::of(source.graph()?);
    let mut weights = graph.matrix(&graph.proto.node[node]).ok_or_else(lost)?;
    let Some((change, bias)) = sums.correction(&weights.values) else { return Ok(0) };
    #[allow(clippy::cast_possible_truncation, reason = "weights are f32")]
    let narrow = |v: f64| v as f32;
    weights.values.iter_mut().zip(&change).for_each(|(w, c)| *w = narrow(f64::from(*w) + c));
    let bias: Vec<f32> = bias.into_iter().map(narrow).collect();
    let nodes = graph.proto.node.len();
    graph::restore(source.graph_mut()?, node, &weights, &bias)?;
    Ok(source.graph()?.node.len() - nodes)
}

/// Fits the layers of `source` from where the first channels went on to what `float` gives there, in the order of the graph.
fn restore(
    (float, source): (&mut Source, &mut Source),
    of: (&[InputPin], &Dataset),
    channels: &[Channels],
    kept: &[Vec<usize>],
    progress: &mut dyn FnMut(&str),
) -> Result<(), PackerError> {
    let pruned = || channels.iter().zip(kept).filter(|(channels, kept)| kept.len() < channels.width);
    let Some(first) = pruned().map(|(channels, _)| channels.consumer).min() else { return Ok(()) };
    let graph = Graph::of(float.graph()?);
    let mut layers = graph.layers(first);
    layers.retain(|layer| layer.depth <= MOST_DEPTH);
    let matrix = |layer: &Layer| graph.matrix(&graph.proto.node[layer.node]).ok_or_else(lost);
    let weights = layers.iter().map(matrix).collect::<Result<Vec<_>, _>>()?;
    let names: Vec<String> = layers.iter().map(|layer| graph.proto.node[layer.node].name.clone()).collect();
    // What each layer is to give, before its bias, residual connection included.
    let mut wanted: Vec<Vec<Array2<f32>>> = vec![Vec::new(); layers.len()];
    run(float, of, &layers, &mut |index, _, rows| {
        let Some(mut y) = product(&rows.inputs, &weights[index]) else { return };
        if let Some(added) = rows.added.filter(|added| added.dim() == y.dim()) {
            y += &added;
        }
        wanted[index].push(y);
    })?;
    let mut more = 0;
    for (index, mut layer) in layers.into_iter().enumerate() {
        progress(&format!("pruning: restoring {:?}", names[index]));
        // Outputs may be gone too.
        let own = pruned().find(|(channels, _)| channels.producer == layer.node);
        let outputs = own.map_or_else(|| (0..weights[index].outputs).collect(), |(_, kept)| kept.clone());
        layer.node += more;
        let node = layer.node;
        let depth = {
            let graph = Graph::of(source.graph()?);
            graph.matrix(&graph.proto.node[node]).ok_or_else(lost)?.depth
        };
        let mut sums = Sums::new(depth, outputs.len());
        run(source, of, &[layer], &mut |_, run, rows| {
            let Some(y) = wanted[index].get(run) else { return };
            let mut y = y.select(Axis(1), &outputs);
            if let Some(added) = rows.added.filter(|added| added.dim() == y.dim()) {
                y -= &added;
            }
            add(&mut sums, &rows.inputs, &y);
        })?;
        more += fit(source, node, &sums)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::{InputPort, Texts};
    use crate::import::Port;
    use glowplug_pack::Tensor as PackTensor;
    use graph::{constant, integers};
    use tract_core::internal::*;
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
    fn what_a_large_step_took_too_much_is_given_back() {
        // Of both hidden layers eight features are dead: those of the second are 32 % of all multiply-adds, of the first 12 %.
        let (mut w1, mut w2) = (noise(10 * 64, 1), noise(64 * 16, 2));
        w1.chunks_mut(64).for_each(|row| row[56..].fill(0.0));
        w2.chunks_mut(16).for_each(|row| row[8..].fill(0.0));
        let bias = |all: usize, dead: usize| [vec![0.1; all - dead], vec![-1.0; dead]].concat();
        let constants = vec![
            constant("w1", &[10, 64], &w1),
            constant("b1", &[64], &bias(64, 8)),
            constant("w2", &[64, 16], &w2),
            constant("b2", &[16], &bias(16, 8)),
            constant("w3", &[16, 5], &noise(16 * 5, 3)),
        ];
        let nodes = vec![
            node("Gemm", &["x", "w1", "b1"], "a", vec![]),
            node("Relu", &["a"], "b", vec![]),
            node("Gemm", &["b", "w2", "b2"], "c", vec![]),
            node("Relu", &["c"], "d", vec![]),
            node("MatMul", &["d", "w3"], "y", vec![]),
        ];
        let model = source(nodes, constants, &[1, 10]);
        let report = pruned(&model, &data(&[300, 10], 7), 0.25, true).unwrap().report;
        let left: Vec<_> = report.layers.iter().map(|l| (l.name.as_str(), l.before, l.after)).collect();
        assert_eq!(left, [("c node", 16, 8)]);
        assert_eq!((report.macs_before, report.macs_after), (640 + 1024 + 80, 640 + 512 + 40));
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
            constant("half", &[16, 8, 1, 1], &noise(128, 4)),
        ];
        let conv = |inputs: [&str; 2], output: &str| node("Conv", &inputs, output, vec![]);
        let grouped =
            |input: &str, output: &str| node("Conv", &[input, "half"], output, vec![integers("group", &[2])]);
        for (what, nodes) in [
            (
                "a residual connection around the second convolution",
                vec![
                    conv(["x", "w1"], "a"),
                    conv(["a", "w2"], "b"),
                    node("Add", &["a", "b"], "c", vec![]),
                    conv(["c", "w3"], "y"),
                ],
            ),
            ("a grouped consumer", vec![conv(["x", "w1"], "a"), grouped("a", "y")]),
            ("a grouped producer", vec![grouped("x", "a"), conv(["a", "w3"], "y")]),
            ("two readers of a weight", vec![conv(["x", "w1"], "a"), conv(["a", "w1"], "y")]),
            (
                "an operator across channels",
                vec![conv(["x", "w1"], "a"), node("Softmax", &["a"], "b", vec![]), conv(["b", "w3"], "y")],
            ),
            // The last one reads nothing that is pruned, and the output is the model's.
            ("the output", vec![conv(["x", "w1"], "y"), conv(["y", "w3"], "z")]),
        ] {
            let model = source(nodes, constants.clone(), &[1, 16, 4, 4]);
            let e = pruned(&model, &data(&[4, 16, 4, 4], 1), 0.2, true).err().expect(what);
            assert_eq!(e.kind(), ErrorKind::Unsupported, "{what}");
            assert!(e.to_string().starts_with("no channels of this model can be pruned"), "{what}: {e}");
        }
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
}
