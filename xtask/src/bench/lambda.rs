//! The full path of a cold invocation: Runtime API, function process, model from S3 behind a shaped link, answer.

use super::cases::Case;
use super::cloud;
use super::engines::OURS;
use super::process::{MEASURED_CORE, bring_memory};
use super::setup::Setup;
use super::summary::{CaseSummary, LambdaSummary, median};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) const HEADER: &str = "model,engine,mb_per_s,round,cold_ms,warm_ms\n";
/// The link of these figures, in megabytes per second.
const MB_PER_S: f64 = 100.0;

/// A function: the engine that it stands for, its program, the file it serves.
struct Function {
    id: &'static str,
    program: Start,
    file: &'static str,
}

/// How a function is started.
enum Start {
    Binary(&'static str),
    Script(&'static str),
}

const FUNCTIONS: [Function; 4] = [
    Function { id: OURS, program: Start::Binary("glowplug-api"), file: "model.glow" },
    Function { id: "rten", program: Start::Binary("function-rten"), file: "model.rten" },
    Function { id: "ort", program: Start::Binary("function-ort"), file: "model.onnx" },
    Function { id: "ort-python", program: Start::Script("function_ort.py"), file: "model.onnx" },
];

#[derive(Clone, Copy, Deserialize)]
struct Invoked {
    cold_ms: f64,
    warm_ms: f64,
}

/// All functions in turn, `runs` times, each in a process and a cloud of its own.
pub(crate) fn measure(
    setup: &Setup,
    case: &Case,
    summary: &CaseSummary,
    runs: usize,
    csv: &mut String,
) -> Result<Vec<LambdaSummary>> {
    if !case.lambda || summary.figures(OURS).is_none() {
        return Ok(Vec::new());
    }
    let event = event(setup, case)?;
    let mut refused = BTreeMap::new();
    let mut samples: BTreeMap<&str, Vec<Invoked>> = BTreeMap::new();
    for round in 0..=runs {
        for turn in 0..FUNCTIONS.len() {
            let function = &FUNCTIONS[(round + turn) % FUNCTIONS.len()];
            if refused.contains_key(function.id) {
                continue;
            }
            match invoke(setup, case, function, &event) {
                Ok(_) if round == 0 => {} // not counted: it warms the page cache and shows who can do it
                Ok(found) => {
                    let Invoked { cold_ms, warm_ms } = found;
                    writeln!(
                        csv,
                        "{},{},{MB_PER_S},{},{cold_ms:.3},{warm_ms:.3}",
                        case.name,
                        function.id,
                        round - 1
                    )?;
                    samples.entry(function.id).or_default().push(found);
                }
                Err(error) => drop(refused.insert(function.id, format!("{error:#}"))),
            }
        }
    }
    let errors = output_errors(setup, case, samples.keys())?;
    let summary = |f: &Function| {
        let samples = samples.get(f.id);
        LambdaSummary {
            engine: f.id.to_owned(),
            mb_per_s: MB_PER_S,
            refused: refused.remove(f.id),
            cold_ms: samples.map(|s| median(s.iter().map(|i| i.cold_ms))),
            warm_ms: samples.map(|s| median(s.iter().map(|i| i.warm_ms))),
            output_error: errors.get(f.id).copied().flatten(),
        }
    };
    Ok(FUNCTIONS.iter().map(summary).collect())
}

/// The event that all functions get: an HTTP API request that holds the case's input as V2 JSON.
fn event(setup: &Setup, case: &Case) -> Result<PathBuf> {
    let path = setup.folder(case).join("event.json");
    let mut script = setup.python("event.py");
    script.arg(setup.folder(case).join("input.npz")).arg(case.name).arg(&path);
    crate::workspace::run(&mut script)?;
    Ok(path)
}

fn invoke(setup: &Setup, case: &Case, function: &Function, event: &Path) -> Result<Invoked> {
    let folder = setup.folder(case);
    let key = match function.id {
        OURS => format!("{}/1/model.glow", case.name),
        _ => function.file.to_owned(),
    };
    let mut command = cloud::command(setup, "invoke", MB_PER_S);
    command.arg("--object").arg(format!("{key}={}", folder.join(function.file).display()));
    command.args(["--function", "/usr/bin/taskset"]);
    for argument in ["-c".to_owned(), MEASURED_CORE.to_string()] {
        command.args(["--arg", &argument]);
    }
    match function.program {
        Start::Binary(name) => command.arg("--arg").arg(setup.bin_dir().join(name)),
        Start::Script(name) => {
            command.arg("--arg").arg(setup.interpreter()).args(["--arg", "-B"]);
            command.arg("--arg").arg(setup.script(name))
        }
    };
    for (name, value) in environment(setup, case, &key) {
        command.args(["--env", &format!("{name}={value}")]);
    }
    command.arg("--event").arg(event).arg("--output").arg(answer_path(setup, case, function.id));
    bring_memory();
    told(&mut command)
}

/// What any of the functions reads.
fn environment(setup: &Setup, case: &Case, key: &str) -> [(&'static str, String); 10] {
    [
        ("GLOWPLUG_STORE", "s3://models".into()),
        ("GLOWPLUG_MODELS", format!("{}:1", case.name)),
        ("GLOWPLUG_S3_PATH_STYLE", "true".into()),
        ("GLOWPLUG_THREADS", "1".into()),
        ("GLOWPLUG_LOG", "error".into()),
        ("RTEN_NUM_THREADS", "1".into()),
        ("ORT_DYLIB_PATH", setup.ort_library().display().to_string()),
        ("MODEL_BUCKET", "models".into()),
        ("MODEL_KEY", key.to_owned()),
        // Where a function's folder is not writable, as on Lambda, nothing may look for one at home.
        ("HOME", "/tmp".into()),
    ]
}

fn told(command: &mut Command) -> Result<Invoked> {
    let output = command.output().context("starting bench-cloud")?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{}", stderr.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("no reason told"));
    }
    serde_json::from_slice(&output.stdout).context("bench-cloud's answer")
}

fn answer_path(setup: &Setup, case: &Case, id: &str) -> PathBuf {
    setup.folder(case).join(format!("{id}.answer.json"))
}

fn output_errors<'a>(
    setup: &Setup,
    case: &Case,
    ids: impl Iterator<Item = &'a &'a str>,
) -> Result<BTreeMap<String, Option<f64>>> {
    let pairs = ids.map(|id| (*id, answer_path(setup, case, id)));
    setup.compare(case, pairs)
}
