//! What is asked of pruning, and what it tells.

use crate::evaluate::Score;
use serde::Serialize;

/// How much is to be removed, and whether weights are re-solved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prune {
    /// The part of all multiply-adds that goes, above 0 and below 1. At least so many go.
    pub macs: f64,
    /// Whether the consumers of removed channels are fitted to the unpruned network's outputs.
    pub restore: bool,
}

/// What pruning did.
#[derive(Clone, Debug, Serialize)]
pub struct PruneReport {
    /// Multiply-adds of a run at the default shapes before: those of convolutions and of products with weights.
    pub macs_before: u64,
    /// And after.
    pub macs_after: u64,
    /// Whether weights were re-solved.
    pub restored: bool,
    /// Layers that lost channels.
    pub layers: Vec<PrunedLayer>,
    /// The metric of the pruned f32 model, where there are data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<Score>,
    /// The same with the same channels gone and no weight re-solved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score_without_restoring: Option<Score>,
}

/// A layer that lost channels.
#[derive(Clone, Debug, Serialize)]
pub struct PrunedLayer {
    /// The name of the convolution or product that computes them.
    pub name: String,
    /// How many there were.
    pub before: usize,
    /// How many are left.
    pub after: usize,
}
