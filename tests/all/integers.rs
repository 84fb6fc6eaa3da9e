//! Models that come quantized, through the command: a pack keeps their integers, and answers as ONNX Runtime does for the same
//! network with activations in floats (tests/data/integers), by plan and by portable graph.

use anyhow::{Context, Result, ensure};
use glowplug_cli::npz;
use glowplug_processing::v2::NamedTensor;
use glowplug_tests::{assert_close, glowplug_json, glowplug_ok, golden_part, large_models, repo};
use serde_json::Value;
use std::path::Path;
use tempfile::TempDir;

/// Of the largest value in the reference: scales are rounded to 16 bits, which is 2^-16 of a weight.
const TOLERANCE: f32 = 5e-5;

/// A way of being quantized, and what is found in its file.
struct Case {
    model: &'static str,
    weights: u64,
    weights_int8: u64,
    activations: u64,
}

const CASES: [Case; 5] = [
    // Of one weight the integers lie up to 178 from the zero point.
    Case { model: "weights", weights: 6, weights_int8: 5, activations: 0 },
    Case { model: "blocks", weights: 1, weights_int8: 0, activations: 0 },
    Case { model: "activations", weights: 3, weights_int8: 3, activations: 7 },
    Case { model: "operators", weights: 5, weights_int8: 5, activations: 14 },
    Case { model: "dynamic", weights: 5, weights_int8: 5, activations: 4 },
];

fn golden(model: &str, part: &str) -> Result<Vec<NamedTensor>> {
    golden_part(&repo("tests/data/integers").join(format!("{model}.npz")), part)
}

/// Packs a model of the folder to `m.glow`; the report.
fn pack(folder: &TempDir, model: &str, args: &[&str]) -> Result<Value> {
    let onnx = repo("tests/data/integers").join(format!("{model}.onnx")).display().to_string();
    let output = folder.path().join("m.glow").display().to_string();
    glowplug_json(&[&["pack", &onnx, "-o", &output, "--json"], args].concat())
}

#[test]
fn models_that_come_quantized_keep_their_integers_and_answer_as_floats_do() -> Result<()> {
    for Case { model, weights, weights_int8, activations } in CASES {
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name).display().to_string();
        let (input, output, packed) = (path("in.npz"), path("out.npz"), path("m.glow"));
        npz::write(Path::new(&input), &golden(model, "in")?)?;
        let report = pack(&folder, model, &[])?;
        let found = &report["quantized"];
        for (name, wanted) in
            [("weights", weights), ("weights_int8", weights_int8), ("activations", activations)]
        {
            ensure!(found[name] == wanted, "{model}, {name}: {found}, expected {wanted}");
        }
        ensure!(report["weights"]["encoded"] == weights_int8, "{model}: {}", report["weights"]);
        for source in ["tuned", "portable"] {
            let flag: &[&str] = if source == "portable" { &["--portable"] } else { &[] };
            let run = [&["run", &packed, "--input", &input, "--output", &output, "--json"], flag].concat();
            ensure!(glowplug_json(&run)?["source"] == source, "{model}");
            assert_close(&npz::read(Path::new(&output))?, &golden(model, "out")?, TOLERANCE)
                .with_context(|| format!("{model}, {source}"))?;
        }
        glowplug_ok(&["verify", &packed])?;
        let told = &glowplug_json(&["inspect", &packed, "--json"])?["manifest"]["provenance"]["options"];
        let told = told["came quantized"].as_str().context("not told")?;
        ensure!(told.starts_with(&format!("{weights} weights in integers")), "{told}");
        let text = glowplug_ok(&["inspect", &packed])?;
        ensure!(text.contains(&format!("\ncame quantized: {told}\n")), "{text}");
    }
    Ok(())
}

/// Rounding what is rounded would lose twice; what does not fit is rounded where that is asked for.
#[test]
fn integers_of_the_file_are_not_rounded_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    npz::write(Path::new(&path("in.npz")), &golden("activations", "in")?)?;
    let mut answers = Vec::new();
    for encoding in ["f32", "f16", "int8"] {
        let report = pack(&folder, "activations", &["--weights", encoding])?;
        ensure!(report["weights"]["encoded"] == 3, "{encoding}: {}", report["weights"]);
        glowplug_ok(&["run", &path("m.glow"), "--input", &path("in.npz"), "--output", &path("out.npz")])?;
        answers.push(std::fs::read(path("out.npz"))?);
    }
    ensure!(answers.windows(2).all(|pair| pair[0] == pair[1]), "weights differ");
    let all = pack(&folder, "weights", &["--weights", "int8"])?;
    ensure!(all["weights"]["encoded"] == 6, "{}", all["weights"]);
    let said = glowplug_ok(&[
        "pack",
        &repo("tests/data/integers/weights.onnx").display().to_string(),
        "-o",
        &path("n.glow"),
    ])?;
    ensure!(said.contains("the integers of 1 weights do not, which are f32 now: --weights int8"), "{said}");
    Ok(())
}

/// The sentence model of models/README.md with its weights as Cast and Mul, exported with masks by GatherND.
#[test]
fn a_sentence_model_in_int8_is_as_small_as_its_file() -> Result<()> {
    let Some(models) = large_models() else { return Ok(()) };
    let onnx = models.join("minilm-l6-v2-int8w.onnx");
    let folder = tempfile::tempdir()?;
    let packed = folder.path().join("m.glow").display().to_string();
    let onnx_path = onnx.display().to_string();
    let mut args = vec!["pack", &onnx_path, "-o", &packed, "--json"];
    for pin in ["input_ids=i64[1,32]", "attention_mask=i64[1,32]", "token_type_ids=i64[1,32]"] {
        args.extend(["--input", pin]);
    }
    let report = glowplug_json(&args)?;
    let bytes = report["pack_bytes"].as_u64().context("no bytes")?;
    ensure!(bytes < std::fs::metadata(&onnx)?.len() * 101 / 100, "{report}");
    ensure!(report["quantized"]["weights_int8"] == 38, "{report}");
    Ok(())
}
