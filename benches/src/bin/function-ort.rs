//! The rival function: Rust, the `ort` crate, lambda_runtime, the AWS SDK.

use anyhow::Result;
use glowplug_benches::engine::Engine;
use glowplug_benches::{Named, ort as runtime, serving};
use ort::session::Session;
use std::process::ExitCode;

struct OnnxRuntime(Session);

impl Engine for OnnxRuntime {
    fn run(&mut self, inputs: &[Named]) -> Result<Vec<Named>> {
        runtime::run(&mut self.0, inputs)
    }
}

fn main() -> ExitCode {
    serving::main(|bytes| Ok(OnnxRuntime(runtime::builder(1, false, None)?.commit_from_memory(&bytes)?)))
}
