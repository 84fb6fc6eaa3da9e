//! Portable graphs made by hand, through the public door: every operator against values worked out by hand,
//! weights read back from panels, and who serves when.
#![allow(clippy::cloned_ref_to_slice_refs, reason = "tables of operands read better as lists")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

use glowplug_engine::{BuildOptions, EngineError, ErrorKind, Plan, Plans, Source};
use glowplug_pack::manifest::{Axis, InputSpec, ModelInfo, OutputSpec};
use glowplug_pack::plan::{BinaryOp, Comparison, Outlet, PadMode, PlanGraph, PlanHead, Reducer, UnaryOp};
use glowplug_pack::portable::{
    Dim, DimId, Fact, Function, KernelLayout, Layout, Logic, LoopInput, LoopOutput, LoopScan, Node, Op,
    Padding, Pool, PortableGraph, Split, Stored, Subgraph,
};
use glowplug_pack::{
    Buffer, Dtype, Form, Manifest, Pack, PackBuilder, Place, Region, Tensor, TensorData, WeightId,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A graph in the making. Extents are numbers; 0 is the one symbol.
#[derive(Default)]
struct Draft {
    builder: PackBuilder,
    graph: PortableGraph,
    sub: Subgraph,
    data: Vec<u8>,
}

impl Draft {
    fn dim(&mut self, extent: usize) -> DimId {
        let value = i64::try_from(extent).unwrap();
        let dim = if extent == 0 { Dim::Symbol { symbol: 0 } } else { Dim::Value { value } };
        if extent == 0 && self.graph.symbols.is_empty() {
            self.graph.symbols.push("N".into());
        }
        self.enter(dim)
    }

    fn enter(&mut self, dim: Dim) -> DimId {
        self.graph.dims.push(dim);
        DimId(u32::try_from(self.graph.dims.len() - 1).unwrap())
    }

    fn dims(&mut self, shape: &[usize]) -> Vec<DimId> {
        shape.iter().map(|n| self.dim(*n)).collect()
    }

    fn node(&mut self, op: Op, inputs: &[(usize, usize)], facts: &[(Dtype, &[usize])]) -> usize {
        let outputs =
            facts.iter().map(|(dtype, shape)| Fact { dtype: *dtype, shape: self.dims(shape) }).collect();
        let inputs = inputs.iter().map(|(node, slot)| Outlet { node: *node, slot: *slot }).collect();
        self.sub.nodes.push(Node { name: format!("n{}", self.sub.nodes.len()), op, inputs, outputs });
        self.sub.nodes.len() - 1
    }

    fn source(&mut self, dtype: Dtype, shape: &[usize]) -> usize {
        let id = self.node(Op::Source, &[], &[(dtype, shape)]);
        self.sub.inputs.push(id);
        id
    }

    /// A constant that the graph owns.
    fn own(&mut self, tensor: &Tensor) -> usize {
        let (dtype, shape) = (tensor.dtype(), tensor.shape().to_vec());
        let offset = self.data.len();
        self.data.extend(tensor.to_le_bytes());
        self.node(
            Op::Constant { value: Stored::Own { offset, dtype, shape } },
            &[],
            &[(dtype, tensor.shape())],
        )
    }

    fn end(&mut self, outputs: &[(usize, usize)]) -> usize {
        self.sub.outputs = outputs.iter().map(|(node, slot)| Outlet { node: *node, slot: *slot }).collect();
        self.graph.graphs.push(std::mem::take(&mut self.sub));
        self.graph.graphs.len() - 1
    }

    /// The file. The manifest tells the symbol as 2, and names the model's ends.
    fn file(mut self) -> Vec<u8> {
        let shape = |fact: &Fact, dims: &[Dim]| -> Vec<usize> {
            let extent = |id: &DimId| match &dims[id.index()] {
                Dim::Value { value } => usize::try_from(*value).unwrap(),
                _ => 2,
            };
            fact.shape.iter().map(extent).collect()
        };
        let axes = |fact: &Fact, dims: &[Dim]| {
            let axis = |size| Axis { name: "a".into(), size, symbolic: false };
            shape(fact, dims).into_iter().map(axis).collect()
        };
        let main = self.graph.graphs.last().unwrap();
        let input = |i: usize| {
            let fact = main.input(i).unwrap();
            let axes = axes(fact, &self.graph.dims);
            InputSpec { name: format!("in{i}"), dtype: fact.dtype, axes, pipeline: vec![], pad: None }
        };
        let output = |(i, outlet): (usize, &Outlet)| {
            let fact = main.fact(*outlet).unwrap();
            let axes = axes(fact, &self.graph.dims);
            OutputSpec { name: format!("out{i}"), dtype: fact.dtype, axes, post: vec![], labels: None }
        };
        let manifest = Manifest {
            model: ModelInfo { name: "m".into(), licence: None },
            inputs: (0..main.inputs.len()).map(input).collect(),
            outputs: main.outputs.iter().enumerate().map(output).collect(),
            ..Manifest::default()
        };
        self.builder.portable(self.graph.encode(&self.data));
        self.builder.finish(manifest).unwrap()
    }
}

fn region(file: &[u8]) -> Arc<Region> {
    Arc::new(Region::complete(Buffer::copy_of(file).unwrap()))
}

fn build(file: &[u8], options: &BuildOptions) -> Result<Arc<Plan>, EngineError> {
    let region = region(file);
    Plan::build(Arc::new(Pack::from_complete(&region).unwrap()), region, options)
}

/// The plan for inputs of other shapes than the manifest's.
fn at(file: &[u8], shapes: &[Vec<usize>]) -> Result<Arc<Plan>, EngineError> {
    let region = region(file);
    let pack = Arc::new(Pack::from_complete(&region).unwrap());
    Plans::open(pack, region, &BuildOptions::default())?.at(shapes)
}

fn f32s(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::from_f32(shape, values.to_vec()).unwrap()
}

fn i64s(shape: &[usize], values: &[i64]) -> Tensor {
    Tensor::from_i64(shape, values.to_vec()).unwrap()
}

fn bools(shape: &[usize], values: &[u8]) -> Tensor {
    Tensor::new(shape, TensorData::Bool(values.iter().map(|v| *v == 1).collect())).unwrap()
}

fn ramp(shape: &[usize]) -> Tensor {
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    let values: Vec<f32> = (0..shape.iter().product()).map(|i: usize| i as f32).collect();
    f32s(shape, &values)
}

/// Runs `op` over `inputs`, all of them the model's, and expects `wanted`.
fn check(op: impl FnOnce(&mut Draft) -> Op, inputs: &[Tensor], wanted: &[Tensor]) {
    let mut draft = Draft::default();
    let sources: Vec<_> = inputs.iter().map(|t| (draft.source(t.dtype(), t.shape()), 0)).collect();
    let op = op(&mut draft);
    let case = format!("{op:?}");
    let facts: Vec<_> = wanted.iter().map(|t| (t.dtype(), t.shape())).collect();
    let node = draft.node(op, &sources, &facts);
    draft.end(&(0..wanted.len()).map(|slot| (node, slot)).collect::<Vec<_>>());
    let plan = build(&draft.file(), &BuildOptions::default()).unwrap_or_else(|e| panic!("{case}: {e}"));
    let found = plan.run(inputs).unwrap_or_else(|e| panic!("{case}: {e}"));
    for (found, wanted) in found.iter().zip(wanted) {
        same(found, wanted, &case);
    }
}

fn same(found: &Tensor, wanted: &Tensor, case: &str) {
    assert_eq!(found.shape(), wanted.shape(), "{case}");
    match (found.as_f32(), wanted.as_f32()) {
        (Ok(found), Ok(wanted)) => {
            let close = found.iter().zip(wanted).all(|(f, w)| (f - w).abs() <= 1e-5 * w.abs().max(1.0));
            assert!(close, "{case}: {found:?}, expected {wanted:?}");
        }
        _ => assert_eq!(found, wanted, "{case}"),
    }
}

fn pool(layout: Layout, kernel: usize, stride: usize, channels: (usize, usize), padding: Padding) -> Pool {
    let (input_channels, output_channels) = channels;
    let (kernel, strides, dilations) = (vec![kernel], vec![stride], vec![1]);
    Pool { layout, kernel, strides, dilations, padding, input_channels, output_channels }
}

#[test]
fn windows_are_their_definition() {
    let x = ramp(&[1, 1, 4]);
    let none = || Padding::Valid;
    let conv = |pool, kernel| move |_: &mut Draft| Op::Conv { pool, kernel, group: 1 };
    let (two, bias) = (f32s(&[1, 1, 2], &[1.0, 10.0]), f32s(&[1], &[0.5]));
    let oihw = KernelLayout::Oihw;
    check(
        conv(pool(Layout::Nchw, 2, 1, (1, 1), none()), oihw),
        &[x.clone(), two.clone(), bias.clone()],
        &[f32s(&[1, 1, 3], &[10.5, 21.5, 32.5])],
    );
    let around = Padding::Explicit { before: vec![1], after: vec![0] };
    check(
        conv(pool(Layout::Nhwc, 2, 2, (1, 1), around), KernelLayout::Hwio),
        &[ramp(&[1, 4, 1]), f32s(&[2, 1, 1], &[1.0, 10.0]), f32s(&[], &[0.0])],
        &[f32s(&[1, 2, 1], &[0.0, 21.0])],
    );
    check(
        |_| Op::ConvTranspose {
            pool: pool(Layout::Nchw, 2, 2, (1, 1), none()),
            kernel: oihw,
            adjustments: vec![0],
            group: 1,
        },
        &[x.clone(), two, bias],
        &[f32s(&[1, 1, 8], &[0.5, 0.5, 1.5, 10.5, 2.5, 20.5, 3.5, 30.5])],
    );
    let ceil = Padding::Pool { before: vec![0], after: vec![0], ceil: true };
    check(
        |_| Op::MaxPool { pool: pool(Layout::Nchw, 3, 2, (1, 1), ceil) },
        &[ramp(&[1, 1, 6])],
        &[f32s(&[1, 1, 3], &[2.0, 4.0, 5.0])],
    );
    for (normalize, wanted) in [(true, [0.5, 2.5]), (false, [1.0, 5.0])] {
        check(
            |_| Op::AveragePool {
                pool: pool(Layout::Chw, 2, 2, (1, 1), none()),
                count_include_pad: false,
                normalize,
            },
            &[ramp(&[1, 4])],
            &[f32s(&[1, 2], &wanted)],
        );
    }
}

#[test]
fn elementwise_operators_are_their_definition() {
    let (x, y) = (f32s(&[1, 3], &[1.0, -2.0, 3.0]), f32s(&[1, 1], &[2.0]));
    check(
        |_| Op::Binary { op: BinaryOp::SubF },
        &[x.clone(), y.clone()],
        &[f32s(&[1, 3], &[1.0, 4.0, -1.0])],
    );
    check(|_| Op::Unary { op: UnaryOp::Square }, &[x.clone()], &[f32s(&[1, 3], &[1.0, 4.0, 9.0])]);
    let comparisons = [
        (Comparison::Equal, [0, 1, 0]),
        (Comparison::NotEqual, [1, 0, 1]),
        (Comparison::Less, [1, 0, 0]),
        (Comparison::LessOrEqual, [1, 1, 0]),
        (Comparison::Greater, [0, 0, 1]),
        (Comparison::GreaterOrEqual, [0, 1, 1]),
    ];
    for (op, wanted) in comparisons {
        let one_to_three = f32s(&[1, 3], &[1.0, 2.0, 3.0]);
        check(|_| Op::Compare { op }, &[one_to_three, y.clone()], &[bools(&[1, 3], &wanted)]);
    }
    let logic = [(Logic::And, [0, 0, 0, 1]), (Logic::Or, [0, 1, 1, 1]), (Logic::Xor, [0, 1, 1, 0])];
    for (op, wanted) in logic {
        let inputs = [bools(&[4], &[0, 0, 1, 1]), bools(&[4], &[0, 1, 0, 1])];
        check(|_| Op::Logic { op }, &inputs, &[bools(&[4], &wanted)]);
    }
    let halves = f32s(&[4], &[0.5, 1.5, -0.5, -1.2]);
    let functions = [
        (Function::Ceil, [1.0, 2.0, 0.0, -1.0]),
        (Function::Floor, [0.0, 1.0, -1.0, -2.0]),
        (Function::Round, [0.0, 2.0, 0.0, -1.0]),
        (Function::RoundHalfUp, [1.0, 2.0, -1.0, -1.0]),
        (Function::Sign, [1.0, 1.0, -1.0, -1.0]),
        (Function::Cos, [0.5f32.cos(), 1.5f32.cos(), 0.5f32.cos(), 1.2f32.cos()]),
        (Function::Sin, [0.5f32.sin(), 1.5f32.sin(), -0.5f32.sin(), -1.2f32.sin()]),
    ];
    for (op, wanted) in functions {
        check(|_| Op::Function { op }, &[halves.clone()], &[f32s(&[4], &wanted)]);
    }
    check(|_| Op::Function { op: Function::Not }, &[bools(&[2], &[0, 1])], &[bools(&[2], &[1, 0])]);
    check(|_| Op::Cast { to: Dtype::I64 }, &[x.clone()], &[i64s(&[1, 3], &[1, -2, 3])]);
    let chosen = f32s(&[1, 3], &[2.0, -2.0, 2.0]);
    check(|_| Op::Where, &[bools(&[1, 3], &[0, 1, 0]), x, y], &[chosen]);
}

#[test]
fn products_and_reductions_are_their_definition() {
    let (a, b) = (ramp(&[2, 3]), f32s(&[3, 2], &[1.0, 0.0, 0.0, 1.0, 1.0, 1.0]));
    check(
        |_| Op::Einsum { equation: "mk,kn->anm".into() },
        &[a.clone(), b],
        &[f32s(&[1, 2, 2], &[2.0, 8.0, 3.0, 9.0])],
    );
    let reductions = [
        (Reducer::Sum, f32s(&[2, 1], &[3.0, 12.0])),
        (Reducer::Max, f32s(&[2, 1], &[2.0, 5.0])),
        (Reducer::Min, f32s(&[2, 1], &[0.0, 3.0])),
        (Reducer::Prod, f32s(&[2, 1], &[0.0, 60.0])),
        (Reducer::MeanOfSquares, f32s(&[2, 1], &[5.0 / 3.0, 50.0 / 3.0])),
        (Reducer::ArgMax, i64s(&[2, 1], &[2, 2])),
        (Reducer::ArgMin, i64s(&[2, 1], &[0, 0])),
    ];
    for (reducer, wanted) in reductions {
        check(|_| Op::Reduce { axes: vec![1], reducer }, &[a.clone()], &[wanted]);
    }
    let x = f32s(&[1, 2], &[0.0, 3f32.ln()]);
    check(|_| Op::Softmax { axes: vec![1], log: false }, &[x.clone()], &[f32s(&[1, 2], &[0.25, 0.75])]);
    let logs = f32s(&[1, 2], &[0.25f32.ln(), 0.75f32.ln()]);
    check(|_| Op::Softmax { axes: vec![1], log: true }, &[x], &[logs]);
    let norm = f32s(&[1, 2], &[3.0 / 12.5f32.sqrt(), 4.0 / 12.5f32.sqrt()]);
    check(|_| Op::RmsNorm { axis: 1, epsilon: 0.0 }, &[f32s(&[1, 2], &[3.0, 4.0])], &[norm]);
    // One cell: sigmoid(0) = 1/2 for the gates, tanh(1) for the candidate, 4 in the cell before.
    let next = 0.5 * 4.0 + 0.5 * 1f32.tanh();
    check(
        |_| Op::LstmCell { hidden: 1 },
        &[f32s(&[1, 4], &[0.0, 0.0, 0.0, 1.0]), f32s(&[1, 1], &[4.0])],
        &[f32s(&[1, 1], &[0.5 * next.tanh()]), f32s(&[1, 1], &[next])],
    );
}

#[test]
fn moves_are_their_definition() {
    let x = ramp(&[2, 3]);
    check(
        |_| Op::Gather { axis: 1 },
        &[x.clone(), i64s(&[2], &[2, -3])],
        &[f32s(&[2, 2], &[2.0, 0.0, 5.0, 3.0])],
    );
    check(
        |d| Op::Slice { axis: 1, start: d.dim(1), end: d.dim(3) },
        &[x.clone()],
        &[f32s(&[2, 2], &[1.0, 2.0, 4.0, 5.0])],
    );
    let twice = f32s(&[2, 6], &[0.0, 1.0, 2.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 3.0, 4.0, 5.0]);
    check(|_| Op::Concat { axis: 1 }, &[x.clone(), x.clone()], &[twice]);
    let modes = [
        (PadMode::Constant { value: 9.0 }, [9.0, 0.0, 1.0, 2.0, 9.0]),
        (PadMode::Reflect, [1.0, 0.0, 1.0, 2.0, 1.0]),
        (PadMode::Edge, [0.0, 0.0, 1.0, 2.0, 2.0]),
    ];
    for (mode, wanted) in modes {
        check(|_| Op::Pad { pads: vec![(1, 1)], mode }, &[ramp(&[3])], &[f32s(&[5], &wanted)]);
    }
    check(
        |d| Op::Reshape { axis: 0, from: d.dims(&[2, 3]), to: d.dims(&[3, 2]) },
        &[x.clone()],
        &[ramp(&[3, 2])],
    );
    check(|_| Op::Unsqueeze { axis: 1 }, &[x.clone()], &[ramp(&[2, 1, 3])]);
    check(|_| Op::Squeeze { axis: 1 }, &[ramp(&[2, 1, 3])], &[x.clone()]);
    let turned = f32s(&[3, 2], &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    check(|_| Op::MoveAxis { from: 0, to: 1 }, &[x.clone()], &[turned]);
    check(|d| Op::Expand { shape: d.dims(&[2, 2]) }, &[f32s(&[1], &[7.0])], &[f32s(&[2, 2], &[7.0; 4])]);
    let up = f32s(&[1, 6], &[0.0, 0.0, 1.0, 1.0, 2.0, 2.0]);
    check(|_| Op::Upsample { scales: vec![1, 2] }, &[ramp(&[1, 3])], &[up]);
    check(|_| Op::Downsample { axis: 0, stride: 2, offset: 1 }, &[ramp(&[5])], &[f32s(&[2], &[1.0, 3.0])]);
}

/// `sums[n] = x[0] + .. + x[n]`, by a loop, over any number of rows.
fn sums() -> Vec<u8> {
    let mut draft = Draft::default();
    let (slice, state) = (draft.source(Dtype::F32, &[1, 2]), draft.source(Dtype::F32, &[1, 2]));
    let f32 = Dtype::F32;
    let sum = draft.node(Op::Binary { op: BinaryOp::Add }, &[(slice, 0), (state, 0)], &[(f32, &[1, 2])]);
    let body = draft.end(&[(sum, 0)]);
    let (x, first) = (draft.source(f32, &[0, 2]), draft.source(f32, &[1, 2]));
    let scan = LoopScan { axis: 0, chunk: 1, backward: false };
    let op = Op::Loop {
        body,
        inputs: vec![LoopInput::Scan { scan }, LoopInput::State],
        outputs: vec![LoopOutput { state: true, scan: Some((0, scan)), last: Some(1) }],
    };
    let turns = draft.node(op, &[(x, 0), (first, 0)], &[(f32, &[0, 2]), (f32, &[1, 2])]);
    let (n, two) = (draft.dim(0), draft.dim(2));
    let double = draft.enter(Dim::Product { factors: vec![n, two] });
    let extents =
        draft.node(Op::Extents { shape: vec![2], values: vec![n, double] }, &[], &[(Dtype::I64, &[2])]);
    draft.end(&[(turns, 0), (turns, 1), (extents, 0)]);
    draft.file()
}

#[test]
fn a_loop_runs_over_any_number_of_slices_and_starts_anew_in_each_run() {
    let file = sums();
    let cases: [(usize, &[f32], &[f32]); 3] = [
        (1, &[1.0, 10.0], &[1.0, 10.0]),
        (2, &[1.0, 10.0, 2.0, 20.0], &[1.0, 10.0, 3.0, 30.0]),
        (3, &[1.0, 1.0, 1.0, 1.0, 1.0, 1.0], &[1.0, 1.0, 2.0, 2.0, 3.0, 3.0]),
    ];
    for (n, x, wanted) in cases {
        let shapes = vec![vec![n, 2], vec![1, 2]];
        let plan = at(&file, &shapes).unwrap();
        for first in [0.0, 100.0] {
            let out = plan.run(&[f32s(&[n, 2], x), f32s(&[1, 2], &[first; 2])]).unwrap();
            let wanted: Vec<f32> = wanted.iter().map(|v| v + first).collect();
            same(&out[0], &f32s(&[n, 2], &wanted), "all");
            same(&out[1], &f32s(&[1, 2], &wanted[wanted.len() - 2..]), "last");
            let n = i64::try_from(n).unwrap();
            assert_eq!(out[2], i64s(&[2], &[n, 2 * n]));
        }
    }
    let shapes = vec![vec![1, 3], vec![1, 2]];
    let e = at(&file, &shapes).unwrap_err();
    assert!(e.kind() == ErrorKind::Input && e.to_string().contains("axis 1 of input 0 is 3"), "{e}");
}

/// `x * w`, with `w[2, 5, 3]` in panels: rows along axis 1, depth along axis 2, a matrix for each of axis 0.
fn scaled() -> Draft {
    let mut draft = Draft::default();
    let (k, mn, r, panel_bytes) = (3, 5, 4, 512);
    let mut ids = Vec::new();
    for matrix in 0..2u8 {
        let mut bytes = vec![0u8; 2 * panel_bytes];
        for row in 0..mn {
            for depth in 0..k {
                let value = f32::from(matrix) * 100.0 + f32::from(u8::try_from(row * k + depth).unwrap());
                let at = row / r * panel_bytes + (depth * r + row % r) * 4;
                bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            }
        }
        let form = Form::Panels { dtype: Dtype::F32, k, mn, r, panel_bytes };
        ids.push(draft.builder.weight("w", Place::Blobs, form, &bytes).unwrap());
    }
    let x = draft.source(Dtype::F32, &[2, 5, 3]);
    let split = Split { batch: vec![0], rows: vec![1], depth: vec![2] };
    let value = Stored::Panels { weights: ids, shape: vec![2, 5, 3], split };
    let w = draft.node(Op::Constant { value }, &[], &[(Dtype::F32, &[2, 5, 3])]);
    let out = draft.node(Op::Binary { op: BinaryOp::Mul }, &[(x, 0), (w, 0)], &[(Dtype::F32, &[2, 5, 3])]);
    draft.end(&[(out, 0)]);
    draft
}

fn scaled_by(x: f32) -> Tensor {
    let mut wanted: Vec<f32> = ramp(&[30]).as_f32().unwrap().to_vec();
    wanted[15..].iter_mut().for_each(|v| *v += 85.0);
    wanted.iter_mut().for_each(|v| *v *= x);
    f32s(&[2, 5, 3], &wanted)
}

#[test]
fn weights_are_read_back_from_panels() {
    let plan = build(&scaled().file(), &BuildOptions::default()).unwrap();
    let out = plan.run(&[f32s(&[2, 5, 3], &[2.0; 30])]).unwrap();
    same(&out[0], &scaled_by(2.0), "panels");
}

#[test]
fn constants_of_every_type_are_the_packs_own_bytes() {
    let half = Tensor::new([2], TensorData::F16(vec![0x3c00, 0xc000])).unwrap();
    let tensors = [
        f32s(&[2], &[1.5, -2.5]),
        half,
        i64s(&[1, 2], &[i64::MIN, 3]),
        bools(&[2], &[1, 0]),
        Tensor::new([1], TensorData::U8(vec![200])).unwrap(),
    ];
    for tensor in tensors {
        let mut draft = Draft::default();
        draft.source(Dtype::F32, &[1]);
        let node = draft.own(&tensor);
        draft.end(&[(node, 0)]);
        let out = build(&draft.file(), &BuildOptions::default()).unwrap().run(&[f32s(&[1], &[0.0])]).unwrap();
        assert_eq!(out[0], tensor);
    }
    let mut draft = Draft::default();
    draft.source(Dtype::F32, &[1]);
    let node = draft.own(&bools(&[2], &[1, 0]));
    draft.data[1] = 2;
    draft.end(&[(node, 0)]);
    let e = build(&draft.file(), &BuildOptions::default()).unwrap_err();
    assert!(e.kind() == ErrorKind::Pack && e.to_string().contains("neither 0 nor 1"), "{e}");
}

/// `x` as it is, as a tuned plan of tract `version`.
fn identity(version: &str) -> Vec<u8> {
    let outlet = glowplug_pack::plan::Outlet { node: 0, slot: 0 };
    let fact = glowplug_pack::plan::Fact::f32(&[2, 5, 3]);
    let node = glowplug_pack::plan::Node {
        name: "x".into(),
        op: glowplug_pack::plan::Op::Source,
        inputs: vec![],
        outputs: vec![fact],
    };
    let inputs = vec![(Dtype::F32, vec![2, 5, 3])];
    let head = PlanHead { target: "generic".into(), tract: version.into(), inputs };
    let (kernels, bodies) = (vec![], vec![]);
    PlanGraph { head, kernels, bodies, nodes: vec![node], inputs: vec![0], outputs: vec![outlet] }.encode()
}

#[test]
fn a_tuned_plan_serves_where_it_fits_and_the_portable_graph_elsewhere() {
    let x = f32s(&[2, 5, 3], &[1.0; 30]);
    let cases = [
        (glowplug_engine::target::TRACT_VERSION, false, Source::Tuned, x.clone()),
        (glowplug_engine::target::TRACT_VERSION, true, Source::Portable, scaled_by(1.0)),
        ("0.1.0", false, Source::Portable, scaled_by(1.0)),
    ];
    for (version, portable, source, wanted) in cases {
        let mut draft = scaled();
        draft.builder.plan(identity(version));
        let plan = build(&draft.file(), &BuildOptions { portable, ..BuildOptions::default() }).unwrap();
        assert_eq!(plan.source(), source, "{version}, {portable}");
        same(&plan.run(std::slice::from_ref(&x)).unwrap()[0], &wanted, version);
    }
}

#[test]
fn an_index_out_of_range_is_an_error_and_the_plan_serves_on() {
    let mut draft = Draft::default();
    let ids = draft.source(Dtype::I64, &[1]);
    let table = draft.own(&ramp(&[4, 2]));
    let out = draft.node(Op::Gather { axis: 0 }, &[(table, 0), (ids, 0)], &[(Dtype::F32, &[1, 2])]);
    draft.end(&[(out, 0)]);
    let plan = build(&draft.file(), &BuildOptions::default()).unwrap();
    for index in [4, -5, i64::MAX, i64::MIN] {
        assert_eq!(plan.run(&[i64s(&[1], &[index])]).unwrap_err().kind(), ErrorKind::Run, "{index}");
    }
    same(&plan.run(&[i64s(&[1], &[-1])]).unwrap()[0], &f32s(&[1, 2], &[6.0, 7.0]), "-1");
}

#[test]
fn the_whole_pack_is_waited_for_and_not_longer_than_asked() {
    let file = scaled().file();
    let pack = Arc::new(Pack::parse(&file).unwrap());
    let region =
        Arc::new(Region::pending(Buffer::zeroed(file.len()).unwrap(), pack.chunks().to_vec()).unwrap());
    let soon = |ms| BuildOptions {
        deadline: Some(Instant::now() + Duration::from_millis(ms)),
        ..Default::default()
    };
    let e = Plan::build(pack.clone(), region.clone(), &soon(10)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Timeout, "{e}");
    let waiter = std::thread::spawn({
        let (region, file) = (region.clone(), file.clone());
        move || {
            Plan::build(Arc::new(Pack::parse(&file).unwrap()), region, &BuildOptions::default())
                .map(|p| p.source())
        }
    });
    for (i, chunk) in pack.chunks().iter().enumerate() {
        let start = usize::try_from(chunk.offset).unwrap();
        region.deliver(i, &file[start..start + chunk.len]).unwrap();
    }
    assert_eq!(waiter.join().unwrap().unwrap(), Source::Portable);
}

#[test]
fn graphs_with_a_flipped_bit_build_or_fail() {
    let (file, x) = (scaled().file(), f32s(&[2, 5, 3], &[1.0; 30]));
    let range = Pack::parse(&file).unwrap().portable_range().unwrap();
    let (start, end) = (usize::try_from(range.start).unwrap(), usize::try_from(range.end).unwrap());
    let region = region(&file);
    let pack = Arc::new(Pack::from_complete(&region).unwrap());
    for at in start..end {
        for bit in 0..8 {
            let mut bytes = file.clone();
            bytes[at] ^= 1 << bit;
            let damaged = Arc::new(Region::complete(Buffer::copy_of(&bytes).unwrap()));
            if let Ok(plan) = Plan::build(pack.clone(), damaged, &BuildOptions::default()) {
                let _ = plan.run(std::slice::from_ref(&x));
            }
        }
    }
}

#[test]
fn a_weight_is_a_row_of_the_table() {
    let mut draft = scaled();
    let value = Stored::Plain { weight: WeightId(99), shape: vec![1] };
    draft.graph.graphs[0].nodes[1].op = Op::Constant { value };
    let e = build(&draft.file(), &BuildOptions::default()).unwrap_err();
    assert!(e.kind() == ErrorKind::Pack && e.to_string().contains("weight 99 of a table of 2"), "{e}");
}
