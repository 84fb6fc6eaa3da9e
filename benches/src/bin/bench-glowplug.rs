//! Glowplug on a local pack: opened and run as a function does it, without a terminal's tool around it.

use anyhow::Result;
use glowplug_benches::Named;
use glowplug_benches::args::Args;
use glowplug_benches::engine::{self, Engine};
use glowplug_predict::v2::NamedTensor;
use glowplug_predict::{Model, ModelOptions, Timings};
use std::process::ExitCode;

/// The same memory as in a function.
#[global_allocator]
static ALLOCATOR: glowplug_predict::Allocator = glowplug_predict::Allocator;

struct Glowplug(Model);

fn load(args: &Args, _: &[Named]) -> Result<Glowplug> {
    let opened = glowplug_store::open_file(args.model.as_ref())?;
    let options = ModelOptions { threads: args.threads, ..ModelOptions::default() };
    Ok(Glowplug(Model::open(opened, &options)?))
}

impl Engine for Glowplug {
    fn run(&mut self, inputs: &[Named]) -> Result<Vec<Named>> {
        let named =
            inputs.iter().map(|(name, tensor)| NamedTensor { name: name.clone(), tensor: tensor.clone() });
        let outputs = self.0.infer(named.collect(), None, &mut Timings::default())?;
        Ok(outputs.into_iter().map(|o| (o.name, o.tensor)).collect())
    }
}

fn main() -> ExitCode {
    glowplug_predict::prepare_process();
    engine::main(load)
}
