//! The plan decoder and its rules, over the weight table of one of several packs.
#![no_main]

use glowplug_fuzz::base;
use glowplug_pack::plan::PlanGraph;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some((base, section)) = base(bytes) {
        let _ = PlanGraph::decode(section, base.pack.weights());
    }
});
