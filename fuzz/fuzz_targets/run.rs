//! Hostile plans that the decoder and its rules let pass, built and run by the engine over the weights of one of
//! several packs.
//!
//! A plan that passed may fail to build or to run, but it must not panic, and no kernel may touch memory that is
//! not its own. What a kernel has no business with in the pack (all but the weights' values) is poisoned for the
//! address sanitizer. tract's own matrix kernels are assembly, into which the sanitizer cannot see.
#![no_main]

use glowplug_engine::{BuildOptions, Plan, Port, target};
use glowplug_fuzz::{Base, base, cost, mutate, poison};
use glowplug_pack::manifest::{Axis, InputSpec, ModelInfo, OutputSpec};
use glowplug_pack::plan::{Fact, PlanGraph};
use glowplug_pack::{
    Buffer, Dtype, Manifest, Pack, PackBuilder, PackError, Region, Tensor, WeightId, element_count,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((base, section)) = base(bytes) else { return };
    let Ok(graph) = PlanGraph::decode(section, base.pack.weights()) else { return };
    if cost::is_small(&graph, &base.pack) {
        // Any error is fine.
        let _ = run(base, graph);
    }
});

// Half of the time bytes are changed at random, as always, and half of the time a plan into another.
libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let plan = (seed % 2 == 0).then(|| mutate::section(data[..size].get(1..)?, seed / 2)).flatten();
    match plan.filter(|plan| plan.len() < max_size) {
        Some(plan) => {
            data[1..=plan.len()].copy_from_slice(&plan);
            1 + plan.len()
        }
        None => libfuzzer_sys::fuzzer_mutate(data, size, max_size),
    }
});

/// Builds the plan and runs it twice: the second run finds scratch of the first.
fn run(base: &Base, graph: PlanGraph) -> Result<(), Box<dyn std::error::Error>> {
    let file = file(base, graph)?;
    let region = Region::complete(Buffer::copy_of(&file)?);
    let pack = Pack::from_complete(&region)?;
    poison::all_but_weights(&pack, &region)?;
    let deadline = Some(Instant::now() + Duration::from_secs(5));
    let options = BuildOptions { deadline, threads: 1, portable: false };
    let plan = Plan::build(Arc::new(pack), Arc::new(region), &options)?;
    for turn in 0..2 {
        let inputs = plan.inputs().iter().map(|port| input(port, turn)).collect::<Result<Vec<_>, _>>()?;
        plan.run_until(&inputs, deadline)?;
    }
    Ok(())
}

/// The pack of `base` with `graph` as its one plan, made to fit this machine.
fn file(base: &Base, mut graph: PlanGraph) -> Result<Vec<u8>, PackError> {
    graph.head.target = target::host();
    graph.head.tract = target::TRACT_VERSION.to_owned();
    let mut builder = PackBuilder::new();
    for (weight, id) in base.pack.weights().iter().zip(0..) {
        let range = base.pack.weight_range(WeightId(id))?;
        let (start, end) = (range.start as usize, range.end as usize);
        let given =
            builder.weight(&weight.name, weight.place, weight.form.clone(), &base.file[start..end])?;
        assert_eq!(given, WeightId(id), "the packer stores nothing twice");
    }
    builder.plan(graph.encode());
    builder.finish(manifest(&graph))
}

/// A manifest that tells the ends of `graph`.
fn manifest(graph: &PlanGraph) -> Manifest {
    let axes = |shape: &[usize]| {
        shape.iter().map(|n| Axis { name: "a".to_owned(), size: *n, symbolic: false }).collect()
    };
    let input = |(i, (dtype, shape)): (usize, &(Dtype, Vec<usize>))| InputSpec {
        name: format!("x{i}"),
        dtype: *dtype,
        axes: axes(shape),
        pipeline: vec![],
        pad: None,
    };
    let output = |(i, outlet)| {
        let Some(Fact::Tensor { dtype, shape }) = graph.fact(outlet) else { return None };
        let (name, axes) = (format!("y{i}"), axes(shape));
        Some(OutputSpec { name, dtype: *dtype, axes, post: vec![], labels: None })
    };
    Manifest {
        model: ModelInfo { name: "m".to_owned(), licence: None },
        inputs: graph.head.inputs.iter().enumerate().map(input).collect(),
        outputs: graph.outputs.iter().copied().enumerate().filter_map(output).collect(),
        ..Manifest::default()
    }
}

/// A fixed pattern: of floats, small ones and some that make trouble; of integers, small ones of both signs, or any
/// bytes at all.
fn input(port: &Port, turn: usize) -> Result<Tensor, Box<dyn std::error::Error>> {
    let len = element_count(&port.shape).unwrap_or(0);
    let small = |i: usize| (i * 7 + turn) as i64 % 11 - 5;
    let float = |i: usize| match (i + turn) % 61 {
        7 => f32::NAN,
        23 => f32::INFINITY,
        37 => f32::MIN_POSITIVE / 4.0,
        _ => small(i) as f32 / 4.0,
    };
    let bytes: Vec<u8> = match port.dtype {
        Dtype::F32 => (0..len).flat_map(|i| float(i).to_le_bytes()).collect(),
        Dtype::I64 => (0..len).flat_map(|i| small(i).to_le_bytes()).collect(),
        Dtype::I32 => (0..len).flat_map(|i| (small(i) as i32).to_le_bytes()).collect(),
        Dtype::Bool => (0..len).map(|i| (i % 2) as u8).collect(),
        Dtype::F16 | Dtype::I8 | Dtype::U8 => (0..len * port.dtype.size()).map(|i| (i * 37) as u8).collect(),
    };
    Ok(Tensor::from_le_bytes(port.dtype, port.shape.clone(), &bytes)?)
}
