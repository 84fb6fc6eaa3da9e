//! tract's simplified graph to a portable one; its constants stay beside it until their place is known.

use super::ops;
use crate::encode::dtype;
use crate::error::{ErrorKind, PackerError};
use crate::import::Port;
use glowplug_pack::plan::Outlet;
use glowplug_pack::portable::{
    Dim, DimId, Fact, LoopInput, LoopOutput, LoopScan, Node, Op, PortableGraph, Stored, Subgraph,
};
use std::collections::HashMap;
use std::sync::Arc;
use tract_core::internal::*;
use tract_core::ops::konst::Const;
use tract_core::ops::scan::{InputMapping, Scan, ScanInfo};

/// A graph whose constants have no place yet.
pub(super) struct Encoded {
    pub(super) graph: PortableGraph,
    /// The constants, in the order of their nodes, graph by graph.
    pub(super) tensors: Vec<Arc<Tensor>>,
}

/// The portable graph of `model`, `symbols` being its open axes by name.
///
/// Errors: operators that it does not cover, all of them with their nodes' names; extents that depend on more
/// than the inputs' shapes. What is returned has taken the pinned shapes of `inputs`.
pub(super) fn encode(
    model: &TypedModel,
    symbols: &[(String, Symbol)],
    inputs: &[Port],
) -> Result<Encoded, PackerError> {
    let mut encoder = Encoder {
        symbols: symbols.iter().enumerate().map(|(i, (_, symbol))| (symbol.clone(), i)).collect(),
        dims: Vec::new(),
        known: HashMap::new(),
        graphs: Vec::new(),
    };
    let main = encoder.subgraph(model).map_err(|e| unsupported(&e))?;
    encoder.graphs.push(main);
    let tensors = encoder.graphs.iter_mut().flat_map(|(_, tensors)| std::mem::take(tensors)).collect();
    let graph = PortableGraph {
        symbols: symbols.iter().map(|(name, _)| name.clone()).collect(),
        dims: encoder.dims,
        graphs: encoder.graphs.into_iter().map(|(graph, _)| graph).collect(),
    };
    let shapes: Vec<_> = inputs.iter().map(Port::shape).collect();
    graph.extents(&shapes)?;
    Ok(Encoded { graph, tensors })
}

fn unsupported(e: &TractError) -> PackerError {
    PackerError::new(ErrorKind::Unsupported, format!("portable graph: {e:#}"))
}

pub(super) struct Encoder {
    symbols: HashMap<Symbol, usize>,
    dims: Vec<Dim>,
    /// Dimensions that are in the table already.
    known: HashMap<Dim, DimId>,
    /// Bodies of loops, each with its constants.
    graphs: Vec<(Subgraph, Vec<Arc<Tensor>>)>,
}

impl Encoder {
    fn subgraph(&mut self, model: &TypedModel) -> TractResult<(Subgraph, Vec<Arc<Tensor>>)> {
        let mut sub = Subgraph::default();
        let mut tensors = Vec::new();
        let mut outlets = HashMap::new();
        let mut refused = Vec::new();
        for id in model.eval_order()? {
            let node = model.node(id);
            let slots = 0..node.outputs.len();
            outlets.extend(slots.map(|s| (OutletId::new(id, s), Outlet { node: sub.nodes.len(), slot: s })));
            match self.node(model, node, &mut tensors) {
                Ok((op, outputs)) => {
                    let inputs = node.inputs.iter().filter_map(|o| outlets.get(o).copied()).collect();
                    sub.nodes.push(Node { name: node.name.clone(), op, inputs, outputs });
                }
                Err(e) => refused.push(format!("node {:?} ({}): {e:#}", node.name, node.op.name())),
            }
        }
        ensure!(refused.is_empty(), "{}", refused.join("; "));
        let find = |o: &OutletId| outlets.get(o).copied().context("an end that is no node's");
        sub.inputs = model.inputs.iter().map(|o| Ok(find(o)?.node)).collect::<TractResult<_>>()?;
        sub.outputs = model.outputs.iter().map(find).collect::<TractResult<_>>()?;
        Ok((sub, tensors))
    }

    fn node(
        &mut self,
        model: &TypedModel,
        node: &TypedNode,
        tensors: &mut Vec<Arc<Tensor>>,
    ) -> TractResult<(Op, Vec<Fact>)> {
        let op = if let Some(constant) = node.op_as::<Const>() {
            ensure!(constant.val().is_plain(), "a constant in a layout of tract's own");
            if let Some(op) = self.open_extents(constant.val())? {
                return Ok((op, vec![self.fact(&node.outputs[0].fact)?]));
            }
            let tensor = plain(constant.val())?;
            let shape = tensor.shape().to_vec();
            let value = Stored::Own { offset: 0, dtype: dtype(tensor.datum_type())?, shape };
            tensors.push(tensor);
            Op::Constant { value }
        } else if let Some(scan) = node.op_as::<Scan>() {
            self.scan(scan)?
        } else {
            let inputs =
                node.inputs.iter().map(|o| model.outlet_fact(*o)).collect::<TractResult<Vec<_>>>()?;
            match ops::op(self, node, &inputs)? {
                Some(op) => op,
                None => bail!("the operator is not covered"),
            }
        };
        let outputs = node.outputs.iter().map(|o| self.fact(&o.fact)).collect::<TractResult<_>>()?;
        Ok((op, outputs))
    }

    /// A constant of extents that depend on symbols.
    fn open_extents(&mut self, tensor: &Tensor) -> TractResult<Option<Op>> {
        if tensor.datum_type() != DatumType::TDim {
            return Ok(None);
        }
        let values = tensor.try_as_plain_ram()?;
        let values = values.as_slice::<TDim>()?;
        if values.iter().all(|v| v.as_i64().is_some()) {
            return Ok(None);
        }
        Ok(Some(Op::Extents { shape: tensor.shape().to_vec(), values: self.dims(values)? }))
    }

    fn fact(&mut self, fact: &TypedFact) -> TractResult<Fact> {
        ensure!(fact.is_plain(), "a value in a layout of tract's own");
        Ok(Fact { dtype: dtype(fact.datum_type)?, shape: self.dims(&fact.shape)? })
    }

    pub(super) fn dims(&mut self, dims: &[TDim]) -> TractResult<Vec<DimId>> {
        dims.iter().map(|d| self.dim(d)).collect()
    }

    /// The entry of an extent in the table.
    pub(super) fn dim(&mut self, dim: &TDim) -> TractResult<DimId> {
        let entry = match dim {
            TDim::Val(value) => Dim::Value { value: *value },
            TDim::Sym(symbol) => match self.symbols.get(symbol) {
                Some(symbol) => Dim::Symbol { symbol: *symbol },
                None => bail!("the extent {dim} is known only while it runs"),
            },
            TDim::Add(terms) => Dim::Sum { terms: self.dims(terms)? },
            TDim::Mul(factors) => Dim::Product { factors: self.dims(factors)? },
            TDim::MulInt(value, of) => {
                Dim::Product { factors: vec![self.enter(Dim::Value { value: *value })?, self.dim(of)?] }
            }
            TDim::Div(dividend, divisor) => {
                Dim::Quotient { dividend: self.dim(dividend)?, divisor: *divisor }
            }
            TDim::Broadcast(of) => Dim::Broadcast { of: self.dims(of)? },
            TDim::Min(of) => Dim::Min { of: self.dims(of)? },
            TDim::Max(of) => Dim::Max { of: self.dims(of)? },
            TDim::Ge(..) | TDim::Eq(..) => bail!("the extent {dim} is a comparison"),
        };
        self.enter(entry)
    }

    fn enter(&mut self, dim: Dim) -> TractResult<DimId> {
        if let Some(id) = self.known.get(&dim) {
            return Ok(*id);
        }
        let id = DimId(u32::try_from(self.dims.len())?);
        self.dims.push(dim.clone());
        self.known.insert(dim, id);
        Ok(id)
    }

    fn scan(&mut self, scan: &Scan) -> TractResult<Op> {
        ensure!(scan.skip == 0, "a loop that skips its first {} turns", scan.skip);
        let body = self.subgraph(&scan.body)?;
        let map = |info: &ScanInfo| LoopScan {
            axis: info.axis,
            chunk: info.chunk.unsigned_abs(),
            backward: info.chunk < 0,
        };
        let inputs = scan.input_mapping.iter().map(|input| match input {
            InputMapping::Full => LoopInput::Full,
            InputMapping::State => LoopInput::State,
            InputMapping::Scan(info) => LoopInput::Scan { scan: map(info) },
        });
        let outputs = scan.output_mapping.iter().map(|output| LoopOutput {
            state: output.state,
            scan: output.scan.as_ref().map(|(slot, info)| (*slot, map(info))),
            last: output.last_value_slot,
        });
        let (inputs, outputs) = (inputs.collect(), outputs.collect());
        self.graphs.push(body);
        Ok(Op::Loop { body: self.graphs.len() - 1, inputs, outputs })
    }
}

/// A constant as numbers: extents that are known are i64.
fn plain(tensor: &Arc<Tensor>) -> TractResult<Arc<Tensor>> {
    if tensor.datum_type() == DatumType::TDim {
        return Ok(Arc::new(tensor.cast_to::<i64>()?.into_owned()));
    }
    Ok(tensor.clone())
}
