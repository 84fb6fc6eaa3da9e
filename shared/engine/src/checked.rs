//! A graph to run: one that checks what its nodes give against what its plan says, or one of tract's own making.

use crate::values::check;
use glowplug_pack::plan::Fact;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tract_core::internal::{
    RunOptions, TValue, TVec, TractError, TractResult, TypedModel, TypedSimplePlan, TypedSimpleState, ensure,
    format_err,
};

/// A runnable graph, with the fact of every outlet where operators trust it. Any number of threads may run it.
pub(crate) struct CheckedGraph {
    plan: Arc<TypedSimplePlan>,
    /// What each node gives, by node. Absent where tract wired and compiled the graph itself, and looks after
    /// its own values.
    facts: Option<Vec<Vec<Fact>>>,
    /// Scratch of runs that ended, for those to come.
    idle: Mutex<Vec<TypedSimpleState>>,
}

impl CheckedGraph {
    /// Cost: an order of evaluation for `model`, no pass over it.
    pub(crate) fn new(model: TypedModel, facts: Vec<Vec<Fact>>) -> TractResult<CheckedGraph> {
        CheckedGraph::build(model, Some(facts))
    }

    /// A graph that came out of tract's own passes: nothing in it rests on facts of ours.
    pub(crate) fn compiled(model: TypedModel) -> TractResult<CheckedGraph> {
        CheckedGraph::build(model, None)
    }

    fn build(model: TypedModel, facts: Option<Vec<Vec<Fact>>>) -> TractResult<CheckedGraph> {
        let plan = TypedSimplePlan::build(model, &RunOptions::default())?;
        Ok(CheckedGraph { plan: Arc::new(plan), facts, idle: Mutex::default() })
    }

    /// How many nodes it has.
    pub(crate) fn len(&self) -> usize {
        self.plan.model().nodes.len()
    }

    /// Every node's output is checked against the plan before any other node sees it.
    pub(crate) fn run(&self, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let idle = self.idle().pop();
        let mut state = match idle {
            Some(state) => state,
            None => TypedSimpleState::new(&self.plan)?,
        };
        // A state that failed is dropped: it holds values of the run that ended early.
        let outputs = state.run_plan_with_eval(inputs, |context, op_state, node, values| {
            let given = tract_core::plan::eval(context, op_state, node, values)?;
            let Some(facts) = &self.facts else { return Ok::<_, TractError>(given) };
            let facts = facts.get(node.id).ok_or_else(|| format_err!("no node {}", node.id))?;
            ensure!(facts.len() == given.len(), "{} gave {} values", node.name, given.len());
            for (value, fact) in given.iter().zip(facts) {
                check(value, fact).map_err(|e| e.context(format!("node {:?}", node.name)))?;
            }
            Ok::<_, TractError>(given)
        })?;
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
