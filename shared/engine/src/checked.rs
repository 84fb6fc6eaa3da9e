//! A graph to run: one that checks what its nodes give against what its plan says, or one of tract's own making.

use crate::planned::{NodeFacts, PlannedGraph};
use glowplug_pack::Region;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tract_core::internal::{
    RunOptions, TValue, TVec, TractResult, TypedModel, TypedSimplePlan, TypedSimpleState,
};

/// A runnable graph. Any number of threads may run it.
pub(crate) enum CheckedGraph {
    /// In order already, with the fact of every outlet, since its operators trust them.
    Planned(PlannedGraph),
    /// Where tract wired and compiled the graph itself, and looks after its own values.
    Compiled(CompiledGraph),
}

/// A graph that came out of tract's own passes: nothing in it rests on facts of ours.
pub(crate) struct CompiledGraph {
    plan: Arc<TypedSimplePlan>,
    /// Scratch of runs that ended, for those to come.
    idle: Mutex<Vec<TypedSimpleState>>,
}

impl CheckedGraph {
    /// The graph of a plan. Errors: as [`PlannedGraph::new`].
    pub(crate) fn new(
        model: TypedModel,
        facts: Vec<NodeFacts>,
        region: Arc<Region>,
    ) -> TractResult<CheckedGraph> {
        PlannedGraph::new(model, facts, region).map(CheckedGraph::Planned)
    }

    /// A graph that came out of tract's own passes. Cost: an order of evaluation, no pass.
    pub(crate) fn compiled(model: TypedModel) -> TractResult<CheckedGraph> {
        let plan = TypedSimplePlan::build(model, &RunOptions::default())?;
        Ok(CheckedGraph::Compiled(CompiledGraph { plan: Arc::new(plan), idle: Mutex::default() }))
    }

    /// How many nodes it has.
    pub(crate) fn len(&self) -> usize {
        match self {
            CheckedGraph::Planned(graph) => graph.len(),
            CheckedGraph::Compiled(graph) => graph.plan.model().nodes.len(),
        }
    }

    /// Runs all nodes once.
    pub(crate) fn run(&self, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        match self {
            CheckedGraph::Planned(graph) => graph.run(inputs),
            CheckedGraph::Compiled(graph) => graph.run(inputs),
        }
    }
}

impl CompiledGraph {
    fn run(&self, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let idle = self.idle().pop();
        let mut state = match idle {
            Some(state) => state,
            None => TypedSimpleState::new(&self.plan)?,
        };
        // A state that failed is dropped: it holds values of the run that ended early.
        let outputs = state.run(inputs)?;
        self.idle().push(state);
        Ok(outputs)
    }

    /// A panic in another run cannot leave the list half-changed, so poison is of no concern.
    fn idle(&self) -> MutexGuard<'_, Vec<TypedSimpleState>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for CheckedGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} nodes", self.len())
    }
}
