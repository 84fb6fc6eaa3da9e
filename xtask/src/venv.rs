//! Python environments with pinned packages, made once and kept outside the clone.

use crate::workspace;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the requirement files are.
const SCRIPTS: &str = "tests/scripts";
/// The oldest Python that the scripts run on (tomllib, hashlib.file_digest).
const MINIMUM: (u32, u32) = (3, 11);

/// A virtual environment on disk.
pub(crate) struct Venv {
    dir: PathBuf,
}

impl Venv {
    /// The environment at `dir`, holding what `requirements` (files of tests/scripts; the first is installed,
    /// the rest it includes) pins. Made anew whenever one of them changes; needs the network then.
    pub(crate) fn ensure(dir: PathBuf, requirements: &[&str]) -> Result<Venv> {
        let files: Vec<_> = requirements.iter().map(|r| workspace::root().join(SCRIPTS).join(r)).collect();
        let wanted = contents(&files)?;
        let stamp = dir.join("installed.txt");
        if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
            return Ok(Venv { dir });
        }
        let python = python()?;
        println!("making {} with {}", dir.display(), requirements[0]);
        workspace::run(workspace::command(python).args(["-m", "venv", "--clear"]).arg(&dir))
            .context("python's venv module is needed (Debian: python3-venv)")?;
        let venv = Venv { dir };
        let mut install = venv.command("python");
        install
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"])
            .arg(&files[0]);
        workspace::run(&mut install)?;
        fs::write(&stamp, wanted).with_context(|| format!("writing {}", stamp.display()))?;
        Ok(venv)
    }

    /// A program of the environment, started in the workspace's root.
    pub(crate) fn command(&self, program: &str) -> Command {
        workspace::command(self.program(program))
    }

    /// Where a program of the environment is.
    pub(crate) fn program(&self, program: &str) -> PathBuf {
        self.dir.join(if cfg!(windows) { "Scripts" } else { "bin" }).join(program)
    }
}

fn contents(files: &[PathBuf]) -> Result<String> {
    let read = |f: &PathBuf| fs::read_to_string(f).with_context(|| format!("reading {}", f.display()));
    files.iter().map(read).collect()
}

/// A Python new enough: `python3`, or `python` where that is the name.
fn python() -> Result<&'static str> {
    let (major, minor) = MINIMUM;
    let question = format!("import sys; sys.exit(sys.version_info < ({major}, {minor}))");
    let found = ["python3", "python"]
        .into_iter()
        .find(|p| workspace::succeeds(Command::new(p).args(["-c", &question])));
    match found {
        Some(python) => Ok(python),
        None => bail!("python {major}.{minor} or newer is needed and neither python3 nor python is one"),
    }
}

/// The script's path in the workspace.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(SCRIPTS).join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_requirements_file_is_named() {
        let error = Venv::ensure(PathBuf::from("unused"), &["no-such.txt"]).err().unwrap().to_string();
        assert!(error.contains("no-such.txt"), "{error}");
    }

    #[test]
    fn every_package_is_pinned() {
        for file in [
            "requirements.txt",
            "requirements-models.txt",
            "requirements-infra.txt",
            "requirements-bench.txt",
        ] {
            let text = contents(&[workspace::root().join(SCRIPTS).join(file)]).unwrap();
            for line in text.lines().filter(|l| !l.starts_with(['#', '-'])) {
                assert!(line.contains("=="), "{file}: {line}");
            }
        }
    }
}
