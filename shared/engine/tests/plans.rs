//! Plans made by hand, through the public door: every operator of our own against its definition, and what a
//! caller is told when something does not fit.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

use glowplug_engine::{BuildOptions, EngineError, ErrorKind, Plan, target};
use glowplug_pack::manifest::{Axis, InputSpec, ModelInfo, OutputSpec};
use glowplug_pack::plan::{
    Activation, BinaryOp, Fact, Fused, Int8Function, Int8Tail, Kernel, Node, Op, Operand, Outlet,
    PanelFormat, PlanGraph, PlanHead, RowStrides, Share, Step, Window,
};
use glowplug_pack::{
    Buffer, Dtype, EncodedPanel, Encoding, Form, Manifest, Memory, Pack, PackBuilder, PackError, Place,
    Region, Tensor, TensorData, WeightId,
};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tract_linalg::MmmDispatch;
use tract_linalg::pack::PackedFormat;

/// A pack in the making: nodes in order, each taking earlier ones by index.
struct Draft {
    builder: PackBuilder,
    nodes: Vec<Node>,
    inputs: Vec<usize>,
    kernels: Vec<Kernel>,
    target: String,
    tract: String,
}

impl Draft {
    fn new() -> Draft {
        let (builder, nodes, inputs, kernels) = (PackBuilder::new(), vec![], vec![], vec![]);
        Draft { builder, nodes, inputs, kernels, target: target::host(), tract: target::TRACT_VERSION.into() }
    }

    fn node(&mut self, op: Op, inputs: &[usize], fact: Fact) -> usize {
        let inputs = inputs.iter().map(|node| Outlet { node: *node, slot: 0 }).collect();
        self.nodes.push(Node { name: format!("n{}", self.nodes.len()), op, inputs, outputs: vec![fact] });
        self.nodes.len() - 1
    }

    fn source(&mut self, dtype: Dtype, shape: &[usize]) -> usize {
        let id = self.node(Op::Source, &[], Fact::Tensor { dtype, shape: shape.to_vec() });
        self.inputs.push(id);
        id
    }

    fn weight(&mut self, shape: &[usize], values: &[f32]) -> WeightId {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let form = Form::Plain { dtype: Dtype::F32, shape: shape.to_vec() };
        self.builder.weight("w", Place::Blobs, form, &bytes).unwrap()
    }

    fn constant(&mut self, shape: &[usize], values: &[f32]) -> usize {
        let weight = self.weight(shape, values);
        self.node(Op::Constant { weight }, &[], Fact::f32(shape))
    }

    /// `[mn, k]` values as panels of `format`.
    fn panels(&mut self, format: &PanelFormat, values: &[f32], k: usize, mn: usize) -> WeightId {
        let panel_bytes = format.panel_bytes(k).unwrap().next_multiple_of(512);
        let mut bytes = vec![0u8; mn.div_ceil(format.r) * panel_bytes];
        for (i, v) in values.iter().enumerate() {
            let (row, depth) = (i / k, i % k);
            let at = row / format.r * panel_bytes + (depth * format.r + row % format.r) * 4;
            bytes[at..at + 4].copy_from_slice(&v.to_le_bytes());
        }
        let form = Form::Panels { dtype: Dtype::F32, k, mn, r: format.r, panel_bytes };
        self.builder.weight("w", Place::Blobs, form, &bytes).unwrap()
    }

    /// The file, with the last node as its one output.
    fn file(self) -> Vec<u8> {
        self.file_with(|plan| plan).unwrap()
    }

    /// The file, its plan section changed by `change`, if that leaves one.
    fn file_with(mut self, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Option<Vec<u8>> {
        let last = self.nodes.len() - 1;
        let end = |id: usize| match &self.nodes[id].outputs[0] {
            Fact::Tensor { dtype, shape } => (*dtype, shape.clone()),
            panels => panic!("{panels:?} as an end"),
        };
        let heads: Vec<_> = self.inputs.iter().map(|id| end(*id)).collect();
        let axes = |shape: &[usize]| {
            shape.iter().map(|n| Axis { name: "a".into(), size: *n, symbolic: false }).collect()
        };
        let input = |(i, (dtype, shape)): (usize, &(Dtype, Vec<usize>))| InputSpec {
            name: format!("in{i}"),
            dtype: *dtype,
            axes: axes(shape),
            pipeline: vec![],
            pad: None,
        };
        let (dtype, shape) = end(last);
        let manifest = Manifest {
            model: ModelInfo { name: "m".into(), licence: None },
            inputs: heads.iter().enumerate().map(input).collect(),
            outputs: vec![OutputSpec {
                name: "out".into(),
                dtype,
                axes: axes(&shape),
                post: vec![],
                labels: None,
            }],
            ..Manifest::default()
        };
        let graph = PlanGraph {
            head: PlanHead { target: self.target, tract: self.tract, inputs: heads },
            kernels: self.kernels,
            bodies: vec![],
            nodes: self.nodes,
            inputs: self.inputs,
            outputs: vec![Outlet { node: last, slot: 0 }],
        };
        let plan = change(graph.encode());
        PlanGraph::decode(&plan, self.builder.weights()).ok()?;
        self.builder.plan(plan);
        self.builder.finish(manifest).ok()
    }

    fn plan(self) -> Arc<Plan> {
        build(&self.file()).unwrap()
    }
}

fn build(file: &[u8]) -> Result<Arc<Plan>, EngineError> {
    build_over(Arc::new(Region::complete(Buffer::copy_of(file).unwrap())), file)
}

fn build_over(region: Arc<Region>, file: &[u8]) -> Result<Arc<Plan>, EngineError> {
    Plan::build(Arc::new(Pack::parse(file).unwrap()), region, &BuildOptions::default())
}

/// Some f32 kernel of this CPU that needs no more alignment than packs have, as a plan names it.
fn some_kernel() -> Kernel {
    let format = |f: &PackedFormat| PanelFormat {
        dtype: Dtype::F32,
        r: f.r,
        align: f.alignment_bytes,
        end_padding: f.end_padding_record,
    };
    let kernels = MmmDispatch::native().runnable().iter();
    let found = kernels.flat_map(|k| k.packings().iter().enumerate().map(move |p| (k, p))).find_map(
        |(k, (i, (a, b)))| {
            let (a, b) = (a.downcast_ref::<PackedFormat>()?, b.downcast_ref::<PackedFormat>()?);
            let f32s =
                [k.internal_type(), a.dt, b.dt].iter().all(|t| *t == tract_core::prelude::DatumType::F32);
            (f32s && k.nr() > 1 && a.alignment_bytes <= 256).then(|| Kernel {
                name: k.name().into(),
                packing: i,
                a: format(a),
                b: format(b),
            })
        },
    );
    found.unwrap()
}

#[allow(clippy::cast_precision_loss)]
fn ramp(n: usize, step: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * step + 3) % 17) as f32 * 0.25 - 2.0).collect()
}

fn f32s(shape: &[usize], step: usize) -> Tensor {
    Tensor::from_f32(shape, ramp(shape.iter().product(), step)).unwrap()
}

/// Every `(image, channel, oy, ox)`, with the input values under its window and the tap of each.
fn windows(x: &Tensor, w: &Window, mut visit: impl FnMut(usize, Vec<(usize, f32)>)) {
    let [n, c, height, width] = *x.shape() else { panic!("{x}") };
    for plane in 0..n * c {
        for (oy, ox) in (0..w.output.0).flat_map(|y| (0..w.output.1).map(move |x| (y, x))) {
            let mut taps = vec![];
            for (ky, kx) in (0..w.kernel.0).flat_map(|y| (0..w.kernel.1).map(move |x| (y, x))) {
                let y = (oy * w.strides.0 + ky * w.dilations.0).checked_sub(w.pads.0).filter(|y| *y < height);
                let at = (ox * w.strides.1 + kx * w.dilations.1).checked_sub(w.pads.1).filter(|x| *x < width);
                if let (Some(y), Some(at)) = (y, at) {
                    taps.push((ky * w.kernel.1 + kx, x.as_f32().unwrap()[(plane * height + y) * width + at]));
                }
            }
            visit(plane, taps);
        }
    }
}

/// Windows of many kinds, over an input of 11 x 13.
fn geometries() -> Vec<Window> {
    let w = |kernel, strides, dilations, pads, output| Window { kernel, strides, dilations, pads, output };
    vec![
        w((3, 3), (1, 1), (1, 1), (1, 1), (11, 13)),
        w((3, 3), (2, 2), (1, 1), (1, 1), (6, 7)),
        w((5, 5), (2, 1), (1, 1), (2, 2), (6, 13)),
        w((1, 7), (1, 3), (1, 1), (0, 3), (11, 5)),
        w((3, 2), (1, 2), (2, 3), (2, 0), (11, 5)),
        w((9, 9), (4, 4), (2, 2), (12, 12), (5, 6)),
        w((2, 2), (1, 1), (1, 1), (0, 0), (10, 12)),
    ]
}

fn close(found: &Tensor, wanted: &[f32], case: &dyn std::fmt::Debug) {
    let found = found.as_f32().unwrap();
    assert_eq!(found.len(), wanted.len(), "{case:?}");
    for (i, (f, w)) in found.iter().zip(wanted).enumerate() {
        assert!((f - w).abs() <= 1e-4 * (1.0 + w.abs()), "{case:?}: {f} at {i}, expected {w}");
    }
}

#[test]
fn depthwise_convolution_is_its_definition() {
    for w in geometries() {
        let (x, taps, bias) = (f32s(&[2, 3, 11, 13], 5), ramp(3 * w.kernel.0 * w.kernel.1, 7), ramp(3, 2));
        let mut wanted = vec![];
        windows(&x, &w, |plane, under| {
            let kernel = &taps[plane % 3 * w.kernel.0 * w.kernel.1..];
            wanted.push(under.iter().fold(bias[plane % 3], |sum, (tap, v)| sum + kernel[*tap] * v));
        });
        let mut draft = Draft::new();
        let source = draft.source(Dtype::F32, &[2, 3, 11, 13]);
        let bias = draft.constant(&[3], &bias);
        let kernel = draft.weight(&[3, w.kernel.0 * w.kernel.1], &taps);
        let fact = Fact::f32(&[2, 3, w.output.0, w.output.1]);
        draft.node(Op::DepthwiseConv { window: w, kernel }, &[source, bias], fact);
        close(&draft.plan().run(&[x]).unwrap()[0], &wanted, &w);
    }
}

#[test]
fn direct_convolution_is_its_definition() {
    for w in geometries() {
        let taps_of_one = w.kernel.0 * w.kernel.1;
        let (x, taps, bias) = (f32s(&[2, 3, 11, 13], 5), ramp(5 * 3 * taps_of_one, 7), ramp(5, 2));
        // One sum for each plane of the input under each filter; they add up to the output.
        let positions = w.output.0 * w.output.1;
        let mut wanted = vec![0.0; 2 * 5 * positions];
        for (filter, bias) in bias.iter().enumerate() {
            let mut sums = vec![];
            windows(&x, &w, |plane, under| {
                let kernel = &taps[(filter * 3 + plane % 3) * taps_of_one..];
                sums.push(under.iter().fold(0.0, |sum, (tap, v)| sum + kernel[*tap] * v));
            });
            for (image, planes) in sums.chunks(3 * positions).enumerate() {
                for position in 0..positions {
                    wanted[(image * 5 + filter) * positions + position] =
                        planes.chunks(positions).fold(*bias, |sum, plane| sum + plane[position]);
                }
            }
        }
        let mut draft = Draft::new();
        let source = draft.source(Dtype::F32, &[2, 3, 11, 13]);
        let bias = draft.constant(&[5], &bias);
        let kernel = draft.weight(&[5, 3 * taps_of_one], &taps);
        let fact = Fact::f32(&[2, 5, w.output.0, w.output.1]);
        draft.node(Op::DirectConv { window: w, kernel }, &[source, bias], fact);
        close(&draft.plan().run(&[x]).unwrap()[0], &wanted, &w);
    }
}

#[test]
fn max_pool_is_its_definition() {
    for w in geometries() {
        let x = f32s(&[2, 3, 11, 13], 5);
        let mut wanted = vec![];
        windows(&x, &w, |_, under| wanted.push(under.iter().fold(f32::NEG_INFINITY, |m, (_, v)| m.max(*v))));
        let mut draft = Draft::new();
        let source = draft.source(Dtype::F32, &[2, 3, 11, 13]);
        draft.node(Op::MaxPool { window: w }, &[source], Fact::f32(&[2, 3, w.output.0, w.output.1]));
        let found = draft.plan().run(&[x]).unwrap();
        assert_eq!(found[0].as_f32().unwrap(), wanted, "{w:?}");
    }
}

/// `LeakyRelu(conv(x))` of 2 images, 4 channels in 2 groups, 5 outputs per group, through Im2col and MatMul.
fn convolution(w: Window, kernels: &[f32]) -> Draft {
    let mut draft = Draft::new();
    let kernel = some_kernel();
    let (k, columns) = (2 * w.kernel.0 * w.kernel.1, w.output.0 * w.output.1);
    let source = draft.source(Dtype::F32, &[2, 4, 11, 13]);
    let patches = Fact::Panels { format: kernel.b, batch: vec![2, 2], k, mn: columns };
    let b = draft.node(Op::Im2col { format: kernel.b, window: w, group: 2 }, &[source], patches);
    let weights = kernels.chunks(5 * k).map(|group| draft.panels(&kernel.a, group, k, 5)).collect();
    let a =
        draft.node(Op::Panels { weights }, &[], Fact::Panels { format: kernel.a, batch: vec![2], k, mn: 5 });
    let bias = draft.constant(&[2, 5], &ramp(10, 3));
    let op = Op::MatMul {
        kernel: 0,
        a: Operand::Input { index: 0, axes: vec![(1, 0)] },
        b: Operand::Input { index: 1, axes: vec![(0, 0), (1, 1)] },
        m_axis: Some(2),
        n_axis: Some(3),
        fused: vec![
            Fused::PerRow { op: BinaryOp::Add, input: 2, axes: vec![(1, 0)] },
            Fused::LeakyRelu { input: 3 },
        ],
    };
    draft.kernels.push(kernel);
    let alpha = draft.constant(&[1], &[0.25]);
    draft.node(op, &[a, b, bias, alpha], Fact::f32(&[2, 2, 5, columns]));
    draft
}

#[test]
fn convolution_through_patches_is_its_definition() {
    for w in geometries() {
        let area = w.kernel.0 * w.kernel.1;
        let (x, kernels, bias) = (f32s(&[2, 4, 11, 13], 5), ramp(10 * 2 * area, 7), ramp(10, 3));
        let mut planes = vec![vec![]; 8];
        windows(&x, &w, |plane, under| planes[plane].push(under));
        let mut wanted = vec![];
        for (image, output) in (0..2).flat_map(|i| (0..10).map(move |o| (i, o))) {
            for (column, _) in planes[0].iter().enumerate() {
                let mut sum = bias[output];
                for channel in 0..2 {
                    let kernel = &kernels[(output * 2 + channel) * area..];
                    let under = &planes[image * 4 + output / 5 * 2 + channel][column];
                    sum += under.iter().map(|(tap, v)| kernel[*tap] * v).sum::<f32>();
                }
                wanted.push(if sum < 0.0 { sum * 0.25 } else { sum });
            }
        }
        close(&convolution(w, &kernels).plan().run(&[x]).unwrap()[0], &wanted, &w);
    }
}

#[test]
fn chains_share_their_operands_as_they_say() {
    // Periods that vector kernels take, and periods that they do not.
    for (rows, columns) in [(3, 64), (3, 20), (40, 3), (1, 7)] {
        let mut draft = Draft::new();
        let source = draft.source(Dtype::F32, &[rows, columns]);
        let (per_row, per_column) = (ramp(rows, 2), ramp(columns, 3));
        let (a, b) = (draft.constant(&[rows, 1], &per_row), draft.constant(&[1, columns], &per_column));
        let steps = vec![
            Step { op: BinaryOp::SubF, share: Share::PerBlock },
            Step { op: BinaryOp::Mul, share: Share::Lockstep },
        ];
        draft.node(Op::Chain { steps }, &[source, a, b], Fact::f32(&[rows, columns]));
        let x = f32s(&[rows, columns], 5);
        let values = x.as_f32().unwrap().iter().enumerate();
        let wanted: Vec<_> =
            values.map(|(i, v)| (per_row[i / columns] - v) * per_column[i % columns]).collect();
        close(&draft.plan().run(&[x]).unwrap()[0], &wanted, &(rows, columns));
    }
}

/// What validation lets through must run or fail, whatever it says: every bit of two plans flipped.
#[test]
fn plans_with_a_flipped_bit_run_or_fail() {
    let drafts: [fn() -> Draft; 2] =
        [|| convolution(geometries()[1], &ramp(10 * 2 * 9, 7)), depthwise_and_pool];
    let mut ran = 0;
    for draft in drafts {
        let mut bits = 0;
        draft().file_with(|plan| {
            bits = plan.len() * 8;
            plan
        });
        for bit in 0..bits {
            let flipped = draft().file_with(|mut plan| {
                plan[bit / 8] ^= 1 << (bit % 8);
                plan
            });
            let Some(plan) = flipped.and_then(|file| build(&file).ok()) else { continue };
            let inputs: Vec<_> = plan.inputs().iter().map(|p| f32s(&p.shape, 5)).collect();
            ran += usize::from(plan.run(&inputs).is_ok());
        }
    }
    assert!(ran > 100, "{ran} of the flipped plans ran");
}

fn depthwise_and_pool() -> Draft {
    let w = geometries()[2];
    let mut draft = Draft::new();
    let source = draft.source(Dtype::F32, &[2, 3, 11, 13]);
    let bias = draft.constant(&[3], &ramp(3, 2));
    let kernel = draft.weight(&[3, 25], &ramp(75, 7));
    let op = Op::DepthwiseConv { window: w, kernel };
    let conv = draft.node(op, &[source, bias], Fact::f32(&[2, 3, w.output.0, w.output.1]));
    let window = Window { output: (3, 5), ..geometries()[3] };
    draft.node(Op::MaxPool { window }, &[conv], Fact::f32(&[2, 3, 3, 5]));
    draft
}

fn lookup() -> Draft {
    let mut draft = Draft::new();
    let source = draft.source(Dtype::I64, &[1, 3]);
    let table = draft.weight(&[10, 2], &ramp(20, 1));
    draft.node(Op::GatherRows { table }, &[source], Fact::f32(&[1, 3, 2]));
    draft
}

#[test]
fn rows_are_found_from_both_ends_and_not_beyond() {
    let (plan, rows) = (lookup().plan(), ramp(20, 1));
    let run = |ids: [i64; 3]| plan.run(&[Tensor::from_i64([1, 3], ids.to_vec()).unwrap()]);
    let wanted = [&rows[..2], &rows[18..], &rows[18..]].concat();
    assert_eq!(run([0, 9, -1]).unwrap()[0].as_f32().unwrap(), wanted);
    for id in [10, -11, i64::MAX, i64::MIN] {
        let e = run([0, id, 0]).unwrap_err();
        assert!(
            e.kind() == ErrorKind::Run && e.to_string().contains(&format!("index {id} into a table of 10")),
            "{e}"
        );
    }
    assert!(run([1, 2, 3]).is_ok(), "an error leaves the plan usable");
}

#[test]
fn inputs_are_checked_by_name() {
    let plan = lookup().plan();
    assert_eq!((&*plan.inputs()[0].name, &*plan.outputs()[0].name), ("in0", "out"));
    let cases: [(Vec<Tensor>, &str); 4] = [
        (vec![], "0 inputs, expected 1: in0"),
        (vec![f32s(&[1, 3], 1)], "input \"in0\" is f32[1,3], expected i64[1,3]"),
        (vec![Tensor::from_i64([3], vec![0; 3]).unwrap()], "input \"in0\" is i64[3], expected i64[1,3]"),
        (vec![Tensor::from_i64([1, 4], vec![0; 4]).unwrap()], "input \"in0\" is i64[1,4], expected i64[1,3]"),
    ];
    for (inputs, text) in cases {
        let e = plan.run(&inputs).unwrap_err();
        assert!(e.kind() == ErrorKind::Input && e.to_string() == text, "{e}");
    }
}

#[test]
fn a_plan_that_does_not_fit_names_what_is_missing() {
    let w = geometries()[0];
    type Change = fn(&mut Draft);
    let cases: [(&str, Change); 5] = [
        ("this CPU lacks avx1024", |d| d.target += "+avx1024"),
        ("planned by tract 0.1.2, this build has 0.23.9", |d| d.tract = "0.1.2".into()),
        ("kernel \"nope\": not on this CPU", |d| d.kernels[0].name = "nope".into()),
        ("it has no such packing", |d| d.kernels[0].packing = 99),
        ("its panel layout is another than the plan's", |d| d.kernels[0].a.align /= 2),
    ];
    for (text, change) in cases {
        let mut draft = convolution(w, &ramp(10 * 2 * 9, 7));
        change(&mut draft);
        let e = build(&draft.file()).unwrap_err();
        assert!(e.kind() == ErrorKind::UnsupportedCpu && e.to_string().contains(text), "{e}");
    }
}

/// A region of `file` whose chunks have not arrived.
fn pending(file: &[u8]) -> (Arc<Region>, Arc<Pack>) {
    let pack = Arc::new(Pack::parse(file).unwrap());
    (Arc::new(Region::pending(Buffer::zeroed(file.len()).unwrap(), pack.chunks().to_vec()).unwrap()), pack)
}

fn deliver(region: &Region, pack: &Pack, file: &[u8]) {
    for (i, chunk) in pack.chunks().iter().enumerate() {
        let start = usize::try_from(chunk.offset).unwrap();
        region.deliver(i, &file[start..start + chunk.len]).unwrap();
    }
}

#[test]
fn weights_are_waited_for_and_not_longer_than_asked() {
    let file = lookup().file();
    let ids = [Tensor::from_i64([1, 3], vec![0; 3]).unwrap()];
    let (region, pack) = pending(&file);
    let plan = Plan::build(pack.clone(), region.clone(), &BuildOptions::default()).unwrap();
    let soon = Some(Instant::now() + Duration::from_millis(5));
    assert_eq!(plan.run_until(&ids, soon).unwrap_err().kind(), ErrorKind::Timeout);
    std::thread::scope(|s| {
        let run = s.spawn(|| plan.run(&ids));
        std::thread::sleep(Duration::from_millis(5));
        deliver(&region, &pack, &file);
        assert!(run.join().unwrap().is_ok());
    });
    let (region, pack) = pending(&file);
    let plan = Plan::build(pack.clone(), region.clone(), &BuildOptions::default()).unwrap();
    region.fail(PackError::new(glowplug_pack::ErrorKind::Failed, "403"));
    assert_eq!(plan.run(&ids).unwrap_err().kind(), ErrorKind::Transfer);
}

/// Helpers of a run know nothing of its deadline, so that a run on several threads has to mind it for them.
#[test]
fn the_deadline_reaches_runs_on_several_threads() {
    let w = Window { kernel: (3, 3), strides: (1, 1), dilations: (1, 1), pads: (1, 1), output: (64, 64) };
    let mut draft = Draft::new();
    let (kernel, k) = (some_kernel(), 64 * 9);
    let source = draft.source(Dtype::F32, &[1, 64, 64, 64]);
    let patches = Fact::Panels { format: kernel.b, batch: vec![1, 1], k, mn: 64 * 64 };
    let b = draft.node(Op::Im2col { format: kernel.b, window: w, group: 1 }, &[source], patches);
    let weight = draft.panels(&kernel.a, &ramp(256 * k, 7), k, 256);
    let op = Op::MatMul {
        kernel: 0,
        a: Operand::Weight { weight },
        b: Operand::Input { index: 0, axes: vec![(0, 0), (1, 1)] },
        m_axis: Some(2),
        n_axis: Some(3),
        fused: vec![],
    };
    draft.kernels.push(kernel);
    draft.node(op, &[b], Fact::f32(&[1, 1, 256, 64 * 64]));
    let file = draft.file();
    let x = [f32s(&[1, 64, 64, 64], 5)];
    let wanted = build(&file).unwrap().run(&x).unwrap();

    let (region, pack) = pending(&file);
    let options = BuildOptions { threads: 2, ..BuildOptions::default() };
    let plan = Plan::build(pack.clone(), region.clone(), &options).unwrap();
    let soon = Some(Instant::now() + Duration::from_millis(20));
    assert_eq!(plan.run_until(&x, soon).unwrap_err().kind(), ErrorKind::Timeout);
    deliver(&region, &pack, &file);
    close(&plan.run(&x).unwrap()[0], wanted[0].as_f32().unwrap(), &"on two threads");
}

#[test]
fn one_plan_serves_many_threads() {
    let w = geometries()[1];
    let plan = convolution(w, &ramp(10 * 2 * 9, 7)).plan();
    let wanted = plan.run(&[f32s(&[2, 4, 11, 13], 5)]).unwrap();
    std::thread::scope(|s| {
        for _ in 0..8 {
            s.spawn(|| {
                for _ in 0..20 {
                    assert_eq!(plan.run(&[f32s(&[2, 4, 11, 13], 5)]).unwrap(), wanted);
                }
            });
        }
    });
}

/// A plan of `file` whose bytes are all there, on so many threads.
fn build_on(file: &[u8], threads: usize) -> Arc<Plan> {
    let (region, pack) = pending(file);
    deliver(&region, &pack, file);
    Plan::build(pack, region, &BuildOptions { threads, ..BuildOptions::default() }).unwrap()
}

/// Heads that are long enough to hand pieces of their products to other threads, in several runs at once.
#[test]
fn long_attention_shares_its_threads() {
    let (heads, rows, width) = (12, 768, 64);
    let shape = [1, rows, heads * width];
    let mut draft = Draft::new();
    let operands = [(); 3].map(|()| draft.source(Dtype::F32, &shape));
    let op = Op::Attention { batch: 1, heads, queries: rows, keys: rows, scale: 0.125 };
    draft.node(op, &operands, Fact::f32(&shape));
    let file = draft.file();
    let inputs = [5, 7, 11].map(|step| f32s(&shape, step));
    let wanted = build_on(&file, 1).run(&inputs).unwrap();
    let plan = build_on(&file, 4);
    std::thread::scope(|s| {
        for _ in 0..3 {
            s.spawn(|| {
                for _ in 0..4 {
                    let found = plan.run(&inputs).unwrap();
                    close(&found[0], wanted[0].as_f32().unwrap(), &"on four threads");
                }
            });
        }
    });
}

#[test]
fn a_number_that_is_no_row_is_a_row_of_zeros() {
    let (table, bias) = (ramp(4 * 64, 7), ramp(64, 3));
    let mut draft = Draft::new();
    let ids = draft.source(Dtype::I64, &[5]);
    let bias_of = draft.constant(&[64], &bias);
    let table_of = draft.weight(&[4, 64], &table);
    let op = Op::OneHotRows { table: table_of, activation: Activation::Identity };
    draft.node(op, &[ids, bias_of], Fact::f32(&[5, 64]));
    // The fourth one's place in the table is 0 in 64 bits.
    let ids = Tensor::new(vec![5], TensorData::I64(vec![2, -1, 4, 1 << 58, i64::MAX])).unwrap();
    let mut wanted: Vec<f32> = table[2 * 64..3 * 64].iter().zip(&bias).map(|(t, b)| t + b).collect();
    (0..4).for_each(|_| wanted.extend(&bias));
    close(&draft.plan().run(&[ids]).unwrap()[0], &wanted, &"numbers");
}

#[test]
fn a_largest_value_that_is_no_number_is_told() {
    let w = Window { kernel: (2, 2), strides: (1, 1), dilations: (1, 1), pads: (0, 0), output: (2, 3) };
    for nan_at in 0..12 {
        let mut x = ramp(12, 5);
        x[nan_at] = f32::NAN;
        let mut draft = Draft::new();
        let source = draft.source(Dtype::F32, &[1, 1, 3, 4]);
        draft.node(Op::MaxPool { window: w }, &[source], Fact::f32(&[1, 1, 2, 3]));
        let x = Tensor::new(vec![1, 1, 3, 4], TensorData::F32(x)).unwrap();
        let found = draft.plan().run(&[x]).unwrap();
        for (i, found) in found[0].as_f32().unwrap().iter().enumerate() {
            let (row, column) = (i / 3, i % 3);
            let seen = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(y, x)| (row + y) * 4 + column + x);
            assert_eq!(found.is_nan(), seen.contains(&nan_at), "{nan_at} at {i}: {found}");
        }
    }
}

/// A buffer that starts 4 bytes after an aligned address.
struct Shifted(Buffer);

// SAFETY: all bytes but the first four of a buffer that lives as long.
#[allow(unsafe_code, reason = "memory that no careful store would make")]
unsafe impl Memory for Shifted {
    fn base(&self) -> NonNull<u8> {
        // SAFETY: the buffer has more than four bytes.
        unsafe { self.0.base().add(4) }
    }
    fn len(&self) -> usize {
        self.0.len() - 4
    }
}

#[test]
fn memory_that_kernels_cannot_read_is_an_error() {
    let file = convolution(geometries()[0], &ramp(10 * 2 * 9, 7)).file();
    let shifted = [&[0; 4], file.as_slice()].concat();
    let region = Region::complete(Shifted(Buffer::copy_of(&shifted).unwrap()));
    let plan = build_over(Arc::new(region), &file).unwrap();
    let e = plan.run(&[f32s(&[2, 4, 11, 13], 5)]).unwrap_err();
    assert!(e.to_string().contains("is not aligned to"), "{e}");
}

/// A weight of `[mn, k]` values, rounded to `encoding`, as panels: encoded, or else as what they become.
fn weight_in(draft: &mut Draft, encoding: Encoding, encoded: bool, (mn, k): (usize, usize)) -> WeightId {
    let rows: Vec<_> = ramp(mn * k, 7).chunks(k).map(|row| encoding.round(row).unwrap()).collect();
    if !encoded {
        let format = PanelFormat { dtype: Dtype::F32, r: 16, align: 4, end_padding: 1 };
        return draft.panels(&format, &rows.concat(), k, mn);
    }
    let panel = EncodedPanel { encoding, k, r: 16 };
    let form = Form::encoded_panels(panel, mn).unwrap();
    let Form::EncodedPanels { panel_bytes, .. } = form else { panic!("{form:?}") };
    let mut bytes = Vec::new();
    for (p, rows) in rows.chunks(16).enumerate() {
        let at = |i: usize| rows.get(i % 16).map_or(0.0, |row| row[i / 16]);
        bytes.extend(panel.encode(&(0..k * 16).map(at).collect::<Vec<_>>()).unwrap());
        bytes.resize((p + 1) * panel_bytes, 0x7f);
    }
    draft.builder.weight("w", Place::Blobs, form, &bytes).unwrap()
}

/// As [`weight_in`], as rows.
fn table_in(draft: &mut Draft, encoding: Encoding, encoded: bool, shape: [usize; 2]) -> WeightId {
    let rows: Vec<_> =
        ramp(shape[0] * shape[1], 5).chunks(shape[1]).map(|r| encoding.round(r).unwrap()).collect();
    if !encoded {
        return draft.weight(&shape, &rows.concat());
    }
    let bytes: Vec<u8> = rows.iter().flat_map(|row| encoding.encode_row(row).unwrap()).collect();
    let form = Form::EncodedRows { encoding, shape: shape.to_vec() };
    draft.builder.weight("w", Place::Embeddings, form, &bytes).unwrap()
}

/// Rows of a table, by their numbers and as one-hot rows, times a matrix of many panels.
fn lookup_and_product(encoding: Encoding, encoded: bool) -> Draft {
    let mut draft = Draft::new();
    let ids = draft.source(Dtype::I64, &[1, 6]);
    let (table, hot) =
        (table_in(&mut draft, encoding, encoded, [9, 21]), table_in(&mut draft, encoding, encoded, [5, 21]));
    let bias = draft.constant(&[21], &ramp(21, 3));
    let rows = draft.node(Op::GatherRows { table }, &[ids], Fact::f32(&[1, 6, 21]));
    let op = Op::OneHotRows { table: hot, activation: Activation::Relu };
    let hot = draft.node(op, &[ids, bias], Fact::f32(&[1, 6, 21]));
    let sum = draft.node(Op::Binary { op: BinaryOp::Add }, &[rows, hot], Fact::f32(&[1, 6, 21]));
    let dense = Op::Dense {
        weight: weight_in(&mut draft, encoding, encoded, (403, 21)),
        rows: RowStrides { outer: 1, outer_stride: 0, inner: 6, inner_stride: 21 },
        bias: false,
        residual: false,
        activation: Activation::Identity,
    };
    draft.node(dense, &[sum], Fact::f32(&[1, 6, 403]));
    draft
}

/// A convolution of images large enough for several threads.
fn filtered(encoding: Encoding, encoded: bool) -> Draft {
    let mut draft = Draft::new();
    let source = draft.source(Dtype::F32, &[1, 3, 40, 40]);
    let window =
        Window { kernel: (3, 3), strides: (1, 1), dilations: (1, 1), pads: (1, 1), output: (40, 40) };
    let kernel = weight_in(&mut draft, encoding, encoded, (150, 27));
    let bias = draft.source(Dtype::F32, &[150]);
    let op = Op::BlockedConv { window, kernel, steps: vec![] };
    let conv = draft.node(op, &[source, bias], Fact::f32(&[1, 19, 40, 40, 8]));
    draft.node(Op::UnblockChannels, &[conv], Fact::f32(&[1, 150, 40, 40]));
    draft
}

/// A draft with its weights in an encoding, expanded already or not.
type Encoded = fn(Encoding, bool) -> Draft;

#[test]
fn encoded_weights_give_the_bits_that_their_values_give() {
    let ids = vec![Tensor::from_i64([1, 6], vec![0, 8, -1, -9, 4, 3]).unwrap()];
    let images = vec![f32s(&[1, 3, 40, 40], 5), f32s(&[150], 3)];
    let bits = |t: &Tensor| t.as_f32().unwrap().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    for encoding in [Encoding::F16, Encoding::Int8] {
        let drafts: [(Encoded, &[Tensor]); 2] = [(lookup_and_product, &ids), (filtered, &images)];
        for (draft, inputs) in drafts {
            let [stored, encoded] = [false, true].map(|encoded| draft(encoding, encoded).file());
            let wanted = build(&stored).unwrap().run(inputs).unwrap();
            for threads in [1, 3] {
                let region = Arc::new(Region::complete(Buffer::copy_of(&encoded).unwrap()));
                let options = BuildOptions { threads, ..BuildOptions::default() };
                let plan = Plan::build(Arc::new(Pack::parse(&encoded).unwrap()), region, &options).unwrap();
                // The second time from memory.
                for _ in 0..2 {
                    let found = plan.run(inputs).unwrap();
                    assert!(bits(&found[0]) == bits(&wanted[0]), "{encoding} on {threads} threads");
                }
            }
        }
        let plan = lookup_and_product(encoding, true).plan();
        let e = plan.run(&[Tensor::from_i64([1, 6], vec![0, 0, 0, 0, 9, 0]).unwrap()]).unwrap_err();
        assert!(
            e.kind() == ErrorKind::Run && e.to_string().contains("index 9 into a table of 9 rows"),
            "{e}"
        );
    }
}

#[test]
fn encoded_weights_are_waited_for_and_expanded_by_many_threads_at_once() {
    let file = filtered(Encoding::Int8, true).file();
    let inputs = [f32s(&[1, 3, 40, 40], 5), f32s(&[150], 3)];
    let wanted = build(&file).unwrap().run(&inputs).unwrap();
    for threads in [1, 2] {
        let (region, pack) = pending(&file);
        let options = BuildOptions { threads, ..BuildOptions::default() };
        let plan = Plan::build(pack.clone(), region.clone(), &options).unwrap();
        let soon = Some(Instant::now() + Duration::from_millis(10));
        let e = plan.run_until(&inputs, soon).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Timeout, "{e}");
        std::thread::scope(|scope| {
            let run = || plan.run(&inputs).unwrap();
            let runs: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
            std::thread::sleep(Duration::from_millis(5));
            deliver(&region, &pack, &file);
            assert!(runs.into_iter().all(|run| run.join().unwrap() == wanted));
        });
    }
}

/// Bytes of weights in int8, `[count, depth]`: as panels of 16 filters or as rows, behind scales that nobody reads.
fn int8_weight(draft: &mut Draft, weights: &[i8], depth: usize, rows: bool) -> WeightId {
    let count = weights.len() / depth;
    let row = |i: usize| weights[i * depth..][..depth].iter().map(|w| w.cast_unsigned());
    if rows {
        let bytes: Vec<u8> = (0..count).flat_map(|i| [0x11; 4].into_iter().chain(row(i))).collect();
        let form = Form::EncodedRows { encoding: Encoding::Int8, shape: vec![count, depth] };
        return draft.builder.weight("w", Place::Blobs, form, &bytes).unwrap();
    }
    let panel = EncodedPanel { encoding: Encoding::Int8, k: depth, r: 16 };
    let form = Form::encoded_panels(panel, count).unwrap();
    let Form::EncodedPanels { panel_bytes, .. } = form else { panic!("{form:?}") };
    let mut bytes = vec![0x11u8; count.div_ceil(16) * panel_bytes];
    for (p, to) in bytes.chunks_exact_mut(panel_bytes).enumerate() {
        for i in 0..depth * 16 {
            let filter = p * 16 + i % 16;
            to[64 + i] = if filter < count { weights[filter * depth + i / 16].cast_unsigned() } else { 0 };
        }
    }
    draft.builder.weight("w", Place::Blobs, form, &bytes).unwrap()
}

/// An image of whole numbers, `[C, H, W]`.
#[derive(Clone)]
struct Image {
    extents: [usize; 3],
    values: Vec<i32>,
}

impl Image {
    fn at(&self, c: usize, y: isize, x: isize, outside: i32) -> i32 {
        let [_, h, w] = self.extents;
        let inside = |at: isize, n: usize| usize::try_from(at).ok().filter(|at| *at < n);
        match inside(y, h).zip(inside(x, w)) {
            Some((y, x)) => self.values[(c * h + y) * w + x],
            None => outside,
        }
    }

    /// `value(channel, y, x)` at every place.
    fn of(extents: [usize; 3], value: impl Fn(usize, isize, isize) -> i32) -> Image {
        let [c, h, w] = extents;
        let at = |i: usize| value(i / (h * w), (i / w % h).cast_signed(), (i % w).cast_signed());
        Image { extents, values: (0..c * h * w).map(at).collect() }
    }
}

/// Quantize, a convolution, a pool, a depthwise one, and one with a residual that gives floats; weights of the first are `first`.
fn in_bytes(first: &[i8], depthwise: &[i8], last: &[i8]) -> Draft {
    let bytes = |shape: &[usize]| Fact::Tensor { dtype: Dtype::U8, shape: shape.to_vec() };
    let window = |kernel, stride, pad, output| Window {
        kernel: (kernel, kernel),
        strides: (stride, stride),
        dilations: (1, 1),
        pads: (pad, pad),
        output,
    };
    let tail = |low, high| Int8Tail { function: Int8Function::Identity, scale: 1.0, zero: 0.0, low, high };
    let mut draft = Draft::new();
    let source = draft.source(Dtype::F32, &[1, 3, 9, 10]);
    let quantize = Op::QuantizeImage { inverse: 20.0, zero: 64 };
    let x = draft.node(quantize, &[source], bytes(&[1, 9, 10, 4]));
    let (multiplier, bias) = (draft.constant(&[32], &[0.0625; 32]), draft.constant(&[32], &[7.5; 32]));
    let kernel = int8_weight(&mut draft, first, 27, false);
    let op = Op::Int8Conv {
        window: window(3, 1, 1, (9, 10)),
        kernel,
        zero: 64,
        residual: None,
        tail: tail(0.0, 127.0),
    };
    let x = draft.node(op, &[x, multiplier, bias], bytes(&[1, 9, 10, 32]));
    let op = Op::Int8MaxPool { window: window(2, 2, 0, (4, 5)) };
    let pooled = draft.node(op, &[x], bytes(&[1, 4, 5, 32]));
    let kernel = int8_weight(&mut draft, depthwise, 9, true);
    let op =
        Op::Int8DepthwiseConv { window: window(3, 1, 1, (4, 5)), kernel, zero: 5, tail: tail(3.0, 99.0) };
    let x = draft.node(op, &[pooled, multiplier, bias], bytes(&[1, 4, 5, 32]));
    let kernel = int8_weight(&mut draft, last, 20, false);
    let everything = tail(f32::MIN, f32::MAX);
    let op = Op::Int8Conv {
        window: window(1, 1, 0, (4, 5)),
        kernel,
        zero: 3,
        residual: Some(0.5),
        tail: everything,
    };
    let x = draft.node(op, &[x, multiplier, bias, pooled], Fact::f32(&[1, 3, 4, 5, 8]));
    draft.node(Op::UnblockChannels, &[x], Fact::f32(&[1, 20, 4, 5]));
    draft
}

#[allow(clippy::cast_possible_truncation, reason = "clamped to a byte")]
#[test]
fn convolutions_in_bytes_are_their_definition_to_the_bit() {
    let ramp_of =
        |n: usize, by: usize| (0..n).map(|i| i8::try_from(i * by % 61).unwrap() - 30).collect::<Vec<_>>();
    let (first, depthwise, last) = (ramp_of(20 * 27, 7), ramp_of(20 * 9, 11), ramp_of(20 * 20, 13));
    let x = ramp(3 * 90, 7);
    let file = in_bytes(&first, &depthwise, &last).file();
    let input = [Tensor::new(vec![1, 3, 9, 10], TensorData::F32(x.clone())).unwrap()];

    let scaled = |sum: i32| sum as f32 * 0.0625 + 7.5;
    let byte = |sum: i32, low: f32, high: f32| scaled(sum).clamp(low, high).round_ties_even() as i32;
    let quantized = |v: &f32| (v * 20.0 + 64.0).clamp(0.0, 127.0).round_ties_even() as i32;
    let image = Image { extents: [3, 9, 10], values: x.iter().map(quantized).collect() };
    let convolved = Image::of([20, 9, 10], |o, y, x| {
        let term = |i: usize| {
            let (c, ky, kx) = (i / 9, (i / 3 % 3).cast_signed(), (i % 3).cast_signed());
            image.at(c, y + ky - 1, x + kx - 1, 64) * i32::from(first[o * 27 + i])
        };
        byte((0..27).map(term).sum(), 0.0, 127.0)
    });
    let pooled = Image::of([20, 4, 5], |c, y, x| {
        let places =
            [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(dy, dx)| convolved.at(c, 2 * y + dy, 2 * x + dx, 0));
        places.into_iter().max().unwrap()
    });
    let filtered = Image::of([20, 4, 5], |c, y, x| {
        let term = |i: usize| {
            let (ky, kx) = ((i / 3).cast_signed(), (i % 3).cast_signed());
            pooled.at(c, y + ky - 1, x + kx - 1, 5) * i32::from(depthwise[c * 9 + i])
        };
        byte((0..9).map(term).sum(), 3.0, 99.0)
    });
    let sums = Image::of([20, 4, 5], |o, y, x| {
        (0..20).map(|c| filtered.at(c, y, x, 0) * i32::from(last[o * 20 + c])).sum()
    });
    let wanted: Vec<u32> = sums
        .values
        .iter()
        .zip(&pooled.values)
        .map(|(sum, r)| (scaled(*sum) + *r as f32 * 0.5).to_bits())
        .collect();

    for threads in [1, 3] {
        let region = Arc::new(Region::complete(Buffer::copy_of(&file).unwrap()));
        let options = BuildOptions { threads, ..BuildOptions::default() };
        let plan = Plan::build(Arc::new(Pack::parse(&file).unwrap()), region, &options).unwrap();
        let bits = |t: &Tensor| t.as_f32().unwrap().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        for _ in 0..2 {
            assert!(bits(&plan.run(&input).unwrap()[0]) == wanted, "{threads} threads");
        }
        let plain = glowplug_engine::in_plain_code(|| plan.run(&input)).unwrap();
        assert!(bits(&plain[0]) == wanted, "plain code");
    }
}

#[test]
fn weights_whose_sums_could_exceed_16_bits_are_an_error() {
    let good = vec![1i8; 20 * 27];
    // Four of a sign meet in 16 bits.
    let large = |n: usize| (0..n).map(|i| [127, 126][i % 2]).collect::<Vec<i8>>();
    let input = [f32s(&[1, 3, 9, 10], 5)];
    for (first, depthwise) in [(large(20 * 27), good[..180].to_vec()), (good.clone(), large(180))] {
        let error = in_bytes(&first, &depthwise, &good[..400]).plan().run(&input).unwrap_err().to_string();
        assert!(error.contains("could exceed 16 bits"), "{error}");
    }
}
