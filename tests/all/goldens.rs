//! `glowplug pack` then `glowplug run` gives what ONNX Runtime gave, for every model of the first coverage.

use anyhow::{Context, Result, ensure};
use glowplug_cli::npz;
use glowplug_tests::{assert_close, glowplug_ok, large_models, repo};
use serde_json::Value;
use std::path::Path;

/// Floats may differ by this much of the largest value in the reference.
const TOLERANCE: f32 = 1e-4;

struct Case {
    model: &'static str,
    pins: &'static [&'static str],
}

const VENDORED: [Case; 2] =
    [Case { model: "mnist-cnn", pins: &[] }, Case { model: "ppocr-cls", pins: &["x=f32[1,3,48,192]"] }];

const LARGE: [Case; 2] = [
    Case { model: "efficientnet-lite0", pins: &["input=f32[1,3,224,224]"] },
    Case {
        model: "minilm-l6-v2-f32",
        pins: &["input_ids=i64[1,16]", "attention_mask=i64[1,16]", "token_type_ids=i64[1,16]"],
    },
];

#[test]
fn vendored_models_answer_as_onnx_runtime_does() -> Result<()> {
    VENDORED.iter().try_for_each(|case| check(case, &repo("tests/data/models")))
}

#[test]
fn large_models_answer_as_onnx_runtime_does() -> Result<()> {
    let Some(dir) = large_models() else { return Ok(()) };
    LARGE.iter().try_for_each(|case| check(case, &dir))
}

fn check(case: &Case, dir: &Path) -> Result<()> {
    let temp = tempfile::tempdir()?;
    let path = |name: &str| temp.path().join(name).display().to_string();
    let (pack, output) = (path("m.glow"), path("out.npz"));
    let onnx = dir.join(format!("{}.onnx", case.model)).display().to_string();
    let manifest = repo("tests/data/models").join(format!("{}.toml", case.model));
    // Large models lie beside a copy of their manifest and its files.
    let beside = dir.join(format!("{}.toml", case.model));
    let manifest = if beside.is_file() { beside } else { manifest }.display().to_string();
    let mut args = vec!["pack", &onnx, "-o", &pack, "--json", "--manifest", &manifest];
    for pin in case.pins {
        args.extend(["--input", pin]);
    }
    let report: Value = serde_json::from_str(&glowplug_ok(&args)?)?;
    ensure!(report["pack_bytes"].as_u64() == Some(std::fs::metadata(&pack)?.len()), "{report}");

    let goldens = repo("tests/data/goldens").join(case.model);
    let input = goldens.join("input.npz").display().to_string();
    let run = glowplug_ok(&["run", &pack, "--input", &input, "--output", &output, "--json"])?;
    let run: Value = serde_json::from_str(&run)?;
    ensure!(run["run_ms"].is_f64() && run["plan_ms"].is_f64(), "no timings in {run}");
    let wanted = npz::read(&goldens.join("output.npz"))?;
    assert_close(&npz::read(Path::new(&output))?, &wanted, TOLERANCE).with_context(|| case.model)?;

    let bench: Value = serde_json::from_str(&glowplug_ok(&["bench", &pack, "--runs", "3", "--json"])?)?;
    for stage in ["plan_ms", "first_run_ms", "run_ms"] {
        let s = &bench[stage];
        ensure!(s["min"].is_f64() && s["p50"].is_f64() && s["p99"].is_null(), "{stage} in {bench}");
    }
    ensure!(bench["bytes"].as_u64().is_some_and(|n| n > 0), "{bench}");
    glowplug_ok(&["verify", &pack])?;
    Ok(())
}
