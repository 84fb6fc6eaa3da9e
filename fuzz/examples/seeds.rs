//! Writes the plan sections of packs as seeds of the targets `plan` and `run`:
//! `cargo +nightly run --manifest-path fuzz/Cargo.toml --example seeds -- FOLDER PACK.glow..`
//!
//! A plan of a base pack names that base. A plan without weights may name any, and names a small one. Names of
//! nodes are left out: whatever they are, a plan is the same.

use glowplug_fuzz::{BASES, cost::is_small};
use glowplug_pack::{Pack, plan::PlanGraph};
use std::path::Path;

fn main() {
    let mut args = std::env::args().skip(1);
    let folder = args.next().expect("a folder");
    for path in args {
        let file = std::fs::read(&path).expect("a pack");
        let pack = Pack::parse(&file).expect("a pack");
        let of_base = BASES.iter().position(|base| base.file == file);
        let base = of_base.or_else(|| pack.weights().is_empty().then_some(1)).expect("a base, or no weights");
        let section = pack.plans().next().expect("a plan");
        let graph = PlanGraph::decode(section, BASES[base].pack.weights());
        let mut graph = graph.expect("a plan over the base's weights");
        assert!(is_small(&graph, &BASES[base].pack), "{path}: too large for the target `run`");
        graph.bodies.iter_mut().flat_map(|b| &mut b.nodes).for_each(|n| n.name.clear());
        graph.nodes.iter_mut().for_each(|n| n.name.clear());
        let name = Path::new(&path).file_stem().expect("a file's name");
        let seed = [vec![u8::try_from(base).expect("few bases")], graph.encode()].concat();
        std::fs::write(Path::new(&folder).join(name), seed).expect("a folder to write to");
    }
}
