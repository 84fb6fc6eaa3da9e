//! Convolutions in bytes, through the command: the answers are those that numpy computes in whole numbers (tests/data/int8), and
//! as many of them are in bytes as a contract allows.

use anyhow::{Context, Result, ensure};
use glowplug_cli::npz;
use glowplug_pack::Tensor;
use glowplug_processing::v2::NamedTensor;
use glowplug_tests::{assert_close, glowplug_fails, glowplug_json, glowplug_ok, golden_part, repo};
use serde_json::Value;
use std::path::Path;
use tempfile::TempDir;

/// Far below a step, which is 1/127 of a range.
const TOLERANCE: f32 = 2e-5;
/// Of the image, without its first axis.
const IMAGE: [usize; 3] = [3, 17, 14];

fn data(name: &str) -> String {
    repo("tests/data/int8").join(name).display().to_string()
}

/// The network in f32, whose ranges are measured; and as a file that came quantized, whose ranges are in it.
const MODELS: [&str; 2] = ["network", "quantized"];

/// Packs a model to `m.glow` in `folder`, in bytes; the report.
fn pack(folder: &TempDir, model: &str, args: &[&str]) -> Result<Value> {
    let (onnx, calibration) = (data(&format!("{model}.onnx")), data("network.calibration.npz"));
    let output = folder.path().join("m.glow").display().to_string();
    let base = ["pack", &onnx, "-o", &output, "--json", "--compute", "int8"];
    let calibrate: &[&str] = if model == "network" { &["--calibrate", &calibration] } else { &[] };
    glowplug_json(&[&base, calibrate, args].concat())
}

/// The tensors of a model's golden that belong to `part`: `in` or `out`.
fn golden(model: &str, part: &str) -> Result<Vec<NamedTensor>> {
    golden_part(Path::new(&data(&format!("{model}.npz"))), part)
}

#[test]
fn a_network_in_bytes_answers_as_whole_numbers_do() -> Result<()> {
    for model in MODELS {
        answers_as_whole_numbers_do(model).context(model)?;
    }
    Ok(())
}

fn answers_as_whole_numbers_do(model: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (input, output) = (path("in.npz"), path("out.npz"));
    npz::write(Path::new(&input), &golden(model, "in")?)?;
    let report = pack(&folder, model, &[])?;
    let operators = &report["operators"];
    for (name, count) in [
        ("QuantizeImage", 1),
        ("Int8Conv", 5),
        ("Int8DepthwiseConv", 2),
        ("Int8MaxPool", 1),
        ("DequantizeImage", 1),
    ] {
        ensure!(operators[name] == count, "{name}: {operators}");
    }
    ensure!(report["int8"]["share"] == 1.0 && report["int8"]["kept"] == 0, "{}", report["int8"]);
    glowplug_ok(&["run", &path("m.glow"), "--input", &input, "--output", &output])?;
    assert_close(&npz::read(Path::new(&output))?, &golden(model, "out")?, TOLERANCE)?;
    glowplug_ok(&["verify", &path("m.glow")]).map(drop)
}

#[test]
fn ranges_are_measured_or_come_with_the_model() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let output = folder.path().join("m.glow").display().to_string();
    let e = glowplug_fails(2, &["pack", &data("network.onnx"), "-o", &output, "--compute", "int8"])?;
    ensure!(e.contains("(--calibrate), or a model whose activations came quantized"), "{e}");
    // Measured ones are others than the file's, and so are the answers.
    let measured = pack(&folder, "quantized", &["--calibrate", &data("network.calibration.npz")])?;
    ensure!(measured["int8"]["share"] == 1.0, "{measured}");
    let path = |name: &str| folder.path().join(name).display().to_string();
    npz::write(Path::new(&path("in.npz")), &golden("quantized", "in")?)?;
    glowplug_ok(&["run", &output, "--input", &path("in.npz"), "--output", &path("out.npz")])?;
    let answers = npz::read(Path::new(&path("out.npz")))?;
    ensure!(assert_close(&answers, &golden("quantized", "out")?, TOLERANCE).is_err(), "the file's ranges");
    assert_close(&answers, &golden("quantized", "out")?, 0.25)?;
    // A contract needs no data but those that it is measured on.
    let evaluation = folder.path().join("evaluation.npz");
    npz::write(&evaluation, &[NamedTensor { name: "x".to_owned(), tensor: images(12, 5)? }])?;
    let evaluation = evaluation.display().to_string();
    let bound = ["--eval", &evaluation, "--metric", "max-abs:conv_13"];
    let drop = pack(&folder, "quantized", &bound)?["compression"]["accuracy"]["drop"].clone();
    let drop = drop.as_f64().context("no drop")? / 2.0;
    let some = pack(&folder, "quantized", &[&bound[..], &["--max-drop", &drop.to_string()]].concat())?;
    let share = some["int8"]["share"].as_f64().context("no share")?;
    ensure!(share > 0.0 && share < 1.0, "{}", some["int8"]);
    ensure!(some["compression"]["accuracy"]["drop"].as_f64() <= Some(drop), "{}", some["compression"]);
    Ok(())
}

/// Noise, another one for each seed.
fn images(samples: usize, seed: u32) -> Result<Tensor> {
    let mut state = seed;
    let values = (0..samples * IMAGE.iter().product::<usize>()).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from(u16::try_from(state >> 16).unwrap_or_default()) / 16384.0 - 2.0
    });
    Ok(Tensor::from_f32([&[samples], &IMAGE[..]].concat(), values.collect())?)
}

#[test]
fn as_much_is_done_in_bytes_as_the_contract_allows() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let evaluation = path("evaluation.npz");
    let named = NamedTensor { name: "x".to_owned(), tensor: images(12, 5)? };
    npz::write(Path::new(&evaluation), &[named])?;
    let measured = ["--eval", &evaluation, "--metric", "max-abs:conv_13"];
    let number = |value: &Value| value.as_f64().with_context(|| format!("{value} is no number"));
    let pack = |args: &[&str]| pack(&folder, "network", &[&measured[..], args].concat());

    let all = pack(&[])?;
    let drop = number(&all["compression"]["accuracy"]["drop"])?;
    ensure!(drop > 0.0 && all["int8"]["share"] == 1.0 && all["int8"]["tried"].is_null(), "{all}");

    // What all of them keep leaves all of them.
    let loose = pack(&["--max-drop", &(drop * 1.01).to_string()])?;
    ensure!(loose["int8"]["share"] == 1.0 && loose["digest"] == all["digest"], "{}", loose["int8"]);

    let bound = drop / 2.0;
    let report = path("report.md");
    let some = pack(&["--max-drop", &bound.to_string(), "--report", &report])?;
    let (int8, share) = (&some["int8"], number(&some["int8"]["share"])?);
    ensure!(share > 0.0 && share < 1.0, "{int8}");
    ensure!(number(&some["compression"]["accuracy"]["drop"])? <= bound, "{}", some["compression"]);
    // What is in the plan is what is told.
    let operators = &some["operators"];
    let in_plan = ["Int8Conv", "Int8DepthwiseConv"].iter().filter_map(|name| operators[name].as_u64());
    ensure!(int8["convolutions"].as_u64() == Some(in_plan.sum()), "{int8} {operators}");
    let layers = int8["layers"].as_array().context("no layers")?;
    ensure!(layers.len() == 7 && layers.iter().all(|l| l["sensitivity"].is_number()), "{int8}");
    // No choice that was measured and kept the contract has more of it in bytes.
    let tried = int8["tried"].as_array().context("nothing tried")?;
    ensure!(tried.len() > 1 && tried.iter().any(|t| t["keeps"] == false), "{tried:?}");
    ensure!(tried.iter().all(|t| t["keeps"] == false || t["share"].as_f64() <= Some(share)), "{tried:?}");
    let kept = layers.iter().filter(|l| l["in_bytes"] == false).filter_map(|l| l["name"].as_str());
    let kept = kept.collect::<Vec<_>>().join("; ");
    let inspected: Value = glowplug_json(&["inspect", &path("m.glow"), "--json"])?;
    let options = &inspected["manifest"]["provenance"]["options"];
    ensure!(options["int8 kept"] == kept.as_str(), "{kept}: {options}");
    let text = std::fs::read_to_string(&report)?;
    let (_, table) = text.split_once("## Convolutions in int8").context("no table of convolutions")?;
    let (table, _) = table.split_once("## Weights").context("no table of weights")?;
    ensure!(table.matches("| f32 |").count() == layers.len() - in_bytes(int8)?, "{table}");

    // Nothing may be lost: nothing is in bytes, and the pack is one in f32.
    let none = pack(&["--max-drop", "0"])?;
    ensure!(none["int8"]["convolutions"] == 0 && none["int8"]["share"] == 0.0, "{}", none["int8"]);
    ensure!(
        none["operators"]["Int8Conv"].is_null() && none["max_relative_error"]["conv_13"].is_number(),
        "{none}"
    );
    Ok(())
}

fn in_bytes(int8: &Value) -> Result<usize> {
    Ok(usize::try_from(int8["convolutions"].as_u64().context("no count")?)?)
}

#[test]
fn bytes_are_for_one_target() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let output = folder.path().join("m.glow").display().to_string();
    let (onnx, calibration) = (data("network.onnx"), data("network.calibration.npz"));
    let base = ["pack", &onnx, "-o", &output, "--compute", "int8", "--calibrate", &calibration];
    let e = glowplug_fails(2, &[&base[..], &["--target", "common,avx512"]].concat())?;
    ensure!(e.contains("--compute int8 takes one --target"), "{e}");
    Ok(())
}
