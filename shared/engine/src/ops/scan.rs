//! Scan: a body that runs once for each position along an axis.

use super::plan_op;
use crate::checked::CheckedGraph;
use crate::panels::{Waits, deadline, with_waits};
use crate::share::{for_each, threads};
use crate::team;
use glowplug_pack::plan::{ScanInput, ScanOutput};
use std::fmt;
use std::sync::{Arc, OnceLock};
use tract_core::internal::{
    EvalContext, EvalOp, IntoTValue, TValue, TVec, Tensor, TractResult, bail, ensure, not_out_of_plan,
};
use tract_linalg::multithread::Executor;

/// A loop. Every run of it begins with the states that its operands give.
#[derive(Clone)]
pub(crate) struct Scan {
    pub(crate) body: Arc<CheckedGraph>,
    pub(crate) inputs: Vec<ScanInput>,
    pub(crate) outputs: Vec<ScanOutput>,
    /// How often the body runs.
    pub(crate) iterations: usize,
    /// How many outputs the node has.
    pub(crate) arity: usize,
}
plan_op!(Scan);

/// What one run of the body gave, as far as somebody reads it.
type Given = TVec<Option<TValue>>;

/// What one output of the node is made of so far.
#[derive(Clone, Default)]
enum Collected {
    #[default]
    Nothing,
    Last(TValue),
    Positions {
        axis: usize,
        reverse: bool,
        values: Vec<TValue>,
    },
}

impl Scan {
    fn body_inputs(&self, turn: usize, operands: &[TValue], states: &[TValue]) -> TractResult<TVec<TValue>> {
        let mut states = states.iter();
        let input = |(from, operand): (&ScanInput, &TValue)| match from {
            ScanInput::Full => Ok(operand.clone()),
            ScanInput::State => match states.next() {
                Some(state) => Ok(state.clone()),
                None => bail!("a state without a value"),
            },
            ScanInput::Position { axis, reverse } => {
                let at = if *reverse { self.iterations - 1 - turn } else { turn };
                Ok(operand.slice(*axis, at, at + 1)?.into_tvalue())
            }
        };
        self.inputs.iter().zip(operands).map(input).collect()
    }

    /// How many runs do not wait for each other, of which every thread gets as many: those of a batch of images.
    fn side_by_side(&self) -> usize {
        match threads() {
            n if n > 1 && !self.inputs.contains(&ScanInput::State) => self.iterations - self.iterations % n,
            _ => 0,
        }
    }

    /// The first `count` runs, each as a whole on one thread. What a thread computes stays in its own caches, and it
    /// waits for nobody between two operators.
    fn run_side_by_side(&self, count: usize, operands: &[TValue]) -> TractResult<Vec<Given>> {
        let given: Vec<OnceLock<TractResult<Given>>> = (0..count).map(|_| OnceLock::new()).collect();
        let waits = Waits { deadline: deadline(), helpers: false };
        for_each(count, |turn| {
            let run = || Ok(self.kept(turn, self.body.run(self.body_inputs(turn, operands, &[])?)?));
            let result = with_waits(waits, || team::scope_of(Executor::SingleThread, run));
            // A number comes once, so the place is free.
            let _ = given[turn].set(result);
        });
        let result = |place: OnceLock<_>| match place.into_inner() {
            Some(result) => result,
            None => bail!("a run that nobody made"),
        };
        given.into_iter().map(result).collect()
    }

    /// What one run gave, without what nobody reads: the memory of a run beside others is what it leaves.
    fn kept(&self, turn: usize, given: TVec<TValue>) -> Given {
        let is_last = turn + 1 == self.iterations;
        let outputs = given.into_iter().zip(&self.outputs);
        outputs.map(|(value, to)| (is_last || to.positions.is_some()).then_some(value)).collect()
    }

    fn collect(&self, given: Given, collected: &mut [Collected]) {
        for (value, to) in given.into_iter().zip(&self.outputs) {
            let Some(value) = value else { continue };
            if let Some(last) = to.last {
                collected[last] = Collected::Last(value.clone());
            }
            if let Some(all) = to.positions {
                match &mut collected[all.slot] {
                    Collected::Positions { values, .. } => values.push(value),
                    slot => {
                        *slot = Collected::Positions {
                            axis: all.axis,
                            reverse: all.reverse,
                            values: vec![value],
                        };
                    }
                }
            }
        }
    }
}

impl Collected {
    fn finish(self) -> TractResult<TValue> {
        match self {
            Collected::Nothing => bail!("an output that no run of the body gave"),
            Collected::Last(value) => Ok(value),
            Collected::Positions { axis, reverse, mut values } => {
                if reverse {
                    values.reverse();
                }
                Ok(Tensor::stack_tensors(axis, &values)?.into_tvalue())
            }
        }
    }
}

impl EvalOp for Scan {
    not_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        ensure!(
            inputs.len() == self.inputs.len(),
            "{} operands, expected {}",
            inputs.len(),
            self.inputs.len()
        );
        let is_state = |(from, _): &(&ScanInput, &TValue)| **from == ScanInput::State;
        let mut states: Vec<TValue> =
            self.inputs.iter().zip(&inputs).filter(is_state).map(|(_, v)| v.clone()).collect();
        let mut collected = vec![Collected::default(); self.arity];
        let together = self.side_by_side();
        for given in self.run_side_by_side(together, &inputs)? {
            self.collect(given, &mut collected);
        }
        for turn in together..self.iterations {
            let given = self.body.run(self.body_inputs(turn, &inputs, &states)?)?;
            states =
                given.iter().zip(&self.outputs).filter(|(_, to)| to.state).map(|(v, _)| v.clone()).collect();
            self.collect(self.kept(turn, given), &mut collected);
        }
        collected.into_iter().map(Collected::finish).collect()
    }
}

impl PartialEq for Scan {
    fn eq(&self, other: &Scan) -> bool {
        Arc::ptr_eq(&self.body, &other.body) && self.inputs == other.inputs && self.outputs == other.outputs
    }
}

impl Eq for Scan {}

impl fmt::Debug for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scan({} times, {:?}, {:?})", self.iterations, self.inputs, self.outputs)
    }
}
