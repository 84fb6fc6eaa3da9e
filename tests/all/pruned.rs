//! Pruning through the command: the answers are those that ONNX Runtime gives for a model that numpy cut and re-solved
//! (tests/data/pruned), by plan and by portable graph, what is said of the pack is so, and a contract holds.

use anyhow::{Context, Result, ensure};
use glowplug_cli::npz;
use glowplug_processing::v2::NamedTensor;
use glowplug_tests::{assert_close, glowplug_fails, glowplug_json as json, glowplug_ok, golden_part, repo};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Floats may differ by this much of the largest value in the reference.
const TOLERANCE: f32 = 1e-5;

fn data(name: &str) -> PathBuf {
    repo("tests/data/pruned").join(name)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// The tensors of the golden that belong to `part`: `in`, `float`, `cut` or `restored`.
fn part(part: &str) -> Result<Vec<NamedTensor>> {
    golden_part(&data("blocks.npz"), part)
}

#[test]
fn packs_answer_as_onnx_runtime_does_for_the_model_that_numpy_cut() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let path = |name: &str| text(&temp.path().join(name));
    let (input, output, pack) = (path("in.npz"), path("out.npz"), path("m.glow"));
    npz::write(Path::new(&input), &part("in")?)?;
    let (onnx, calibration) = (text(&data("blocks.onnx")), text(&data("calib.npz")));
    let command = ["pack", &onnx, "-o", &pack, "--calibrate", &calibration, "--prune", "30%", "--json"];
    for (how, args) in [("restored", &[][..]), ("cut", &["--no-restore"])] {
        let report = json(&[&command, args].concat())?;
        let pruning = &report["compression"]["pruning"];
        // For each of 36 positions; 8 of 24 channels of both blocks go, a depthwise layer with one of them.
        let macs = [8 * 16 + 4 * 24 * 16 + 24, 8 * 16 + 4 * 16 * 16 + 16].map(|n| n * 36);
        ensure!(pruning["macs_before"] == macs[0] && pruning["macs_after"] == macs[1], "{how}: {pruning}");
        ensure!(pruning["restored"] == (how == "restored"), "{pruning}");
        let layers = pruning["layers"].as_array().context("no layers")?;
        ensure!(
            layers.len() == 2 && layers.iter().all(|l| l["before"] == 24 && l["after"] == 16),
            "{how}: {pruning}"
        );
        for source in ["tuned", "portable"] {
            let flag: &[&str] = if source == "portable" { &["--portable"] } else { &[] };
            let run =
                json(&[&["run", &pack, "--input", &input, "--output", &output, "--json"], flag].concat())?;
            ensure!(run["source"] == source, "{how}: {run}");
            let found = npz::read(Path::new(&output))?;
            assert_close(&found, &part(how)?, TOLERANCE).with_context(|| format!("{how}, {source}"))?;
            ensure!(assert_close(&found, &part("float")?, 5.0 * TOLERANCE).is_err(), "{how}: nothing went");
        }
        glowplug_ok(&["verify", &pack])?;
        let inspected = json(&["inspect", &pack, "--json"])?;
        let told = &inspected["manifest"]["provenance"]["options"]["pruned"];
        let not = if how == "cut" { "not " } else { "" };
        ensure!(*told == format!("{} -> {} multiply-adds, {not}restored", macs[0], macs[1]), "{told}");
    }
    Ok(())
}

#[test]
fn a_contract_bounds_what_pruning_loses() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let path = |name: &str| text(&temp.path().join(name));
    let (evaluation, pack, report) = (path("eval.npz"), path("m.glow"), path("report.md"));
    npz::write(Path::new(&evaluation), &part("in")?)?;
    let (onnx, calibration) = (text(&data("blocks.onnx")), text(&data("calib.npz")));
    let data = ["pack", &onnx, "-o", &pack, "--calibrate", &calibration, "--eval", &evaluation];
    let how = ["--metric", "max-abs", "--prune", "30%", "--report", &report, "--max-drop"];
    let command = [&data[..], &how].concat();
    // What it costs against the model as it came: 0.0167 restored and 0.0872 as cut, says ONNX Runtime.
    let e = glowplug_fails(1, &[&command[..], &["0.01"]].concat())?;
    ensure!(e.contains("loses 0.01666 of max-abs"), "{e}");
    let e = glowplug_fails(1, &[&command[..], &["0.05", "--no-restore"]].concat())?;
    ensure!(e.contains("loses 0.08722 of max-abs"), "{e}");
    ensure!(!Path::new(&pack).exists(), "a pack was written");
    let said = json(&[&command[..], &["0.05", "--json"]].concat())?;
    let compression = &said["compression"];
    let of = |value: &Value| value.as_f64().with_context(|| format!("{value} is no number"));
    let (lost, score) = (of(&compression["accuracy"]["drop"])?, of(&compression["pruning"]["score"])?);
    let without = of(&compression["pruning"]["score_without_restoring"])?;
    ensure!(
        (lost - 0.01666).abs() < 1e-4 && (score - lost).abs() < 1e-4 && (without - 0.08722).abs() < 1e-4,
        "{compression}"
    );
    let told = std::fs::read_to_string(&report)?;
    for part in [
        "## Pruned channels",
        "30.8 % fewer multiply-adds (60768 -> 42048)",
        "0.0872",
        "| Conv_2 | 24 | 16 |",
    ] {
        ensure!(told.contains(part), "{told} does not say {part:?}");
    }
    // Rounding comes after it, and is bounded together with it.
    let e = glowplug_fails(1, &[&command[..], &["0.0167", "--weights", "int8"]].concat())?;
    ensure!(e.contains("loses at most 0.0167 of max-abs"), "{e}");
    glowplug_ok(&[&command[..], &["1", "--weights", "int8"]].concat())?;
    Ok(())
}

#[test]
fn what_cannot_be_pruned_is_told() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let pack = text(&temp.path().join("m.glow"));
    let (onnx, calibration) = (text(&data("blocks.onnx")), text(&data("calib.npz")));
    // Its only products read what else reads too.
    let other = text(&repo("tests/data/quantized/rows.onnx"));
    let rows = text(&repo("tests/data/ops/dense-rows-2.npz"));
    for (onnx, args, part) in [
        (&onnx, &["--prune", "0", "--calibrate", &calibration][..], "expected a part as 25% or 0.25"),
        (&onnx, &["--prune", "120%", "--calibrate", &calibration], "expected a part as 25% or 0.25"),
        (&onnx, &["--prune", "25%"], "--calibrate"),
        (&onnx, &["--no-restore", "--calibrate", &calibration], "--prune"),
        (
            &onnx,
            &["--prune", "90%", "--calibrate", &calibration],
            "90.0 % of this model's multiply-adds cannot be pruned",
        ),
        (&onnx, &["--prune", "25%", "--calibrate", &rows], "input \"x\" is not in the data"),
        (
            &onnx,
            &["--prune", "25%", "--calibrate", &calibration, "--target", "common,avx512"],
            "--prune takes one --target",
        ),
        (&other, &["--prune", "25%", "--calibrate", &rows], "input \"ids\" is not in the data"),
    ] {
        let e = glowplug_fails(2, &[&["pack", onnx, "-o", &pack], args].concat())?;
        ensure!(e.contains(part), "{args:?}: {e:?} does not say {part:?}");
        ensure!(!Path::new(&pack).exists(), "{args:?}: a pack was written");
    }
    Ok(())
}
