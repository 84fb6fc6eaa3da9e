//! The `glowplug` command: pack, inspect, verify, run, bench, publish, dev, demo.
//!
//! This crate is glue: arguments in, one answer out (`report`). clap and indicatif live here and nowhere else.
//! It is a library so that tests read npz files and start the local cloud as the command does; the binary is one line.

pub mod cloud;
mod commands;
mod compression;
mod folder;
pub mod npz;
mod progress;
mod report;
mod stores;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use commands::{bench, compare, demo, dev, inspect, pack, publish, run, verify};
use std::process::ExitCode;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

/// The same memory as in a function: what `bench` measures is what a function does.
#[global_allocator]
static ALLOCATOR: glowplug_predict::Allocator = glowplug_predict::Allocator;

const AFTER_HELP: &str = "Start with: glowplug pack MODEL.onnx -o M.glow, then glowplug dev --pack M.glow.\nGLOWPLUG_LOG=debug shows more on stderr.";

/// ONNX models behind Lambda events: from a pack to a runnable plan in milliseconds.
///
/// stdout carries the answer, stderr everything else. Exit codes: 0 done, 1 a check failed, 2 usage or IO.
#[derive(Parser)]
#[command(name = "glowplug", version, propagate_version = true, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Pack(pack::PackArgs),
    Inspect(inspect::InspectArgs),
    Verify(verify::VerifyArgs),
    Run(run::RunArgs),
    Bench(bench::BenchArgs),
    Compare(compare::CompareArgs),
    Publish(publish::PublishArgs),
    Dev(dev::DevArgs),
    Demo(demo::DemoArgs),
}

/// The command: parses arguments, runs one subcommand, prints its answer or its error.
pub fn main() -> ExitCode {
    glowplug_predict::prepare_process();
    let cli = Cli::parse();
    let done = log_to_stderr().and_then(|()| match &cli.command {
        Command::Pack(args) => pack::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Run(args) => run::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Publish(args) => publish::run(args),
        Command::Dev(args) => dev::run(args),
        Command::Demo(args) => demo::run(args),
    });
    done.unwrap_or_else(|error| {
        eprintln!("glowplug: {error:#}");
        ExitCode::from(2)
    })
}

/// Warnings go to stderr; `GLOWPLUG_LOG` asks for more. Errors: it is no filter.
fn log_to_stderr() -> Result<()> {
    let filter = match std::env::var("GLOWPLUG_LOG") {
        Ok(text) => text.parse().ok().with_context(|| {
            format!("GLOWPLUG_LOG: found {text:?}, wanted a level or directives such as info,glowplug_predict=debug")
        })?,
        Err(_) => Targets::new().with_default(LevelFilter::WARN),
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).without_time();
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    Ok(())
}

/// A runtime for the commands that talk to a store or serve.
fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the async runtime")
}
