//! Tuned plans: an optimized graph as data, in an op vocabulary of our own.
//!
//! A plan is what is left of a model after every graph pass: nodes in execution order, each with its
//! operator, operands and the exact dtype and shape of what it gives. The packer writes it, the engine turns
//! it into a runnable graph without any pass. [`PlanHead`] alone tells whether a plan fits a machine.
//!
//! Memory safety rests on [`PlanGraph::validate`]: matrix kernels trust their geometry, so every access that
//! a plan can cause is checked here against the sizes it states, and the engine checks at run time that the
//! values between nodes are what the plan states. Weight *bytes* are never trusted and never need to be: a
//! wrong one gives a wrong number.

mod fact;
mod matmul;
mod op;
mod rules;
#[cfg(test)]
mod tests;
mod validate;

pub use fact::{Fact, MAX_RANK, PanelFormat};
pub use op::{
    Activation, AxisMap, BinaryOp, CHANNEL_BLOCK, Comparison, ConvStep, FILTER_PANEL, Function, Fused,
    Int8Function, Int8Tail, Logic, Op, Operand, PadMode, Reducer, RowStrides, ScanInput, ScanOutput,
    ScanSlot, Share, Step, UnaryOp, Window,
};

pub use rules::conv_copies_little;

use crate::dtype::Dtype;
use crate::error::PackError;
use crate::weights::{Weight, WeightId};
use crate::wire::{Reader, Wire, Writer};
use crate::wire_struct;

/// The most bytes that all node outputs of a plan may take together, with its weights that are laid out anew
/// ([`Op::Int8Conv`], [`Op::Int8DepthwiseConv`]). No live plan comes near it; a hostile
/// one cannot ask for more.
pub const MAX_PLAN_BYTES: usize = 4 << 30;

/// The longest plan section that is decoded. Plans take some fifty bytes a node; decoded they take fifty
/// times as much, which this bounds.
pub const MAX_SECTION_BYTES: usize = 4 << 20;

/// What decides whether a plan fits: the first part of its section, readable without the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanHead {
    /// The instruction sets its kernels need, architecture first: `x86_64+avx2+fma`.
    pub target: String,
    /// The tract version whose kernels it names.
    pub tract: String,
    /// Dtype and shape of each input.
    pub inputs: Vec<(Dtype, Vec<usize>)>,
}
wire_struct!(PlanHead { target, tract, inputs });

impl PlanHead {
    /// The head at the start of a plan section. Errors: bytes that end too early or hold an unknown dtype.
    pub fn read(section: &[u8]) -> Result<PlanHead, PackError> {
        Wire::read(&mut Reader::new(section)).map_err(|e| e.within("plan head"))
    }
}

/// A matrix kernel that a plan calls, with the panel layouts it was planned for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Its name in tract's registry: `fma_mmm_f32_16x6`.
    pub name: String,
    /// Which of its packings.
    pub packing: usize,
    /// Layout of the left operand's panels.
    pub a: PanelFormat,
    /// Layout of the right operand's panels.
    pub b: PanelFormat,
}
wire_struct!(Kernel { name, packing, a, b });

/// One output of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Outlet {
    /// Index of the node.
    pub node: usize,
    /// Which of its outputs.
    pub slot: usize,
}
wire_struct!(Outlet { node, slot });

/// One step of the plan.
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

/// The inner graph of a loop. It has no loop in itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Body {
    /// In execution order.
    pub nodes: Vec<Node>,
    /// The nodes that take the body's inputs, in order.
    pub inputs: Vec<usize>,
    /// Where the body's outputs are found, in order.
    pub outputs: Vec<Outlet>,
}
wire_struct!(Body { nodes, inputs, outputs });

/// The fact of an outlet among `nodes`, where there is one.
#[must_use]
pub fn fact_of(nodes: &[Node], outlet: Outlet) -> Option<&Fact> {
    nodes.get(outlet.node)?.outputs.get(outlet.slot)
}

/// A whole plan.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanGraph {
    /// What decides whether it fits.
    pub head: PlanHead,
    /// The matrix kernels that its nodes refer to by index.
    pub kernels: Vec<Kernel>,
    /// The inner graphs that its loops refer to by index.
    pub bodies: Vec<Body>,
    /// In execution order.
    pub nodes: Vec<Node>,
    /// The nodes that take the plan's inputs, in order.
    pub inputs: Vec<usize>,
    /// Where the plan's outputs are found, in order.
    pub outputs: Vec<Outlet>,
}
wire_struct!(PlanGraph { head, kernels, bodies, nodes, inputs, outputs });

impl PlanGraph {
    /// The section's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        Writer::encode(self)
    }

    /// The validated plan of a section's bytes. `weights` is the pack's weight table.
    ///
    /// Errors: bytes that are no plan; as [`PlanGraph::validate`]. Allocates in proportion to `section`.
    pub fn decode(section: &[u8], weights: &[Weight]) -> Result<PlanGraph, PackError> {
        if section.len() > MAX_SECTION_BYTES {
            let text =
                format!("plan: a section of {} bytes, expected at most {MAX_SECTION_BYTES}", section.len());
            return Err(PackError::corrupt(text));
        }
        let graph: PlanGraph = Reader::decode(section).map_err(|e| e.within("plan"))?;
        graph.validate(weights)?;
        Ok(graph)
    }

    /// Whether running this plan can only touch memory that it states: operands come from earlier nodes,
    /// ranks, axes and extents agree with each operator's rule, weights exist in the form and size that
    /// their kernel reads, and all outputs together stay below [`MAX_PLAN_BYTES`].
    ///
    /// Errors: the first node that breaks a rule, by index and name, with what was found and wanted.
    pub fn validate(&self, weights: &[Weight]) -> Result<(), PackError> {
        validate::graph(self, weights)
    }

    /// The weights that this plan reads, each by the place that names it, in execution order: for whoever moves a
    /// plan from one weight table to another.
    pub fn weights_mut(&mut self) -> impl Iterator<Item = &mut WeightId> {
        let bodies = self.bodies.iter_mut().flat_map(|b| &mut b.nodes);
        bodies.chain(&mut self.nodes).flat_map(|n| n.op.weights_mut())
    }

    /// The fact of an outlet, where there is one.
    #[must_use]
    pub fn fact(&self, outlet: Outlet) -> Option<&Fact> {
        fact_of(&self.nodes, outlet)
    }
}
