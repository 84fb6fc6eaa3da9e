//! `PlannedGraph`: nodes in the order in which they run, and the loop that runs them, checking what each gives
//! against what its plan says.
//!
//! tract's own plan computes an order, looks for symbols and keeps a description of every value. A tuned plan
//! comes in order and has no symbols, so all of that is time before the first answer: half a microsecond a node
//! to build and as much to run. What is left is this loop over tract's operators.

use crate::panels::{deadline, has_helpers};
use crate::profile::{self, NodeTime};
use crate::values::check;
use glowplug_pack::Region;
use glowplug_pack::plan::Fact;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tract_core::internal::{
    DatumTypeExt, EvalContext, IntoTValue, OpState, OutletId, TValue, TVec, TractError, TractResult,
    TypedModel, TypedOp, TypedSimplePlan, TypedSimpleState, ensure, format_err, tensor0, tvec,
};
use tract_core::ops::konst::Const;
use tract_core::plan::{Seating, SessionId};
use tract_core::prelude::{DatumType, SymbolValues};

/// One node to run.
struct Step {
    /// Its place in the table of values.
    id: usize,
    name: String,
    operator: &'static str,
    op: Box<dyn TypedOp>,
    inputs: Vec<OutletId>,
    /// Values that no later step reads.
    frees: Vec<usize>,
    /// What it gives.
    facts: Vec<Fact>,
    /// The matrices that a kernel reads in place, as ranges of the file.
    weights: Vec<Range<u64>>,
}

/// What a node of the plan gives and reads, beside what tract's model tells.
pub(crate) struct NodeFacts {
    /// The plan's name of what it does.
    pub(crate) operator: &'static str,
    /// What it gives.
    pub(crate) outputs: Vec<Fact>,
    /// The matrices that a kernel reads in place, as ranges of the file.
    pub(crate) weights: Vec<Range<u64>>,
}

/// A runnable graph with the fact of every outlet. Any number of threads may run it.
pub(crate) struct PlannedGraph {
    steps: Vec<Step>,
    constants: Vec<(usize, TValue)>,
    inputs: Vec<usize>,
    outputs: Vec<OutletId>,
    nodes: usize,
    region: Arc<Region>,
    /// Scratch of runs that ended, for those to come.
    idle: Mutex<Vec<State>>,
}

impl PlannedGraph {
    /// The graph of `model`, whose nodes are in execution order and described by `facts`.
    /// Errors: a node that reads a later one; facts of another model.
    pub(crate) fn new(
        model: TypedModel,
        facts: Vec<NodeFacts>,
        region: Arc<Region>,
    ) -> TractResult<PlannedGraph> {
        let nodes = model.nodes.len();
        ensure!(facts.len() == nodes, "{} facts for {nodes} nodes", facts.len());
        let last = last_uses(&model);
        let inputs: Vec<usize> = model.inputs.iter().map(|o| o.node).collect();
        let outputs = model.outputs.clone();
        let (mut steps, mut constants) = (Vec::with_capacity(nodes), Vec::new());
        for (node, facts) in model.nodes.into_iter().zip(facts) {
            let id = node.id;
            if let Some(constant) = node.op.downcast_ref::<Const>() {
                let value = constant.val().clone().into_tvalue();
                check_all(&node.name, std::slice::from_ref(&value), &facts.outputs)?;
                constants.push((id, value));
                continue;
            }
            if inputs.contains(&id) {
                continue;
            }
            ensure!(node.inputs.iter().all(|o| o.node < id), "node {:?} runs before its input", node.name);
            let mut frees: Vec<usize> = node.inputs.iter().map(|o| o.node).collect();
            frees.retain(|input| last[*input] == Some(id));
            if last[id].is_none() {
                frees.push(id);
            }
            let NodeFacts { operator, outputs, weights } = facts;
            steps.push(Step {
                id,
                name: node.name,
                operator,
                op: node.op,
                inputs: node.inputs,
                frees,
                facts: outputs,
                weights,
            });
        }
        Ok(PlannedGraph { steps, constants, inputs, outputs, nodes, region, idle: Mutex::default() })
    }

    /// How many nodes it has.
    pub(crate) fn len(&self) -> usize {
        self.nodes
    }

    /// Runs all nodes once. Every node's output is checked against the plan before any other node sees it.
    pub(crate) fn run(&self, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let idle = self.idle().pop();
        let mut state = match idle {
            Some(state) => state,
            None => State::new(self)?,
        };
        let outputs = self.run_in(&mut state, inputs);
        match &outputs {
            Ok(_) => self.idle().push(state),
            // Dropped: it holds values of the run that ended early.
            Err(_) => state.close(self),
        }
        outputs
    }

    fn run_in(&self, state: &mut State, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        ensure!(inputs.len() == self.inputs.len(), "{} inputs for {}", inputs.len(), self.inputs.len());
        for (id, value) in self.inputs.iter().zip(inputs) {
            state.values[*id] = Some(tvec!(value));
        }
        let mut record = profile::take();
        for step in &self.steps {
            let start = record.as_ref().map(|_| Instant::now());
            let given = step.run(state, &self.region)?;
            if let Some((record, start)) = record.as_mut().zip(start) {
                let ms = start.elapsed().as_secs_f64() * 1e3;
                record.push(NodeTime { node: step.name.clone(), operator: step.operator, ms });
            }
            if step.frees.last() != Some(&step.id) {
                state.values[step.id] = Some(given);
            }
        }
        if let Some(record) = record {
            profile::put(record);
        }
        let outputs = self.outputs.iter().map(|outlet| state.value(*outlet)).collect();
        state.clear(self);
        outputs
    }

    /// A panic in another run cannot leave the list half-changed, so poison is of no concern.
    fn idle(&self) -> MutexGuard<'_, Vec<State>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PlannedGraph {
    fn drop(&mut self) {
        let idle = std::mem::take(&mut *self.idle());
        idle.iter().for_each(|state| state.close(self));
    }
}

impl Step {
    fn run(&self, state: &mut State, region: &Region) -> TractResult<TVec<TValue>> {
        // Helpers of a run on several threads do not know its deadline, so they must find the matrices there.
        if has_helpers() {
            for range in &self.weights {
                region.wait(range.clone(), deadline())?;
            }
        }
        let inputs =
            self.inputs.iter().map(|outlet| state.value(*outlet)).collect::<TractResult<TVec<_>>>()?;
        // Before the node runs, which may then write into an input that nobody else will read.
        for freed in &self.frees {
            state.values[*freed] = None;
        }
        let context = EvalContext {
            session: state.session.id,
            node_id: self.id,
            symbols: &state.symbols,
            scenario: None,
            shared: None,
            seating: &state.seating,
        };
        // What an operator keeps between iterations of its own must not outlive the run.
        let given = match self.op.state(&context)? {
            None => self.op.eval(&context, inputs),
            Some(mut kept) => OpState::eval(&mut *kept, &context, self.op.as_op(), inputs),
        };
        let given = given.map_err(|e| e.context(format!("node {:?}", self.name)))?;
        check_all(&self.name, &given, &self.facts)?;
        Ok(given)
    }
}

fn check_all(name: &str, values: &[TValue], facts: &[Fact]) -> TractResult<()> {
    ensure!(facts.len() == values.len(), "node {name:?} gave {} values of {}", values.len(), facts.len());
    let mut pairs = values.iter().zip(facts);
    pairs.try_for_each(|(value, fact)| check(value, fact).map_err(|e| e.context(format!("node {name:?}"))))
}

/// The last node to read each node's values; nobody where they are outputs or never read.
fn last_uses(model: &TypedModel) -> Vec<Option<usize>> {
    let mut last = vec![None; model.nodes.len()];
    for node in &model.nodes {
        for input in &node.inputs {
            last[input.node] = Some(node.id);
        }
    }
    for output in &model.outputs {
        last[output.node] = Some(usize::MAX);
    }
    for node in &model.nodes {
        if node.op.is::<Const>() {
            last[node.id] = Some(usize::MAX);
        }
    }
    last
}

/// What one run at a time needs, kept for the next.
pub(crate) struct State {
    values: Vec<Option<TVec<TValue>>>,
    session: Session,
    symbols: SymbolValues,
    seating: Seating,
}

impl State {
    /// Errors: none that a well-formed graph could cause.
    pub(crate) fn new(graph: &PlannedGraph) -> TractResult<State> {
        let mut state = State {
            values: vec![None; graph.nodes],
            session: Session::new()?,
            symbols: SymbolValues::default(),
            seating: Seating::single(),
        };
        state.clear(graph);
        Ok(state)
    }

    /// The constants and nothing else.
    fn clear(&mut self, graph: &PlannedGraph) {
        self.values.fill(None);
        for (id, value) in &graph.constants {
            self.values[*id] = Some(tvec!(value.clone()));
        }
    }

    fn value(&self, outlet: OutletId) -> TractResult<TValue> {
        let values = self.values.get(outlet.node).and_then(Option::as_ref);
        let value = values.and_then(|values| values.get(outlet.slot));
        value.cloned().ok_or_else(|| format_err!("no value {outlet:?}"))
    }

    /// Gives back what operators of `graph` keep on this thread for this state's session.
    pub(crate) fn close(&self, graph: &PlannedGraph) {
        for step in &graph.steps {
            step.op.drop_session(self.session.id, step.id);
        }
    }
}

/// A name under which operators keep scratch on a thread, unlike that of any other state.
struct Session {
    id: SessionId,
    /// Whose name it is.
    _owner: TypedSimpleState,
}

impl Session {
    /// tract gives a new name to each state of its own, and tells it to the operators that the state runs.
    fn new() -> TractResult<Session> {
        let mut model = TypedModel::default();
        let source = model.add_source("x", DatumType::F32.scalar_fact())?;
        model.select_output_outlets(&[source])?;
        let mut owner = TypedSimpleState::new(&TypedSimplePlan::new(model)?)?;
        let mut id = SessionId::NONE;
        owner.run_plan_with_eval(tvec!(tensor0(0f32).into_tvalue()), |context, _, _, inputs| {
            id = context.session;
            Ok::<_, TractError>(inputs)
        })?;
        ensure!(id != SessionId::NONE, "a state without a session");
        Ok(Session { id, _owner: owner })
    }
}
