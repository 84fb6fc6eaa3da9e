//! Structure: what holds of a portable graph whatever the shapes of its inputs.

use super::dim::{Dim, DimId};
use super::op::{LoopInput, LoopOutput, Op};
use super::pool::Pool;
use super::{Fact, Node, PortableGraph, Subgraph};
use crate::error::PackError;
use crate::plan::{MAX_RANK, Outlet};
use crate::tensor::element_count;
use crate::weights::Weight;

/// More open axes than any model has.
const MAX_SYMBOLS: usize = 64;
/// More loops than any model has.
const MAX_GRAPHS: usize = 64;
/// How deep loops may be nested.
const MAX_DEPTH: usize = 4;
/// How many times its own stored bytes a graph may unfold into as constants.
const MAX_UNFOLDING: u64 = 4;
/// Constants that need no justification by stored bytes.
const FREE_BYTES: u64 = 1 << 20;

type Checked = Result<(), String>;

struct Context<'a> {
    graph: &'a PortableGraph,
    weights: &'a [Weight],
    data_len: usize,
    /// Bytes of all constants so far.
    constants: u64,
    /// For each graph, how deep it nests; `None` once some later graph has used it.
    depths: Vec<Option<usize>>,
}

/// As [`PortableGraph::validate`].
pub(super) fn graph(graph: &PortableGraph, weights: &[Weight], data_len: usize) -> Result<(), PackError> {
    let corrupt = |text: String| PackError::corrupt(format!("portable graph: {text}"));
    let counts = graph.symbols.len() <= MAX_SYMBOLS && (1..=MAX_GRAPHS).contains(&graph.graphs.len());
    if !counts {
        return Err(corrupt(format!(
            "{} symbols and {} graphs, expected at most {MAX_SYMBOLS}, and 1 to {MAX_GRAPHS}",
            graph.symbols.len(),
            graph.graphs.len()
        )));
    }
    for (i, dim) in graph.dims.iter().enumerate() {
        check_dim(graph, i, dim).map_err(|e| corrupt(format!("dimension {i}: {e}")))?;
    }
    let mut context = Context { graph, weights, data_len, constants: 0, depths: Vec::new() };
    for (g, sub) in graph.graphs.iter().enumerate() {
        let mut depth = 0;
        for (i, node) in sub.nodes.iter().enumerate() {
            let checked = check_node(&mut context, sub, i, node);
            let found = checked.map_err(|e| corrupt(place(g, i, node, &e)))?;
            depth = depth.max(found);
        }
        check_ends(sub).map_err(|e| corrupt(format!("graph {g}: {e}")))?;
        context.depths.push(Some(depth));
    }
    let main = context.depths.pop();
    if let Some(unused) = context.depths.iter().position(Option::is_some) {
        return Err(corrupt(format!("graph {unused} is the body of no loop")));
    }
    if main.flatten().is_some_and(|depth| depth > MAX_DEPTH) {
        return Err(corrupt(format!("loops nested more than {MAX_DEPTH} deep")));
    }
    let stored =
        weights.iter().filter_map(|w| w.form.byte_len().ok()).fold(data_len as u64, u64::saturating_add);
    let most = stored.saturating_mul(MAX_UNFOLDING).saturating_add(FREE_BYTES);
    if context.constants > most {
        let text = format!("constants of {} bytes, at most {most} are allowed", context.constants);
        return Err(corrupt(text));
    }
    check_inputs(graph).map_err(corrupt)
}

/// Where a rule was broken.
pub(super) fn place(graph: usize, index: usize, node: &Node, why: &str) -> String {
    format!("graph {graph}, node {index} ({:?}, {}): {why}", node.name, node.op.name())
}

fn check_dim(graph: &PortableGraph, index: usize, dim: &Dim) -> Checked {
    let operands = dim.operands();
    if let Some(id) = operands.iter().find(|id| id.index() >= index) {
        return Err(format!("refers to {}, expected an earlier one", id.0));
    }
    match dim {
        Dim::Symbol { symbol } if *symbol >= graph.symbols.len() => {
            Err(format!("symbol {symbol} of {}", graph.symbols.len()))
        }
        Dim::Quotient { divisor: 0, .. } => Err("a division by 0".into()),
        Dim::Min { .. } | Dim::Max { .. } | Dim::Broadcast { .. } if operands.is_empty() => {
            Err(format!("{dim:?} of nothing"))
        }
        _ => Ok(()),
    }
}

/// One node; gives how deep the loop in it nests, 0 where it is none.
fn check_node(context: &mut Context<'_>, sub: &Subgraph, index: usize, node: &Node) -> Result<usize, String> {
    for outlet in &node.inputs {
        if outlet.node >= index || sub.fact(*outlet).is_none() {
            return Err(format!("its operand {outlet:?} is no output of an earlier node"));
        }
    }
    for fact in &node.outputs {
        check_fact(context.graph, fact)?;
    }
    let (operands, outputs) = arity(&node.op);
    if !operands.contains(&node.inputs.len()) || node.outputs.len() != outputs {
        return Err(format!(
            "{} operands and {} outputs, expected {operands:?} and {outputs}",
            node.inputs.len(),
            node.outputs.len()
        ));
    }
    if let (Op::Constant { value }, [output]) = (&node.op, node.outputs.as_slice()) {
        let stored = value.check(context.weights, context.data_len)?;
        if stored != output.dtype {
            return Err(format!("gives {}, {stored} is stored", output.dtype));
        }
        let bytes = value.shape().iter().product::<usize>() * stored.size();
        context.constants = context.constants.saturating_add(bytes as u64);
    }
    check_op(context, &node.op)
}

fn check_fact(graph: &PortableGraph, fact: &Fact) -> Checked {
    if fact.shape.len() > MAX_RANK {
        return Err(format!("rank {}, expected at most {MAX_RANK}", fact.shape.len()));
    }
    check_ids(graph, &fact.shape)
}

fn check_ids(graph: &PortableGraph, ids: &[DimId]) -> Checked {
    match ids.iter().find(|id| id.index() >= graph.dims.len()) {
        Some(id) => Err(format!("dimension {} of {}", id.0, graph.dims.len())),
        None => Ok(()),
    }
}

/// How many operands an operator takes, and how many outputs it gives.
fn arity(op: &Op) -> (std::ops::RangeInclusive<usize>, usize) {
    match op {
        Op::Source | Op::Constant { .. } | Op::Extents { .. } => (0..=0, 1),
        Op::Conv { .. } | Op::ConvTranspose { .. } | Op::Where => (3..=3, 1),
        Op::Binary { .. } | Op::Compare { .. } | Op::Logic { .. } | Op::Gather { .. } => (2..=2, 1),
        Op::Einsum { equation } => {
            let operands = equation.split("->").next().map_or(1, |left| left.split(',').count());
            (operands..=operands, 1)
        }
        Op::Concat { .. } => (1..=usize::MAX, 1),
        Op::LstmCell { .. } => (2..=2, 2),
        Op::Loop { inputs, outputs, .. } => {
            let slots = outputs.iter().map(|o| usize::from(o.scan.is_some()) + usize::from(o.last.is_some()));
            (inputs.len()..=inputs.len(), slots.sum())
        }
        _ => (1..=1, 1),
    }
}

fn check_op(context: &mut Context<'_>, op: &Op) -> Result<usize, String> {
    match op {
        Op::Conv { pool, kernel, group } => {
            pool.check()?;
            pool.kernel_shape(*kernel, *group)?;
        }
        Op::ConvTranspose { pool, kernel, adjustments, group } => {
            pool.check()?;
            pool.kernel_shape(*kernel, *group)?;
            let small = adjustments.iter().zip(&pool.strides).all(|(a, s)| a < s);
            if adjustments.len() != pool.kernel.len() || !small {
                return Err(format!("adjustments {adjustments:?} of strides {:?}", pool.strides));
            }
        }
        Op::MaxPool { pool } | Op::AveragePool { pool, .. } => check_pool(pool)?,
        Op::Einsum { equation } => check_equation(equation)?,
        Op::Reduce { axes, .. } | Op::Softmax { axes, .. } if !axes.is_sorted_by(|a, b| a < b) => {
            return Err(format!("axes {axes:?}, expected them ascending"));
        }
        Op::Slice { start, end, .. } => check_ids(context.graph, &[*start, *end])?,
        Op::Reshape { from, to, .. } => {
            check_ids(context.graph, from)?;
            check_ids(context.graph, to)?;
        }
        Op::Expand { shape } => check_ids(context.graph, shape)?,
        Op::Extents { shape, values } => {
            check_ids(context.graph, values)?;
            if element_count(shape) != Some(values.len()) || values.is_empty() {
                return Err(format!("{} numbers of shape {shape:?}", values.len()));
            }
        }
        Op::Loop { body, inputs, outputs } => return check_loop(context, *body, inputs, outputs),
        _ => {}
    }
    Ok(0)
}

fn check_pool(pool: &Pool) -> Checked {
    pool.check()?;
    if pool.input_channels != pool.output_channels {
        return Err(format!("a pool of {} to {} channels", pool.input_channels, pool.output_channels));
    }
    Ok(())
}

/// `ab,bc->ac`: letters, no letter twice in an operand.
fn check_equation(equation: &str) -> Checked {
    let bad = || Err(format!("equation {equation:?}, expected letters as in \"mk,kn->mn\", none twice"));
    let Some((left, right)) = equation.split_once("->") else { return bad() };
    for operand in left.split(',').chain([right]) {
        let letters = operand.chars().all(|c| c.is_ascii_alphabetic());
        let twice = operand.chars().enumerate().any(|(i, c)| operand.chars().skip(i + 1).any(|d| c == d));
        if !letters || twice || operand.len() > MAX_RANK {
            return bad();
        }
    }
    Ok(())
}

/// A loop's body is an earlier graph that no other loop runs; gives how deep it nests.
fn check_loop(
    context: &mut Context<'_>,
    body: usize,
    inputs: &[LoopInput],
    outputs: &[LoopOutput],
) -> Result<usize, String> {
    let depth = context.depths.get_mut(body).and_then(Option::take);
    let (Some(depth), Some(sub)) = (depth, context.graph.graphs.get(body)) else {
        return Err(format!("its body is graph {body}, expected an earlier one that is not used yet"));
    };
    if (sub.inputs.len(), sub.outputs.len()) != (inputs.len(), outputs.len()) {
        return Err(format!(
            "{} inputs and {} outputs, its body has {} and {}",
            inputs.len(),
            outputs.len(),
            sub.inputs.len(),
            sub.outputs.len()
        ));
    }
    let mut slots: Vec<usize> =
        outputs.iter().flat_map(|o| o.scan.map(|(slot, _)| slot).into_iter().chain(o.last)).collect();
    slots.sort_unstable();
    if !slots.iter().copied().eq(0..slots.len()) {
        return Err(format!("it fills its outputs {slots:?}, expected each once"));
    }
    let states = inputs.iter().filter(|i| **i == LoopInput::State).count();
    if states != outputs.iter().filter(|o| o.state).count() {
        return Err(format!("{states} states go in, another number comes out"));
    }
    if !inputs.iter().any(|i| matches!(i, LoopInput::Scan { .. })) {
        return Err("nothing is scanned".into());
    }
    Ok(depth + 1)
}

/// The inputs are the sources, each once; the outputs exist.
fn check_ends(sub: &Subgraph) -> Checked {
    let is_source = |id: usize| sub.nodes.get(id).is_some_and(|n| n.op == Op::Source);
    let sources = sub.nodes.iter().filter(|n| n.op == Op::Source).count();
    let mut seen = vec![false; sub.nodes.len()];
    let once = |id: &usize| is_source(*id) && !std::mem::replace(&mut seen[*id], true);
    if sources != sub.inputs.len() || !sub.inputs.iter().all(once) {
        return Err(format!("inputs {:?}, expected each of {sources} sources once", sub.inputs));
    }
    let missing = |outlet: &&Outlet| sub.fact(**outlet).is_none();
    match sub.outputs.iter().find(missing) {
        Some(outlet) => Err(format!("output {outlet:?} is no output of a node")),
        None if sub.outputs.is_empty() => Err("there is no output".into()),
        None => Ok(()),
    }
}

/// The model's inputs say what every symbol is, axis by axis.
fn check_inputs(graph: &PortableGraph) -> Checked {
    let Some(main) = graph.graphs.last() else { return Err("there is no graph".into()) };
    let mut bound = vec![false; graph.symbols.len()];
    for fact in (0..main.inputs.len()).filter_map(|i| main.input(i)) {
        for id in &fact.shape {
            match graph.dims.get(id.index()) {
                Some(Dim::Value { .. }) => {}
                Some(Dim::Symbol { symbol }) => bound[*symbol] = true,
                other => {
                    return Err(format!("an input has the extent {other:?}, expected a symbol or a number"));
                }
            }
        }
    }
    match bound.iter().position(|bound| !bound) {
        Some(i) => Err(format!("symbol {:?} is an axis of no input", graph.symbols[i])),
        None => Ok(()),
    }
}
