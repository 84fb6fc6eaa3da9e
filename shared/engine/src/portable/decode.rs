//! A portable graph to tract's typed graph, node by node, through tract's own shape inference.

use super::constants::Constants;
use super::ops;
use crate::values::datum_type;
use glowplug_pack::portable::{Extents, LoopInput, LoopOutput, LoopScan, Node, Op, PortableGraph, Subgraph};
use std::sync::Arc;
use tract_core::internal::{
    DatumTypeExt, InletId, OutletId, TVec, TractResult, TypedFact, TypedModel, TypedOp, bail, ensure,
    format_err,
};
use tract_core::ops::konst::Const;
use tract_core::ops::scan::{InputMapping, OutputMapping, Scan, ScanInfo};
use tract_core::ops::source::TypedSource;

/// tract's graph of a validated portable graph whose `extents` are known.
pub(super) fn model(
    graph: &PortableGraph,
    extents: &Extents,
    constants: &Constants<'_>,
) -> TractResult<TypedModel> {
    Decoder { graph, extents, constants }.subgraph(graph.main()?)
}

struct Decoder<'a> {
    graph: &'a PortableGraph,
    extents: &'a Extents,
    constants: &'a Constants<'a>,
}

impl Decoder<'_> {
    fn subgraph(&self, sub: &Subgraph) -> TractResult<TypedModel> {
        let mut model = TypedModel::default();
        model.nodes.reserve(sub.nodes.len());
        for node in &sub.nodes {
            let place = || format!("node {:?} ({})", node.name, node.op.name());
            self.add(&mut model, node).map_err(|e| e.context(place()))?;
        }
        model.inputs = sub.inputs.iter().map(|node| OutletId::new(*node, 0)).collect();
        model.outputs = sub.outputs.iter().map(|o| OutletId::new(o.node, o.slot)).collect();
        Ok(model)
    }

    /// Adds a node whose outputs tract infers to be what the graph says.
    fn add(&self, model: &mut TypedModel, node: &Node) -> TractResult<()> {
        let inputs: Vec<OutletId> = node.inputs.iter().map(|o| OutletId::new(o.node, o.slot)).collect();
        let op = self.op(node)?;
        let facts = {
            let operands = inputs.iter().map(|o| model.outlet_fact(*o)).collect::<TractResult<TVec<_>>>()?;
            op.output_facts(&operands)?
        };
        ensure!(facts.len() == node.outputs.len(), "{} outputs", facts.len());
        for (found, wanted) in facts.iter().zip(&node.outputs) {
            let shape = self.extents.shape(wanted);
            let same =
                found.datum_type == datum_type(wanted.dtype) && found.shape.as_concrete() == shape.as_deref();
            ensure!(same, "gives {found:?}, the graph says {} {shape:?}", wanted.dtype);
        }
        let id = model.add_node(node.name.clone(), op, facts)?;
        for (slot, input) in inputs.into_iter().enumerate() {
            model.add_edge(input, InletId::new(id, slot))?;
        }
        Ok(())
    }

    fn op(&self, node: &Node) -> TractResult<Box<dyn TypedOp>> {
        Ok(match &node.op {
            Op::Source => Box::new(TypedSource::new(self.fact(node)?)),
            Op::Constant { value } => Box::new(Const::new(Arc::new(self.constants.read(value)?))?),
            Op::Loop { body, inputs, outputs } => Box::new(self.scan(*body, inputs, outputs)?),
            Op::Einsum { equation } => {
                let Some(output) = node.outputs.first() else { bail!("no output") };
                Box::new(ops::einsum(equation, datum_type(output.dtype))?)
            }
            op => ops::op(op, self.extents)?,
        })
    }

    fn fact(&self, node: &Node) -> TractResult<TypedFact> {
        let Some(fact) = node.outputs.first() else { bail!("a source without an output") };
        let shape = self.extents.shape(fact).ok_or_else(|| format_err!("a negative extent"))?;
        Ok(datum_type(fact.dtype).fact(shape))
    }

    /// A loop whose states start anew in each run, as ONNX says. tract's would go on where the run before
    /// ended.
    fn scan(&self, body: usize, inputs: &[LoopInput], outputs: &[LoopOutput]) -> TractResult<Scan> {
        let Some(body) = self.graph.graphs.get(body) else { bail!("no graph {body}") };
        let inputs = inputs.iter().map(|input| match input {
            LoopInput::Full => InputMapping::Full,
            LoopInput::State => InputMapping::State,
            LoopInput::Scan { scan } => InputMapping::Scan(info(scan)),
        });
        let outputs = outputs.iter().map(|output| OutputMapping {
            scan: output.scan.map(|(slot, scan)| (slot, info(&scan))),
            full_dim_hint: None,
            last_value_slot: output.last,
            state: output.state,
        });
        let mut scan = Scan::new(self.subgraph(body)?, inputs.collect(), outputs.collect(), 0)?;
        scan.reset_every_turn = true;
        Ok(scan)
    }
}

fn info(scan: &LoopScan) -> ScanInfo {
    let chunk = scan.chunk.cast_signed();
    ScanInfo { axis: scan.axis, chunk: if scan.backward { -chunk } else { chunk } }
}
