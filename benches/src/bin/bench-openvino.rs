//! OpenVINO from a blob that its Python package compiled and exported; `OPENVINO_C_LIBRARY` names the C library.

use anyhow::{Context, Result};
use glowplug_benches::Named;
use glowplug_benches::args::Args;
use glowplug_benches::engine::{self, Engine};
use glowplug_benches::openvino::{self, Imported};
use std::process::ExitCode;

struct OpenVino(Imported);

fn load(args: &Args, _: &[Named]) -> Result<OpenVino> {
    let library = std::env::var_os("OPENVINO_C_LIBRARY").context("OPENVINO_C_LIBRARY is not set")?;
    let blob = std::fs::read(&args.model).with_context(|| format!("cannot read {}", args.model))?;
    Ok(OpenVino(openvino::import(library.as_ref(), blob, args.threads)?))
}

impl Engine for OpenVino {
    fn run(&mut self, inputs: &[Named]) -> Result<Vec<Named>> {
        self.0.run(inputs)
    }
}

fn main() -> ExitCode {
    engine::main(load)
}
