//! `models`: the large models, fetched and built by tests/scripts/models.py in a pinned environment.

use crate::venv::{Venv, script};
use crate::workspace;
use anyhow::Result;
use std::path::PathBuf;

/// The variable that names the models folder, for this chore and for the tests.
pub(crate) const VARIABLE: &str = "GLOWPLUG_MODELS_DIR";

/// Where the models are unless told otherwise.
pub(crate) fn default_dir() -> Result<PathBuf> {
    workspace::cache(VARIABLE, "models")
}

/// Brings what is missing and returns the folder. A second run takes a second.
pub(crate) fn bring(dir: Option<PathBuf>, all: bool) -> Result<PathBuf> {
    let dir = match dir {
        Some(dir) => std::path::absolute(dir)?,
        None => default_dir()?,
    };
    let (name, requirements): (_, &[&str]) = match all {
        true => ("venv-all", &["requirements.txt", "requirements-models.txt"]),
        false => ("venv-models", &["requirements-models.txt"]),
    };
    let venv = Venv::ensure(dir.join(name), requirements)?;
    let mut fetch = venv.command("python");
    fetch.arg("-B").arg(script("models.py")).arg("--dir").arg(&dir);
    workspace::run(fetch.args(all.then_some("--all")))?;
    Ok(dir)
}
