//! RTen from a mapped file: `.rten`, or ONNX whose weights are external data.

use anyhow::Result;
use glowplug_benches::Named;
use glowplug_benches::args::Args;
use glowplug_benches::engine::{self, Engine};
use glowplug_benches::rten::Rten;
use std::process::ExitCode;

struct Mapped(Rten);

fn load(args: &Args, _: &[Named]) -> Result<Mapped> {
    #[allow(unsafe_code, reason = "RTen's mapped loading is unsafe by its interface")]
    // SAFETY: the bench made the file and its external data, and nothing writes to them while processes run.
    let model = unsafe { rten::Model::load_mmap(&args.model) }?;
    Ok(Mapped(Rten::new(model, args.threads)?))
}

impl Engine for Mapped {
    fn run(&mut self, inputs: &[Named]) -> Result<Vec<Named>> {
        self.0.run(inputs)
    }
}

fn main() -> ExitCode {
    engine::main(load)
}
