//! The demo as a test, and the golden pack of format version 1, which must load for ever.

use anyhow::{Context, Result, ensure};
use glowplug_cli::npz;
use glowplug_tests::{assert_close, bin_dir, glowplug_json, glowplug_ok, repo};
use serde_json::Value;
use std::path::Path;

#[test]
fn every_answer_of_the_demo_is_onnx_runtimes() -> Result<()> {
    let functions = bin_dir()?.display().to_string();
    let demo: Value = glowplug_json(&["demo", "--functions", &functions, "--json"])?;
    ensure!(demo["wrong"] == 0 && demo["dead_letters"] == 1, "{demo}");
    let rows = demo["rows"].as_array().map_or(0, Vec::len);
    ensure!(demo["right"] == rows && rows >= 28, "{rows} rows in {demo}");
    let cold = |trigger: &str| {
        let mut rows = demo["rows"].as_array().into_iter().flatten();
        rows.any(|r| r["trigger"] == trigger && r["cold"] == true && r["timings"]["plan_ms"].is_f64())
    };
    ensure!(cold("http predict") && cold("s3 upload") && cold("sqs record"), "no cold start in {demo}");
    Ok(())
}

/// Name, and the reference: the folder of a model's golden, or the file of an operator's.
const GOLDEN_PACKS: [(&str, &str, u16); 4] = [
    ("mnist-cnn", "tests/data/goldens/mnist-cnn", 1),
    ("tab_digits_mlp", "tests/data/goldens/tab_digits_mlp", 1),
    ("lstm", "tests/data/ops/lstm.npz", 1),
    ("mnist-cnn", "tests/data/goldens/mnist-cnn", 2),
];

#[test]
fn the_golden_packs_of_every_version_load_and_answer() -> Result<()> {
    for (name, reference, version) in GOLDEN_PACKS {
        golden_pack(name, &repo(reference), version).with_context(|| format!("{version}/{name}"))?;
    }
    Ok(())
}

/// By its plan, and by its portable graph, which has to answer when no plan fits any more.
fn golden_pack(name: &str, reference: &Path, wanted: u16) -> Result<()> {
    let pack = repo(&format!("tests/data/{wanted}/{name}.glow")).display().to_string();
    let inspect: Value = glowplug_json(&["inspect", &pack, "--json"])?;
    let (version, model) = (&inspect["format_version"], &inspect["manifest"]["model"]["name"]);
    ensure!(*version == wanted && *model == name, "{inspect}");
    glowplug_ok(&["verify", &pack])?;
    let temp = tempfile::tempdir()?;
    let path = |name: &str| temp.path().join(name);
    let (inputs, wanted) = match reference.is_dir() {
        true => (npz::read(&reference.join("input.npz"))?, npz::read(&reference.join("output.npz"))?),
        false => crate::ops::parts(npz::read(reference)?)?,
    };
    npz::write(&path("in.npz"), &inputs)?;
    let (input, output) = (path("in.npz").display().to_string(), path("out.npz").display().to_string());
    for more in [&[][..], &["--portable"]] {
        glowplug_ok(&[&["run", &pack, "--input", &input, "--output", &output], more].concat())?;
        assert_close(&npz::read(&path("out.npz"))?, &wanted, 1e-4).with_context(|| format!("{more:?}"))?;
    }
    Ok(())
}
