//! The demo as a test, and the golden pack of format version 1, which must load for ever.

use anyhow::{Result, ensure};
use glowplug_cli::npz;
use glowplug_tests::{assert_close, bin_dir, glowplug_ok, repo};
use serde_json::Value;

#[test]
fn every_answer_of_the_demo_is_onnx_runtimes() -> Result<()> {
    let functions = bin_dir()?.display().to_string();
    let demo: Value = serde_json::from_str(&glowplug_ok(&["demo", "--functions", &functions, "--json"])?)?;
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

#[test]
fn the_golden_pack_of_version_1_loads_and_answers() -> Result<()> {
    let pack = repo("tests/data/1/mnist-cnn.glow").display().to_string();
    let inspect: Value = serde_json::from_str(&glowplug_ok(&["inspect", &pack, "--json"])?)?;
    ensure!(
        inspect["format_version"] == 1 && inspect["manifest"]["model"]["name"] == "mnist-cnn",
        "{inspect}"
    );
    glowplug_ok(&["verify", &pack])?;
    let temp = tempfile::tempdir()?;
    let output = temp.path().join("out.npz");
    let input = repo("tests/data/goldens/mnist-cnn/input.npz").display().to_string();
    glowplug_ok(&["run", &pack, "--input", &input, "--output", &output.display().to_string()])?;
    let wanted = npz::read(&repo("tests/data/goldens/mnist-cnn/output.npz"))?;
    assert_close(&npz::read(&output)?, &wanted, 1e-4)
}
