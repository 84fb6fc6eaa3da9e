//! The plan decoder and its rules, over the weight table of the golden pack.
#![no_main]

use glowplug_pack::{Pack, plan::PlanGraph};
use std::sync::LazyLock;

static GOLDEN: LazyLock<Pack> = LazyLock::new(|| {
    Pack::parse(include_bytes!("../../tests/data/1/mnist-cnn.glow")).expect("the golden pack parses")
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = PlanGraph::decode(bytes, GOLDEN.weights());
});
