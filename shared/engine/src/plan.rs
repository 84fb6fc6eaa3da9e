//! `Plan`: a model ready to run.

use crate::checked::CheckedGraph;
use crate::decode::decode;
use crate::error::{EngineError, ErrorKind};
use crate::panels::with_deadline;
use crate::portable;
use crate::target::{TRACT_VERSION, missing};
use crate::values::{from_tract, to_tract};
use glowplug_pack::plan::{Fact, PlanGraph, PlanHead};
use glowplug_pack::{DisplayShape, Dtype, Pack, Region, Tensor};
use std::sync::Arc;
use std::time::Instant;
use tract_core::internal::{IntoTValue, TVec, TractError, TractResult};
use tract_linalg::multithread::{Executor, multithread_tract_scope};

/// How to build a plan.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// Until when to wait for the bytes of constants; for ever where absent.
    pub deadline: Option<Instant>,
    /// Threads of one run. Above 1, matrix products are shared with a pool that the plan starts and keeps.
    pub threads: usize,
    /// The shapes of the inputs, in order; those that the manifest tells where absent. A tuned plan serves
    /// the shapes it was made for, the portable graph all others that it can.
    pub shapes: Option<Vec<Vec<usize>>>,
    /// Leaves the tuned plans out, to see what the portable graph does.
    pub portable: bool,
}

/// What a plan was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A tuned plan of the pack: no graph pass was run.
    Tuned,
    /// The pack's portable graph, compiled for this CPU as it was loaded.
    Portable,
}

impl Source {
    /// `tuned` or `portable`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Source::Tuned => "tuned",
            Source::Portable => "portable",
        }
    }
}

/// One input or output of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The ONNX name.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Extents, outermost first.
    pub shape: Vec<usize>,
}

/// A model ready to run on this CPU. `Send + Sync`: one plan serves any number of threads.
pub struct Plan {
    pub(crate) graph: CheckedGraph,
    pub(crate) inputs: Vec<Port>,
    pub(crate) outputs: Vec<Port>,
    pub(crate) target: String,
    pub(crate) source: Source,
    /// Who helps with large products; nobody where absent.
    pub(crate) pool: Option<Executor>,
}

impl Plan {
    /// The plan of `pack` for this CPU, its weights read in place from `region`: a tuned one that fits, or
    /// else one made from the portable graph, with a warning that tells why each tuned plan was left out.
    ///
    /// With a tuned plan it waits for the front of the pack only, and for blobs when they are needed; the
    /// portable graph waits for all of the pack. Errors: [`ErrorKind::UnsupportedCpu`] where no plan fits and
    /// there is no portable graph, with the reason for each; [`ErrorKind::Input`] for shapes that nothing in
    /// the pack takes; [`ErrorKind::Pack`] for a plan that does not validate; transfer errors. Cost: no graph
    /// pass, no copy of a blob, a millisecond for a few hundred nodes; a hundred times that and a copy of the
    /// weights where the portable graph has to serve.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "a plan keeps its region: the caller hands over a share"
    )]
    pub fn build(pack: &Pack, region: Arc<Region>, options: &BuildOptions) -> Result<Plan, EngineError> {
        let pinned = || pack.manifest().inputs.iter().map(|i| i.shape()).collect();
        let shapes: Vec<_> = options.shapes.clone().unwrap_or_else(pinned);
        let mut skipped = Vec::new();
        for (i, section) in pack.plans().enumerate() {
            let head = PlanHead::read(section)?;
            let built = match unfit(&head, &shapes, options) {
                Some(why) => Err(EngineError::new(ErrorKind::UnsupportedCpu, why)),
                None => {
                    with_deadline(options.deadline, || Plan::from_section(pack, &region, section, options))
                }
            };
            match built {
                Err(e) if e.kind() == ErrorKind::UnsupportedCpu => {
                    tracing::info!(plan = i, target = %head.target, reason = %e, "plan skipped");
                    skipped.push(format!("plan {i}: {e}"));
                }
                other => return other,
            }
        }
        let why = if skipped.is_empty() { "the pack holds none".to_owned() } else { skipped.join("; ") };
        if pack.portable_range().is_none() {
            return Err(EngineError::new(ErrorKind::UnsupportedCpu, format!("no plan fits: {why}")));
        }
        if !options.portable {
            tracing::warn!(reason = %why, "no tuned plan fits, the portable graph serves: slower to load");
        }
        portable::build(pack, &region, &shapes, options)
    }

    fn from_section(
        pack: &Pack,
        region: &Arc<Region>,
        section: &[u8],
        options: &BuildOptions,
    ) -> Result<Plan, EngineError> {
        let graph = PlanGraph::decode(section, pack.weights())?;
        let (inputs, outputs) = ports(pack, &graph)?;
        let (target, graph) = decode(pack, region, graph)?;
        Ok(Plan { graph, inputs, outputs, target, source: Source::Tuned, pool: pool(options) })
    }

    /// What it takes, in the order of [`Plan::run`]'s arguments.
    #[must_use]
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// What it gives, in the order of [`Plan::run`]'s results.
    #[must_use]
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// The instruction sets it was planned for.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// What it was made from.
    #[must_use]
    pub fn source(&self) -> Source {
        self.source
    }

    /// Runs the model on this thread, however long it takes. As [`Plan::run_until`] without a deadline.
    pub fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
        self.run_until(inputs, None)
    }

    /// Runs the model on this thread; blocks, so never on an async runtime's thread.
    ///
    /// `deadline` bounds the waits for bytes that are still on their way, not the computation. Errors:
    /// [`ErrorKind::Input`] with name, found and wanted; [`ErrorKind::Run`] such as an index out of range;
    /// [`ErrorKind::Timeout`] and [`ErrorKind::Transfer`] for bytes that do not come. Cost: one copy of each
    /// input and output; scratch is reused between runs.
    pub fn run_until(
        &self,
        inputs: &[Tensor],
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>, EngineError> {
        self.check_inputs(inputs)?;
        let run = |e: &TractError| EngineError::from_tract(ErrorKind::Run, e);
        let values = inputs.iter().map(|t| Ok(to_tract(t)?.into_tvalue())).collect::<TractResult<TVec<_>>>();
        let values = values.map_err(|e| run(&e))?;
        let work = || self.graph.run(values);
        let work = || match &self.pool {
            Some(pool) => multithread_tract_scope(pool.clone(), work),
            None => work(),
        };
        let outputs = match self.source {
            Source::Tuned => with_deadline(deadline, work).map_err(|e| run(&e))?,
            Source::Portable => portable::run(work, &self.outputs)?,
        };
        outputs.iter().map(|t| from_tract(t)).collect::<TractResult<_>>().map_err(|e| run(&e))
    }

    fn check_inputs(&self, inputs: &[Tensor]) -> Result<(), EngineError> {
        let bad = |text: String| Err(EngineError::new(ErrorKind::Input, text));
        if inputs.len() != self.inputs.len() {
            let names: Vec<_> = self.inputs.iter().map(|p| &*p.name).collect();
            return bad(format!("{} inputs, expected {}: {}", inputs.len(), names.len(), names.join(", ")));
        }
        for (tensor, port) in inputs.iter().zip(&self.inputs) {
            if tensor.dtype() != port.dtype || tensor.shape() != port.shape {
                let wanted = DisplayShape(&port.shape);
                return bad(format!("input {:?} is {tensor}, expected {}{wanted}", port.name, port.dtype));
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plan({} nodes for {}, {})", self.graph.len(), self.target, self.source.name())
    }
}

/// Who helps with large products, where somebody may.
pub(crate) fn pool(options: &BuildOptions) -> Option<Executor> {
    (options.threads > 1).then(|| Executor::multithread(options.threads))
}

/// Why a tuned plan does not serve here, if so.
fn unfit(head: &PlanHead, shapes: &[Vec<usize>], options: &BuildOptions) -> Option<String> {
    if options.portable {
        return Some("the portable graph was asked for".to_owned());
    }
    if !head.inputs.iter().map(|(_, shape)| shape).eq(shapes) {
        let planned: Vec<_> = head.inputs.iter().map(|(_, shape)| shape).collect();
        return Some(format!("made for inputs of {planned:?}, found {shapes:?}"));
    }
    if head.tract != TRACT_VERSION {
        return Some(format!("planned by tract {}, this build has {TRACT_VERSION}", head.tract));
    }
    missing(&head.target)
}

/// Dtype and shape of one end of a plan.
type End = (Dtype, Vec<usize>);

/// The plan's ends under the manifest's names. Errors: a manifest that tells another graph.
fn ports(pack: &Pack, graph: &PlanGraph) -> Result<(Vec<Port>, Vec<Port>), EngineError> {
    let manifest = pack.manifest();
    let inputs = manifest.inputs.iter().map(|i| (&i.name, (i.dtype, i.shape())));
    let outputs = manifest.outputs.iter().map(|o| (&o.name, (o.dtype, o.shape())));
    let end = |o: &glowplug_pack::plan::Outlet| match graph.fact(*o) {
        Some(Fact::Tensor { dtype, shape }) => Some((*dtype, shape.clone())),
        _ => None,
    };
    let given: Vec<End> = graph.outputs.iter().filter_map(end).collect();
    Ok((named("input", inputs, &graph.head.inputs)?, named("output", outputs, &given)?))
}

fn named<'a>(
    side: &str,
    manifest: impl ExactSizeIterator<Item = (&'a String, End)>,
    plan: &[End],
) -> Result<Vec<Port>, EngineError> {
    let bad = |text: String| Err(EngineError::new(ErrorKind::Pack, text));
    if manifest.len() != plan.len() {
        return bad(format!("{} {side}s in the manifest, {} in the plan", manifest.len(), plan.len()));
    }
    let mut ports = Vec::with_capacity(plan.len());
    for ((name, found), wanted) in manifest.zip(plan) {
        if found != *wanted {
            return bad(format!("{side} {name:?} is {found:?} in the manifest, {wanted:?} in the plan"));
        }
        let (dtype, shape) = found;
        ports.push(Port { name: name.clone(), dtype, shape });
    }
    Ok(ports)
}
