//! One file per subcommand: its arguments, its work, its answer.

pub(crate) mod bench;
pub(crate) mod compare;
pub(crate) mod demo;
pub(crate) mod dev;
pub(crate) mod inspect;
pub(crate) mod pack;
pub(crate) mod publish;
pub(crate) mod run;
pub(crate) mod verify;

use anyhow::{Context, Result};
use clap::Args;
use glowplug_predict::{Model, ModelOptions};
use glowplug_store::OpenedPack;
use std::path::Path;
use std::time::Instant;

/// How inference uses the machine.
#[derive(Args, Clone, Copy)]
pub(crate) struct InferenceArgs {
    /// Compute threads of one inference.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64), env = "GLOWPLUG_THREADS")]
    pub threads: u16,
    /// Leave the tuned plans out and run the portable graph: slower to load, the same answers.
    #[arg(long, env = "GLOWPLUG_PORTABLE")]
    pub portable: bool,
}

/// Maps a local pack.
pub(crate) fn open(path: &Path) -> Result<OpenedPack> {
    glowplug_store::open_file(path).with_context(|| path.display().to_string())
}

/// A local pack as a model; its `plan_ms` counts from before the file is opened.
pub(crate) fn open_model(path: &Path, inference: InferenceArgs) -> Result<Model> {
    let started = Some(Instant::now());
    let (threads, portable) = (inference.threads.into(), inference.portable);
    let options = ModelOptions { threads, portable, started, ..ModelOptions::default() };
    Model::open(open(path)?, &options).with_context(|| path.display().to_string())
}

/// The error of a file that cannot be read.
pub(crate) fn cannot_read(path: &Path, error: &std::io::Error) -> anyhow::Error {
    anyhow::anyhow!("cannot read {}: {error}", path.display())
}
