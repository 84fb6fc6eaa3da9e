//! The pack decoder: header, tables, manifest, and every plan, from hostile bytes.
#![no_main]

use glowplug_pack::{Pack, plan::PlanGraph};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(pack) = Pack::parse(bytes) {
        for plan in pack.plans() {
            let _ = PlanGraph::decode(plan, pack.weights());
        }
    }
});
