//! Weights in fewer bits, through the command: the answers are those that ONNX Runtime gives with weights that numpy rounded
//! (tests/data/quantized), by plan and by portable graph, and what is said of the pack is so.

use anyhow::{Context, Result, ensure};
use glowplug_cli::npz;
use glowplug_processing::v2::NamedTensor;
use glowplug_tests::{
    assert_close, glowplug_fails, glowplug_json as json, glowplug_ok, golden_part, large_models, repo,
};
use serde_json::Value;
use std::path::Path;

/// Floats may differ by this much of the largest value in the reference: below what separates f16 from f32.
const TOLERANCE: f32 = 2e-5;

/// The tensors of a golden that belong to `part`: `in`, `f32`, `f16` or `int8`.
fn part(model: &str, part: &str) -> Result<Vec<NamedTensor>> {
    golden_part(&repo("tests/data/quantized").join(format!("{model}.npz")), part)
}

#[test]
fn packs_answer_as_onnx_runtime_does_with_rounded_weights() -> Result<()> {
    // How many weights of each are read through panels or rows, and how many of them int8 leaves f16.
    for (model, encoded, small) in [("images", 4, 0), ("rows", 5, 1)] {
        let temp = tempfile::tempdir()?;
        let path = |name: &str| temp.path().join(name).display().to_string();
        let (input, output) = (path("in.npz"), path("out.npz"));
        npz::write(Path::new(&input), &part(model, "in")?)?;
        let onnx = repo("tests/data/quantized").join(format!("{model}.onnx")).display().to_string();
        for encoding in ["f32", "f16", "int8"] {
            let place = format!("{model} in {encoding}");
            let pack = path(&format!("{encoding}.glow"));
            let report = json(&["pack", &onnx, "-o", &pack, "--weights", encoding, "--json"])?;
            let found = &report["weights"];
            let wanted = if encoding == "f32" { 0 } else { encoded };
            ensure!(found["encoding"] == encoding && found["encoded"] == wanted, "{place}: {found}");
            let (bytes, of) = (found["encoded_bytes"].as_u64(), found["f32_bytes"].as_u64());
            let (bytes, of) = bytes.zip(of).context("no bytes")?;
            let most = match encoding {
                "int8" => of * 2 / 5,
                _ => of * 3 / 5,
            };
            ensure!(bytes <= most, "{place}: {bytes} of {of}");
            for source in ["tuned", "portable"] {
                let flag: &[&str] = if source == "portable" { &["--portable"] } else { &[] };
                let run = [&["run", &pack, "--input", &input, "--output", &output, "--json"], flag].concat();
                let run = json(&run)?;
                ensure!(run["source"] == source, "{place}: {run}");
                let found = npz::read(Path::new(&output))?;
                assert_close(&found, &part(model, encoding)?, TOLERANCE)
                    .with_context(|| format!("{place}, {source}"))?;
            }
            let of_encoding = if encoding == "int8" { wanted - small } else { wanted };
            inspected(&pack, encoding, of_encoding).with_context(|| place)?;
            glowplug_ok(&["verify", &pack])?;
        }
    }
    Ok(())
}

/// What `inspect` says of a pack with so many encoded weights.
fn inspected(pack: &str, encoding: &str, encoded: usize) -> Result<()> {
    let said = json(&["inspect", pack, "--weights", "--json"])?;
    ensure!(said["manifest"]["provenance"]["options"]["weights"] == encoding, "{}", said["manifest"]);
    let weights = said["weights"].as_array().context("no weights")?;
    let of = |w: &&Value| w["encoding"] == encoding;
    let rows: Vec<_> = said["encodings"].as_array().context("no encodings")?.iter().filter(of).collect();
    if encoding == "f32" {
        ensure!(said["expanded_bytes"] == 0, "{said}");
        return Ok(());
    }
    ensure!(weights.iter().filter(of).count() == encoded && rows[0]["weights"] == encoded, "{said}");
    ensure!(rows[0]["plain_bytes"].as_u64() > rows[0]["bytes"].as_u64(), "{said}");
    ensure!(said["expanded_bytes"].as_u64().is_some_and(|n| n > 0), "{said}");
    let text = glowplug_ok(&["inspect", pack, "--weights"])?;
    let line = format!("{encoded} weights as {encoding}: ");
    ensure!(text.contains(&line) && text.contains(&format!("{encoding} panels of 16, k=")), "{text}");
    Ok(())
}

#[test]
fn an_encoding_that_is_none_is_an_error() -> Result<()> {
    let onnx = repo("tests/data/quantized/rows.onnx").display().to_string();
    let e = glowplug_fails(2, &["pack", &onnx, "-o", "/dev/null", "--weights", "int7"])?;
    ensure!(e.contains("unknown encoding \"int7\": expected one of f32, f16, int8"), "{e}");
    Ok(())
}

/// The bounds of issue 5, where the large models are.
#[test]
fn large_packs_are_small() -> Result<()> {
    let Some(models) = large_models() else { return Ok(()) };
    let temp = tempfile::tempdir()?;
    let pack = temp.path().join("m.glow").display().to_string();
    let texts = ["input_ids", "attention_mask", "token_type_ids"].map(|name| format!("{name}=i64[1,16]"));
    let onnx = models.join("minilm-l6-v2-f32.onnx").display().to_string();
    for (encoding, percent) in [("int8", 30), ("f16", 52)] {
        let pins = texts.iter().flat_map(|pin| ["--input", pin.as_str()]);
        let args: Vec<_> =
            ["pack", &onnx, "-o", &pack, "--weights", encoding, "--json"].into_iter().chain(pins).collect();
        let report = json(&args)?;
        let (bytes, of) = (report["pack_bytes"].as_u64(), report["onnx_bytes"].as_u64());
        let (bytes, of) = bytes.zip(of).context("no bytes")?;
        ensure!(bytes * 100 <= of * percent, "{encoding}: {bytes} of {of} bytes");
    }
    Ok(())
}
