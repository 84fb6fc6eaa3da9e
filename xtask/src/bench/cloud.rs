//! benches' cloud process: an S3 behind a shaped link, on another core than what is measured.

use super::process::SERVER_CORE;
use super::setup::Setup;
use crate::workspace;
use anyhow::{Context, Result};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// Wait for the first byte of an answer, as S3's.
pub(crate) const FIRST_BYTE_MS: u32 = 15;
/// Megabytes per second of the shaped links.
pub(crate) const LINKS: [f64; 3] = [50.0, 100.0, 300.0];

/// The command of a cloud process with that link.
pub(crate) fn command(setup: &Setup, what: &str, mb_per_s: f64) -> Command {
    let mut command = workspace::command("taskset");
    command
        .args(["-c", &SERVER_CORE.to_string()])
        .arg(setup.bin_dir().join("bench-cloud"))
        .arg(what)
        .args(["--mb-per-s", &mb_per_s.to_string()])
        .args(["--first-byte-ms", &FIRST_BYTE_MS.to_string()]);
    command
}

/// A running S3. It ends when it is dropped: its stdin closes.
pub(crate) struct Cloud {
    child: Child,
    pub(crate) s3: String,
}

impl Cloud {
    /// Starts one that holds `objects`, each `KEY=FILE`.
    pub(crate) fn start(setup: &Setup, mb_per_s: f64, objects: &[String]) -> Result<Cloud> {
        let mut command = command(setup, "serve", mb_per_s);
        for object in objects {
            command.args(["--object", object]);
        }
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("starting bench-cloud")?;
        let stdout = child.stdout.take().context("bench-cloud has no stdout")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let told: Value = serde_json::from_str(&line).context("bench-cloud did not say where it listens")?;
        let s3 = told["s3"].as_str().context("bench-cloud told no address")?.to_owned();
        Ok(Cloud { child, s3 })
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It ends by itself; that it is gone matters to the next measurement, how it ended does not.
        let _ = self.child.wait();
    }
}
