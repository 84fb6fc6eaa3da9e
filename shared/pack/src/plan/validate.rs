//! The graph around the operators: references, counts, totals.

use super::{Fact, MAX_PLAN_BYTES, Node, Op, Outlet, PlanGraph, rules};
use crate::dtype::Dtype;
use crate::error::PackError;
use crate::weights::{Form, Weight, WeightId};

/// What a rule may look things up in.
pub(super) struct Context<'a> {
    pub(super) graph: &'a PlanGraph,
    weights: &'a [Weight],
}

impl<'a> Context<'a> {
    fn weight(&self, id: WeightId) -> Result<&'a Weight, String> {
        let weight = usize::try_from(id.0).ok().and_then(|i| self.weights.get(i));
        weight.ok_or_else(|| format!("weight {} of a table of {}", id.0, self.weights.len()))
    }

    /// Dtype and shape of a weight that is stored plain. Bool bytes could be neither 0 nor 1, which a bool
    /// must not be, so there are no plain bool weights.
    pub(super) fn plain(&self, id: WeightId) -> Result<(Dtype, &'a [usize]), String> {
        match &self.weight(id)?.form {
            Form::Plain { dtype: Dtype::Bool, .. } => {
                Err(format!("weight {} is bool, expected numbers", id.0))
            }
            Form::Plain { dtype, shape } => Ok((*dtype, shape)),
            form @ Form::Panels { .. } => Err(format!("weight {} is {form:?}, expected it plain", id.0)),
        }
    }

    /// Checks that a weight is stored as panels of `(format, k, mn)` and that no panel is read past its end.
    pub(super) fn panels(
        &self,
        id: WeightId,
        wanted: &super::PanelFormat,
        k: usize,
        mn: usize,
    ) -> Result<(), String> {
        let form = &self.weight(id)?.form;
        let read = wanted.panel_bytes(k).ok_or("panel size overflows")?;
        match form {
            Form::Panels { dtype, k: fk, mn: fmn, r, panel_bytes }
                if *dtype == wanted.dtype && (*fk, *fmn, *r) == (k, mn, wanted.r) && *panel_bytes >= read =>
            {
                Ok(())
            }
            _ => Err(format!(
                "weight {} is {form:?}, expected {} panels of k={k}, mn={mn}, r={}, panel_bytes at least {read}",
                id.0, wanted.dtype, wanted.r
            )),
        }
    }

    /// Depth and rows of a weight stored as panels.
    pub(super) fn panel_extents(&self, id: WeightId) -> Result<(usize, usize), String> {
        match &self.weight(id)?.form {
            Form::Panels { k, mn, .. } => Ok((*k, *mn)),
            form @ Form::Plain { .. } => Err(format!("weight {} is {form:?}, expected panels", id.0)),
        }
    }
}

/// As [`PlanGraph::validate`].
pub(super) fn graph(graph: &PlanGraph, weights: &[Weight]) -> Result<(), PackError> {
    let corrupt = |text: String| PackError::corrupt(format!("plan: {text}"));
    for (i, kernel) in graph.kernels.iter().enumerate() {
        let both = kernel.a.check().and_then(|()| kernel.b.check());
        both.map_err(|e| corrupt(format!("kernel {i} ({:?}): {e}", kernel.name)))?;
    }
    let context = Context { graph, weights };
    let mut total = 0usize;
    for (i, node) in graph.nodes.iter().enumerate() {
        let place = |e: String| corrupt(format!("node {i} ({:?}, {}): {e}", node.name, node.op.name()));
        total = total.saturating_add(check_node(&context, i, node).map_err(place)?);
        if total > MAX_PLAN_BYTES {
            return Err(corrupt(format!(
                "outputs up to node {i} take {total} bytes, at most {MAX_PLAN_BYTES} are allowed"
            )));
        }
    }
    check_ends(graph).map_err(corrupt)
}

/// One node; gives the bytes of its outputs.
fn check_node(context: &Context<'_>, index: usize, node: &Node) -> Result<usize, String> {
    let inputs =
        node.inputs.iter().map(|o| earlier(context.graph, index, *o)).collect::<Result<Vec<_>, _>>()?;
    let [output] = node.outputs.as_slice() else {
        return Err(format!("{} outputs, expected 1", node.outputs.len()));
    };
    let bytes = output.byte_len()?;
    rules::check(context, &node.op, &inputs, output)?;
    Ok(bytes)
}

fn earlier(graph: &PlanGraph, index: usize, outlet: Outlet) -> Result<&Fact, String> {
    if outlet.node >= index {
        return Err(format!(
            "operand is output {} of node {}, expected an earlier node",
            outlet.slot, outlet.node
        ));
    }
    graph.fact(outlet).ok_or_else(|| format!("node {} has no output {}", outlet.node, outlet.slot))
}

/// The plan's inputs are its sources, each once and as its head says; its outputs are plain tensors.
fn check_ends(graph: &PlanGraph) -> Result<(), String> {
    let sources = graph.nodes.iter().filter(|n| n.op == Op::Source).count();
    if sources != graph.inputs.len() || graph.inputs.len() != graph.head.inputs.len() {
        return Err(format!(
            "{sources} sources, {} inputs, {} in the head, expected equal counts",
            graph.inputs.len(),
            graph.head.inputs.len()
        ));
    }
    let mut seen = vec![false; graph.nodes.len()];
    for (i, (id, (dtype, shape))) in graph.inputs.iter().zip(&graph.head.inputs).enumerate() {
        let again = seen.get_mut(*id).is_none_or(|seen| std::mem::replace(seen, true));
        let node = graph.nodes.get(*id).filter(|n| n.op == Op::Source && !again);
        let wanted = Fact::Tensor { dtype: *dtype, shape: shape.clone() };
        if node.is_none_or(|n| n.outputs != [wanted]) {
            return Err(format!("input {i} is node {id}, expected another source of {dtype} {shape:?}"));
        }
    }
    if graph.outputs.is_empty() {
        return Err("there is no output".into());
    }
    for (i, outlet) in graph.outputs.iter().enumerate() {
        if !matches!(graph.fact(*outlet), Some(Fact::Tensor { .. })) {
            return Err(format!("output {i} is {outlet:?}, expected a tensor of the plan"));
        }
    }
    Ok(())
}
