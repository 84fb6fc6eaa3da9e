//! `Plan`: a model ready to run.

use crate::checked::CheckedGraph;
use crate::decode::decode;
use crate::error::{EngineError, ErrorKind};
use crate::expanded::ExpandedWeights;
use crate::panels::{Waits, with_waits};
use crate::plans::Plans;
use crate::portable;
use crate::target::{TRACT_VERSION, missing};
use crate::team::{self, Team};
use crate::values::{from_tract, to_tract};
use glowplug_pack::manifest::Axis;
use glowplug_pack::plan::{Fact, Node, Op, Operand, Outlet, PlanGraph, PlanHead, ScanInput, fact_of};
use glowplug_pack::{DisplayShape, Dtype, EncodedPanel, Form, Pack, Region, Tensor, WeightId};
use std::sync::Arc;
use std::time::Instant;
use tract_core::internal::{IntoTValue, TVec, TractError, TractResult};

/// How to build a plan.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// Until when to wait for the bytes of constants; for ever where absent.
    pub deadline: Option<Instant>,
    /// Threads of one run. Above 1 the plan starts a pool and keeps it, unless a run is too short to gain from it.
    pub threads: usize,
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
    /// The threads that share a run; none where one does it.
    pub(crate) team: Option<Team>,
}

impl Plan {
    /// The plan of `pack` for the shapes of its manifest, its weights read in place from `region`: as
    /// [`Plans::at`](crate::Plans::at) for those shapes.
    pub fn build(
        pack: Arc<Pack>,
        region: Arc<Region>,
        options: &BuildOptions,
    ) -> Result<Arc<Plan>, EngineError> {
        let plans = Plans::open(pack, region, options)?;
        plans.at(&plans.default_shapes())
    }

    /// The plan of one section.
    pub(crate) fn from_section(
        pack: &Pack,
        region: &Arc<Region>,
        expanded: &ExpandedWeights,
        section: &[u8],
        options: &BuildOptions,
    ) -> Result<Plan, EngineError> {
        let graph = PlanGraph::decode(section, pack.weights())?;
        let (inputs, outputs) = ports(pack, &graph)?;
        let team = if work(pack, &graph) < WORTH_SHARING { None } else { team(options) };
        let waits = Waits { deadline: options.deadline, helpers: false };
        let (target, graph) = with_waits(waits, || decode(pack, region, expanded, graph))?;
        Ok(Plan { graph, inputs, outputs, target, source: Source::Tuned, team })
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
        let work = || team::run(self.team.as_ref(), deadline, || self.graph.run(values));
        let outputs = match self.source {
            Source::Tuned => work().map_err(|e| run(&e))?,
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

/// The threads of a run, where several were asked for.
pub(crate) fn team(options: &BuildOptions) -> Option<Team> {
    (options.threads > 1).then(|| Team::new(options.threads))
}

/// Multiplications below which a run on several threads is no faster: some fifty microseconds' worth.
const WORTH_SHARING: usize = 4 << 20;

/// About how many multiplications a run takes that threads can share: those of the runs of a loop that wait for each
/// other are not counted.
fn work(pack: &Pack, graph: &PlanGraph) -> usize {
    let all = |nodes: &[Node]| {
        let each = nodes.iter().map(|node| node_work(pack, nodes, node));
        each.fold(0, usize::saturating_add)
    };
    let of_loop = |node: &Node| match &node.op {
        Op::Scan { body, inputs, .. } if !inputs.contains(&ScanInput::State) => {
            let positions = |(from, outlet): (&ScanInput, &Outlet)| match (from, graph.fact(*outlet)?) {
                (ScanInput::Position { axis, .. }, Fact::Tensor { shape, .. }) => shape.get(*axis).copied(),
                _ => None,
            };
            let runs = inputs.iter().zip(&node.inputs).find_map(positions).unwrap_or(1);
            graph.bodies.get(*body).map_or(0, |body| all(&body.nodes)).saturating_mul(runs)
        }
        _ => 0,
    };
    graph.nodes.iter().map(of_loop).fold(all(&graph.nodes), usize::saturating_add)
}

/// About how many multiplications one of `nodes` takes.
fn node_work(pack: &Pack, nodes: &[Node], node: &Node) -> usize {
    let depth = |id: WeightId| match pack.weight(id).map(|w| &w.form) {
        Ok(Form::Panels { k, .. } | Form::EncodedPanels { panel: EncodedPanel { k, .. }, .. }) => *k,
        _ => 1,
    };
    let each = match &node.op {
        Op::MatMul { a: Operand::Weight { weight }, .. }
        | Op::MatMul { b: Operand::Weight { weight }, .. } => depth(*weight),
        Op::MatMul { .. } => {
            let panels = |o: &Outlet| match fact_of(nodes, *o) {
                Some(Fact::Panels { k, .. }) => Some(*k),
                _ => None,
            };
            node.inputs.iter().filter_map(panels).max().unwrap_or(1)
        }
        Op::BlockedConv { kernel: weight, .. }
        | Op::Int8Conv { kernel: weight, .. }
        | Op::Dense { weight, .. } => depth(*weight),
        // Of its key and of its value, for each value of the output.
        Op::Attention { keys, .. } => keys.saturating_mul(2),
        Op::BlockedDepthwiseConv { window, .. }
        | Op::Int8DepthwiseConv { window, .. }
        | Op::Int8MaxPool { window } => window.kernel.0.saturating_mul(window.kernel.1),
        _ => 1,
    };
    let values = |fact: &Fact| match fact {
        Fact::Tensor { shape, .. } => shape.iter().product(),
        Fact::Panels { k, mn, .. } => k.saturating_mul(*mn),
    };
    node.outputs.iter().map(values).fold(0, usize::saturating_add).saturating_mul(each)
}

/// Why a plan does not run here, if so.
pub(crate) fn unfit(head: &PlanHead) -> Option<String> {
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
    let inputs = manifest.inputs.iter().map(|i| (&i.name, i.dtype, i.axes.as_slice()));
    let outputs = manifest.outputs.iter().map(|o| (&o.name, o.dtype, o.axes.as_slice()));
    let end = |o: &glowplug_pack::plan::Outlet| match graph.fact(*o) {
        Some(Fact::Tensor { dtype, shape }) => Some((*dtype, shape.clone())),
        _ => None,
    };
    let given: Vec<End> = graph.outputs.iter().filter_map(end).collect();
    Ok((named("input", inputs, &graph.head.inputs)?, named("output", outputs, &given)?))
}

/// The plan's side under the manifest's names. Along open axes a plan may have another extent.
fn named<'a>(
    side: &str,
    manifest: impl ExactSizeIterator<Item = (&'a String, Dtype, &'a [Axis])>,
    plan: &[End],
) -> Result<Vec<Port>, EngineError> {
    let bad = |text: String| Err(EngineError::new(ErrorKind::Pack, text));
    if manifest.len() != plan.len() {
        return bad(format!("{} {side}s in the manifest, {} in the plan", manifest.len(), plan.len()));
    }
    let mut ports = Vec::with_capacity(plan.len());
    for ((name, dtype, axes), (found, shape)) in manifest.zip(plan) {
        let fits = axes.len() == shape.len()
            && axes.iter().zip(shape).all(|(axis, n)| axis.symbolic || axis.size == *n);
        if dtype != *found || !fits {
            let wanted: Vec<_> = axes.iter().map(|a| a.size).collect();
            let (wanted, shape) = (DisplayShape(&wanted), DisplayShape(shape));
            return bad(format!(
                "{side} {name:?} is {dtype}{wanted} in the manifest, {found}{shape} in the plan"
            ));
        }
        ports.push(Port { name: name.clone(), dtype, shape: shape.clone() });
    }
    Ok(ports)
}
