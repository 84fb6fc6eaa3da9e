//! The rival function: Rust, RTen, lambda_runtime, the AWS SDK.

use anyhow::Result;
use glowplug_benches::engine::Engine;
use glowplug_benches::rten::Rten;
use glowplug_benches::{Named, serving};
use std::process::ExitCode;

struct FromMemory(Rten);

impl Engine for FromMemory {
    fn run(&mut self, inputs: &[Named]) -> Result<Vec<Named>> {
        self.0.run(inputs)
    }
}

fn main() -> ExitCode {
    serving::main(|bytes| Ok(FromMemory(Rten::new(rten::Model::load(bytes)?, 1)?)))
}
