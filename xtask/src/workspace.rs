//! Where things are and how cargo is started: the one place that knows profile, target folder and environment.
//!
//! Every chore builds with profile `fast` and the same flags, so that demo, tests and CI share their artefacts.
//! No linker is chosen here: Rust itself links with lld on x86-64 Linux, and a flag of our own would only make
//! cargo keep two copies of everything.

use anyhow::{Context, Result, bail};
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The profile shared by demo, tests and CI.
pub(crate) const PROFILE: &str = "fast";

/// All members but the measured rivals: `bench` alone builds those.
pub(crate) const WORKSPACE: [&str; 3] = ["--workspace", "--exclude", "glowplug-benches"];

/// The three function binaries.
pub(crate) const FUNCTIONS: [&str; 3] = ["glowplug-api", "glowplug-upload", "glowplug-queue"];

/// Variables that `cargo run` sets for xtask itself. Some build scripts (ring's) watch them, so cargo would
/// compile their crates anew in every nested call.
const CARGO_RUN: [&str; 4] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];

/// The clone's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Whether this is a CI run.
pub(crate) fn is_ci() -> bool {
    env::var_os("CI").is_some_and(|v| v == "true")
}

/// `$variable`, else `~/.cache/glowplug/<name>`.
pub(crate) fn cache(variable: &str, name: &str) -> Result<PathBuf> {
    if let Some(dir) = env::var_os(variable).filter(|v| !v.is_empty()) {
        return std::path::absolute(&dir).with_context(|| format!("{variable} is {}", dir.display()));
    }
    let home = env::home_dir().with_context(|| format!("no home folder; set {variable}"))?;
    Ok(home.join(".cache/glowplug").join(name))
}

/// Where cargo puts what it builds: `CARGO_TARGET_DIR`, in CI a folder outside the clone, else `target`.
pub(crate) fn target_dir() -> Result<PathBuf> {
    match env::var_os("CARGO_TARGET_DIR").filter(|v| !v.is_empty()) {
        Some(dir) => Ok(root().join(dir)),
        None if is_ci() => cache("GLOWPLUG_CI_TARGET", "ci-target"),
        None => Ok(root().join("target")),
    }
}

/// Where `cargo build` with [`PROFILE`] leaves the binaries.
pub(crate) fn bin_dir() -> Result<PathBuf> {
    Ok(target_dir()?.join(PROFILE))
}

/// `program` in the root, without what `cargo run` added to the environment.
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|n| CARGO_RUN.iter().any(|prefix| n.starts_with(prefix))) {
            command.env_remove(name);
        }
    }
    command
}

/// cargo with the given arguments and the shared target folder.
pub(crate) fn cargo<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Result<Command> {
    let mut cargo = command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(arguments).env("CARGO_TARGET_DIR", target_dir()?);
    Ok(cargo)
}

/// Runs to the end; anything but success is an error that shows the command.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("starting {}", shown(command)))?;
    if !status.success() {
        bail!("{}: {status}", shown(command));
    }
    Ok(())
}

/// Whether the command starts and succeeds; its output is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}

/// The command as one would type it.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_the_workspace() {
        let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[workspace]"));
        assert!(manifest.contains(&format!("[profile.{PROFILE}]")), "the profile must exist");
    }

    #[test]
    fn a_failing_command_is_named() {
        let error = run(Command::new("false").arg("--really")).unwrap_err().to_string();
        assert!(error.contains("false --really") && error.contains("exit status: 1"), "{error}");
        let error = run(&mut Command::new("no-such-program")).unwrap_err().to_string();
        assert!(error.contains("starting no-such-program"), "{error}");
    }

    #[test]
    fn nested_commands_do_not_see_what_cargo_set_for_xtask() {
        let removed: Vec<_> = command("true")
            .get_envs()
            .filter(|(_, value)| value.is_none())
            .map(|(name, _)| name.to_string_lossy().into_owned())
            .collect();
        assert!(removed.iter().any(|n| n == "CARGO_PKG_NAME"), "{removed:?}");
        assert!(!removed.iter().any(|n| n == "PATH"));
    }
}
