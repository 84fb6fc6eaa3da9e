//! ONNX Runtime native, from the ONNX file or from the file that it optimized and wrote itself: a name that ends
//! in `.optimized.onnx` is loaded without optimizing it again.

use anyhow::Result;
use glowplug_benches::args::Args;
use glowplug_benches::engine::{self, Engine};
use glowplug_benches::{Named, ort as runtime};
use ort::session::Session;
use std::process::ExitCode;

struct OnnxRuntime(Session);

fn load(args: &Args, _: &[Named]) -> Result<OnnxRuntime> {
    let optimized_already = args.model.ends_with(".optimized.onnx");
    let mut builder = runtime::builder(args.threads, optimized_already, args.save_optimized.as_deref())?;
    Ok(OnnxRuntime(builder.commit_from_file(&args.model)?))
}

impl Engine for OnnxRuntime {
    fn run(&mut self, inputs: &[Named]) -> Result<Vec<Named>> {
        runtime::run(&mut self.0, inputs)
    }
}

fn main() -> ExitCode {
    engine::main(load)
}
