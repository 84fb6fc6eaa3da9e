//! Changes of a plan that leave it one more often than not: bytes changed at random rarely get past the rules, which
//! want many numbers to agree.

use crate::window_of;
use glowplug_pack::plan::{Fact, Node, Op, Outlet, PlanGraph, Window, fact_of};
use glowplug_pack::wire::{Reader, Writer};

/// A plan section like `section`, if that can be decoded. It says the same whenever `seed` is the same.
pub fn section(section: &[u8], seed: u32) -> Option<Vec<u8>> {
    let mut graph: PlanGraph = Reader::decode(section).ok()?;
    let mut random = Random(u64::from(seed));
    for _ in 0..=random.below(3) {
        match random.below(3) {
            0 => extent(&mut graph, &mut random),
            1 => window(&mut graph, &mut random),
            _ => operand(&mut graph, &mut random),
        }?;
    }
    Some(Writer::encode(&graph))
}

/// Knuth's linear congruential generator.
struct Random(u64);

impl Random {
    /// A number below `n`, or 0.
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n.max(1)
    }

    /// An extent near `n`, or one that is about what kernels take at once.
    fn near(&mut self, n: usize) -> usize {
        const USUAL: [usize; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33];
        match self.below(8) {
            0 => n + 1,
            1 => n.saturating_sub(1),
            2 => n * 2,
            3 => n.div_ceil(2),
            4 => n * (1 + self.below(USUAL.len())),
            _ => USUAL[self.below(USUAL.len())],
        }
    }
}

/// Makes an extent another, sometimes once, mostly wherever it is found.
fn extent(graph: &mut PlanGraph, random: &mut Random) -> Option<()> {
    let once = random.below(4) == 0;
    let mut extents = extents(graph);
    let chosen = random.below(extents.len());
    let from = **extents.get(chosen)?;
    let to = random.near(from);
    match once {
        true => *extents[chosen] = to,
        false => extents.into_iter().filter(|n| **n == from).for_each(|n| *n = to),
    }
    Some(())
}

/// All extents of all values, wherever a plan tells them.
fn extents(graph: &mut PlanGraph) -> Vec<&mut usize> {
    let mut all: Vec<&mut usize> = graph.head.inputs.iter_mut().flat_map(|(_, shape)| shape).collect();
    let bodies = graph.bodies.iter_mut().flat_map(|body| &mut body.nodes);
    for node in bodies.chain(&mut graph.nodes) {
        for fact in &mut node.outputs {
            match fact {
                Fact::Tensor { shape, .. } => all.extend(shape),
                Fact::Panels { batch, k, mn, .. } => all.extend(batch.iter_mut().chain([k, mn])),
            }
        }
        match &mut node.op {
            Op::Dense { rows, .. } => all.extend([&mut rows.outer, &mut rows.inner]),
            Op::Attention { batch, heads, queries, keys, .. } => all.extend([batch, heads, queries, keys]),
            op => all.extend(window_of!(op).into_iter().flat_map(|w| [&mut w.output.0, &mut w.output.1])),
        }
    }
    all
}

/// Changes one number of one window. What it gives stays as large.
fn window(graph: &mut PlanGraph, random: &mut Random) -> Option<()> {
    let nodes = graph.bodies.iter_mut().flat_map(|body| &mut body.nodes).chain(&mut graph.nodes);
    let mut windows: Vec<&mut Window> = nodes.filter_map(|node| window_of!(&mut node.op)).collect();
    let chosen = random.below(windows.len());
    let Some(Window { kernel, strides, dilations, pads, .. }) = windows.get_mut(chosen) else {
        return Some(());
    };
    let pair = [strides, dilations, pads, kernel].into_iter().nth(random.below(4))?;
    let number = if random.below(2) == 0 { &mut pair.0 } else { &mut pair.1 };
    *number = random.near(*number);
    Some(())
}

/// Lets a node read another value that is like the one it read.
fn operand(graph: &mut PlanGraph, random: &mut Random) -> Option<()> {
    let bodies = graph.bodies.len();
    let nodes: &mut Vec<Node> = match random.below(bodies + 1) {
        i if i < bodies => &mut graph.bodies[i].nodes,
        _ => &mut graph.nodes,
    };
    let chosen = random.below(nodes.len());
    let inputs = &nodes.get(chosen)?.inputs;
    let slot = random.below(inputs.len());
    let Some(outlet) = inputs.get(slot) else { return Some(()) };
    let fact = fact_of(nodes, *outlet)?;
    let alike: Vec<Outlet> = (0..chosen)
        .flat_map(|node| (0..nodes[node].outputs.len()).map(move |slot| Outlet { node, slot }))
        .filter(|other| fact_of(nodes, *other) == Some(fact))
        .collect();
    let other = *alike.get(random.below(alike.len()))?;
    nodes[chosen].inputs[slot] = other;
    Some(())
}
