//! Extents: every operator's rule, once the shapes of the inputs are known.

use super::dim::{Dim, Extents};
use super::op::{LoopInput, Op};
use super::rules::{
    Inferred, Shaped, broadcast, chosen, convolved, einsum, floats, gathered, in_range, joined, lstm,
    reduced, same_type, slices,
};
use super::validate::place;
use super::{Node, PortableGraph, Subgraph};
use crate::dtype::Dtype;
use crate::error::{ErrorKind, PackError};
use crate::plan::{MAX_PLAN_BYTES, PadMode, Reducer};
use crate::tensor::element_count;

/// The most positions a dimension may have: products of a few stay far from overflow in any runtime.
const MAX_EXTENT: i64 = 1 << 31;

/// As [`PortableGraph::extents`].
pub(super) fn extents(graph: &PortableGraph, shapes: &[Vec<usize>]) -> Result<Extents, PackError> {
    let invalid = |text: String| PackError::new(ErrorKind::Invalid, format!("portable graph: {text}"));
    let symbols = bind(graph, shapes).map_err(invalid)?;
    let mut extents = Extents { values: Vec::with_capacity(graph.dims.len()) };
    for (i, dim) in graph.dims.iter().enumerate() {
        let value = dim.evaluate(&symbols, &extents.values);
        let value = value.map_err(|e| invalid(format!("dimension {i}: {e}")))?;
        extents.values.push(value);
    }
    let mut total = 0usize;
    for (g, sub) in graph.graphs.iter().enumerate() {
        let known = Known { graph, sub, extents: &extents };
        for (i, node) in sub.nodes.iter().enumerate() {
            let bytes = known.check(node).map_err(|e| invalid(place(g, i, node, &e)))?;
            total = total.saturating_add(bytes);
            if total > MAX_PLAN_BYTES {
                let text = format!("values of {total} bytes, at most {MAX_PLAN_BYTES} are allowed");
                return Err(invalid(place(g, i, node, &text)));
            }
        }
    }
    Ok(extents)
}

/// What the symbols are, from the inputs' shapes.
fn bind(graph: &PortableGraph, shapes: &[Vec<usize>]) -> Result<Vec<i64>, String> {
    let main = graph.graphs.last().ok_or("there is no graph")?;
    if shapes.len() != main.inputs.len() {
        return Err(format!("{} inputs, expected {}", shapes.len(), main.inputs.len()));
    }
    let mut values: Vec<Option<i64>> = vec![None; graph.symbols.len()];
    for (i, shape) in shapes.iter().enumerate() {
        let fact = main.input(i).ok_or_else(|| format!("input {i} is not there"))?;
        if shape.len() != fact.shape.len() {
            return Err(format!("input {i} is {shape:?}, expected {} axes", fact.shape.len()));
        }
        for (axis, (extent, id)) in shape.iter().zip(&fact.shape).enumerate() {
            let found = i64::try_from(*extent).ok().filter(|n| (1..=MAX_EXTENT).contains(n));
            let found = found.ok_or_else(|| format!("axis {axis} of input {i} is {extent}"))?;
            let wanted = match graph.dims.get(id.index()) {
                Some(Dim::Value { value }) => *value,
                Some(Dim::Symbol { symbol }) => {
                    *values.get_mut(*symbol).ok_or("an unknown symbol")?.get_or_insert(found)
                }
                other => return Err(format!("input {i} has the extent {other:?}")),
            };
            if found != wanted {
                return Err(format!("axis {axis} of input {i} is {found}, expected {wanted}"));
            }
        }
    }
    values.into_iter().collect::<Option<_>>().ok_or_else(|| "a symbol without a value".into())
}

/// What is known where a node is looked at.
struct Known<'a> {
    graph: &'a PortableGraph,
    sub: &'a Subgraph,
    extents: &'a Extents,
}

impl Known<'_> {
    fn shaped(&self, fact: &super::Fact) -> Result<Shaped, String> {
        let shape = self.extents.shape(fact).filter(|s| !s.contains(&0));
        let shape = shape.ok_or("an extent that is not above 0")?;
        Ok((fact.dtype, shape))
    }

    /// Holds what a node gives against what its operator makes of the operands. Gives the bytes of it.
    fn check(&self, node: &Node) -> Result<usize, String> {
        let facts = node.inputs.iter().filter_map(|o| self.sub.fact(*o));
        let inputs = facts.map(|f| self.shaped(f)).collect::<Result<Vec<_>, _>>()?;
        let outputs = node.outputs.iter().map(|f| self.shaped(f)).collect::<Result<Vec<_>, _>>()?;
        let inferred = match &node.op {
            Op::Source => outputs.clone(),
            Op::Loop { body, inputs: maps, outputs: results } => {
                let body = self.graph.graphs.get(*body).ok_or("a body that is not there")?;
                self.run(body, maps, results, &inputs)?
            }
            op => self.infer(op, &inputs, &outputs)?,
        };
        if inferred != outputs {
            return Err(format!("gives {outputs:?}, its operands make {inferred:?}"));
        }
        let bytes = |(dtype, shape): &Shaped| element_count(shape)?.checked_mul(dtype.size());
        outputs.iter().map(bytes).sum::<Option<usize>>().ok_or_else(|| "its size overflows".into())
    }

    fn infer(&self, op: &Op, inputs: &[Shaped], outputs: &[Shaped]) -> Inferred {
        let first = inputs.first();
        let (dtype, shape) = match (first, op) {
            (Some((dtype, shape)), _) => (*dtype, shape.as_slice()),
            (None, Op::Constant { value }) => {
                // Its type was compared with what is stored when the structure was checked.
                let dtype = outputs.first().map_or(Dtype::F32, |o| o.0);
                return Ok(vec![(dtype, value.shape().to_vec())]);
            }
            (None, Op::Extents { shape, .. }) => return Ok(vec![(Dtype::I64, shape.clone())]),
            (None, _) => return Err("it has no operand".into()),
        };
        let one = |shape: Vec<usize>| Ok(vec![(dtype, shape)]);
        match op {
            Op::Conv { pool, kernel, group } => {
                convolved(inputs, &pool.kernel_shape(*kernel, *group)?, pool.output_channels)?;
                one(pool.forward(shape)?)
            }
            Op::ConvTranspose { pool, kernel, adjustments, group } => {
                convolved(inputs, &pool.kernel_shape(*kernel, *group)?, pool.output_channels)?;
                one(pool.backward(shape, adjustments)?)
            }
            Op::MaxPool { pool } => one(pool.forward(shape)?),
            Op::AveragePool { pool, .. } => {
                floats(dtype)?;
                one(pool.forward(shape)?)
            }
            Op::Einsum { equation } => einsum(equation, inputs),
            Op::Binary { .. } | Op::Logic { .. } => {
                let bool = dtype == Dtype::Bool;
                if bool != matches!(op, Op::Logic { .. }) {
                    return Err(format!("operands of {dtype}"));
                }
                Ok(vec![(same_type(inputs)?, broadcast(inputs)?)])
            }
            Op::Compare { .. } => {
                same_type(inputs)?;
                Ok(vec![(Dtype::Bool, broadcast(inputs)?)])
            }
            Op::Unary { .. } | Op::Function { .. } => one(shape.to_vec()),
            Op::Softmax { axes, .. } => {
                floats(dtype)?;
                axes.iter().try_for_each(|a| in_range(*a, shape))?;
                one(shape.to_vec())
            }
            Op::RmsNorm { axis, .. } => {
                floats(dtype)?;
                in_range(*axis, shape)?;
                one(shape.to_vec())
            }
            Op::Reduce { axes, reducer } => {
                let index = matches!(reducer, Reducer::ArgMax | Reducer::ArgMin);
                if index && axes.len() != 1 {
                    return Err(format!("the position of an extreme along {axes:?}"));
                }
                Ok(vec![(if index { Dtype::I64 } else { dtype }, reduced(axes, shape)?)])
            }
            Op::Gather { axis } => one(gathered(*axis, inputs)?),
            Op::LstmCell { hidden } => lstm(*hidden, inputs),
            Op::Cast { to } => Ok(vec![(*to, shape.to_vec())]),
            Op::Where => chosen(inputs),
            Op::Concat { axis } => one(joined(*axis, inputs)?),
            _ => one(self.moved(op, shape)?),
        }
    }

    /// The operators that only move values.
    fn moved(&self, op: &Op, shape: &[usize]) -> Result<Vec<usize>, String> {
        let mut out = shape.to_vec();
        match op {
            Op::Slice { axis, start, end } => {
                in_range(*axis, shape)?;
                let bounds = self.extents.get(*start).zip(self.extents.get(*end));
                match bounds {
                    Some((start, end)) if start < end && end <= shape[*axis] => out[*axis] = end - start,
                    _ => return Err(format!("positions {bounds:?} of {}", shape[*axis])),
                }
            }
            Op::Pad { pads, mode } => {
                if pads.len() != shape.len() {
                    return Err(format!("pads of {} axes for {shape:?}", pads.len()));
                }
                for (extent, (before, after)) in out.iter_mut().zip(pads) {
                    if *mode == PadMode::Reflect && (*before >= *extent || *after >= *extent) {
                        return Err(format!("{before} and {after} positions reflected of {extent}"));
                    }
                    let padded = extent.checked_add(*before).and_then(|n| n.checked_add(*after));
                    *extent = padded.ok_or("its size overflows")?;
                }
            }
            Op::Reshape { axis, from, to } => {
                let (from, to) = (self.extents.all(from), self.extents.all(to));
                let (from, to) = from.zip(to).ok_or("a negative extent")?;
                let end = axis.checked_add(from.len()).filter(|end| *end <= shape.len());
                let range = *axis..end.ok_or("axes that are not there")?;
                let same = element_count(&from).is_some_and(|n| element_count(&to) == Some(n));
                if shape[range.clone()] != from || !same {
                    return Err(format!("{from:?} to {to:?} at axis {axis} of {shape:?}"));
                }
                out.splice(range, to).for_each(drop);
            }
            Op::Unsqueeze { axis } if *axis <= shape.len() => out.insert(*axis, 1),
            Op::Squeeze { axis } if shape.get(*axis) == Some(&1) => drop(out.remove(*axis)),
            Op::MoveAxis { from, to } => {
                in_range(*from, shape)?;
                in_range(*to, shape)?;
                let extent = out.remove(*from);
                out.insert(*to, extent);
            }
            Op::Expand { shape: wanted } => {
                out = self.extents.all(wanted).ok_or("a negative extent")?;
                let lead = out.len().checked_sub(shape.len()).ok_or("fewer axes than its operand")?;
                if shape.iter().zip(&out[lead..]).any(|(have, want)| *have != 1 && have != want) {
                    return Err(format!("{shape:?} to {out:?}"));
                }
            }
            Op::Upsample { scales } if scales.len() == shape.len() && !scales.contains(&0) => {
                for (extent, scale) in out.iter_mut().zip(scales) {
                    *extent = extent.checked_mul(*scale).ok_or("its size overflows")?;
                }
            }
            Op::Downsample { axis, stride, offset } => {
                in_range(*axis, shape)?;
                let left = shape[*axis].checked_sub(*offset).filter(|n| *n > 0 && *stride > 0);
                out[*axis] = left.ok_or("nothing is left of it")?.div_ceil(*stride);
            }
            _ => return Err(format!("{op:?} of {shape:?}")),
        }
        Ok(out)
    }

    /// A loop: the body's ends against the operands, and the outputs it makes.
    fn run(
        &self,
        body: &Subgraph,
        maps: &[LoopInput],
        results: &[super::LoopOutput],
        inputs: &[Shaped],
    ) -> Inferred {
        let mut turns = None;
        let mut states = Vec::new();
        for (i, (map, outer)) in maps.iter().zip(inputs).enumerate() {
            let inner = self.shaped(body.input(i).ok_or("an input that is not there")?)?;
            let mut wanted = outer.clone();
            if let LoopInput::Scan { scan } = map {
                let n = slices(scan, &outer.1)?;
                if *turns.get_or_insert(n) != n {
                    return Err(format!("{n} slices of operand {i}, {turns:?} of another"));
                }
                wanted.1[scan.axis] = scan.chunk;
            }
            if inner != wanted {
                return Err(format!("operand {i} reaches its body as {wanted:?}, which takes {inner:?}"));
            }
            states.extend((*map == LoopInput::State).then_some(inner));
        }
        let turns = turns.ok_or("nothing is scanned")?;
        let mut states = states.into_iter();
        let mut outputs = Vec::new();
        for (outlet, result) in body.outputs.iter().zip(results) {
            let inner = self.shaped(body.fact(*outlet).ok_or("an output that is not there")?)?;
            if result.state && states.next().as_ref() != Some(&inner) {
                return Err(format!("a state comes out of its body as {inner:?}"));
            }
            if let Some((slot, scan)) = &result.scan {
                let mut all = inner.clone();
                in_range(scan.axis, &all.1)?;
                if all.1[scan.axis] != scan.chunk || (scan.backward && scan.chunk != 1) {
                    return Err(format!("slices of {:?} by {scan:?}", all.1));
                }
                all.1[scan.axis] = scan.chunk.checked_mul(turns).ok_or("its size overflows")?;
                outputs.push((*slot, all));
            }
            outputs.extend(result.last.map(|slot| (slot, inner)));
        }
        outputs.sort_by_key(|(slot, _)| *slot);
        Ok(outputs.into_iter().map(|(_, shaped)| shaped).collect())
    }
}
