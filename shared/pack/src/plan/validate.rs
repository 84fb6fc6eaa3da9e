//! The graph around the operators: references, counts, totals.

use super::{Body, FILTER_PANEL, Fact, Kernel, MAX_PLAN_BYTES, Node, Op, Outlet, PlanGraph, fact_of, rules};
use crate::dtype::Dtype;
use crate::encoding::{EncodedPanel, Encoding};
use crate::error::PackError;
use crate::weights::{Form, Weight, WeightId};

/// What a rule may look things up in.
pub(super) struct Context<'a> {
    pub(super) kernels: &'a [Kernel],
    /// The bodies that a loop may run; none inside of one.
    pub(super) bodies: &'a [Body],
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
            form => Err(format!("weight {} is {form:?}, expected it plain", id.0)),
        }
    }

    /// As [`Context::plain`], of a weight whose rows are read one by one: they may be encoded, and are f32 then.
    pub(super) fn rows(&self, id: WeightId) -> Result<(Dtype, &'a [usize]), String> {
        match &self.weight(id)?.form {
            Form::EncodedRows { shape, .. } => Ok((Dtype::F32, shape)),
            _ => self.plain(id),
        }
    }

    /// As [`Context::panels`], of a weight that is read through what it becomes: it may be encoded.
    pub(super) fn f32_panels(
        &self,
        id: WeightId,
        wanted: &super::PanelFormat,
        k: usize,
        mn: usize,
    ) -> Result<(), String> {
        match &self.weight(id)?.form {
            // What it becomes is cut to the same k and has room for one record more.
            Form::EncodedPanels { panel, mn: found, .. }
                if (panel.k, *found, panel.r) == (k, mn, wanted.r) && wanted.end_padding <= 1 =>
            {
                Ok(())
            }
            _ => self.panels(id, wanted, k, mn),
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

    /// Depth and filters of a weight stored as panels of [`FILTER_PANEL`] in int8.
    pub(super) fn int8_panels(&self, id: WeightId) -> Result<(usize, usize), String> {
        match &self.weight(id)?.form {
            Form::EncodedPanels { panel: EncodedPanel { encoding: Encoding::Int8, k, r }, mn, .. }
                if *r == FILTER_PANEL =>
            {
                Ok((*k, *mn))
            }
            form => Err(format!("weight {} is {form:?}, expected panels of {FILTER_PANEL} in int8", id.0)),
        }
    }

    /// The shape of a weight stored as rows in int8.
    pub(super) fn int8_rows(&self, id: WeightId) -> Result<&'a [usize], String> {
        match &self.weight(id)?.form {
            Form::EncodedRows { encoding: Encoding::Int8, shape } => Ok(shape),
            form => Err(format!("weight {} is {form:?}, expected rows in int8", id.0)),
        }
    }

    /// Depth and rows of a weight stored as panels, encoded or not.
    pub(super) fn panel_extents(&self, id: WeightId) -> Result<(usize, usize), String> {
        match &self.weight(id)?.form {
            Form::Panels { k, mn, .. } => Ok((*k, *mn)),
            Form::EncodedPanels { panel, mn, .. } => Ok((panel.k, *mn)),
            form => Err(format!("weight {} is {form:?}, expected panels", id.0)),
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
    let inner = Context { kernels: &graph.kernels, bodies: &[], weights };
    let mut total = 0usize;
    for (i, body) in graph.bodies.iter().enumerate() {
        let place = |e: String| corrupt(format!("body {i}: {e}"));
        nodes(&inner, &body.nodes, &mut total).and_then(|()| check_body(body)).map_err(place)?;
    }
    let context = Context { bodies: &graph.bodies, ..inner };
    nodes(&context, &graph.nodes, &mut total).map_err(corrupt)?;
    check_ends(graph).map_err(corrupt)
}

/// Nodes in order; adds the bytes of their outputs, and of weights that they lay out anew, to `total`.
fn nodes(context: &Context<'_>, nodes: &[Node], total: &mut usize) -> Result<(), String> {
    for (i, node) in nodes.iter().enumerate() {
        let place = |e: String| format!("node {i} ({:?}, {}): {e}", node.name, node.op.name());
        *total = total.saturating_add(check_node(context, nodes, i).map_err(place)?);
        if *total > MAX_PLAN_BYTES {
            return Err(format!(
                "outputs and weights laid out up to node {i} take {total} bytes, at most {MAX_PLAN_BYTES} are allowed"
            ));
        }
    }
    Ok(())
}

/// Node `index`; gives the bytes of its outputs and of the weights that it lays out anew.
fn check_node(context: &Context<'_>, nodes: &[Node], index: usize) -> Result<usize, String> {
    let node = &nodes[index];
    let inputs = node.inputs.iter().map(|o| earlier(nodes, index, *o)).collect::<Result<Vec<_>, _>>()?;
    let bytes =
        node.outputs.iter().try_fold(0usize, |sum, o| Ok::<_, String>(sum.saturating_add(o.byte_len()?)))?;
    rules::check(context, &node.op, &inputs, &node.outputs)?;
    rules::made_in_bytes(&node.op, |slot| Some(&nodes[node.inputs.get(slot)?.node].op))?;
    Ok(bytes.saturating_add(rules::laid_out(context, &node.op, &inputs)?))
}

fn earlier(nodes: &[Node], index: usize, outlet: Outlet) -> Result<&Fact, String> {
    if outlet.node >= index {
        return Err(format!(
            "operand is output {} of node {}, expected an earlier node",
            outlet.slot, outlet.node
        ));
    }
    fact_of(nodes, outlet).ok_or_else(|| format!("node {} has no output {}", outlet.node, outlet.slot))
}

/// A body's inputs are its sources; its outputs are plain tensors.
fn check_body(body: &Body) -> Result<(), String> {
    check_sources(&body.nodes, &body.inputs)?;
    check_outputs(&body.nodes, &body.outputs)
}

/// The inputs are the sources, each once.
fn check_sources(nodes: &[Node], inputs: &[usize]) -> Result<(), String> {
    let sources = nodes.iter().filter(|n| n.op == Op::Source).count();
    if sources != inputs.len() {
        return Err(format!("{sources} sources, {} inputs, expected equal counts", inputs.len()));
    }
    let mut seen = vec![false; nodes.len()];
    for (i, id) in inputs.iter().enumerate() {
        let again = seen.get_mut(*id).is_none_or(|seen| std::mem::replace(seen, true));
        if again || nodes[*id].op != Op::Source {
            return Err(format!("input {i} is node {id}, expected another source"));
        }
    }
    Ok(())
}

fn check_outputs(nodes: &[Node], outputs: &[Outlet]) -> Result<(), String> {
    if outputs.is_empty() {
        return Err("there is no output".into());
    }
    let tensor = |o: &Outlet| matches!(fact_of(nodes, *o), Some(Fact::Tensor { .. }));
    match outputs.iter().enumerate().find(|(_, o)| !tensor(o)) {
        Some((i, outlet)) => Err(format!("output {i} is {outlet:?}, expected a tensor of the graph")),
        None => Ok(()),
    }
}

/// The plan's inputs are as its head says; its outputs are plain tensors.
fn check_ends(graph: &PlanGraph) -> Result<(), String> {
    check_sources(&graph.nodes, &graph.inputs)?;
    if graph.inputs.len() != graph.head.inputs.len() {
        return Err(format!(
            "{} inputs, {} in the head, expected equal counts",
            graph.inputs.len(),
            graph.head.inputs.len()
        ));
    }
    for (i, (id, (dtype, shape))) in graph.inputs.iter().zip(&graph.head.inputs).enumerate() {
        let wanted = Fact::Tensor { dtype: *dtype, shape: shape.clone() };
        if graph.nodes[*id].outputs != [wanted] {
            return Err(format!("input {i} is node {id}, expected a source of {dtype} {shape:?}"));
        }
    }
    check_outputs(&graph.nodes, &graph.outputs)
}
