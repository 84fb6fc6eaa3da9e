//! `eval-data`: data to calibrate and to evaluate compression with, made by tests/scripts/eval.

use crate::models;
use crate::venv::script;
use crate::workspace;
use anyhow::Result;
use std::path::PathBuf;

/// Makes what is missing of the models folder's `eval`; `baseline` then tells what ONNX Runtime scores on it in f32.
pub(crate) fn make(dir: Option<PathBuf>, baseline: bool) -> Result<()> {
    let dir = models::bring(dir, true)?;
    let venv = models::environment(&dir, true)?;
    let run = |name: &str| {
        let mut python = venv.command("python");
        workspace::run(python.arg("-B").arg(script("eval").join(name)).arg("--dir").arg(&dir))
    };
    run("make.py")?;
    if baseline {
        run("baseline.py")?;
    }
    Ok(())
}
