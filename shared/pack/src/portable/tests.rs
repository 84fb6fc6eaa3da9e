//! A portable graph with every operator, and one attack on every check.

use super::*;
use crate::encoding::{EncodedPanel, Encoding};
use crate::error::ErrorKind;
use crate::plan::{BinaryOp, Comparison, PadMode, Reducer, UnaryOp};
use crate::weights::{Form, Place, WeightId};
use proptest::prelude::*;

const OUTLET: fn(usize) -> Outlet = |node| Outlet { node, slot: 0 };

fn weights() -> Vec<Weight> {
    let plain = Form::Plain { dtype: Dtype::F32, shape: vec![6] };
    let panels = Form::Panels { dtype: Dtype::F32, k: 3, mn: 4, r: 8, panel_bytes: 256 };
    let weight = |name: &str, form| Weight { name: name.into(), place: Place::Blobs, offset: 0, form };
    vec![weight("plain", plain), weight("panels", panels)]
}

/// Bytes of the tensors that the graph owns.
const DATA: usize = 64;

/// Writes graphs with dimensions spelled as numbers, `0` standing for the symbol.
#[derive(Default)]
struct Sketch {
    graph: PortableGraph,
    sub: Subgraph,
}

impl Sketch {
    fn dim(&mut self, extent: i64) -> DimId {
        let dim = if extent == 0 { Dim::Symbol { symbol: 0 } } else { Dim::Value { value: extent } };
        self.enter(dim)
    }

    fn enter(&mut self, dim: Dim) -> DimId {
        let dims = &mut self.graph.dims;
        let at = dims.iter().position(|d| *d == dim).unwrap_or_else(|| {
            dims.push(dim);
            dims.len() - 1
        });
        DimId(u32::try_from(at).unwrap())
    }

    fn fact(&mut self, dtype: Dtype, shape: &[i64]) -> Fact {
        Fact { dtype, shape: shape.iter().map(|e| self.dim(*e)).collect() }
    }

    fn add(&mut self, op: Op, inputs: &[usize], dtype: Dtype, shape: &[i64]) -> usize {
        let outputs = vec![self.fact(dtype, shape)];
        self.push(op, inputs.iter().map(|i| OUTLET(*i)).collect(), outputs)
    }

    fn f32(&mut self, op: Op, inputs: &[usize], shape: &[i64]) -> usize {
        self.add(op, inputs, Dtype::F32, shape)
    }

    fn push(&mut self, op: Op, inputs: Vec<Outlet>, outputs: Vec<Fact>) -> usize {
        let name = op.name().to_lowercase();
        self.sub.nodes.push(Node { name, op, inputs, outputs });
        self.sub.nodes.len() - 1
    }

    /// Ends the graph at hand; gives its index.
    fn end(&mut self, inputs: &[usize], outputs: &[usize]) -> usize {
        self.sub.inputs = inputs.to_vec();
        self.sub.outputs = outputs.iter().map(|o| OUTLET(*o)).collect();
        self.graph.graphs.push(std::mem::take(&mut self.sub));
        self.graph.graphs.len() - 1
    }
}

fn own(dtype: Dtype, shape: &[usize], offset: usize) -> Op {
    Op::Constant { value: Stored::Own { offset, dtype, shape: shape.to_vec() } }
}

fn pool(kernel: usize, channels: (usize, usize), padding: Padding) -> Pool {
    Pool {
        layout: Layout::Nchw,
        kernel: vec![kernel],
        strides: vec![1],
        dilations: vec![1],
        padding,
        input_channels: channels.0,
        output_channels: channels.1,
    }
}

/// Every operator at least once: `x[N, 3, 4]`, a loop over `N`, and what hangs on them.
fn graph() -> PortableGraph {
    let mut s = Sketch::default();
    s.graph.symbols = vec!["N".into()];
    let slice = s.f32(Op::Source, &[], &[1, 4]);
    let state = s.f32(Op::Source, &[], &[1, 4]);
    let sum = s.f32(Op::Binary { op: BinaryOp::Add }, &[slice, state], &[1, 4]);
    let body = s.end(&[slice, state], &[sum]);

    let x = s.f32(Op::Source, &[], &[0, 3, 4]);
    let ids = s.add(Op::Source, &[], Dtype::I64, &[0, 2]);
    let split = Split { batch: vec![], rows: vec![0], depth: vec![1, 2] };
    let stored = Stored::Panels { weights: vec![WeightId(1)], shape: vec![4, 3, 1], split };
    let kernel = s.f32(Op::Constant { value: stored }, &[], &[4, 3, 1]);
    let bias = s.f32(own(Dtype::F32, &[], 0), &[], &[]);
    let group = (1, KernelLayout::Oihw);
    let conv = s.f32(
        Op::Conv { pool: pool(1, (3, 4), Padding::Valid), kernel: group.1, group: group.0 },
        &[x, kernel, bias],
        &[0, 4, 4],
    );
    let back = s.f32(own(Dtype::F32, &[3, 4, 1], 0), &[], &[3, 4, 1]);
    let none = Padding::Explicit { before: vec![0], after: vec![0] };
    s.f32(
        Op::ConvTranspose { pool: pool(1, (4, 3), none), kernel: group.1, adjustments: vec![0], group: 1 },
        &[conv, back, bias],
        &[0, 3, 4],
    );
    let ceil = Padding::Pool { before: vec![0], after: vec![0], ceil: true };
    s.f32(Op::MaxPool { pool: pool(2, (4, 4), ceil) }, &[conv], &[0, 4, 3]);
    let average = pool(2, (4, 4), Padding::SameUpper);
    s.f32(Op::AveragePool { pool: average, count_include_pad: true, normalize: true }, &[conv], &[0, 4, 4]);
    let plain = Stored::Plain { weight: WeightId(0), shape: vec![2, 3] };
    let matrix = s.f32(Op::Constant { value: plain }, &[], &[2, 3]);
    let product = s.f32(Op::Einsum { equation: "nkw,mk->anmw".into() }, &[x, matrix], &[1, 0, 2, 4]);
    let compare = s.add(Op::Compare { op: Comparison::Less }, &[x, x], Dtype::Bool, &[0, 3, 4]);
    let not = s.add(Op::Function { op: Function::Not }, &[compare], Dtype::Bool, &[0, 3, 4]);
    s.add(Op::Logic { op: Logic::And }, &[compare, not], Dtype::Bool, &[0, 3, 4]);
    let unary = s.f32(Op::Unary { op: UnaryOp::Tanh }, &[x], &[0, 3, 4]);
    s.f32(Op::Where, &[compare, x, unary], &[0, 3, 4]);
    s.f32(Op::Reduce { axes: vec![1, 2], reducer: Reducer::Sum }, &[x], &[0, 1, 1]);
    s.add(Op::Reduce { axes: vec![1], reducer: Reducer::ArgMax }, &[x], Dtype::I64, &[0, 1, 4]);
    s.f32(Op::Softmax { axes: vec![2], log: true }, &[x], &[0, 3, 4]);
    s.f32(Op::RmsNorm { axis: 2, epsilon: 1e-5 }, &[x], &[0, 3, 4]);
    s.f32(Op::Gather { axis: 0 }, &[matrix, ids], &[0, 2, 3]);
    let (zero, one, three) = (s.enter(Dim::Value { value: 0 }), s.dim(1), s.dim(3));
    s.f32(Op::Slice { axis: 1, start: one, end: three }, &[x], &[0, 2, 4]);
    s.f32(Op::Concat { axis: 1 }, &[x, conv], &[0, 7, 4]);
    s.f32(Op::Pad { pads: vec![(0, 0), (1, 2), (0, 0)], mode: PadMode::Reflect }, &[x], &[0, 6, 4]);
    let (n, twelve) = (s.dim(0), s.dim(12));
    let four = s.dim(4);
    let all = s.enter(Dim::Product { factors: vec![n, twelve] });
    let flat = Fact { dtype: Dtype::F32, shape: vec![all] };
    let whole = Op::Reshape { axis: 0, from: vec![n, three, four], to: vec![all] };
    s.push(whole, vec![OUTLET(x)], vec![flat]);
    s.f32(Op::Unsqueeze { axis: 3 }, &[x], &[0, 3, 4, 1]);
    s.f32(Op::Squeeze { axis: 0 }, &[product], &[0, 2, 4]);
    s.f32(Op::MoveAxis { from: 0, to: 2 }, &[x], &[3, 4, 0]);
    s.add(Op::Cast { to: Dtype::I32 }, &[x], Dtype::I32, &[0, 3, 4]);
    s.f32(Op::Expand { shape: vec![n, three, four] }, &[bias], &[0, 3, 4]);
    s.f32(Op::Upsample { scales: vec![1, 2, 3] }, &[x], &[0, 6, 12]);
    s.f32(Op::Downsample { axis: 2, stride: 2, offset: 1 }, &[x], &[0, 3, 2]);
    s.add(Op::Extents { shape: vec![3], values: vec![n, all, zero] }, &[], Dtype::I64, &[3]);
    let cell = s.f32(own(Dtype::F32, &[1, 1], 0), &[], &[1, 1]);
    let gates = s.f32(own(Dtype::F32, &[1, 4], 0), &[], &[1, 4]);
    let facts = vec![s.fact(Dtype::F32, &[1, 1]); 2];
    s.push(Op::LstmCell { hidden: 1 }, vec![OUTLET(gates), OUTLET(cell)], facts);
    let rows = s.f32(Op::Reduce { axes: vec![1], reducer: Reducer::Max }, &[x], &[0, 1, 4]);
    let rows = s.f32(Op::Squeeze { axis: 1 }, &[rows], &[0, 4]);
    let scan = LoopScan { axis: 0, chunk: 1, backward: false };
    let turns = Op::Loop {
        body,
        inputs: vec![LoopInput::Scan { scan }, LoopInput::State],
        outputs: vec![LoopOutput { state: true, scan: Some((1, scan)), last: Some(0) }],
    };
    let facts = vec![s.fact(Dtype::F32, &[1, 4]), s.fact(Dtype::F32, &[0, 4])];
    let last = s.push(turns, vec![OUTLET(rows), OUTLET(gates)], facts);
    s.end(&[x, ids], &[conv, last]);
    s.graph
}

fn shapes(n: usize) -> Vec<Vec<usize>> {
    vec![vec![n, 3, 4], vec![n, 2]]
}

#[test]
fn a_graph_of_every_operator_reads_back_as_it_was_written_and_takes_any_extent() {
    let graph = graph();
    let names: std::collections::BTreeSet<_> =
        graph.graphs.iter().flat_map(|g| &g.nodes).map(|n| n.op.name()).collect();
    assert_eq!(names.len(), 31, "{names:?}");
    let section = graph.encode(&[7; DATA]);
    let (decoded, data) = PortableGraph::decode(&section, &weights()).unwrap();
    assert_eq!((&decoded, data), (&graph, &[7; DATA][..]));
    for n in [1, 2, 5] {
        let extents = graph.extents(&shapes(n)).unwrap();
        let main = graph.main().unwrap();
        assert_eq!(extents.shape(main.fact(main.outputs[0]).unwrap()).unwrap(), [n, 4, 4]);
    }
}

#[test]
fn dimensions_are_computed_with_checked_arithmetic() {
    let ids = |of: &[u32]| of.iter().map(|i| DimId(*i)).collect::<Vec<_>>();
    let values = [7, -2, 1, i64::MAX];
    let cases = [
        (Dim::Value { value: -3 }, Some(-3)),
        (Dim::Symbol { symbol: 0 }, Some(9)),
        (Dim::Sum { terms: ids(&[0, 1]) }, Some(5)),
        (Dim::Sum { terms: ids(&[3, 0]) }, None),
        (Dim::Product { factors: ids(&[0, 1]) }, Some(-14)),
        (Dim::Product { factors: ids(&[3, 0]) }, None),
        (Dim::Quotient { dividend: DimId(0), divisor: 2 }, Some(3)),
        (Dim::Quotient { dividend: DimId(0), divisor: u64::MAX }, None),
        (Dim::Min { of: ids(&[0, 1, 2]) }, Some(-2)),
        (Dim::Max { of: ids(&[0, 1, 2]) }, Some(7)),
        (Dim::Broadcast { of: ids(&[2, 0]) }, Some(7)),
        (Dim::Broadcast { of: ids(&[0, 1]) }, None),
        (Dim::Sum { terms: ids(&[9]) }, None),
    ];
    for (dim, wanted) in cases {
        assert_eq!(dim.evaluate(&[9], &values).ok(), wanted, "{dim:?}");
    }
}

/// Changes one thing and says what the door must answer.
type Attack = (&'static str, fn(&mut PortableGraph), &'static str);

fn main_of(graph: &mut PortableGraph) -> &mut Subgraph {
    graph.graphs.last_mut().unwrap()
}

/// The first node of the main graph whose operator is called `name`.
fn node<'a>(graph: &'a mut PortableGraph, name: &str) -> &'a mut Node {
    main_of(graph).nodes.iter_mut().find(|n| n.op.name() == name).unwrap()
}

#[test]
fn every_reference_is_checked_at_the_door() {
    let attacks: Vec<Attack> = vec![
        ("no graph", |g| g.graphs.clear(), "0 graphs"),
        ("many symbols", |g| g.symbols = vec![String::new(); 99], "99 symbols"),
        ("unused symbol", |g| g.symbols.push("M".into()), "\"M\" is an axis of no input"),
        (
            "dimension of itself",
            |g| g.dims.push(Dim::Sum { terms: vec![DimId(99)] }),
            "expected an earlier one",
        ),
        ("division by 0", |g| g.dims.push(Dim::Quotient { dividend: DimId(0), divisor: 0 }), "by 0"),
        ("least of nothing", |g| g.dims.push(Dim::Min { of: vec![] }), "of nothing"),
        ("unknown symbol", |g| g.dims.push(Dim::Symbol { symbol: 4 }), "symbol 4 of 1"),
        ("fact of no dimension", |g| node(g, "Conv").outputs[0].shape[0] = DimId(999), "dimension 999"),
        ("operand of a later node", |g| node(g, "Conv").inputs[0] = OUTLET(40), "no output of an earlier"),
        ("operand of no slot", |g| node(g, "Conv").inputs[0].slot = 1, "no output of an earlier"),
        ("too few operands", |g| node(g, "Conv").inputs.truncate(2), "2 operands"),
        (
            "too many outputs",
            |g| {
                let n = node(g, "Conv");
                n.outputs.push(n.outputs[0].clone());
            },
            "2 outputs",
        ),
        ("rank", |g| node(g, "Conv").outputs[0].shape = vec![DimId(0); 9], "rank 9"),
        (
            "axes out of order",
            |g| node(g, "Reduce").op = Op::Reduce { axes: vec![2, 1], reducer: Reducer::Sum },
            "ascending",
        ),
        ("equation", |g| node(g, "Einsum").op = Op::Einsum { equation: "aa,mk->m".into() }, "none twice"),
        ("arrow", |g| node(g, "Einsum").op = Op::Einsum { equation: "a,mk".into() }, "equation"),
        ("input of no source", |g| main_of(g).inputs[0] = 2, "expected each of 2 sources once"),
        ("input twice", |g| main_of(g).inputs[1] = 0, "expected each of 2 sources once"),
        ("no output", |g| main_of(g).outputs.clear(), "there is no output"),
        ("output of no node", |g| main_of(g).outputs[0] = OUTLET(99), "is no output of a node"),
        ("body that is not used", |g| drop(main_of(g).nodes.pop()), "is no output of a node"),
        (
            "pool of other channels",
            |g| {
                if let Op::MaxPool { pool } = &mut node(g, "MaxPool").op {
                    pool.output_channels = 9;
                }
            },
            "a pool of 4 to 9 channels",
        ),
        (
            "window of nothing",
            |g| {
                if let Op::Conv { pool, .. } = &mut node(g, "Conv").op {
                    pool.strides[0] = 0;
                }
            },
            "expected lists of one length",
        ),
        (
            "window of two lengths",
            |g| {
                if let Op::Conv { pool, .. } = &mut node(g, "Conv").op {
                    pool.strides.push(1);
                }
            },
            "expected lists of one length",
        ),
        (
            "groups",
            |g| {
                if let Op::Conv { group, .. } = &mut node(g, "Conv").op {
                    *group = 2;
                }
            },
            "2 groups of 3 to 4",
        ),
        (
            "adjustment",
            |g| {
                if let Op::ConvTranspose { adjustments, .. } = &mut node(g, "ConvTranspose").op {
                    adjustments[0] = 1;
                }
            },
            "adjustments [1]",
        ),
        (
            "numbers that are not there",
            |g| {
                if let Op::Extents { shape, .. } = &mut node(g, "Extents").op {
                    shape[0] = 4;
                }
            },
            "3 numbers",
        ),
        (
            "body later",
            |g| {
                if let Op::Loop { body, .. } = &mut node(g, "Loop").op {
                    *body = 1;
                }
            },
            "expected an earlier one",
        ),
        (
            "body of other ends",
            |g| {
                if let Op::Loop { inputs, .. } = &mut node(g, "Loop").op {
                    inputs.truncate(inputs.len() - 1);
                }
            },
            "expected 1..=1",
        ),
        (
            "slot twice",
            |g| {
                if let Op::Loop { outputs, .. } = &mut node(g, "Loop").op {
                    outputs[0].last = Some(1);
                }
            },
            "expected each once",
        ),
        (
            "states",
            |g| {
                if let Op::Loop { outputs, .. } = &mut node(g, "Loop").op {
                    outputs[0].state = false;
                }
            },
            "another number comes out",
        ),
        (
            "nothing scanned",
            |g| {
                if let Op::Loop { inputs, .. } = &mut node(g, "Loop").op {
                    inputs[0] = LoopInput::Full;
                }
            },
            "nothing is scanned",
        ),
    ];
    assert_refused(&attacks, |g| g.validate(&weights(), DATA), ErrorKind::Corrupt);
}

#[test]
fn every_constant_has_to_be_stored_in_the_size_that_is_read() {
    let set = |g: &mut PortableGraph, value: Stored| node(g, "Constant").op = Op::Constant { value };
    let panels = |weights: &[u32], rows: &[usize], depth: &[usize]| Stored::Panels {
        weights: weights.iter().map(|i| WeightId(*i)).collect(),
        shape: vec![4, 3, 1],
        split: Split { batch: vec![], rows: rows.to_vec(), depth: depth.to_vec() },
    };
    let own = |offset, shape: &[usize]| Stored::Own { offset, dtype: Dtype::F32, shape: shape.to_vec() };
    let cases = [
        (panels(&[9], &[0], &[1, 2]), "weight 9 of a table of 2"),
        (panels(&[0], &[0], &[1, 2]), "expected f32 panels"),
        (panels(&[1], &[1], &[0, 2]), "expected f32 panels"),
        (panels(&[1], &[0], &[1]), "1 matrices in [4, 3, 1]"),
        (panels(&[1], &[0], &[1, 1]), "1 matrices in [4, 3, 1]"),
        (panels(&[1, 1], &[0], &[1, 2]), "2 matrices"),
        (Stored::Plain { weight: WeightId(0), shape: vec![7] }, "expected plain [7]"),
        (Stored::Plain { weight: WeightId(1), shape: vec![12] }, "expected plain [12]"),
        (own(61, &[1]), "at byte 61 of 64"),
        (own(usize::MAX, &[1]), "of 64"),
        (own(0, &[0]), "a constant of shape [0]"),
        (own(0, &[usize::MAX, 2]), "a constant of shape"),
        (Stored::Own { offset: 0, dtype: Dtype::I64, shape: vec![4, 2, 1] }, "i64 is stored"),
    ];
    for (value, wanted) in cases {
        let mut graph = graph();
        set(&mut graph, value.clone());
        let e = graph.validate(&weights(), DATA).unwrap_err();
        assert!(e.to_string().contains(wanted), "{value:?}: {e}");
    }
}

#[test]
fn constants_may_be_encoded_in_any_form_that_holds_as_many() {
    let mut weights = weights();
    let rows = Form::EncodedRows { encoding: Encoding::Int8, shape: vec![2, 3] };
    let panel = EncodedPanel { encoding: Encoding::F16, k: 3, r: 8 };
    for (weight, form) in weights.iter_mut().zip([rows, Form::encoded_panels(panel, 4).unwrap()]) {
        weight.form = form;
    }
    graph().validate(&weights, DATA).unwrap();
    let attacks: [(usize, Form, &str); 3] = [
        (0, Form::EncodedRows { encoding: Encoding::Int8, shape: vec![2, 4] }, "expected plain [2, 3]"),
        (1, Form::encoded_panels(EncodedPanel { k: 4, ..panel }, 4).unwrap(), "expected f32 panels"),
        (1, Form::encoded_panels(panel, 5).unwrap(), "expected f32 panels"),
    ];
    for (weight, form, text) in attacks {
        let mut weights = weights.clone();
        weights[weight].form = form;
        let e = graph().validate(&weights, DATA).unwrap_err();
        assert!(e.to_string().contains(text), "{e}, expected {text:?}");
    }
}

#[test]
fn every_operators_rule_is_held_against_the_extents() {
    let attacks: Vec<Attack> = vec![
        ("other result", |g| node(g, "Conv").outputs[0].shape[1] = DimId(0), "its operands make"),
        ("other dtype", |g| node(g, "Cast").outputs[0].dtype = Dtype::I8, "its operands make"),
        (
            "slice past the end",
            |g| {
                if let Op::Slice { axis, .. } = &mut node(g, "Slice").op {
                    *axis = 0;
                }
            },
            "positions",
        ),
        (
            "axis",
            |g| {
                if let Op::Slice { axis, .. } = &mut node(g, "Slice").op {
                    *axis = 7;
                }
            },
            "axis 7",
        ),
        ("squeeze", |g| node(g, "Squeeze").op = Op::Squeeze { axis: 2 }, "Squeeze"),
        ("move", |g| node(g, "MoveAxis").op = Op::MoveAxis { from: 0, to: 3 }, "axis 3"),
        (
            "reshape",
            |g| {
                if let Op::Reshape { axis, .. } = &mut node(g, "Reshape").op {
                    *axis = 1;
                }
            },
            "axes that are not there",
        ),
        (
            "reflection",
            |g| {
                if let Op::Pad { pads, .. } = &mut node(g, "Pad").op {
                    pads[1].0 = 3;
                }
            },
            "reflected",
        ),
        ("scales", |g| node(g, "Upsample").op = Op::Upsample { scales: vec![1, 2, 0] }, "Upsample"),
        (
            "stride",
            |g| node(g, "Downsample").op = Op::Downsample { axis: 2, stride: 0, offset: 1 },
            "nothing is left",
        ),
        ("hidden", |g| node(g, "LstmCell").op = Op::LstmCell { hidden: 2 }, "gates"),
        (
            "indices",
            |g| {
                let at = node(g, "Gather").inputs[0];
                node(g, "Gather").inputs[1] = at;
            },
            "i64 indices",
        ),
        (
            "types",
            |g| {
                let at = node(g, "Gather").inputs[1];
                node(g, "Concat").inputs[1] = at;
            },
            "different types",
        ),
        (
            "condition",
            |g| {
                let at = node(g, "Unary").inputs[0];
                node(g, "Where").inputs[0] = at;
            },
            "bool condition",
        ),
        (
            "letters",
            |g| node(g, "Einsum").op = Op::Einsum { equation: "nkw,mw->anmw".into() },
            "w is 4 and 3",
        ),
        (
            "chunks",
            |g| {
                if let Op::Loop { inputs, .. } = &mut node(g, "Loop").op {
                    inputs[0] = LoopInput::Scan { scan: LoopScan { axis: 1, chunk: 3, backward: false } }
                }
            },
            "slices of 3 from 4",
        ),
        (
            "slice of another shape",
            |g| {
                if let Op::Loop { inputs, .. } = &mut node(g, "Loop").op {
                    inputs[0] = LoopInput::Scan { scan: LoopScan { axis: 1, chunk: 1, backward: false } }
                }
            },
            "reaches its body as",
        ),
        (
            "an extent of 0",
            |g| {
                if let Some(d) = g.dims.iter_mut().find(|d| **d == Dim::Value { value: 12 }) {
                    *d = Dim::Value { value: 0 }
                }
            },
            "not above 0",
        ),
        (
            "too large",
            |g| {
                if let Op::Upsample { scales } = &mut node(g, "Upsample").op {
                    scales[0] = usize::MAX;
                }
            },
            "overflows",
        ),
    ];
    assert_refused(&attacks, |g| g.extents(&shapes(2)).map(drop), ErrorKind::Invalid);
}

fn assert_refused(
    attacks: &[Attack],
    check: impl Fn(&PortableGraph) -> Result<(), PackError>,
    kind: ErrorKind,
) {
    for (name, attack, wanted) in attacks {
        let mut graph = graph();
        check(&graph).unwrap();
        attack(&mut graph);
        let e = check(&graph).expect_err(name);
        assert!(e.kind() == kind && e.to_string().contains(wanted), "{name}: {e}");
    }
}

#[test]
fn shapes_that_the_inputs_do_not_have_are_refused() {
    let cases = [
        (vec![vec![2, 3, 4]], "1 inputs, expected 2"),
        (vec![vec![2, 3], vec![2, 2]], "expected 3 axes"),
        (vec![vec![2, 3, 5], vec![2, 2]], "axis 2 of input 0 is 5, expected 4"),
        (vec![vec![2, 3, 4], vec![3, 2]], "axis 0 of input 1 is 3, expected 2"),
        (vec![vec![0, 3, 4], vec![0, 2]], "axis 0 of input 0 is 0"),
        (vec![vec![usize::MAX, 3, 4], vec![usize::MAX, 2]], "axis 0 of input 0"),
        (shapes(1 << 30), "at most 4294967296 are allowed"),
    ];
    for (shapes, wanted) in cases {
        let e = graph().extents(&shapes).unwrap_err();
        assert!(e.to_string().contains(wanted) && e.kind() == ErrorKind::Invalid, "{shapes:?}: {e}");
    }
}

#[test]
fn bodies_cannot_multiply_and_constants_cannot_unfold() {
    // A body that two loops run would double with every level.
    let mut twice = graph();
    let again = node(&mut twice, "Loop").clone();
    main_of(&mut twice).nodes.push(again);
    let e = twice.validate(&weights(), DATA).unwrap_err();
    assert!(e.to_string().contains("not used yet"), "{e}");
    let mut many = graph();
    let plain = own(Dtype::F32, &[1 << 18], 0);
    for _ in 0..16 {
        main_of(&mut many).nodes.push(Node { op: plain.clone(), ..node(&mut graph(), "Constant").clone() });
    }
    let e = many.validate(&[], 1 << 20).unwrap_err();
    assert!(e.to_string().contains("weight 1 of a table of 0"), "{e}");
    let e = many.validate(&weights(), 1 << 20).unwrap_err();
    assert!(e.to_string().contains("are allowed"), "{e}");
}

#[test]
fn sections_that_are_cut_or_lie_about_their_length_are_refused() {
    let section = graph().encode(&[0; DATA]);
    for len in 0..section.len() - DATA {
        assert!(PortableGraph::decode(&section[..len], &weights()).is_err(), "{len}");
    }
    for lie in [0, 1, u64::MAX, (MAX_SECTION_BYTES + 1) as u64] {
        let mut section = section.clone();
        section[..8].copy_from_slice(&lie.to_le_bytes());
        assert!(PortableGraph::decode(&section, &weights()).is_err(), "{lie}");
    }
}

proptest! {
    #[test]
    fn random_damage_never_panics(at in 8usize..4096, bytes: [u8; 3], n in 1usize..5) {
        let mut section = graph().encode(&[0; DATA]);
        let at = at % (section.len() - 3);
        section[at..at + 3].copy_from_slice(&bytes);
        if let Ok((graph, _)) = PortableGraph::decode(&section, &weights()) {
            let _ = graph.extents(&shapes(n));
        }
    }
}
