//! Vendored models through the library: packed, loaded, run, and compared with ONNX Runtime's outputs; what a
//! pack says of itself; what is refused. All other models go through the command: tests/all/goldens.rs.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

mod npz;

use glowplug_engine::{BuildOptions, Plan, Plans};
use glowplug_pack::plan::{Op, PlanGraph};
use glowplug_pack::{Buffer, Pack, Region, Tensor, TensorData};
use glowplug_packer::{
    Accuracy, Compute, Contract, Dataset, ErrorKind, PackOptions, Packed, PackerError, Prune, Stage, Target,
    Texts, Weights, pack,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How far an f32 output may be from ONNX Runtime's, relative to its largest value.
const TOLERANCE: f32 = 1e-4;

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(path)
}

fn onnx(name: &str) -> Vec<u8> {
    std::fs::read(data("models").join(format!("{name}.onnx"))).unwrap()
}

fn try_pack(onnx: &[u8], pins: &[&str], manifest: Option<&str>) -> Result<Packed, PackerError> {
    try_pack_in(onnx, pins, manifest, Weights::F32)
}

fn try_pack_in(
    onnx: &[u8],
    pins: &[&str],
    manifest: Option<&str>,
    weights: Weights,
) -> Result<Packed, PackerError> {
    try_pack_with(onnx, (pins, manifest), weights, Asked::default())
}

/// What of the options is about accuracy.
#[derive(Default)]
struct Asked<'a> {
    calibration: Option<&'a Dataset>,
    prune: Option<Prune>,
    compute: Compute,
    contract: Contract<'a>,
}

fn try_pack_with(
    onnx: &[u8],
    (pins, manifest): (&[&str], Option<&str>),
    weights: Weights,
    asked: Asked<'_>,
) -> Result<Packed, PackerError> {
    let mut stages = vec![];
    let mut options = PackOptions {
        name: "model".into(),
        inputs: pins.iter().map(|p| p.parse().unwrap()).collect(),
        manifest,
        target: Target::Common,
        weights,
        calibration: asked.calibration,
        prune: asked.prune,
        compute: asked.compute,
        contract: asked.contract,
        entropy: false,
        read_asset: &mut |name| std::fs::read(data("models").join(name)),
        progress: &mut |stage, _| {
            if stages.last() != Some(&stage) {
                stages.push(stage);
            }
        },
        seed: 7,
    };
    let packed = pack(onnx, &mut options)?;
    assert_eq!(stages, Stage::ALL);
    Ok(packed)
}

fn load(bytes: &[u8]) -> (Arc<Pack>, Arc<Plan>) {
    let region = Arc::new(Region::complete(Buffer::copy_of(bytes).unwrap()));
    let pack = Pack::from_complete(&region).unwrap();
    let pack = Arc::new(pack);
    let plan = Plan::build(pack.clone(), region, &BuildOptions::default()).unwrap();
    (pack, plan)
}

fn compare(name: &str, found: &Tensor, wanted: &Tensor) {
    assert_eq!(found.shape(), wanted.shape(), "{name}");
    let (found, wanted) = (found.as_f32().unwrap(), wanted.as_f32().unwrap());
    let largest = wanted.iter().fold(0f32, |m, w| m.max(w.abs()));
    let error = found.iter().zip(wanted).fold(0f32, |m, (f, w)| m.max((f - w).abs())) / largest;
    assert!(error <= TOLERANCE, "{name} differs by {error:e} of its largest value");
}

/// Packs a model as its manifest file says and runs it on the golden inputs.
fn check(name: &str, pins: &[&str]) {
    let packed = try_pack(&onnx(name), pins, None).unwrap();
    let (_, plan) = load(&packed.bytes);
    let golden = |file: &str| npz::read(&data(&format!("goldens/{name}/{file}.npz")));
    let (inputs, outputs) = (golden("input"), golden("output"));
    let inputs: Vec<_> = plan.inputs().iter().map(|p| inputs[&p.name].clone()).collect();
    let found = plan.run(&inputs).unwrap();
    assert_eq!(found.len(), outputs.len(), "{name}");
    for (port, found) in plan.outputs().iter().zip(&found) {
        compare(&port.name, found, &outputs[&port.name]);
    }
    assert!(packed.report.max_relative_error.values().all(|e| *e <= 1e-5));
}

#[test]
fn mnist_cnn_gives_onnx_runtimes_answer() {
    check("mnist-cnn", &[]);
}

#[test]
fn ppocr_cls_gives_onnx_runtimes_answer() {
    check("ppocr-cls", &["x=f32[1,3,48,192]"]);
}

#[test]
fn a_pack_says_what_it_is_and_comes_out_the_same_twice() {
    let (onnx, toml) = (onnx("mnist-cnn"), std::fs::read_to_string(data("models/mnist-cnn.toml")).unwrap());
    let packed = try_pack(&onnx, &[], Some(&toml)).unwrap();
    let again = try_pack(&onnx, &[], Some(&toml)).unwrap();
    assert!(packed.bytes == again.bytes, "{} and {}", packed.report.digest, again.report.digest);
    let (pack, plan) = load(&packed.bytes);
    let manifest = pack.manifest();
    assert_eq!((&*manifest.model.name, &*manifest.inputs[0].axes[0].name), ("mnist-cnn", "batch"));
    assert!(manifest.inputs[0].axes[0].symbolic && !manifest.inputs[0].axes[1].symbolic);
    assert!(manifest.provenance.source_digest.starts_with("blake3:"));
    assert!(manifest.provenance.max_relative_error.contains_key("logits"));
    assert_eq!(packed.report.digest, pack.digest());
    if cfg!(target_arch = "x86_64") {
        assert!(!plan.target().contains("avx512"), "{}", plan.target());
    }
    assert_eq!(packed.report.operators["BlockedConv"], 2);
}

/// Every byte string of a protobuf of the same length can be replaced without breaking it.
fn replaced(onnx: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut onnx = onnx.to_vec();
    let mut at = 0;
    while let Some(i) = onnx[at..].windows(from.len()).position(|w| w == from) {
        onnx[at + i..at + i + to.len()].copy_from_slice(to);
        at += i + to.len();
    }
    onnx
}

#[track_caller]
fn refused(onnx: &[u8], pins: &[&str], kind: ErrorKind, text: &str) {
    let e = try_pack(onnx, pins, None).unwrap_err();
    assert!(e.kind() == kind && e.to_string().contains(text), "{:?}: {e}", e.kind());
}

#[test]
fn what_is_not_onnx_is_told_so() {
    let onnx = onnx("mnist-cnn");
    for bytes in [&b""[..], b"hello", &[0xff; 64], &[0; 64], &onnx[..onnx.len() / 2], b"\x08\x07"] {
        refused(bytes, &[], ErrorKind::NotOnnx, "not an ONNX model");
    }
}

#[test]
fn an_operator_that_is_not_covered_is_named_with_its_node() {
    let onnx = onnx("mnist-cnn");
    let unknown = replaced(&onnx, b"Relu", b"Rela");
    refused(
        &unknown,
        &[],
        ErrorKind::Unsupported,
        "operator \"Rela\" of node \"Relu_2\"".replace("Relu_2", "Rela_2").as_str(),
    );
    // tract knows it, plans do not.
    let uncovered = replaced(&onnx, b"Relu", b"Sinh");
    refused(&uncovered, &[], ErrorKind::Unsupported, "Sinh");
}

#[test]
fn pins_are_checked_against_the_model() {
    let (mnist, ppocr) = (onnx("mnist-cnn"), onnx("ppocr-cls"));
    let pin = ErrorKind::Pin;
    refused(&mnist, &["img=f32[1,1,28,28]"], pin, "no input \"img\", its inputs are image");
    refused(&mnist, &["image=u8[1,1,28,28]"], pin, "the model's \"image\" is f32, found u8");
    refused(&mnist, &["image=f32[1,28,28]"], pin, "has 4 axes, found 3");
    refused(&mnist, &["image=f32[1,1,28,29]"], pin, "axis 3 of the model's \"image\" is 28, found 29");
    refused(&mnist, &["image=f32[1,1,28,28]", "image=f32[2,1,28,28]"], pin, "pinned twice");
    refused(&ppocr, &[], pin, "pin it with --input 'x=f32[1,3,?,?]'");
}

#[test]
fn a_batch_can_be_pinned() {
    let packed = try_pack(&onnx("mnist-cnn"), &["image=f32[3,1,28,28]"], None).unwrap();
    let (_, plan) = load(&packed.bytes);
    assert_eq!(plan.outputs()[0].shape, [3, 10]);
}

/// The plan of a pack for one shape of its input, on some threads.
fn plan_at(bytes: &[u8], shape: &[usize], threads: usize) -> Arc<Plan> {
    let region = Arc::new(Region::complete(Buffer::copy_of(bytes).unwrap()));
    let pack = Arc::new(Pack::from_complete(&region).unwrap());
    let options = BuildOptions { threads, ..BuildOptions::default() };
    Plans::open(pack, region, &options).unwrap().at(&[shape.to_vec()]).unwrap()
}

/// The graph of a pack's default plan.
fn default_graph(bytes: &[u8]) -> PlanGraph {
    let pack = Pack::parse(bytes).unwrap();
    let section = pack.plans().next().unwrap();
    PlanGraph::decode(section, pack.weights()).unwrap()
}

fn loops(graph: &PlanGraph) -> usize {
    graph.nodes.iter().filter(|n| matches!(n.op, Op::Scan { .. })).count()
}

#[allow(clippy::cast_precision_loss, reason = "small numbers")]
fn image_of(shape: &[usize], seed: usize) -> Vec<f32> {
    let n = shape.iter().product::<usize>();
    (0..n).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 1009.0 - 0.5).collect()
}

#[test]
fn a_batch_of_images_is_run_image_by_image_over_the_weights_of_one_image() {
    const IMAGES: usize = 5;
    let (one, batch) = ([1, 3, 192, 512], [IMAGES, 3, 192, 512]);
    let onnx = onnx("ppocr-cls");
    let alone = try_pack(&onnx, &["x=f32[1,3,192,512]"], None).unwrap();
    // Whichever is the default, its plan fixes the form of the weights.
    let packs =
        ["x=f32[1|5,3,192,512]", "x=f32[5|1,3,192,512]"].map(|pins| try_pack(&onnx, &[pins], None).unwrap());
    for packed in &packs {
        assert_eq!(packed.report.batch.as_deref(), Some("image by image"));
        let (weights, together) = (Pack::parse(&alone.bytes).unwrap(), Pack::parse(&packed.bytes).unwrap());
        let panels =
            |pack: &Pack| pack.weights().iter().filter(|w| w.place == glowplug_pack::Place::Blobs).count();
        // Once more the last layer: its two columns are too few for the form that the plan for one image gives it.
        assert_eq!(panels(&weights) + 1, panels(&together));
    }
    assert_eq!((loops(&default_graph(&packs[0].bytes)), loops(&default_graph(&packs[1].bytes))), (0, 1));

    let images: Vec<Vec<f32>> = (0..IMAGES).map(|seed| image_of(&one, seed)).collect();
    let tensor =
        |shape: &[usize], values: Vec<f32>| Tensor::new(shape.to_vec(), TensorData::F32(values)).unwrap();
    let single = plan_at(&packs[0].bytes, &one, 1);
    let wanted: Vec<f32> = (images.iter())
        .flat_map(|image| single.run(&[tensor(&one, image.clone())]).unwrap()[0].as_f32().unwrap().to_vec())
        .collect();
    let wanted = tensor(&[IMAGES, 2], wanted);
    // Neither two nor three threads have an equal share of five images: the last ones are shared out.
    for (packed, threads) in packs.iter().zip([1, 2]).chain([(&packs[1], 3)]) {
        let found = plan_at(&packed.bytes, &batch, threads).run(&[tensor(&batch, images.concat())]).unwrap();
        compare(&format!("batch on {threads} threads"), &found[0], &wanted);
    }
}

#[test]
fn what_is_not_the_same_image_by_image_is_planned_as_a_whole() {
    let model = |name: &str| std::fs::read(data(&format!("ops/{name}.onnx"))).unwrap();
    let packed = try_pack(&model("batch-by-image"), &[], None).unwrap();
    assert_eq!(packed.report.batch.as_deref(), Some("image by image"));
    let graph = default_graph(&packed.bytes);
    assert_eq!(loops(&graph), 1);
    // The last layers meet one row of each image: all images share one reading of their weights.
    let products = graph.nodes.iter().filter(|n| matches!(n.op, Op::MatMul { .. } | Op::Dense { .. }));
    assert_eq!(products.count(), 2);
    for (name, why) in [("batch-softmax", "differs from the reference"), ("batch-mean", "for 5 images and")] {
        let packed = try_pack(&model(name), &[], None).unwrap();
        let told = packed.report.batch.clone().unwrap();
        assert!(told.starts_with("as a whole: ") && told.contains(why), "{name}: {told}");
        assert_eq!(Pack::parse(&packed.bytes).unwrap().manifest().provenance.options["batch"], told);
        assert_eq!(loops(&default_graph(&packed.bytes)), 0, "{name}");
    }
}

#[test]
fn weights_in_fewer_bits_serve_every_plan_and_are_stored_once() {
    let (one, batch) = ("x=f32[1,3,192,512]", "x=f32[1|5,3,192,512]");
    let onnx = onnx("ppocr-cls");
    let shape = [1, 3, 192, 512];
    let input = [Tensor::new(shape, TensorData::F32(image_of(&shape, 3))).unwrap()];
    let wanted = plan_at(&try_pack(&onnx, &[one], None).unwrap().bytes, &shape, 1).run(&input).unwrap();
    for (weights, most) in [(Weights::F16, 2e-3), (Weights::Int8, 5e-2)] {
        let packs = [one, batch].map(|pin| try_pack_in(&onnx, &[pin], None, weights).unwrap());
        let count = |packed: &Packed| (packed.report.weights.encoded, packed.report.weights.encoded_bytes);
        assert_eq!(count(&packs[0]), count(&packs[1]), "{weights}");
        assert!(packs[0].report.weights.encoded > 20, "{:?}", packs[0].report.weights);
        assert_eq!(packs[1].report.batch.as_deref(), Some("image by image"));
        let copies = |packed: &Packed| packed.report.portable.as_ref().unwrap().second_copy_bytes;
        let f32_copies = copies(&try_pack(&onnx, &[batch], None).unwrap());
        assert_eq!(copies(&packs[1]), f32_copies, "{weights}: the portable graph has weights of its own");

        let region = Arc::new(Region::complete(Buffer::copy_of(&packs[1].bytes).unwrap()));
        let pack = Arc::new(Pack::from_complete(&region).unwrap());
        assert_eq!(pack.manifest().provenance.options["weights"], weights.to_string());
        let options = BuildOptions { portable: true, ..BuildOptions::default() };
        let portable = Plans::open(pack, region, &options).unwrap().at(&[shape.to_vec()]).unwrap();
        let (tuned, portable) =
            (plan_at(&packs[1].bytes, &shape, 2).run(&input).unwrap(), portable.run(&input).unwrap());
        let far = |a: &Tensor, b: &Tensor| {
            let pairs = a.as_f32().unwrap().iter().zip(b.as_f32().unwrap());
            pairs.fold(0f32, |most, (a, b)| most.max((a - b).abs()))
        };
        assert!(far(&tuned[0], &portable[0]) < 1e-5, "{weights}");
        let lost = far(&tuned[0], &wanted[0]);
        assert!(lost > 0.0 && lost < most, "{weights}: {lost} away from f32");
    }
}

/// Packed with the golden inputs as calibration data, a model's convolutions are done in bytes, and little of its answer is lost.
#[test]
fn a_calibrated_model_is_done_in_bytes() {
    for (name, pins, output) in
        [("mnist-cnn", &[][..], "logits"), ("ppocr-cls", &["x=f32[1,3,48,192]"][..], "")]
    {
        let golden = |file: &str| npz::read(&data(&format!("goldens/{name}/{file}.npz")));
        let (inputs, outputs) = (golden("input"), golden("output"));
        let plain = try_pack(&onnx(name), pins, None).unwrap();
        let (_, plan) = load(&plain.bytes);
        let inputs: Vec<_> = plan.inputs().iter().map(|p| inputs[&p.name].clone()).collect();
        let members = plan.inputs().iter().zip(&inputs).map(|(port, input)| {
            let shape = [&[1], input.shape()].concat();
            (port.name.clone(), input.clone().reshape(shape).unwrap())
        });
        let data = Dataset::new(members.collect(), Texts::default(), String::new()).unwrap();
        let asked = Asked { calibration: Some(&data), compute: Compute::Int8, ..Asked::default() };
        let packed = try_pack_with(&onnx(name), (pins, None), Weights::F32, asked).unwrap();
        let report = packed.report.int8.unwrap();
        assert!(report.convolutions >= 2, "{name}: {report:?}");
        let portable = packed.report.portable.unwrap();
        // Weights are stored once; biases are others in a plan in bytes, which adds to them what zero points leave.
        let most = packed.bytes.len() / 8;
        assert!(portable.second_copy_bytes <= most, "{name}: {} bytes", portable.second_copy_bytes);
        let (_, plan) = load(&packed.bytes);
        let found = plan.run(&inputs).unwrap();
        for (port, found) in plan.outputs().iter().zip(&found) {
            assert!(output.is_empty() || port.name == output);
            let (found, wanted) = (found.as_f32().unwrap(), outputs[&port.name].as_f32().unwrap());
            let largest = wanted.iter().fold(0f32, |m, w| m.max(w.abs()));
            let error = found.iter().zip(wanted).fold(0f32, |m, (f, w)| m.max((f - w).abs())) / largest;
            assert!(error > 0.0 && error < 0.1, "{name}: {error}");
        }
    }
}

#[test]
fn pruned_packs_compute_less_and_tell_what_that_cost() {
    let onnx = onnx("mnist-cnn");
    let images = |count: usize, seed: usize| {
        let shape = [count, 1, 28, 28];
        let x = Tensor::new(shape, TensorData::F32(image_of(&shape, seed))).unwrap();
        Dataset::new(vec![("image".into(), x)], Texts::default(), format!("blake3:{seed}")).unwrap()
    };
    let (calibration, evaluation) = (images(64, 3), images(32, 4));
    let metric: glowplug_packer::Metric = "cosine".parse().unwrap();
    let prune = |how: Option<Prune>, pins: &[&str]| {
        let accuracy = Some(Accuracy { metric: metric.clone(), data: &evaluation, max_drop: None });
        let contract = Contract { accuracy, max_bytes: None };
        let asked = Asked { calibration: Some(&calibration), prune: how, contract, ..Asked::default() };
        try_pack_with(&onnx, (pins, None), Weights::F32, asked)
    };
    let how = Prune { macs: 0.25, restore: true };
    let plain = prune(None, &[]).unwrap();
    let packed = prune(Some(how), &[]).unwrap();
    assert!(packed.bytes.len() < plain.bytes.len() * 9 / 10, "{} {}", packed.bytes.len(), plain.bytes.len());
    let compression = packed.report.compression.unwrap();
    let (pruning, accuracy) = (compression.pruning.unwrap(), compression.accuracy.unwrap());
    assert!(pruning.macs_after as f64 <= 0.75 * pruning.macs_before as f64, "{pruning:?}");
    let (score, without) = (pruning.score.unwrap(), pruning.score_without_restoring.unwrap());
    assert!(score.0 > without.0 && score.0 > 0.9, "{pruning:?}");
    // What counts is the model as it came.
    assert!(
        (accuracy.before.0 - 1.0).abs() < 1e-6 && (accuracy.after.0 - score.0).abs() < 1e-4,
        "{accuracy:?}"
    );
    let pack = Pack::parse(&packed.bytes).unwrap();
    let told = &pack.manifest().provenance.options["pruned"];
    assert!(told.ends_with("multiply-adds, restored"), "{told}");

    // Several shapes are pruned alike, and the portable graph with them.
    let several = prune(Some(how), &["image=f32[1|4,1,28,28]"]).unwrap();
    let shape = [4, 1, 28, 28];
    let batch = Tensor::new(shape, TensorData::F32(image_of(&shape, 9))).unwrap();
    let wanted = plan_at(&several.bytes, &shape, 1).run(std::slice::from_ref(&batch)).unwrap();
    let region = Arc::new(Region::complete(Buffer::copy_of(&packed.bytes).unwrap()));
    let pack = Arc::new(Pack::from_complete(&region).unwrap());
    let options = BuildOptions { portable: true, ..BuildOptions::default() };
    let portable = Plans::open(pack, region, &options).unwrap().at(&[shape.to_vec()]).unwrap();
    compare("portable", &portable.run(&[batch]).unwrap()[0], &wanted[0]);

    let e = try_pack_with(&onnx, (&[], None), Weights::F32, Asked { prune: Some(how), ..Asked::default() });
    let e = e.unwrap_err();
    assert_eq!((e.kind(), e.to_string().as_str()), (ErrorKind::Data, "pruning needs calibration data"));
}
