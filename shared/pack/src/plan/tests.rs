//! A small plan with every operator, and one attack on every check.

mod small;

use super::*;
use crate::weights::{Form, Place, WeightId};

const A: PanelFormat = PanelFormat { dtype: Dtype::F32, r: 8, align: 256, end_padding: 1 };
const B: PanelFormat = PanelFormat { dtype: Dtype::F32, r: 8, align: 4, end_padding: 1 };
const WINDOW: Window =
    Window { kernel: (3, 3), strides: (1, 1), dilations: (1, 1), pads: (1, 1), output: (4, 4) };

fn plain(name: &str, dtype: Dtype, shape: &[usize]) -> Weight {
    Weight {
        name: name.into(),
        place: Place::Blobs,
        offset: 0,
        form: Form::Plain { dtype, shape: shape.to_vec() },
    }
}

fn panels(name: &str, k: usize, mn: usize) -> Weight {
    let panel_bytes = A.panel_bytes(k).unwrap();
    let form = Form::Panels { dtype: Dtype::F32, k, mn, r: A.r, panel_bytes };
    Weight { name: name.into(), place: Place::Blobs, offset: 0, form }
}

fn weights() -> Vec<Weight> {
    vec![
        panels("kernel", 18, 3),
        plain("bias", Dtype::F32, &[3]),
        plain("one", Dtype::F32, &[1]),
        plain("depthwise", Dtype::F32, &[3, 1, 9]),
        plain("block", Dtype::F32, &[1, 3, 1, 1]),
        plain("table", Dtype::F32, &[10, 4]),
        panels("last", 3, 5),
        plain("mask", Dtype::Bool, &[3]),
    ]
}

const IMAGE: usize = 0;
const RESIDUAL: usize = 1;
const IDS: usize = 2;
const IM2COL: usize = 3;
const PANELS: usize = 4;
const BIAS: usize = 5;
const MATMUL: usize = 8;
const RESHAPE: usize = 9;
const DEPTHWISE: usize = 10;
const POOL: usize = 11;
const CHAIN: usize = 12;
const BINARY: usize = 13;
const UNARY: usize = 14;
const REDUCE: usize = 15;
const SOFTMAX: usize = 16;
const NORM: usize = 17;
const MOVE: usize = 18;
const PREPACK: usize = 19;
const LAST: usize = 20;
const GATHER: usize = 21;
const CAST: usize = 22;

fn fused() -> Vec<Fused> {
    vec![
        Fused::PerRow { op: BinaryOp::Add, input: 2, axes: vec![] },
        Fused::Scalar { op: BinaryOp::Max, input: 3 },
        Fused::AddTensor { input: 4, m_axis: Some(1), n_axis: Some(2), axes: vec![(0, 0)] },
        Fused::PerColumn { op: BinaryOp::Add, input: 4, axes: vec![(0, 0)] },
        Fused::LeakyRelu { input: 3 },
    ]
}

/// Every operator at least once; node indices as the constants above say.
fn graph() -> PlanGraph {
    let product =
        |kernel, a, b, m, n, fused| Op::MatMul { kernel, a, b, m_axis: Some(m), n_axis: Some(n), fused };
    let input = |index, axes: &[(usize, usize)]| Operand::Input { index, axes: axes.to_vec() };
    let i64s = Fact::Tensor { dtype: Dtype::I64, shape: vec![1, 2] };
    let small = Window { kernel: (2, 2), strides: (2, 2), pads: (0, 0), output: (1, 1), ..WINDOW };
    let rows: Vec<(Op, Vec<usize>, Fact)> = vec![
        (Op::Source, vec![], Fact::f32(&[1, 2, 4, 4])),
        (Op::Source, vec![], Fact::f32(&[1, 3, 16])),
        (Op::Source, vec![], i64s),
        (
            Op::Im2col { format: B, window: WINDOW, group: 1 },
            vec![IMAGE],
            Fact::Panels { format: B, batch: vec![1, 1], k: 18, mn: 16 },
        ),
        (
            Op::Panels { weights: vec![WeightId(0)] },
            vec![],
            Fact::Panels { format: A, batch: vec![1], k: 18, mn: 3 },
        ),
        (Op::Constant { weight: WeightId(1) }, vec![], Fact::f32(&[3])),
        (Op::Constant { weight: WeightId(2) }, vec![], Fact::f32(&[1])),
        (Op::Constant { weight: WeightId(4) }, vec![], Fact::f32(&[1, 3, 1, 1])),
        (
            product(0, input(1, &[]), input(0, &[(0, 0)]), 1, 2, fused()),
            vec![IM2COL, PANELS, BIAS, 6, RESIDUAL],
            Fact::f32(&[1, 3, 16]),
        ),
        (Op::Reshape, vec![MATMUL], Fact::f32(&[1, 3, 4, 4])),
        (
            Op::DepthwiseConv {
                window: Window { strides: (2, 2), output: (2, 2), ..WINDOW },
                kernel: WeightId(3),
            },
            vec![RESHAPE, BIAS],
            Fact::f32(&[1, 3, 2, 2]),
        ),
        (Op::MaxPool { window: small }, vec![DEPTHWISE], Fact::f32(&[1, 3, 1, 1])),
        (
            Op::Chain {
                steps: vec![
                    Step { op: BinaryOp::Mul, share: Share::PerBlock },
                    Step { op: BinaryOp::Add, share: Share::Lockstep },
                ],
            },
            vec![DEPTHWISE, 7, DEPTHWISE],
            Fact::f32(&[1, 3, 2, 2]),
        ),
        (Op::Binary { op: BinaryOp::Div }, vec![CHAIN, POOL], Fact::f32(&[1, 3, 2, 2])),
        (Op::Unary { op: UnaryOp::Tanh }, vec![BINARY], Fact::f32(&[1, 3, 2, 2])),
        (Op::Reduce { axes: vec![2, 3], reducer: Reducer::Sum }, vec![UNARY], Fact::f32(&[1, 3, 1, 1])),
        (Op::Softmax { axes: vec![1] }, vec![REDUCE], Fact::f32(&[1, 3, 1, 1])),
        (Op::RmsNorm { axis: 1, epsilon: 1e-6 }, vec![SOFTMAX], Fact::f32(&[1, 3, 1, 1])),
        (Op::MoveAxis { from: 1, to: 3 }, vec![NORM], Fact::f32(&[1, 1, 1, 3])),
        (
            Op::Prepack { format: B, k_axis: 3, mn_axis: 0 },
            vec![MOVE],
            Fact::Panels { format: B, batch: vec![1, 1], k: 3, mn: 1 },
        ),
        (
            product(0, Operand::Weight { weight: WeightId(6) }, input(0, &[(0, 0), (1, 1)]), 2, 3, vec![]),
            vec![PREPACK],
            Fact::f32(&[1, 1, 5, 1]),
        ),
        (Op::GatherRows { table: WeightId(5) }, vec![IDS], Fact::f32(&[1, 2, 4])),
        (Op::Cast, vec![IDS], Fact::f32(&[1, 2])),
    ];
    let node = |(i, (op, inputs, fact)): (usize, (Op, Vec<usize>, Fact))| Node {
        name: format!("n{i}"),
        op,
        inputs: inputs.into_iter().map(|node| Outlet { node, slot: 0 }).collect(),
        outputs: vec![fact],
    };
    let inputs = vec![(Dtype::F32, vec![1, 2, 4, 4]), (Dtype::F32, vec![1, 3, 16]), (Dtype::I64, vec![1, 2])];
    PlanGraph {
        head: PlanHead { target: "x86_64+avx2+fma".into(), tract: "0".into(), inputs },
        kernels: vec![Kernel { name: "k".into(), packing: 0, a: A, b: B }],
        bodies: vec![],
        nodes: rows.into_iter().enumerate().map(node).collect(),
        inputs: vec![IMAGE, RESIDUAL, IDS],
        outputs: [LAST, GATHER, CAST].map(|node| Outlet { node, slot: 0 }).to_vec(),
    }
}

#[test]
fn a_plan_round_trips_and_its_head_reads_alone() {
    let bytes = graph().encode();
    assert_eq!(PlanGraph::decode(&bytes, &weights()).unwrap(), graph());
    assert_eq!(PlanHead::read(&bytes).unwrap(), graph().head);
    let names: std::collections::HashSet<_> = graph().nodes.iter().map(|n| n.op.name()).collect();
    assert_eq!(names.len(), 18, "{names:?}: the other operators are in `moves`");
}

#[test]
fn cut_and_flipped_plans_never_panic() {
    let (bytes, weights) = (graph().encode(), weights());
    for len in 0..bytes.len() {
        assert!(PlanGraph::decode(&bytes[..len], &weights).is_err());
    }
    for at in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[at / 8] ^= 1 << (at % 8);
        let _ = PlanGraph::decode(&flipped, &weights);
    }
}

/// Applies `attack` to the plan above and wants an error that names `node` and holds `text`.
#[track_caller]
fn refused(text: &str, attack: impl FnOnce(&mut PlanGraph, &mut Vec<Weight>)) {
    let (mut graph, mut weights) = (graph(), weights());
    attack(&mut graph, &mut weights);
    match graph.validate(&weights) {
        Ok(()) => panic!("accepted, expected an error with {text:?}"),
        Err(e) => assert!(e.to_string().contains(text), "{e}, expected {text:?}"),
    }
}

/// As [`refused`], with another fact for one node.
#[track_caller]
fn fact_refused(node: usize, fact: Fact, text: &str) {
    refused(text, |g, _| g.nodes[node].outputs[0] = fact);
}

/// As [`refused`], with another operator for one node.
#[track_caller]
fn op_refused(node: usize, op: Op, text: &str) {
    refused(text, |g, _| g.nodes[node].op = op);
}

#[test]
fn references_and_counts() {
    refused("expected an earlier node", |g, _| g.nodes[RESHAPE].inputs[0].node = RESHAPE);
    refused("expected an earlier node", |g, _| g.nodes[RESHAPE].inputs[0].node = 1 << 40);
    refused("has no output 1", |g, _| g.nodes[RESHAPE].inputs[0].slot = 1);
    refused("0 outputs, expected 1", |g, _| g.nodes[RESHAPE].outputs.clear());
    refused("2 operands, expected 1", |g, _| g.nodes[RESHAPE].inputs.push(Outlet { node: 0, slot: 0 }));
    refused("1 operands, expected 0", |g, _| g.nodes[BIAS].inputs.push(Outlet { node: 0, slot: 0 }));
    refused("node 9 (\"n9\", Reshape)", |g, _| g.nodes[RESHAPE].inputs.clear());
}

#[test]
fn ends() {
    refused("expected equal counts", |g, _| g.inputs.truncate(2));
    refused("input 1 is node 0", |g, _| g.inputs[1] = IMAGE);
    refused("input 0 is node 99", |g, _| g.inputs[0] = 99);
    refused("input 0 is node 0, expected a source of i64", |g, _| g.head.inputs[0].0 = Dtype::I64);
    refused("there is no output", |g, _| g.outputs.clear());
    refused("output 0 is", |g, _| g.outputs[0] = Outlet { node: PANELS, slot: 0 });
    refused("output 2 is", |g, _| g.outputs[2].slot = 7);
}

#[test]
fn extents_ranks_and_totals() {
    fact_refused(IMAGE, Fact::f32(&[0]), "none to be 0");
    fact_refused(IMAGE, Fact::f32(&[1; MAX_RANK + 1]), "at most 8 extents");
    fact_refused(IMAGE, Fact::f32(&[usize::MAX, 2]), "overflows");
    fact_refused(IMAGE, Fact::f32(&[MAX_PLAN_BYTES / 4 + 1]), "are allowed");
    refused("are allowed", |g, _| {
        let half = Fact::f32(&[MAX_PLAN_BYTES / 8, 1]);
        (g.nodes[IMAGE].outputs[0], g.nodes[RESIDUAL].outputs[0]) = (half.clone(), half);
    });
    let panels = |format, k, mn| Fact::Panels { format, batch: vec![1], k, mn };
    fact_refused(PANELS, panels(A, 0, 3), "expected none to be 0");
    fact_refused(PANELS, panels(A, usize::MAX, 3), "overflows");
    for format in [
        PanelFormat { r: 0, ..A },
        PanelFormat { r: 4096, ..A },
        PanelFormat { align: 0, ..A },
        PanelFormat { align: 1024, ..A },
        PanelFormat { end_padding: usize::MAX, ..A },
        PanelFormat { dtype: Dtype::I64, ..A },
    ] {
        fact_refused(PANELS, panels(format, 18, 3), "panel format");
        refused("kernel 0", |g, _| g.kernels[0].b = format);
    }
}

#[test]
fn weights_exist_in_the_form_their_node_reads() {
    op_refused(BIAS, Op::Constant { weight: WeightId(99) }, "weight 99 of a table of 8");
    op_refused(BIAS, Op::Constant { weight: WeightId(0) }, "expected it plain");
    op_refused(BIAS, Op::Constant { weight: WeightId(2) }, "expected Tensor");
    op_refused(BIAS, Op::Constant { weight: WeightId(7) }, "is bool, expected numbers");
    op_refused(PANELS, Op::Panels { weights: vec![] }, "0 weights, expected one for each");
    op_refused(PANELS, Op::Panels { weights: vec![WeightId(1)] }, "expected f32 panels");
    fact_refused(PANELS, Fact::Panels { format: A, batch: vec![1], k: 19, mn: 3 }, "panels of k=19");
    fact_refused(PANELS, Fact::Panels { format: A, batch: vec![1], k: 18, mn: 300 }, "mn=300");
    fact_refused(PANELS, Fact::f32(&[3]), "expected panels");
    refused("panel_bytes at least", |_, w| {
        w[0].form = Form::Panels { dtype: Dtype::F32, k: 18, mn: 3, r: 8, panel_bytes: 512 };
    });
    op_refused(GATHER, Op::GatherRows { table: WeightId(6) }, "expected it plain");
    refused("the table is a scalar", |_, w| w[5] = plain("table", Dtype::F32, &[]));
    fact_refused(GATHER, Fact::f32(&[1, 2, 5]), "expected Tensor");
    refused("expected i64", |g, _| g.nodes[GATHER].inputs[0].node = IMAGE);
}

#[test]
fn windows() {
    let with = |window| Op::Im2col { format: B, window, group: 1 };
    for window in [
        Window { kernel: (0, 3), ..WINDOW },
        Window { strides: (1, 0), ..WINDOW },
        Window { dilations: (usize::MAX, 1), ..WINDOW },
        Window { pads: (1 << 25, 1), ..WINDOW },
        Window { output: (0, 4), ..WINDOW },
    ] {
        op_refused(IM2COL, with(window), "expected extents from 1");
        op_refused(DEPTHWISE, Op::DepthwiseConv { window, kernel: WeightId(3) }, "expected extents from 1");
        op_refused(POOL, Op::MaxPool { window }, "expected extents from 1");
    }
    op_refused(IM2COL, with(Window { kernel: (2, 3), ..WINDOW }), "k: 12");
    op_refused(IM2COL, with(Window { output: (5, 4), ..WINDOW }), "mn: 20");
    op_refused(IM2COL, Op::Im2col { format: B, window: WINDOW, group: 0 }, "0 groups of 2 channels");
    op_refused(IM2COL, Op::Im2col { format: A, window: WINDOW, group: 1 }, "expected Panels");
    fact_refused(IMAGE, Fact::f32(&[8, 4]), "expected [N, C, H, W]");
    op_refused(DEPTHWISE, Op::DepthwiseConv { window: WINDOW, kernel: WeightId(5) }, "expected 27 values");
    op_refused(DEPTHWISE, Op::DepthwiseConv { window: WINDOW, kernel: WeightId(3) }, "gives Tensor");
    refused("expected 3 values", |g, _| g.nodes[DEPTHWISE].inputs[1].node = 6);
}

/// The product's node with one attribute changed.
#[track_caller]
fn product_refused(text: &str, change: impl FnOnce(&mut usize, &mut Operand, &mut Operand, &mut Vec<Fused>)) {
    refused(text, |g, _| {
        let Op::MatMul { kernel, a, b, fused, .. } = &mut g.nodes[MATMUL].op else { unreachable!() };
        change(kernel, a, b, fused);
    });
}

#[test]
fn operands_of_products() {
    let input = |index, axes: &[(usize, usize)]| Operand::Input { index, axes: axes.to_vec() };
    product_refused("kernel 1 of a table of 1", |k, _, _, _| *k = 1);
    product_refused("A: operand 9 of 5", |_, a, _, _| *a = input(9, &[]));
    product_refused("expected panels", |_, a, _, _| *a = input(2, &[]));
    product_refused("A: found Panels", |_, a, _, _| *a = input(0, &[]));
    product_refused("B: found Panels", |_, _, b, _| *b = input(1, &[]));
    product_refused("weight 6 is", |_, a, _, _| *a = Operand::Weight { weight: WeightId(6) });
    product_refused("B: axes", |_, _, b, _| *b = input(0, &[(0, 2)]));
    product_refused("B: axes", |_, _, b, _| *b = input(0, &[(3, 0)]));
    product_refused("B: axes", |_, _, b, _| *b = input(0, &[(0, 0), (0, 0)]));
    for (m_axis, n_axis) in [(Some(3), Some(2)), (Some(1), Some(9)), (Some(1), Some(1))] {
        refused("expected two below 3", |g, _| {
            let Op::MatMul { m_axis: m, n_axis: n, .. } = &mut g.nodes[MATMUL].op else { unreachable!() };
            (*m, *n) = (m_axis, n_axis);
        });
    }
    refused("expected mn=1 in", |g, _| {
        let Op::MatMul { m_axis: m, n_axis: n, .. } = &mut g.nodes[MATMUL].op else { unreachable!() };
        (*m, *n) = (Some(1), None);
    });
    fact_refused(MATMUL, Fact::f32(&[1, 4, 16]), "expected mn=4");
    fact_refused(MATMUL, Fact::f32(&[2, 3, 16]), "B: axes");
    fact_refused(MATMUL, Fact::Tensor { dtype: Dtype::I8, shape: vec![1, 3, 16] }, "expected f32");
    refused("A has depth 18, B has 9", |g, _| {
        g.nodes[IMAGE].outputs[0] = Fact::f32(&[1, 1, 4, 4]);
        g.nodes[IM2COL].outputs[0] = Fact::Panels { format: B, batch: vec![1, 1], k: 9, mn: 16 };
    });
    refused("expected mn=16 in", |g, _| g.kernels[0].b.align = 8);
    refused("never move along axis 0 of the batch [2, 1]", |g, _| {
        g.nodes[IMAGE].outputs[0] = Fact::f32(&[2, 2, 4, 4]);
        g.nodes[IM2COL].outputs[0] = Fact::Panels { format: B, batch: vec![2, 1], k: 18, mn: 16 };
    });
}

#[test]
fn reads_that_are_fused_into_products() {
    let add = |input, m_axis, n_axis, axes: &[(usize, usize)]| Fused::AddTensor {
        input,
        m_axis,
        n_axis,
        axes: axes.to_vec(),
    };
    let row =
        |input, axes: &[(usize, usize)]| Fused::PerRow { op: BinaryOp::Add, input, axes: axes.to_vec() };
    let cases = [
        (Fused::Scalar { op: BinaryOp::Add, input: 2 }, "expected one value"),
        (Fused::Scalar { op: BinaryOp::Div, input: 3 }, "expected an operation that kernels know"),
        (Fused::LeakyRelu { input: 4 }, "expected one value"),
        (Fused::LeakyRelu { input: 0 }, "expected a tensor"),
        (row(3, &[]), "expected 3 values"),
        (row(9, &[]), "operand 9 of 5"),
        (row(2, &[(0, 1)]), "axes [(0, 1)]"),
        (Fused::PerRow { op: BinaryOp::Pow, input: 2, axes: vec![] }, "expected an operation"),
        (Fused::PerColumn { op: BinaryOp::Add, input: 2, axes: vec![] }, "expected 16 values"),
        (add(2, Some(0), Some(0), &[]), "expected 3 and 16"),
        (add(4, Some(2), Some(1), &[]), "expected 3 and 16"),
        (add(4, Some(1), Some(3), &[]), "expected 3 and 16"),
        (add(4, Some(1), Some(2), &[(7, 0)]), "axes"),
        (add(4, Some(1), Some(2), &[(0, 5)]), "axes"),
    ];
    for (step, text) in cases {
        product_refused(text, |_, _, _, fused| fused[0] = step);
    }
    // Moving along the batch must not leave the operand either.
    images_refused(2, row(2, &[(0, 0)]), "expected 3 values from wherever [(0, 0)] points to");
    images_refused(3, add(4, Some(1), Some(2), &[(0, 1)]), "expected 3 and 16");
    images_refused(2, add(4, Some(1), Some(2), &[(0, 1)]), "axes");
}

#[test]
fn a_fused_tensor_is_gathered_by_32_bit_offsets() {
    refused("expected at most 2147483647 bytes", |g, _| {
        let operand = g.nodes[MATMUL].inputs[4].node;
        g.nodes[operand].op = Op::Source;
        g.nodes[operand].inputs.clear();
        g.nodes[operand].outputs[0] = Fact::f32(&[1, 3, 200_000_000]);
    });
}

#[test]
fn a_long_list_of_axes_or_inputs_is_refused_at_once() {
    refused("400000 axes, expected distinct ones below", |g, _| {
        let softmax = g.nodes.iter_mut().find_map(|n| match &mut n.op {
            Op::Softmax { axes } => Some(axes),
            _ => None,
        });
        *softmax.unwrap() = (0..400_000).collect();
    });
    refused("input 1 is node", |g, _| g.inputs[1] = g.inputs[0]);
    let long = vec![0; MAX_SECTION_BYTES + 1];
    assert!(PlanGraph::decode(&long, &[]).unwrap_err().to_string().contains("a section of 4194305 bytes"));
}

/// The product over `images` images, with a bias of `[images, 2]` and one fused `step`.
#[track_caller]
fn images_refused(images: usize, step: Fused, text: &str) {
    refused(text, |g, w| {
        g.nodes[IMAGE].outputs[0] = Fact::f32(&[images, 2, 4, 4]);
        g.nodes[IM2COL].outputs[0] = Fact::Panels { format: B, batch: vec![images, 1], k: 18, mn: 16 };
        g.nodes[MATMUL].outputs[0] = Fact::f32(&[images, 3, 16]);
        w[1] = plain("bias", Dtype::F32, &[images, 2]);
        g.nodes[BIAS].outputs[0] = Fact::f32(&[images, 2]);
        let Op::MatMul { fused, .. } = &mut g.nodes[MATMUL].op else { unreachable!() };
        *fused = vec![step];
    });
}

#[test]
fn elementwise_and_axes() {
    refused("2 operands for 2 steps", |g, _| g.nodes[CHAIN].inputs.truncate(2));
    refused("0 operands", |g, _| g.nodes[CHAIN].inputs.clear());
    refused("operand of shape [1, 3, 1, 1] for Lockstep", |g, _| g.nodes[CHAIN].inputs[2].node = 7);
    refused("operand of shape [3] for PerBlock", |g, _| g.nodes[CHAIN].inputs[1].node = BIAS);
    refused("do not broadcast", |g, _| g.nodes[BINARY].inputs[1].node = RESHAPE);
    refused("do not broadcast", |g, _| g.nodes[BINARY].inputs[1].node = BIAS);
    refused("found a tensor of i64", |g, _| g.nodes[UNARY].inputs[0].node = IDS);
    fact_refused(UNARY, Fact::f32(&[1, 3, 2, 3]), "expected Tensor");
    for axes in [vec![], vec![4], vec![1, 1]] {
        op_refused(
            REDUCE,
            Op::Reduce { axes: axes.clone(), reducer: Reducer::Max },
            "expected distinct ones below 4",
        );
        op_refused(SOFTMAX, Op::Softmax { axes }, "expected distinct ones below 4");
    }
    op_refused(REDUCE, Op::Reduce { axes: vec![3, 2], reducer: Reducer::Sum }, "expected them in order");
    op_refused(NORM, Op::RmsNorm { axis: 4, epsilon: 0.0 }, "expected distinct ones below 4");
    op_refused(MOVE, Op::MoveAxis { from: 4, to: 0 }, "expected both below 4");
    op_refused(PREPACK, Op::Prepack { format: B, k_axis: 3, mn_axis: 3 }, "expected distinct ones below 4");
    op_refused(PREPACK, Op::Prepack { format: B, k_axis: 3, mn_axis: 4 }, "expected distinct ones below 4");
    fact_refused(PREPACK, Fact::Panels { format: B, batch: vec![1, 1], k: 3, mn: 9 }, "mn: 9");
    fact_refused(RESHAPE, Fact::f32(&[1, 3, 4, 5]), "expected as many values");
    fact_refused(
        RESHAPE,
        Fact::Tensor { dtype: Dtype::I32, shape: vec![1, 3, 4, 4] },
        "expected as many values",
    );
    fact_refused(CAST, Fact::f32(&[2, 1]), "expected Tensor");
}
