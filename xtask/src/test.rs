//! `test`: everything that must hold before a change lands, fastest first, each step with its time.
//!
//! The steps share what they compile, once and in profile `fast`: clippy and rustdoc need the dependencies'
//! metadata; binaries, tests and doc tests need their code. Binaries and tests are built in one call, so that
//! cargo resolves features once; two calls could compile tokio, and all above it, twice.

use crate::venv::Venv;
use crate::workspace::{self, PROFILE, WORKSPACE};
use crate::{layers, models};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// Names the folder of the built binaries for the tests that start them.
const BIN_DIR: &str = "GLOWPLUG_BIN_DIR";
const TEMPLATE: &str = "infra/template.yaml";
/// What is built and then tested: the same selection both times, or cargo would build other features.
const TARGETS: [&str; 3] = ["--lib", "--bins", "--tests"];

/// How a step ended, unless it failed.
enum Outcome {
    Passed,
    Skipped(String),
}
use Outcome::{Passed, Skipped};

struct Step {
    name: &'static str,
    /// Whether `--quick` keeps it.
    quick: bool,
    run: fn() -> Result<Outcome>,
}

const STEPS: &[Step] = &[
    Step { name: "format", quick: true, run: format },
    Step { name: "layers", quick: true, run: || layers::check().map(|()| Passed) },
    Step { name: "template", quick: false, run: template },
    Step { name: "models", quick: false, run: large_models },
    Step { name: "clippy", quick: true, run: clippy },
    Step { name: "build", quick: true, run: build },
    Step { name: "tests", quick: true, run: tests },
    Step { name: "doc tests", quick: false, run: doc_tests },
    Step { name: "docs", quick: false, run: docs },
    Step { name: "fuzz targets", quick: false, run: fuzz_targets },
];

/// Runs the steps up to the first that fails, then prints what each took.
pub(crate) fn run(quick: bool) -> Result<()> {
    let mut report = Vec::new();
    let mut result = Ok(());
    for step in STEPS.iter().filter(|s| s.quick || !quick) {
        println!("\n=== {}", step.name);
        let start = Instant::now();
        let outcome = (step.run)();
        report.push(line(step.name, start.elapsed(), outcome.as_ref().ok()));
        if let Err(error) = outcome {
            result = Err(error.context(format!("step {:?}", step.name)));
            break;
        }
    }
    println!("\n{}", report.concat());
    result
}

fn line(name: &str, took: Duration, outcome: Option<&Outcome>) -> String {
    let verdict = match outcome {
        Some(Passed) => "passed".to_owned(),
        Some(Skipped(why)) => format!("skipped: {why}"),
        None => "FAILED".to_owned(),
    };
    format!("{name:<14} {:>7.1} s  {verdict}\n", took.as_secs_f64())
}

fn passed(mut command: Command) -> Result<Outcome> {
    workspace::run(&mut command).map(|()| Passed)
}

fn format() -> Result<Outcome> {
    passed(workspace::cargo(["fmt", "--all", "--check"])?)
}

fn clippy() -> Result<Outcome> {
    let clippy = ["clippy", "--profile", PROFILE].into_iter().chain(WORKSPACE);
    passed(workspace::cargo(clippy.chain(["--all-targets", "--", "-D", "warnings"]))?)
}

/// The function binaries and the command line, which some tests start, and the tests themselves.
fn build() -> Result<Outcome> {
    passed(workspace::cargo(["build", "--profile", PROFILE].into_iter().chain(WORKSPACE).chain(TARGETS))?)
}

fn tests() -> Result<Outcome> {
    let runner = match workspace::succeeds(&mut workspace::cargo(["nextest", "--version"])?) {
        true => ["nextest", "run", "--no-fail-fast", "--cargo-profile"].as_slice(),
        false => &["test", "--no-fail-fast", "--profile"],
    };
    let mut cargo =
        workspace::cargo(runner.iter().copied().chain([PROFILE]).chain(WORKSPACE).chain(TARGETS))?;
    cargo.env(BIN_DIR, workspace::bin_dir()?);
    match models_at_hand()? {
        Some(dir) => cargo.env(models::VARIABLE, dir),
        None => cargo.env_remove(models::VARIABLE),
    };
    passed(cargo)
}

fn doc_tests() -> Result<Outcome> {
    passed(workspace::cargo(["test", "--doc", "--profile", PROFILE].into_iter().chain(WORKSPACE))?)
}

fn docs() -> Result<Outcome> {
    let doc = ["doc", "--profile", PROFILE, "--no-deps"];
    let mut cargo = workspace::cargo(doc.into_iter().chain(WORKSPACE))?;
    cargo.env("RUSTDOCFLAGS", "-D warnings");
    passed(cargo)
}

/// The models folder, if there is one.
fn models_at_hand() -> Result<Option<PathBuf>> {
    Ok(Some(models::default_dir()?).filter(|dir| dir.is_dir()))
}

/// CI brings them; elsewhere they are used where they are.
fn large_models() -> Result<Outcome> {
    if workspace::is_ci() {
        return models::bring(None, false).map(|_| Passed);
    }
    match models_at_hand()? {
        Some(_) => Ok(Passed),
        None => {
            let (missing, all) = models_without_file()?;
            Ok(Skipped(format!(
                "the cases of {missing} of {all} models are passed over, `cargo xtask models` brings them"
            )))
        }
    }
}

/// How many of the models that have goldens are not vendored, and how many have goldens.
fn models_without_file() -> Result<(usize, usize)> {
    let data = workspace::root().join("tests/data");
    let goldens = std::fs::read_dir(data.join("goldens")).context("reading tests/data/goldens")?;
    let models: Vec<_> = goldens.filter_map(Result::ok).filter(|e| e.path().is_dir()).collect();
    let vendored = |name: &str| data.join("models").join(format!("{name}.onnx")).is_file();
    let missing = models.iter().filter(|e| !vendored(&e.file_name().to_string_lossy())).count();
    Ok((missing, models.len()))
}

/// cfn-lint in a pinned environment in CI; elsewhere whichever is installed.
fn template() -> Result<Outcome> {
    let mut lint = if workspace::is_ci() {
        let dir = workspace::cache("GLOWPLUG_VENVS", "venvs")?.join("infra");
        Venv::ensure(dir, &["requirements-infra.txt"])?.command("cfn-lint")
    } else {
        workspace::command("cfn-lint")
    };
    if !workspace::is_ci() && !workspace::succeeds(Command::new("cfn-lint").arg("--version")) {
        return Ok(Skipped("cfn-lint is not installed".to_owned()));
    }
    lint.arg("--").arg(TEMPLATE);
    passed(lint)
}

/// Builds them with cargo-fuzz, or without its instrumentation where only the nightly compiler is there.
fn fuzz_targets() -> Result<Outcome> {
    if !workspace::succeeds(Command::new("rustup").args(["run", "nightly", "rustc", "--version"])) {
        return Ok(Skipped("no nightly toolchain".to_owned()));
    }
    let target = workspace::target_dir()?.join("fuzz");
    let mut nightly = workspace::command("rustup");
    nightly.args(["run", "nightly", "cargo"]).env("CARGO_TARGET_DIR", target);
    // cargo's own choice for this run would overrule the toolchain asked for here
    nightly.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("RUSTC");
    match workspace::succeeds(Command::new("cargo").args(["fuzz", "--version"])) {
        true => nightly.args(["fuzz", "build"]),
        false => {
            nightly.args(["build", "--manifest-path", "fuzz/Cargo.toml"]).env("RUSTFLAGS", "--cfg fuzzing")
        }
    };
    passed(nightly).context("building the fuzz targets")
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn quick_keeps_what_must_hold_at_every_commit() {
        let kept: Vec<_> = STEPS.iter().filter(|s| s.quick).map(|s| s.name).collect();
        assert_eq!(kept, ["format", "layers", "clippy", "build", "tests"]);
    }

    #[test]
    fn what_is_passed_over_is_counted() {
        let (missing, all) = models_without_file().unwrap();
        assert!(
            0 < missing && missing < all,
            "{missing} of {all}: some models are vendored and some are not"
        );
    }

    #[test]
    fn a_line_tells_name_time_and_verdict() {
        let took = Duration::from_millis(1_234);
        assert_eq!(line("docs", took, Some(&Passed)), "docs               1.2 s  passed\n");
        assert!(line("docs", took, Some(&Skipped("no python".to_owned()))).ends_with("skipped: no python\n"));
        assert!(line("docs", took, None).ends_with("FAILED\n"));
    }
}
