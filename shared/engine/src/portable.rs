//! A plan from the portable graph: for a machine or a shape that no tuned plan of the pack fits.
//!
//! Nothing here is fast to load: the graph is wired through tract's public operators, simplified and
//! compiled for this CPU, and weights are copied out of the blobs. The answers are those of a tuned plan.

mod constants;
mod decode;
mod ops;

use crate::checked::CheckedGraph;
use crate::error::{EngineError, ErrorKind};
use crate::plan::{BuildOptions, Plan, Port, Source, team};
use crate::target;
use crate::values::datum_type;
use constants::Constants;
use glowplug_pack::manifest::Axis;
use glowplug_pack::portable::{Extents, Fact, PortableGraph, Subgraph};
use glowplug_pack::{Pack, Region};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tract_core::internal::{TValue, TVec, TractResult, ensure};

/// The plan of the pack's portable graph for inputs of `shapes`.
///
/// Waits for the whole pack: the graph is its last section. Errors: [`ErrorKind::UnsupportedCpu`] where the
/// pack holds none; [`ErrorKind::Input`] for shapes that it does not take; [`ErrorKind::Pack`] for a graph
/// that does not validate, or that tract refuses; transfer errors. Cost: tens of milliseconds, and twice the
/// weights in memory while it is made.
pub(crate) fn build(
    pack: &Pack,
    region: &Region,
    shapes: &[Vec<usize>],
    options: &BuildOptions,
) -> Result<Plan, EngineError> {
    let range = pack
        .portable_range()
        .ok_or_else(|| EngineError::new(ErrorKind::UnsupportedCpu, "the pack holds no portable graph"))?;
    let section = region.wait(range, options.deadline)?;
    let (graph, data) = PortableGraph::decode(section, pack.weights())?;
    let extents = graph.extents(shapes).map_err(|e| EngineError::new(ErrorKind::Input, e.to_string()))?;
    let (inputs, outputs) = ports(pack, &graph, &extents)?;
    let constants = Constants { pack, region, data, deadline: options.deadline };
    let graph = guard("portable graph", ErrorKind::Pack, || {
        let mut model = decode::model(&graph, &extents, &constants)?;
        // The packer simplified it: where no symbol got a value since, there is nothing left to simplify.
        if !graph.symbols.is_empty() {
            model.declutter()?;
        }
        model.optimize()?;
        CheckedGraph::compiled(model)
    })?;
    let (target, source) = (target::host(), Source::Portable);
    Ok(Plan { graph, inputs, outputs, target, source, team: team(options) })
}

/// Runs a graph whose operators are tract's own, and checks what it gives.
pub(crate) fn run(
    work: impl FnOnce() -> TractResult<TVec<TValue>>,
    ports: &[Port],
) -> Result<TVec<TValue>, EngineError> {
    guard("run", ErrorKind::Run, || {
        let outputs = work()?;
        for (found, Port { name, dtype, shape }) in outputs.iter().zip(ports) {
            let fits = found.datum_type() == datum_type(*dtype) && found.shape() == shape;
            ensure!(fits, "output {name:?} is {found:?}, expected {dtype} {shape:?}");
        }
        Ok(outputs)
    })
}

/// tract panics where it is told two things that contradict each other, or given an index out of range. What
/// it is told here was written by others, so a panic of it is an error of theirs.
fn guard<T>(what: &str, kind: ErrorKind, f: impl FnOnce() -> TractResult<T>) -> Result<T, EngineError> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(result) => result.map_err(|e| EngineError::from_tract(kind, &e.context(what.to_owned()))),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
            Err(EngineError::new(kind, format!("{what}: broke an assumption of tract: {text}")))
        }
    }
}

/// The graph's ends under the manifest's names. Errors: a manifest that tells another graph.
fn ports(
    pack: &Pack,
    graph: &PortableGraph,
    extents: &Extents,
) -> Result<(Vec<Port>, Vec<Port>), EngineError> {
    let main = graph.main()?;
    let manifest = pack.manifest();
    let inputs = manifest.inputs.iter().map(|i| (&*i.name, i.dtype, &*i.axes));
    let outputs = manifest.outputs.iter().map(|o| (&*o.name, o.dtype, &*o.axes));
    let given = main.outputs.iter().filter_map(|o| main.fact(*o)).collect();
    Ok((named("input", inputs, input_facts(main), extents)?, named("output", outputs, given, extents)?))
}

fn input_facts(main: &Subgraph) -> Vec<&Fact> {
    (0..main.inputs.len()).filter_map(|i| main.input(i)).collect()
}

fn named<'a>(
    side: &str,
    manifest: impl ExactSizeIterator<Item = (&'a str, glowplug_pack::Dtype, &'a [Axis])>,
    facts: Vec<&Fact>,
    extents: &Extents,
) -> Result<Vec<Port>, EngineError> {
    let bad = |text: String| EngineError::new(ErrorKind::Pack, text);
    if manifest.len() != facts.len() {
        let text =
            format!("{} {side}s in the manifest, {} in the portable graph", manifest.len(), facts.len());
        return Err(bad(text));
    }
    let port = |((name, dtype, axes), fact): ((&str, _, &[Axis]), &Fact)| {
        let shape = extents.shape(fact).filter(|s| fact.dtype == dtype && s.len() == axes.len());
        let shape = shape.ok_or_else(|| {
            let axes = axes.len();
            bad(format!(
                "{side} {name:?} is {dtype} of {axes} axes in the manifest, {fact:?} in the portable graph"
            ))
        })?;
        Ok(Port { name: name.to_owned(), dtype, shape })
    };
    manifest.zip(facts).map(port).collect()
}
