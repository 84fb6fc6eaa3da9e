//! `glowplug verify`: every hash of a pack, and that its plan can be built here.

use crate::report::{bytes, print};
use anyhow::Result;
use clap::{Args, ValueHint};
use glowplug_predict::{Model, ModelOptions};
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

/// Check every byte of a pack against its hashes, and that a plan can be built on this machine.
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
    Ok(model.digest())
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.digest, &self.error) {
            (Some(digest), _) => write!(f, "{}: sound, {}, digest {digest}", self.file, bytes(self.bytes)),
            (None, error) => write!(f, "{}: {}", self.file, error.as_deref().unwrap_or("unsound")),
        }
    }
}
