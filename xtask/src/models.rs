//! `models`: the large models, fetched and built by tests/scripts/models.py in a pinned environment.

use crate::venv::{Venv, script};
use crate::workspace;
use anyhow::Result;
use std::path::{Path, PathBuf};

/// The variable that names the models folder, for this chore and for the tests.
pub(crate) const VARIABLE: &str = "GLOWPLUG_MODELS_DIR";

/// Where the models are unless told otherwise.
pub(crate) fn default_dir() -> Result<PathBuf> {
    workspace::cache(VARIABLE, "models")
}

/// The models folder that was asked for, or the usual one.
pub(crate) fn dir_or_default(dir: Option<PathBuf>) -> Result<PathBuf> {
    match dir {
        Some(dir) => Ok(std::path::absolute(dir)?),
        None => default_dir(),
    }
}

/// Brings what is missing and returns the folder. A second run takes a second.
pub(crate) fn bring(dir: Option<PathBuf>, all: bool) -> Result<PathBuf> {
    let dir = dir_or_default(dir)?;
    let venv = environment(&dir, all)?;
    let mut fetch = venv.command("python");
    fetch.arg("-B").arg(script("models.py")).arg("--dir").arg(&dir);
    workspace::run(fetch.args(all.then_some("--all")))?;
    Ok(dir)
}

/// The packages that the scripts need, kept beside the models.
pub(crate) fn environment(dir: &Path, all: bool) -> Result<Venv> {
    let (name, requirements): (_, &[&str]) = match all {
        true => ("venv-all", &["requirements.txt", "requirements-models.txt"]),
        false => ("venv-models", &["requirements-models.txt"]),
    };
    Venv::ensure(dir.join(name), requirements)
}
