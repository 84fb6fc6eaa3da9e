//! `glowplug verify`: every hash of a pack, and that its plan can be built here.

use crate::report::{bytes, print};
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueHint};
use glowplug_pack::Tensor;
use glowplug_predict::{Model, ModelOptions, Timings};
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

/// Check every byte of a pack against its hashes, that a plan can be built on this machine, and that the portable
/// graph answers as the plan does.
#[derive(Args)]
#[command(after_help = "Exit codes: 0 sound, 1 a check failed, 2 the file cannot be read.")]
pub(crate) struct VerifyArgs {
    /// The pack.
    #[arg(value_hint = ValueHint::FilePath)]
    pack: PathBuf,
    /// JSON on stdout.
    #[arg(long)]
    json: bool,
}

/// How far the portable graph may be from the tuned plan, relative to the output's largest value.
const TOLERANCE: f32 = 1e-4;

/// The answer.
#[derive(Serialize)]
struct Verification {
    file: String,
    ok: bool,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Runs the command.
pub(crate) fn run(args: &VerifyArgs) -> Result<ExitCode> {
    let bytes = std::fs::metadata(&args.pack).map_err(|e| super::cannot_read(&args.pack, &e))?.len();
    let checked = check(args);
    let report = Verification {
        file: args.pack.display().to_string(),
        ok: checked.is_ok(),
        bytes,
        digest: checked.as_ref().ok().cloned(),
        error: checked.as_ref().err().map(|e| format!("{e:#}")),
    };
    print(&report, args.json)?;
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn check(args: &VerifyArgs) -> Result<String> {
    let opened = super::open(&args.pack)?;
    let options = ModelOptions { verify_always: true, ..ModelOptions::default() };
    let model = Model::open(opened, &options)?;
    model.check_pipelines()?;
    check_portable(args, &model)?;
    Ok(model.digest())
}

/// The portable graph answers as the tuned plan does, where the pack has one. It computes in floats, so that beside a plan in
/// int8 it has to answer only: how far these may be from each other is for real data to say.
fn check_portable(args: &VerifyArgs, tuned: &Model) -> Result<()> {
    let opened = super::open(&args.pack)?;
    if opened.pack.portable_range().is_none() {
        return Ok(());
    }
    let options = ModelOptions { portable: true, ..ModelOptions::default() };
    let portable = Model::open(opened, &options).context("portable graph")?;
    let inputs = super::bench::seeded(tuned.manifest(), None)?;
    let in_int8 = tuned.manifest().provenance.options.contains_key("int8");
    let answer = |model: &Model| model.infer(inputs.clone(), None, &mut Timings::default());
    for (wanted, found) in answer(tuned)?.into_iter().zip(answer(&portable).context("portable graph")?) {
        let error = difference(&found.tensor, &wanted.tensor);
        if in_int8 && error.is_finite() {
            continue;
        }
        ensure!(
            error <= TOLERANCE,
            "portable graph: output {:?} differs from the tuned plan's by {error:.1e} of its largest value",
            wanted.name
        );
    }
    Ok(())
}

/// Largest difference over largest value, or over 1 where all values are smaller: probabilities are. What is
/// not f32 has to be equal.
fn difference(found: &Tensor, wanted: &Tensor) -> f32 {
    match (found.as_f32(), wanted.as_f32()) {
        (Ok(found), Ok(wanted)) if found.len() == wanted.len() => {
            let largest = wanted.iter().fold(1.0f32, |m, w| m.max(w.abs()));
            let differences = found.iter().zip(wanted).map(|(f, w)| if f == w { 0.0 } else { (f - w).abs() });
            differences.fold(0.0, |m: f32, d| if d.is_nan() { f32::INFINITY } else { m.max(d) }) / largest
        }
        _ if found == wanted => 0.0,
        _ => f32::INFINITY,
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.digest, &self.error) {
            (Some(digest), _) => write!(f, "{}: sound, {}, digest {digest}", self.file, bytes(self.bytes)),
            (None, error) => write!(f, "{}: {}", self.file, error.as_deref().unwrap_or("unsound")),
        }
    }
}
