//! Rules of the operators that a test can show alone: one node over sources, once right and many times wrong.
#![allow(clippy::cloned_ref_to_slice_refs, reason = "tables of operands read better as lists")]

use super::super::*;
use crate::encoding::{EncodedPanel, Encoding};
use crate::weights::{Form, Place, Weight, WeightId};

const WINDOW: Window =
    Window { kernel: (2, 2), strides: (2, 2), dilations: (1, 1), pads: (0, 0), output: (2, 2) };
const IDS: fn(&[usize]) -> Fact = |shape| Fact::Tensor { dtype: Dtype::I64, shape: shape.to_vec() };
const BOOL: fn(&[usize]) -> Fact = |shape| Fact::Tensor { dtype: Dtype::Bool, shape: shape.to_vec() };

/// A plan of one node over sources of `inputs`.
fn graph(op: Op, inputs: &[Fact], outputs: &[Fact], bodies: Vec<Body>) -> PlanGraph {
    let source = |(i, fact): (usize, &Fact)| Node {
        name: format!("source{i}"),
        op: Op::Source,
        inputs: vec![],
        outputs: vec![fact.clone()],
    };
    let mut nodes: Vec<_> = inputs.iter().enumerate().map(source).collect();
    let operands = (0..inputs.len()).map(|node| Outlet { node, slot: 0 }).collect();
    let results = (0..outputs.len()).map(|slot| Outlet { node: inputs.len(), slot }).collect();
    nodes.push(Node { name: "node".into(), op, inputs: operands, outputs: outputs.to_vec() });
    let head = inputs.iter().map(|f| match f {
        Fact::Tensor { dtype, shape } => (*dtype, shape.clone()),
        Fact::Panels { .. } => (Dtype::F32, vec![]),
    });
    PlanGraph {
        head: PlanHead { target: "x86_64".into(), tract: "0".into(), inputs: head.collect() },
        kernels: vec![],
        bodies,
        nodes,
        inputs: (0..inputs.len()).collect(),
        outputs: results,
    }
}

fn weights() -> Vec<Weight> {
    let weight = |name: &str, form| Weight { name: name.into(), place: Place::Blobs, offset: 0, form };
    let panels = |k, panel_bytes| Form::Panels { dtype: Dtype::F32, k, mn: 20, r: FILTER_PANEL, panel_bytes };
    let encoded = |k, r| Form::encoded_panels(EncodedPanel { encoding: Encoding::F16, k, r }, 20).unwrap();
    let of_int8 = |k, mn| {
        Form::encoded_panels(EncodedPanel { encoding: Encoding::Int8, k, r: FILTER_PANEL }, mn).unwrap()
    };
    let narrow = Form::encoded_panels(EncodedPanel { encoding: Encoding::Int8, k: 12, r: 8 }, 20).unwrap();
    let rows_of = |count, taps| Form::EncodedRows { encoding: Encoding::Int8, shape: vec![count, 1, taps] };
    vec![
        weight("kernel", Form::Plain { dtype: Dtype::F32, shape: vec![5, 3, 2, 2] }),
        weight("filters", panels(12, 12 * 64)),
        weight("cut short", panels(12, 11 * 64)),
        weight("low", Form::Panels { dtype: Dtype::F32, k: 12, mn: 20, r: 8, panel_bytes: 1024 }),
        weight("matrix", Form::Panels { dtype: Dtype::F32, k: 6, mn: 20, r: 16, panel_bytes: 512 }),
        weight("narrow", Form::Panels { dtype: Dtype::F32, k: 6, mn: 20, r: 8, panel_bytes: 512 }),
        weight("table", Form::Plain { dtype: Dtype::F32, shape: vec![7, 3] }),
        weight("encoded filters", encoded(12, 16)),
        weight("encoded, narrow", encoded(12, 8)),
        weight("encoded matrix", encoded(6, 16)),
        weight("encoded table", Form::EncodedRows { encoding: Encoding::Int8, shape: vec![7, 3] }),
        weight("filters in int8", of_int8(12, 20)),
        weight("low, in int8", narrow),
        weight("kernels in int8", Form::EncodedRows { encoding: Encoding::Int8, shape: vec![20, 1, 2, 2] }),
        weight("kernels in f16", Form::EncodedRows { encoding: Encoding::F16, shape: vec![20, 1, 2, 2] }),
        weight("as deep as can be", of_int8(4 * 65_536, 20)),
        weight("too deep", of_int8(4 * 65_552, 20)),
        weight("as many taps as can be", rows_of(20, 512 * 640)),
        weight("too many taps", rows_of(20, 512 * 641)),
        weight("long rows of one channel", of_int8(16_384, 16_000)),
        weight("more of them", of_int8(16_384, 16_400)),
        weight("large kernels", rows_of(4352, 512 * 640)),
        weight("more of these", rows_of(4480, 512 * 640)),
    ]
}

fn verdict(graph: &PlanGraph) -> Result<(), String> {
    let round_trip = PlanGraph::decode(&graph.encode(), &weights());
    let checked = graph.validate(&weights());
    assert_eq!(round_trip.is_ok(), checked.is_ok());
    checked.map_err(|e| e.to_string())
}

/// `graph`, the images that its last node reads in bytes not sources but made out of floats.
fn quantized(mut graph: PlanGraph) -> PlanGraph {
    let Some(mut node) = graph.nodes.pop() else { return graph };
    let sums = matches!(node.op, Op::Int8Conv { .. } | Op::Int8DepthwiseConv { .. } | Op::Int8MaxPool { .. });
    for (i, outlet) in node.inputs.iter_mut().enumerate().filter(|_| sums) {
        let fact = graph.nodes[i].outputs[0].clone();
        let Fact::Tensor { dtype: Dtype::U8, shape } = &fact else { continue };
        let plain = vec![shape[0], shape[3], shape[1], shape[2]];
        graph.nodes[i].outputs = vec![Fact::f32(&plain)];
        graph.head.inputs[i] = (Dtype::F32, plain);
        let op = Op::QuantizeImage { inverse: 1.0, zero: 0 };
        let from = std::mem::replace(outlet, Outlet { node: graph.nodes.len(), slot: 0 });
        graph.nodes.push(Node { name: "quantize".into(), op, inputs: vec![from], outputs: vec![fact] });
    }
    graph.outputs.iter_mut().for_each(|o| o.node = graph.nodes.len());
    graph.nodes.push(node);
    graph
}

/// `right` is accepted; each of `wrong` (operator, operands, output) is refused with an error that holds its text.
#[track_caller]
fn rule(right: (Op, &[Fact], Fact), wrong: &[(Op, &[Fact], Fact, &str)]) {
    let (op, inputs, output) = right;
    verdict(&quantized(graph(op, inputs, &[output], vec![]))).unwrap();
    for (op, inputs, output, text) in wrong {
        let e = verdict(&graph(op.clone(), inputs, std::slice::from_ref(output), vec![])).unwrap_err();
        assert!(e.contains(text), "{e}, expected {text:?}");
    }
}

#[test]
fn direct_conv() {
    let conv = |window| Op::DirectConv { window, kernel: WeightId(0) };
    let (x, bias, y) = (Fact::f32(&[1, 3, 4, 4]), Fact::f32(&[5]), Fact::f32(&[1, 5, 2, 2]));
    let small = Window { kernel: (1, 2), ..WINDOW };
    rule(
        (conv(WINDOW), &[x.clone(), bias.clone()], y.clone()),
        &[
            (conv(small), &[x.clone(), bias.clone()], y.clone(), "expected 30 values"),
            (conv(WINDOW), &[x.clone(), Fact::f32(&[4])], y.clone(), "expected 5 values"),
            (conv(WINDOW), &[x.clone(), bias.clone()], Fact::f32(&[1, 6, 2, 2]), "expected 72 values"),
            (conv(WINDOW), &[x.clone(), bias.clone()], Fact::f32(&[1, 5, 2, 3]), "gives Tensor"),
            (conv(WINDOW), &[x], y, "1 operands, expected 2"),
        ],
    );
}

#[test]
fn channels_in_blocks() {
    let (x, y) = (Fact::f32(&[2, 9, 4, 4]), Fact::f32(&[2, 2, 4, 4, 8]));
    rule(
        (Op::BlockChannels, &[x.clone()], y.clone()),
        &[
            (Op::BlockChannels, &[x.clone()], Fact::f32(&[2, 3, 4, 4, 8]), "gives Tensor"),
            (Op::BlockChannels, &[Fact::f32(&[9])], y.clone(), "expected [N, C, H, W]"),
        ],
    );
    rule(
        (Op::UnblockChannels, &[y.clone()], x.clone()),
        &[
            (Op::UnblockChannels, &[y.clone()], Fact::f32(&[2, 8, 4, 4]), "gives Tensor"),
            (Op::UnblockChannels, &[x.clone()], x, "expected [N, C / 8, H, W, 8]"),
        ],
    );
    let op = Op::MaxPool { window: WINDOW };
    rule(
        (op.clone(), &[y.clone()], Fact::f32(&[2, 2, 2, 2, 8])),
        &[(op, &[y], Fact::f32(&[2, 2, 4, 2, 8]), "gives Tensor")],
    );
}

#[test]
fn convolutions_in_blocks() {
    let conv = |window, kernel, steps: &[ConvStep]| Op::BlockedConv {
        window,
        kernel: WeightId(kernel),
        steps: steps.to_vec(),
    };
    let steps = [
        ConvStep::Scalar { op: BinaryOp::Max, value: 0.0 },
        ConvStep::Tensor { op: BinaryOp::Add, input: 2 },
        ConvStep::Channel { op: BinaryOp::Mul, input: 3 },
        ConvStep::Unary { op: UnaryOp::HardSwish },
    ];
    let (plain, blocks) = (Fact::f32(&[1, 3, 4, 4]), Fact::f32(&[1, 1, 4, 4, 8]));
    let (bias, y, scale) = (Fact::f32(&[20]), Fact::f32(&[1, 3, 2, 2, 8]), Fact::f32(&[1, 3, 1, 1, 8]));
    let right = [plain.clone(), bias.clone(), y.clone(), scale.clone()];
    rule((conv(WINDOW, 1, &steps), &right, y.clone()), &[]);
    rule((conv(WINDOW, 7, &steps), &right, y.clone()), &[]);
    let two = [blocks.clone(), bias.clone()];
    let far = Window { strides: (1 << 20, 1 << 20), ..WINDOW };
    let odd = Window { kernel: (5, 1), ..WINDOW };
    rule(
        (conv(WINDOW, 1, &[]), &two, y.clone()),
        &[
            (conv(WINDOW, 0, &[]), &two, y.clone(), "expected panels"),
            (conv(WINDOW, 2, &[]), &two, y.clone(), "panel_bytes at least 768"),
            (conv(WINDOW, 3, &[]), &two, y.clone(), "r=16"),
            (conv(WINDOW, 99, &[]), &two, y.clone(), "weight 99 of a table of 23"),
            (conv(WINDOW, 8, &[]), &two, y.clone(), "r=16"),
            (conv(WINDOW, 9, &[]), &two, y.clone(), "panels 6 deep"),
            (conv(WINDOW, 10, &[]), &two, y.clone(), "expected panels"),
            (conv(far, 1, &[]), &two, y.clone(), "reaches far beyond"),
            (conv(odd, 1, &[]), &two, y.clone(), "expected a multiple of 5 taps"),
            (conv(WINDOW, 1, &[]), &[blocks.clone()], y.clone(), "1 operands, expected 2 or more"),
            (
                conv(WINDOW, 1, &[]),
                &[Fact::f32(&[1, 4, 4, 4]), bias.clone()],
                y.clone(),
                "filters of 3 channels",
            ),
            (
                conv(WINDOW, 1, &[]),
                &[Fact::f32(&[1, 2, 4, 4, 8]), bias.clone()],
                y.clone(),
                "filters of 3 channels",
            ),
            (conv(WINDOW, 1, &[]), &[blocks.clone(), Fact::f32(&[24])], y.clone(), "expected 20 values"),
            (conv(WINDOW, 1, &[]), &two, Fact::f32(&[1, 3, 2, 3, 8]), "gives Tensor"),
            (conv(WINDOW, 1, &[]), &two, Fact::f32(&[1, 2, 2, 2, 8]), "gives Tensor"),
            (
                conv(WINDOW, 1, &[ConvStep::Tensor { op: BinaryOp::Add, input: 2 }]),
                &two,
                y.clone(),
                "operand 2 of 2",
            ),
            (
                conv(WINDOW, 1, &[ConvStep::Tensor { op: BinaryOp::Add, input: 1 }]),
                &two,
                y.clone(),
                "gives Tensor",
            ),
            (
                conv(WINDOW, 1, &[ConvStep::Channel { op: BinaryOp::Add, input: 1 }]),
                &two,
                y.clone(),
                "gives Tensor",
            ),
            (
                conv(WINDOW, 1, &[ConvStep::Scalar { op: BinaryOp::Pow, value: 2.0 }]),
                &two,
                y.clone(),
                "followed by Pow",
            ),
            (conv(WINDOW, 1, &[ConvStep::Unary { op: UnaryOp::Exp }]), &two, y.clone(), "followed by Exp"),
        ],
    );
    let depthwise =
        |kernel| Op::BlockedDepthwiseConv { window: WINDOW, kernel: WeightId(kernel), steps: vec![] };
    let (x, bias, y) = (Fact::f32(&[1, 2, 4, 4, 8]), Fact::f32(&[15]), Fact::f32(&[1, 2, 2, 2, 8]));
    rule(
        (depthwise(0), &[x.clone(), bias.clone()], y.clone()),
        &[
            (depthwise(1), &[x.clone(), bias.clone()], y.clone(), "expected it plain"),
            (depthwise(0), &[x.clone(), Fact::f32(&[16])], y.clone(), "expected 64 values"),
            (depthwise(0), &[x.clone(), Fact::f32(&[8])], y.clone(), "one for each channel"),
            (depthwise(0), &[plain, bias.clone()], y, "expected [N, C / 8, H, W, 8]"),
            (depthwise(0), &[x, bias], Fact::f32(&[1, 2, 2, 1, 8]), "gives Tensor"),
        ],
    );
}

const BYTES: fn(&[usize]) -> Fact = |shape| Fact::Tensor { dtype: Dtype::U8, shape: shape.to_vec() };
const TAIL: Int8Tail =
    Int8Tail { function: Int8Function::Identity, scale: 1.0, zero: 0.0, low: 0.0, high: 127.0 };

#[test]
fn images_in_bytes() {
    let with = |inverse, zero| Op::QuantizeImage { inverse, zero };
    let op = |inverse| with(inverse, 127);
    let (x, blocks) = (Fact::f32(&[2, 3, 4, 5]), Fact::f32(&[2, 3, 4, 5, 8]));
    rule(
        (op(0.5), &[x.clone()], BYTES(&[2, 4, 5, 4])),
        &[
            (op(f32::INFINITY), &[x.clone()], BYTES(&[2, 4, 5, 4]), "a factor of inf"),
            (with(0.5, 128), &[x.clone()], BYTES(&[2, 4, 5, 4]), "128 for 0, expected at most 127"),
            (op(0.5), &[x.clone()], BYTES(&[2, 4, 5, 32]), "positions of 32 bytes for 3 channels"),
            (op(0.5), &[x.clone()], BYTES(&[2, 4, 5, 8]), "expected bytes [N, H, W, S]"),
            (op(0.5), &[x.clone()], BYTES(&[2, 5, 4, 4]), "gives Tensor"),
            (op(0.5), &[x.clone()], Fact::f32(&[2, 4, 5, 4]), "expected bytes [N, H, W, S]"),
            (
                op(0.5),
                &[Fact::f32(&[2, 5, 4, 5])],
                BYTES(&[2, 4, 5, 4]),
                "positions of 4 bytes for 5 channels",
            ),
        ],
    );
    rule(
        (op(0.5), &[blocks.clone()], BYTES(&[2, 4, 5, 32])),
        &[(op(0.5), &[blocks.clone()], BYTES(&[2, 4, 5, 16]), "gives Tensor")],
    );
    let with = |scale, zero| Op::DequantizeImage { scale, zero };
    let back = |scale| with(scale, 127);
    rule(
        (back(2.0), &[BYTES(&[2, 4, 5, 32])], blocks.clone()),
        &[
            (back(f32::NAN), &[BYTES(&[2, 4, 5, 32])], blocks.clone(), "a factor of NaN"),
            (with(2.0, 128), &[BYTES(&[2, 4, 5, 32])], blocks.clone(), "128 for 0, expected at most 127"),
            (back(2.0), &[BYTES(&[2, 4, 5, 48])], blocks.clone(), "gives Tensor"),
            (back(2.0), &[BYTES(&[2, 5, 4, 32])], blocks.clone(), "gives Tensor"),
            (back(2.0), &[x], blocks, "expected bytes [N, H, W, S]"),
        ],
    );
    let op = Op::Int8MaxPool { window: WINDOW };
    rule(
        (op.clone(), &[BYTES(&[2, 4, 4, 32])], BYTES(&[2, 2, 2, 32])),
        &[
            (op.clone(), &[BYTES(&[2, 4, 4, 32])], BYTES(&[2, 2, 2, 16]), "gives Tensor"),
            (op.clone(), &[BYTES(&[2, 4, 4, 17])], BYTES(&[2, 2, 2, 17]), "expected bytes [N, H, W, S]"),
            (op, &[BYTES(&[2, 4, 4, 32])], BYTES(&[2, 2, 2, 32]), "operand 0 is given by Source"),
        ],
    );
}

#[test]
fn convolutions_in_bytes() {
    let with = |zero, window, kernel, residual, tail| Op::Int8Conv {
        window,
        kernel: WeightId(kernel),
        zero,
        residual,
        tail,
    };
    let conv = |window, kernel, residual, tail| with(127, window, kernel, residual, tail);
    let (x, y, floats) = (BYTES(&[1, 4, 4, 4]), BYTES(&[1, 2, 2, 32]), Fact::f32(&[1, 3, 2, 2, 8]));
    let constant = Fact::f32(&[32]);
    let three = [x.clone(), constant.clone(), constant.clone()];
    let four = [x.clone(), constant.clone(), constant.clone(), y.clone()];
    rule((conv(WINDOW, 11, Some(0.5), TAIL), &four, y.clone()), &[]);
    rule((conv(WINDOW, 11, None, Int8Tail { low: f32::MIN, ..TAIL }), &three, floats.clone()), &[]);
    let far = Window { strides: (1 << 20, 1 << 20), ..WINDOW };
    let odd = Window { kernel: (5, 1), ..WINDOW };
    let tail = |low, high| Int8Tail { low, high, ..TAIL };
    let right = |operands: &[Fact]| operands.to_vec();
    let (five, wide) = (BYTES(&[1, 4, 4, 32]), [x.clone(), constant.clone(), Fact::f32(&[20])]);
    let of_five = [five, constant.clone(), constant.clone()];
    rule(
        (
            conv(WINDOW, 11, None, TAIL),
            &[BYTES(&[1, 4, 4, 16]), constant.clone(), constant.clone()],
            y.clone(),
        ),
        &[
            (with(128, WINDOW, 11, None, TAIL), &three, y.clone(), "128 for 0, expected at most 127"),
            (conv(WINDOW, 11, None, TAIL), &three, y.clone(), "operand 0 is given by Source"),
            (conv(WINDOW, 1, None, TAIL), &three, y.clone(), "expected panels of 16 in int8"),
            (conv(WINDOW, 7, None, TAIL), &three, y.clone(), "expected panels of 16 in int8"),
            (conv(WINDOW, 12, None, TAIL), &three, y.clone(), "expected panels of 16 in int8"),
            (conv(far, 11, None, TAIL), &three, y.clone(), "reaches far beyond"),
            (conv(odd, 11, None, TAIL), &three, y.clone(), "expected a multiple of 5 taps"),
            (conv(WINDOW, 11, Some(0.5), TAIL), &three, y.clone(), "3 operands, expected 4"),
            (conv(WINDOW, 11, None, TAIL), &four, y.clone(), "4 operands, expected 3"),
            (conv(WINDOW, 11, Some(f32::NAN), TAIL), &four, y.clone(), "a factor of NaN"),
            (
                conv(WINDOW, 11, Some(1.0), TAIL),
                &right(&[&four[..3], &three[..1]].concat()),
                y.clone(),
                "gives Tensor",
            ),
            (conv(WINDOW, 11, None, TAIL), &wide, y.clone(), "expected 32 values"),
            (conv(WINDOW, 11, None, TAIL), &of_five, y.clone(), "positions of 32 bytes for 3 channels"),
            (conv(WINDOW, 11, None, TAIL), &three, BYTES(&[1, 2, 2, 16]), "gives Tensor"),
            (conv(WINDOW, 11, None, TAIL), &three, Fact::f32(&[1, 2, 2, 2, 8]), "gives Tensor"),
            (conv(WINDOW, 11, None, tail(-1.0, 127.0)), &three, y.clone(), "expected limits from 0 to 127"),
            (conv(WINDOW, 11, None, tail(0.0, 128.0)), &three, y.clone(), "expected limits from 0 to 127"),
            (conv(WINDOW, 11, None, tail(9.0, 8.0)), &three, y.clone(), "expected limits from 0 to 127"),
            (conv(WINDOW, 11, None, tail(f32::NAN, 8.0)), &three, y.clone(), "expected limits from 0 to 127"),
            (conv(WINDOW, 11, None, tail(0.0, f32::INFINITY)), &three, floats, "expected limits from"),
        ],
    );
    // The image is made as it should be, the residual is not.
    let mut residual = quantized(graph(conv(WINDOW, 11, Some(0.5), TAIL), &four, &[y.clone()], vec![]));
    let (shape, last) = (vec![1, 2, 2, 32], residual.nodes.len() - 1);
    residual.nodes[3].outputs = vec![y.clone()];
    residual.head.inputs[3] = (Dtype::U8, shape);
    residual.nodes[last].inputs[3].node = 3;
    residual.nodes.remove(last - 1);
    residual.outputs[0].node = last - 1;
    assert!(verdict(&residual).unwrap_err().contains("operand 3 is given by Source"));
    let with =
        |zero, kernel| Op::Int8DepthwiseConv { window: WINDOW, kernel: WeightId(kernel), zero, tail: TAIL };
    let depthwise = |kernel| with(127, kernel);
    let (x, y) = (BYTES(&[1, 4, 4, 32]), BYTES(&[1, 2, 2, 32]));
    let three = [x.clone(), constant.clone(), constant.clone()];
    rule(
        (depthwise(13), &three, y.clone()),
        &[
            (with(128, 13), &three, y.clone(), "128 for 0, expected at most 127"),
            (depthwise(13), &three, y.clone(), "operand 0 is given by Source"),
            (depthwise(14), &three, y.clone(), "expected rows in int8"),
            (depthwise(11), &three, y.clone(), "expected rows in int8"),
            (depthwise(10), &three, y.clone(), "of 7 channels for"),
            (
                depthwise(13),
                &[BYTES(&[1, 4, 4, 16]), constant.clone(), constant.clone()],
                y.clone(),
                "of 20 channels for",
            ),
            (depthwise(13), &[x.clone(), constant, Fact::f32(&[20])], y.clone(), "expected 32 values"),
            (depthwise(13), &three[..2], y, "2 operands, expected 3"),
            (depthwise(13), &three, Fact::f32(&[1, 3, 2, 2, 8]), "gives Tensor"),
        ],
    );
}

#[test]
fn sums_of_convolutions_in_bytes_fit_32_bits() {
    let constant = Fact::f32(&[32]);
    let operands = |shape: &[usize]| [BYTES(shape), constant.clone(), constant.clone()];
    let conv = |kernel| Op::Int8Conv {
        window: WINDOW,
        kernel: WeightId(kernel),
        zero: 0,
        residual: None,
        tail: TAIL,
    };
    rule(
        (conv(15), &operands(&[1, 4, 4, 65_536]), BYTES(&[1, 2, 2, 32])),
        &[(
            conv(16),
            &operands(&[1, 4, 4, 65_552]),
            BYTES(&[1, 2, 2, 32]),
            "sums of 32776 steps, at most 32768",
        )],
    );
    let depthwise = |width, kernel| Op::Int8DepthwiseConv {
        window: Window { kernel: (512, width), output: (1, 1), ..WINDOW },
        kernel: WeightId(kernel),
        zero: 0,
        tail: TAIL,
    };
    let wrong = (
        depthwise(641, 18),
        &operands(&[1, 512, 640, 32])[..],
        BYTES(&[1, 1, 1, 32]),
        "sums of Some(328192) taps, at most 327680",
    );
    rule((depthwise(640, 17), &operands(&[1, 512, 640, 32]), BYTES(&[1, 1, 1, 32])), &[wrong]);
}

/// One channel in positions of sixteen bytes takes sixteen bytes for each weight.
#[test]
fn weights_that_are_laid_out_count() {
    let plan = |kernel, filters| {
        let op = Op::Int8Conv {
            window: Window { kernel: (1, 16_384), output: (1, 1), ..WINDOW },
            kernel: WeightId(kernel),
            zero: 0,
            residual: None,
            tail: TAIL,
        };
        let constant = Fact::f32(&[filters]);
        let inputs = [BYTES(&[1, 1, 16_384, 16]), constant.clone(), constant];
        verdict(&quantized(graph(op, &inputs, &[BYTES(&[1, 1, 1, filters])], vec![])))
    };
    plan(19, 16_000).unwrap();
    assert!(plan(20, 16_400).unwrap_err().contains("are allowed"));
    // Here the image that the kernels need to be so large takes as much again.
    let plan = |kernel, s| {
        let constant = Fact::f32(&[s]);
        let op = Op::Int8DepthwiseConv {
            window: Window { kernel: (512, 640), output: (1, 1), ..WINDOW },
            kernel: WeightId(kernel),
            zero: 0,
            tail: TAIL,
        };
        let inputs = [BYTES(&[1, 1, 1, s]), constant.clone(), constant];
        let mut graph = quantized(graph(op, &inputs, &[BYTES(&[1, 1, 1, s])], vec![]));
        let node = graph.nodes.len() - 1;
        let image = Node {
            name: "large".into(),
            op: Op::Int8MaxPool { window: Window { output: (512, 640), ..WINDOW } },
            inputs: vec![graph.nodes[node].inputs[0]],
            outputs: vec![BYTES(&[1, 512, 640, s])],
        };
        graph.nodes.insert(node, image);
        graph.nodes[node + 1].inputs[0].node = node;
        graph.outputs[0].node = node + 1;
        verdict(&graph)
    };
    plan(21, 4352).unwrap();
    assert!(plan(22, 4480).unwrap_err().contains("are allowed"));
}

#[test]
fn col2im_and_average_pool() {
    let (x, bias, y) = (Fact::f32(&[12, 4]), Fact::f32(&[3]), Fact::f32(&[3, 4, 4]));
    let op = Op::Col2Im { window: WINDOW };
    rule(
        (op.clone(), &[x.clone(), bias.clone()], y.clone()),
        &[
            (op.clone(), &[Fact::f32(&[12, 5]), bias], y.clone(), "expected Some(48) values"),
            (op.clone(), &[x.clone(), Fact::f32(&[2])], y.clone(), "expected 3 values"),
            (op, &[x, y.clone()], Fact::f32(&[48]), "expected [N, C, H, W]"),
        ],
    );
    let op = Op::AveragePool { window: WINDOW, count_include_pad: true };
    rule(
        (op.clone(), &[y.clone()], Fact::f32(&[3, 2, 2])),
        &[(op, &[y], Fact::f32(&[3, 2, 3]), "gives Tensor")],
    );
}

#[test]
fn moves() {
    let x = Fact::f32(&[2, 6]);
    let slice = |axis, start, step| Op::Slice { axis, start, step };
    rule(
        (slice(1, 1, 2), &[x.clone()], Fact::f32(&[2, 3])),
        &[
            (slice(2, 0, 1), &[x.clone()], Fact::f32(&[2, 6]), "axis 2 of"),
            (slice(1, 1, 1), &[x.clone()], Fact::f32(&[2, 6]), "reaches outside"),
            (slice(1, 0, 0), &[x.clone()], Fact::f32(&[2, 6]), "reaches outside"),
            (slice(1, 0, 2), &[x.clone()], Fact::f32(&[2, 2]), "reaches outside"),
            (slice(1, usize::MAX, 1), &[x.clone()], Fact::f32(&[2, 1]), "reaches outside"),
            (slice(1, 0, 1), &[x.clone()], Fact::f32(&[1, 6]), "gives Tensor"),
        ],
    );
    let concat = |axis| Op::Concat { axis };
    rule(
        (concat(1), &[x.clone(), Fact::f32(&[2, 1])], Fact::f32(&[2, 7])),
        &[
            (concat(0), &[x.clone(), Fact::f32(&[2, 1])], Fact::f32(&[4, 7]), "along axis 0"),
            (concat(1), &[x.clone(), IDS(&[2, 1])], Fact::f32(&[2, 7]), "along axis 1"),
            (concat(1), &[x.clone()], Fact::f32(&[2, 7]), "gives Tensor"),
            (concat(1), &[], Fact::f32(&[2, 7]), "0 operands"),
        ],
    );
    let pad = |pads: &[(usize, usize)], mode| Op::Pad { pads: pads.to_vec(), mode };
    rule(
        (pad(&[(0, 1), (5, 0)], PadMode::Reflect), &[x.clone()], Fact::f32(&[3, 11])),
        &[
            (
                pad(&[(0, 0), (6, 0)], PadMode::Reflect),
                &[x.clone()],
                Fact::f32(&[2, 12]),
                "expected at most 5",
            ),
            (pad(&[(0, usize::MAX), (0, 0)], PadMode::Edge), &[x.clone()], x.clone(), "expected at most"),
            (pad(&[(0, 1)], PadMode::Edge), &[x.clone()], x.clone(), "1 pads, expected 2"),
        ],
    );
    let up = |scales: &[usize]| Op::Upsample { scales: scales.to_vec() };
    rule(
        (up(&[1, 2]), &[x.clone()], Fact::f32(&[2, 12])),
        &[
            (up(&[1, 0]), &[x.clone()], Fact::f32(&[2, 0]), "none to be 0"),
            (up(&[1, 0]), &[x.clone()], x.clone(), "expected 2 above 0"),
            (up(&[1, usize::MAX]), &[x.clone()], x.clone(), "extent overflows"),
        ],
    );
    rule(
        (Op::Expand, &[Fact::f32(&[1, 6])], x.clone()),
        &[(Op::Expand, &[Fact::f32(&[3, 6])], x.clone(), "expands f32 [3, 6]")],
    );
    let gather = |axis| Op::Gather { axis };
    rule(
        (gather(1), &[x.clone(), IDS(&[4, 1])], Fact::f32(&[2, 4, 1])),
        &[
            (gather(2), &[x.clone(), IDS(&[4, 1])], Fact::f32(&[2, 4, 1]), "axis 2 of"),
            (gather(1), &[x.clone(), Fact::f32(&[4, 1])], Fact::f32(&[2, 4, 1]), "expected i64"),
        ],
    );
}

#[test]
fn comparisons_and_indices() {
    let op = Op::Compare { op: Comparison::Equal };
    rule(
        (op.clone(), &[IDS(&[2, 1]), IDS(&[1, 3])], BOOL(&[2, 3])),
        &[
            (op.clone(), &[IDS(&[2, 1]), Fact::f32(&[1, 3])], BOOL(&[2, 3]), "numbers of one dtype"),
            (op.clone(), &[BOOL(&[2]), BOOL(&[2])], BOOL(&[2]), "numbers of one dtype"),
            (op, &[IDS(&[2]), IDS(&[2])], IDS(&[2]), "gives Tensor"),
        ],
    );
    let op = Op::Logic { op: Logic::Xor };
    rule(
        (op.clone(), &[BOOL(&[2, 1]), BOOL(&[1, 3])], BOOL(&[2, 3])),
        &[
            (op.clone(), &[BOOL(&[2]), IDS(&[2])], BOOL(&[2]), "expected bool"),
            (op.clone(), &[BOOL(&[2]), BOOL(&[3])], BOOL(&[2]), "do not broadcast"),
            (op, &[BOOL(&[2]), BOOL(&[2])], Fact::f32(&[2]), "gives Tensor"),
        ],
    );
    let (not, sine) = (Op::Function { op: Function::Not }, Op::Function { op: Function::Sin });
    rule((sine.clone(), &[Fact::f32(&[2])], Fact::f32(&[2])), &[]);
    rule(
        (not.clone(), &[BOOL(&[2])], BOOL(&[2])),
        &[
            (not.clone(), &[Fact::f32(&[2])], Fact::f32(&[2]), "expected bool"),
            (sine, &[IDS(&[2])], IDS(&[2]), "expected f32"),
            (not, &[BOOL(&[2])], BOOL(&[3]), "gives Tensor"),
        ],
    );
    let three = |x, y| [BOOL(&[2, 1]), x, y];
    rule(
        (Op::Where, &three(IDS(&[1, 3]), IDS(&[1, 1])), IDS(&[2, 3])),
        &[
            (Op::Where, &three(IDS(&[1, 3]), Fact::f32(&[1, 1])), IDS(&[2, 3]), "expected one dtype"),
            (Op::Where, &three(IDS(&[1, 3]), IDS(&[1, 4])), IDS(&[2, 3]), "do not broadcast"),
            (Op::Where, &three(IDS(&[1, 3]), IDS(&[1, 3])), IDS(&[1, 3]), "gives Tensor"),
            (Op::Where, &[IDS(&[2]), IDS(&[2]), IDS(&[2])], IDS(&[2]), "expected bool"),
            (Op::Where, &[BOOL(&[2]), IDS(&[2])], IDS(&[2]), "2 operands, expected 3"),
        ],
    );
    let op = |axes: &[usize]| Op::Reduce { axes: axes.to_vec(), reducer: Reducer::ArgMax };
    rule(
        (op(&[1]), &[Fact::f32(&[2, 3])], IDS(&[2, 1])),
        &[
            (op(&[0, 1]), &[Fact::f32(&[2, 3])], IDS(&[1, 1]), "expected one axis"),
            (op(&[1]), &[Fact::f32(&[2, 3])], Fact::f32(&[2, 1]), "gives Tensor"),
        ],
    );
}

/// A body that takes one position `[1, 2]` and a state `[1, 8]`, and gives the state back twice.
fn body() -> Body {
    let source = |shape: &[usize]| Node {
        name: "source".into(),
        op: Op::Source,
        inputs: vec![],
        outputs: vec![Fact::f32(shape)],
    };
    let cell = Node {
        name: "cell".into(),
        op: Op::LstmCell,
        inputs: vec![Outlet { node: 1, slot: 0 }, Outlet { node: 0, slot: 0 }],
        outputs: vec![Fact::f32(&[1, 2]), Fact::f32(&[1, 2])],
    };
    let join = Node {
        name: "join".into(),
        op: Op::Concat { axis: 1 },
        inputs: vec![
            Outlet { node: 2, slot: 0 },
            Outlet { node: 2, slot: 1 },
            Outlet { node: 2, slot: 0 },
            Outlet { node: 2, slot: 1 },
        ],
        outputs: vec![Fact::f32(&[1, 8])],
    };
    Body {
        nodes: vec![source(&[1, 2]), source(&[1, 8]), cell, join],
        inputs: vec![0, 1],
        outputs: vec![Outlet { node: 3, slot: 0 }, Outlet { node: 2, slot: 0 }],
    }
}

/// The loop over that body: five positions.
fn scan() -> PlanGraph {
    let slot = ScanSlot { slot: 0, axis: 0, reverse: true };
    let op = Op::Scan {
        body: 0,
        inputs: vec![ScanInput::Position { axis: 0, reverse: true }, ScanInput::State],
        outputs: vec![
            ScanOutput { state: true, positions: None, last: Some(1) },
            ScanOutput { state: false, positions: Some(slot), last: None },
        ],
    };
    graph(
        op,
        &[Fact::f32(&[5, 2]), Fact::f32(&[1, 8])],
        &[Fact::f32(&[5, 2]), Fact::f32(&[1, 8])],
        vec![body()],
    )
}

#[test]
fn loops_agree_with_their_bodies() {
    verdict(&scan()).unwrap();
    type Attack = fn(&mut PlanGraph);
    /// The loop's attributes.
    fn parts(g: &mut PlanGraph) -> (&mut usize, &mut Vec<ScanInput>, &mut Vec<ScanOutput>) {
        match &mut g.nodes[2].op {
            Op::Scan { body, inputs, outputs } => (body, inputs, outputs),
            op => panic!("{op:?}"),
        }
    }
    let attacks: [(Attack, &str); 15] = [
        (
            |g| {
                let shape = vec![(1 << 20) + 1, 2];
                g.head.inputs[0].1.clone_from(&shape);
                g.nodes[0].outputs[0] = Fact::f32(&shape);
            },
            "runs 1048577 times",
        ),
        (|g| *parts(g).0 = 1, "body 1 of 1"),
        (|g| g.bodies.clear(), "body 0 of 0"),
        (|g| parts(g).1[0] = ScanInput::Full, "gives the body"),
        (|g| parts(g).1[0] = ScanInput::Position { axis: 2, reverse: false }, "axis 2 of"),
        (|g| parts(g).1[1] = ScanInput::Full, "become"),
        (|g| parts(g).1.truncate(1), "the body has 2 inputs"),
        (|g| parts(g).2[0].last = Some(7), "filled twice or is none"),
        (|g| parts(g).2[1].positions = Some(ScanSlot { slot: 1, axis: 0, reverse: false }), "filled twice"),
        (|g| parts(g).2[0].last = None, "expected all"),
        (|g| parts(g).2[0].state = false, "become"),
        (|g| parts(g).2[1].state = true, "become"),
        (|g| g.bodies[0].outputs[1].node = 9, "output 1 is"),
        (|g| g.bodies[0].inputs[0] = 3, "expected another source"),
        (|g| g.nodes[2].outputs[0] = Fact::f32(&[6, 2]), "gives Tensor"),
    ];
    for (i, (attack, text)) in attacks.into_iter().enumerate() {
        let mut graph = scan();
        attack(&mut graph);
        let e = verdict(&graph).unwrap_err();
        assert!(e.contains(text), "attack {i}: {e}, expected {text:?}");
    }
}

#[test]
fn a_loop_in_a_loop_is_refused() {
    let mut graph = scan();
    let node = graph.nodes[2].clone();
    graph.bodies[0]
        .nodes
        .push(Node { inputs: vec![Outlet { node: 0, slot: 0 }, Outlet { node: 1, slot: 0 }], ..node });
    let e = verdict(&graph).unwrap_err();
    assert!(e.contains("body 0: node 4 (\"node\", Scan): body 0 of 0"), "{e}");
}

#[test]
fn dense() {
    let with = |weight, outer, outer_stride, inner, inner_stride, bias, residual| Op::Dense {
        weight: WeightId(weight),
        rows: RowStrides { outer, outer_stride, inner, inner_stride },
        bias,
        residual,
        activation: Activation::Gelu,
    };
    let op = |outer, outer_stride, inner, inner_stride| {
        with(4, outer, outer_stride, inner, inner_stride, true, true)
    };
    // Overlapping rows: 0, 2 and 4, then 8, 10 and 12, each 6 values long.
    let (x, bias, y) = (Fact::f32(&[2, 9]), Fact::f32(&[20]), Fact::f32(&[2, 3, 20]));
    let all = [x.clone(), bias.clone(), y.clone()];
    let large = 1 << 60;
    rule(
        (op(2, 8, 3, 2), &all, y.clone()),
        &[
            (op(2, 9, 3, 2), &all, y.clone(), "reach outside"),
            (op(2, 8, 3, 3), &all, y.clone(), "reach outside"),
            (op(0, 8, 3, 2), &all, y.clone(), "reach outside"),
            (op(2, 8, 0, 2), &all, y.clone(), "reach outside"),
            (op(large, 32, 1, 0), &all, y.clone(), "reach outside"),
            (op(1, 0, 17, large), &all, y.clone(), "reach outside"),
            (op(2, usize::MAX, 3, 2), &all, y.clone(), "reach outside"),
            (op(large, 0, large, 0), &all, y.clone(), "expected the 20 columns"),
            (op(1, 0, 3, 2), &all, y.clone(), "expected the 20 columns"),
            (op(2, 8, 3, 2), &all, Fact::f32(&[7, 20]), "expected the 20 columns"),
            (op(2, 8, 3, 2), &all, IDS(&[6, 20]), "expected f32"),
            (op(2, 8, 3, 2), &[IDS(&[2, 9]), bias.clone(), y.clone()], y.clone(), "expected f32"),
            (op(2, 8, 3, 2), &[x.clone(), Fact::f32(&[19]), y.clone()], y.clone(), "expected 20 values"),
            (op(2, 8, 3, 2), &[x.clone(), bias.clone(), Fact::f32(&[6, 20])], y.clone(), "a residual of"),
            (op(2, 8, 3, 2), &[x.clone(), bias.clone()], y.clone(), "2 operands, expected 3"),
            (with(4, 2, 8, 3, 2, false, false), &all, y.clone(), "3 operands, expected 1"),
            (with(0, 2, 8, 3, 2, true, true), &all, y.clone(), "expected panels"),
            (with(5, 2, 8, 3, 2, true, true), &all, y.clone(), "r=16"),
            (with(8, 2, 8, 3, 2, true, true), &all, y.clone(), "r=16"),
            (with(10, 2, 8, 3, 2, true, true), &all, y.clone(), "expected panels"),
            (with(99, 2, 8, 3, 2, true, true), &all, y.clone(), "weight 99 of a table of 23"),
        ],
    );
    rule(
        (with(9, 2, 8, 3, 2, true, true), &all, y.clone()),
        &[(with(7, 2, 8, 3, 2, true, true), &all, y.clone(), "reach outside")],
    );
    let plain = with(4, 1, 0, 3, 6, false, false);
    rule(
        (plain.clone(), &[x.clone()], Fact::f32(&[3, 20])),
        &[(plain, &[Fact::f32(&[17])], Fact::f32(&[3, 20]), "reach outside")],
    );
}

#[test]
fn one_hot_rows() {
    let op = |table| Op::OneHotRows { table: WeightId(table), activation: Activation::Relu };
    let (ids, bias, y) = (IDS(&[2, 3]), Fact::f32(&[1, 3]), Fact::f32(&[2, 3, 3]));
    let narrow = Fact::Tensor { dtype: Dtype::I32, shape: vec![6, 1] };
    rule((op(6), &[narrow, bias.clone()], Fact::f32(&[18])), &[]);
    rule(
        (op(6), &[ids.clone(), bias.clone()], y.clone()),
        &[
            (op(0), &[ids.clone(), bias.clone()], y.clone(), "no matrix of f32"),
            (op(4), &[ids.clone(), bias.clone()], y.clone(), "expected it plain"),
            (op(99), &[ids.clone(), bias.clone()], y.clone(), "weight 99 of a table of 23"),
            (op(9), &[ids.clone(), bias.clone()], y.clone(), "expected it plain"),
            (op(6), &[Fact::f32(&[2, 3]), bias.clone()], y.clone(), "expected i64 or i32"),
            (op(6), &[ids.clone(), Fact::f32(&[4])], y.clone(), "expected 3 values"),
            (op(6), &[ids.clone(), bias], Fact::f32(&[2, 3, 4]), "expected 3 columns"),
            (op(6), &[ids.clone()], y.clone(), "1 operands, expected 2"),
        ],
    );
    let bias = Fact::f32(&[3]);
    rule(
        (op(10), &[ids.clone(), bias.clone()], y.clone()),
        &[(op(10), &[ids.clone(), Fact::f32(&[4])], y, "expected 3 values")],
    );
    // The other operator that reads rows; whoever reads a weight as it lies does not take it encoded.
    let gather = |table| Op::GatherRows { table: WeightId(table) };
    rule(
        (gather(10), &[ids.clone()], Fact::f32(&[2, 3, 3])),
        &[
            (
                gather(10),
                &[ids.clone()],
                Fact::Tensor { dtype: Dtype::I8, shape: vec![2, 3, 3] },
                "gives Tensor",
            ),
            (gather(9), &[ids], Fact::f32(&[2, 3, 3]), "expected it plain"),
            (Op::Constant { weight: WeightId(10) }, &[], Fact::f32(&[7, 3]), "expected it plain"),
        ],
    );
    let format = PanelFormat { dtype: Dtype::F32, r: FILTER_PANEL, align: 4, end_padding: 0 };
    let panels = Fact::Panels { format, batch: vec![], k: 12, mn: 20 };
    let read = |weight| Op::Panels { weights: vec![WeightId(weight)] };
    let e = verdict(&graph(read(7), &[], &[panels], vec![])).unwrap_err();
    assert!(e.contains("expected f32 panels"), "{e}");
}

#[test]
fn attention() {
    let op = |batch, heads, queries, keys| Op::Attention { batch, heads, queries, keys, scale: 0.5 };
    let (q, k, v) = (Fact::f32(&[2, 5, 12]), Fact::f32(&[2, 7, 3, 4]), Fact::f32(&[14, 48]));
    let (mask, y) = (Fact::f32(&[2, 1, 5, 7]), Fact::f32(&[2, 5, 48]));
    let all = [q.clone(), k.clone(), v.clone(), mask.clone()];
    let with_mask = |shape: &[usize]| [q.clone(), k.clone(), v.clone(), Fact::f32(shape)];
    rule(
        (op(2, 3, 5, 7), &all, y.clone()),
        &[
            (op(0, 3, 5, 7), &all, y.clone(), "expected the values of"),
            (op(2, 0, 5, 7), &all, y.clone(), "expected the values of"),
            (op(1 << 40, 3, 1 << 40, 7), &all, y.clone(), "expected the values of"),
            (op(2, 3, 4, 7), &all, y.clone(), "expected two pairs"),
            (op(2, 3, 5, 8), &all, y.clone(), "expected the values of"),
            (op(2, 6, 5, 7), &all, y.clone(), "multiples of 16"),
            (op(2, 1, 5, 7), &[q.clone(), Fact::f32(&[14, 13]), v.clone()], y.clone(), "heads of 12 and 13"),
            (op(2, 3, 5, 7), &all, Fact::f32(&[2, 5, 96]), "of 16 and 32"),
            (op(2, 3, 5, 7), &all, Fact::f32(&[2, 5, 47]), "expected the values of"),
            (op(2, 3, 5, 7), &with_mask(&[2, 2, 5, 7]), y.clone(), "a mask of"),
            (op(2, 3, 5, 7), &with_mask(&[2, 1, 5, 1]), y.clone(), "a mask of"),
            (op(2, 3, 5, 7), &with_mask(&[1, 5, 7]), y.clone(), "a mask of"),
            (
                op(2, 3, 5, 7),
                &[q.clone(), k.clone(), v.clone(), IDS(&[2, 1, 5, 7])],
                y.clone(),
                "expected f32",
            ),
            (op(2, 3, 5, 7), &[q.clone(), k.clone()], y.clone(), "2 operands, expected 3 or 4"),
            (op(2, 3, 5, 7), &[q.clone(), IDS(&[2, 7, 12]), v.clone()], y.clone(), "expected f32"),
        ],
    );
    rule((op(2, 3, 5, 7), &[q, k, v], Fact::f32(&[480])), &[]);
    let (wide, y) = (Fact::f32(&[1, (1 << 16) + 1]), Fact::f32(&[1, 16]));
    let e = verdict(&graph(op(1, 1, 1, 1), &[wide.clone(), wide, y.clone()], &[y], vec![])).unwrap_err();
    assert!(e.contains("heads of 65537 values"), "{e}");
}

#[test]
fn layer_norm() {
    let op = Op::LayerNorm { epsilon: 1e-5 };
    let (x, row) = (Fact::f32(&[2, 6]), Fact::f32(&[1, 6]));
    let scalar = Fact::f32(&[]);
    rule(
        (op.clone(), &[x.clone(), row.clone(), row.clone()], x.clone()),
        &[
            (op.clone(), &[x.clone(), Fact::f32(&[5]), row.clone()], x.clone(), "expected 6 values each"),
            (op.clone(), &[x.clone(), row.clone(), Fact::f32(&[12])], x.clone(), "expected 6 values each"),
            (op.clone(), &[x.clone(), row.clone(), row.clone()], Fact::f32(&[12]), "gives Tensor"),
            (op.clone(), &[scalar.clone(), row.clone(), row.clone()], scalar, "expected rows"),
            (op.clone(), &[x.clone(), row.clone()], x.clone(), "2 operands, expected 3"),
            (op, &[x.clone(), row, IDS(&[6])], x, "expected f32"),
        ],
    );
}
