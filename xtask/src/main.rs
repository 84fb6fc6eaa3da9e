//! The project's chores, one subcommand and one file each: `cargo xtask --help` is their list.
//!
//! xtask imports no crate of ours: it starts cargo, Python and built binaries, so it compiles in seconds and
//! works while the rest of the workspace does not.
#![allow(clippy::print_stdout, reason = "a chore's report is its answer")]

mod workspace;

mod layers;
mod models;
mod venv;

mod bench;
mod demo;
mod eval_data;
mod size;
mod start;
mod test;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(bin_name = "cargo xtask", about = "Chores of the Glowplug workspace")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Proves the table of allowed imports, and that no function links an importer
    Layers,
    /// Builds the three functions for deployment and tells the bytes of binary and zip
    Size {
        /// Prints JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Tells how long a function takes from exec to its first poll and to its first byte asked of S3
    Start {
        /// The profile that is built and measured; `lambda` is what is deployed
        #[arg(long, default_value = workspace::PROFILE)]
        profile: String,
        /// Fresh processes per case
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        runs: u32,
        /// Prints JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Fetches and builds the large models, outside the clone
    Models {
        /// Where to put them [default: $GLOWPLUG_MODELS_DIR, else ~/.cache/glowplug/models]
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        /// Also what only measurements and goldens need
        #[arg(long)]
        all: bool,
    },
    /// Makes data to calibrate and to evaluate compression with, beside the models (docs/evaluation.md)
    EvalData {
        /// Where the models are [default: $GLOWPLUG_MODELS_DIR, else ~/.cache/glowplug/models]
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        /// Also prints what ONNX Runtime scores on it in f32, as JSON
        #[arg(long)]
        baseline: bool,
    },
    /// Everything that must hold before a change lands, fastest first
    Test {
        /// Only formatting, layers, clippy and the tests
        #[arg(long)]
        quick: bool,
    },
    /// Measures beside the rivals, and keeps the tables of the documents
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Builds everything and shows it at work: a call, an upload and a queue batch
    Demo,
}

fn main() -> ExitCode {
    match chore(Cli::parse().chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn chore(chore: Chore) -> Result<()> {
    match chore {
        Chore::Layers => layers::check(),
        Chore::Size { json } => size::report(json),
        Chore::Start { profile, runs, json } => start::report(&profile, runs, json),
        Chore::Models { dir, all } => models::bring(dir, all).map(drop),
        Chore::EvalData { dir, baseline } => eval_data::make(dir, baseline),
        Chore::Test { quick } => test::run(quick),
        Chore::Bench(bench) => bench::run(&bench),
        Chore::Demo => demo::run(),
    }
}
