//! The portable graph's decoder, its structure and its rules at some shape, over the weight table of the golden
//! pack.
#![no_main]

use glowplug_pack::Pack;
use glowplug_pack::portable::{Dim, PortableGraph};
use std::sync::LazyLock;

static GOLDEN: LazyLock<Pack> = LazyLock::new(|| {
    Pack::parse(include_bytes!("../../tests/data/1/mnist-cnn.glow")).expect("the golden pack parses")
});

/// The inputs' shapes, every symbol being 2.
fn shapes(graph: &PortableGraph) -> Option<Vec<Vec<usize>>> {
    let main = graph.main().ok()?;
    let extent = |dim: &Dim| match dim {
        Dim::Value { value } => usize::try_from(*value).ok(),
        _ => Some(2),
    };
    let shape = |i| main.input(i)?.shape.iter().map(|id| extent(graph.dims.get(id.index())?)).collect();
    (0..main.inputs.len()).map(shape).collect()
}

libfuzzer_sys::fuzz_target!(|section: &[u8]| {
    if let Ok((graph, _)) = PortableGraph::decode(section, GOLDEN.weights())
        && let Some(shapes) = shapes(&graph)
    {
        let _ = graph.extents(&shapes);
    }
});
