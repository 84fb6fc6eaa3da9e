//! The portable graph: a model as data, bound to no CPU, no kernel and, where its symbols are kept, no shape.
//!
//! It is what every plan of a pack was made from: the graph after the passes that do not depend on a CPU, in
//! an op vocabulary of our own, its weights by reference to the same blobs. A machine that no tuned plan
//! fits builds its plan from it: slower to load, never wrong.
//!
//! A [`PortableGraph`] is checked in two steps. [`PortableGraph::validate`] looks at structure, whatever the
//! shapes: references, arity, ranks, axes, weights. [`PortableGraph::extents`] then takes the shapes of the
//! inputs, computes every extent and holds every operator's rule against them, so that what a runtime is
//! handed has been inferred twice. Neither recurses: dimensions and loop bodies are tables whose entries
//! refer to earlier ones only.

mod dim;
mod infer;
mod op;
mod pool;
mod rules;
mod stored;
#[cfg(test)]
mod tests;
mod validate;

pub use dim::{Dim, DimId, Extents};
pub use op::{Function, KernelLayout, Layout, Logic, LoopInput, LoopOutput, LoopScan, Op};
pub use pool::{Padding, Pool};
pub use stored::{Split, Stored};

use crate::dtype::Dtype;
use crate::error::PackError;
use crate::plan::{MAX_SECTION_BYTES, Outlet};
use crate::weights::Weight;
use crate::wire::{Reader, Writer};
use crate::wire_struct;

/// Bytes of the section before the graph: its length, little-endian.
const HEAD_BYTES: usize = 8;

/// What one output of a node is: a dense row-major tensor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fact {
    /// Element type.
    pub dtype: Dtype,
    /// Extents, outermost first.
    pub shape: Vec<DimId>,
}
wire_struct!(Fact { dtype, shape });

/// One step of a graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The name it had in the ONNX file, for people.
    pub name: String,
    /// What it does.
    pub op: Op,
    /// Its operands, all of them outputs of earlier nodes.
    pub inputs: Vec<Outlet>,
    /// What it gives.
    pub outputs: Vec<Fact>,
}
wire_struct!(Node { name, op, inputs, outputs });

/// Nodes with ends: the model itself, or the body of a loop.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subgraph {
    /// In execution order.
    pub nodes: Vec<Node>,
    /// The nodes that take the inputs, in order.
    pub inputs: Vec<usize>,
    /// Where the outputs are found, in order.
    pub outputs: Vec<Outlet>,
}
wire_struct!(Subgraph { nodes, inputs, outputs });

impl Subgraph {
    /// The fact of an outlet, where there is one.
    #[must_use]
    pub fn fact(&self, outlet: Outlet) -> Option<&Fact> {
        self.nodes.get(outlet.node)?.outputs.get(outlet.slot)
    }

    /// The fact of input `index`, where there is one.
    #[must_use]
    pub fn input(&self, index: usize) -> Option<&Fact> {
        self.fact(Outlet { node: *self.inputs.get(index)?, slot: 0 })
    }
}

/// A whole portable graph.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PortableGraph {
    /// The open extents by name; each is an axis of some input. Empty where all shapes are fixed.
    pub symbols: Vec<String>,
    /// Every extent of the graph, as expressions over the symbols and over earlier ones.
    pub dims: Vec<Dim>,
    /// Bodies of loops, each used by exactly one later graph; the model itself is the last.
    pub graphs: Vec<Subgraph>,
}
wire_struct!(PortableGraph { symbols, dims, graphs });

impl PortableGraph {
    /// The section's bytes. `data` holds the tensors that the graph owns ([`Stored::Own`]).
    #[must_use]
    pub fn encode(&self, data: &[u8]) -> Vec<u8> {
        let graph = Writer::encode(self);
        let mut bytes = Vec::with_capacity(HEAD_BYTES + graph.len() + data.len());
        bytes.extend_from_slice(&(graph.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&graph);
        bytes.extend_from_slice(data);
        bytes
    }

    /// The validated graph of a section's bytes, and the tensors that it owns. `weights` is the pack's table.
    ///
    /// Errors: bytes that are no graph; as [`PortableGraph::validate`]. Allocates in proportion to the
    /// graph's part of the section, at most [`MAX_SECTION_BYTES`] of it.
    pub fn decode<'a>(section: &'a [u8], weights: &[Weight]) -> Result<(PortableGraph, &'a [u8]), PackError> {
        let corrupt = |text: String| PackError::corrupt(format!("portable graph: {text}"));
        let Some((head, rest)) = section.split_first_chunk::<HEAD_BYTES>() else {
            return Err(corrupt(format!("a section of {} bytes, expected at least 8", section.len())));
        };
        let len = usize::try_from(u64::from_le_bytes(*head)).unwrap_or(usize::MAX);
        let (graph, data) = match rest.split_at_checked(len) {
            Some(parts) if len <= MAX_SECTION_BYTES => parts,
            _ => {
                let most = rest.len().min(MAX_SECTION_BYTES);
                return Err(corrupt(format!("a graph of {len} bytes, expected at most {most}")));
            }
        };
        let graph: PortableGraph = Reader::decode(graph).map_err(|e| e.within("portable graph"))?;
        graph.validate(weights, data.len())?;
        Ok((graph, data))
    }

    /// Whether the structure holds: every reference is to something earlier, every node has the operands its
    /// operator takes, ranks and axes agree, and weights exist in the size that is read.
    ///
    /// `data_len` is the length of the section's own tensors. Errors: the first node that breaks a rule, by
    /// index and name, with what was found and wanted.
    pub fn validate(&self, weights: &[Weight], data_len: usize) -> Result<(), PackError> {
        validate::graph(self, weights, data_len)
    }

    /// Every extent, for inputs of these `shapes`, all operators' rules held against them.
    ///
    /// Only for a graph that validated. Errors ([`ErrorKind::Invalid`](crate::ErrorKind::Invalid)): another
    /// number of inputs; an input whose fixed extents are others; symbols that would be two things at once;
    /// shapes that some node cannot take, by its name; values that together exceed
    /// [`MAX_PLAN_BYTES`](crate::plan::MAX_PLAN_BYTES). Cost: one pass over the tables.
    pub fn extents(&self, shapes: &[Vec<usize>]) -> Result<Extents, PackError> {
        infer::extents(self, shapes)
    }

    /// The model's own graph. Errors: there is none.
    pub fn main(&self) -> Result<&Subgraph, PackError> {
        self.graphs.last().ok_or_else(|| PackError::corrupt("portable graph: there is no graph"))
    }
}
