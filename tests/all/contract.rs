//! Compression under a contract, through the command: what is measured is told and kept, a pack that breaks its
//! contract is not written, and data that do not fit get an error that says why.

use anyhow::{Context, Result, ensure};
use glowplug_cli::npz;
use glowplug_pack::Tensor;
use glowplug_processing::v2::NamedTensor;
use glowplug_tests::{glowplug_fails, glowplug_json, glowplug_ok, repo};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const SAMPLES: usize = 48;

/// A folder with data for mnist-cnn in it.
struct Folder {
    temp: TempDir,
    onnx: String,
}

impl Folder {
    fn new() -> Result<Folder> {
        let onnx = repo("tests/data/models/mnist-cnn.onnx").display().to_string();
        Ok(Folder { temp: tempfile::tempdir()?, onnx })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// `members` as NAME.npz; its path.
    fn data(&self, name: &str, members: Vec<(&str, Tensor)>) -> Result<String> {
        let path = self.path(&format!("{name}.npz"));
        let named = members.into_iter().map(|(name, tensor)| NamedTensor { name: name.to_owned(), tensor });
        npz::write(&path, &named.collect::<Vec<_>>())?;
        Ok(path.display().to_string())
    }

    /// `glowplug pack` with these arguments, to m.glow.
    fn pack<'a>(&'a self, output: &'a str, args: &[&'a str]) -> Vec<&'a str> {
        [&["pack", &self.onnx, "-o", output], args].concat()
    }
}

/// Strokes on black, another one for each sample.
fn images(samples: usize, seed: usize) -> Tensor {
    let value = |i: usize| {
        let (sample, y, x) = (i / 784 + seed, i % 784 / 28, i % 28);
        let distance = (x * (sample % 5 + 1) + y * (sample % 3 + 1) + sample * 7) % 28;
        if distance < 4 && (4..24).contains(&x) && (4..24).contains(&y) { 1.0 } else { 0.0 }
    };
    Tensor::from_f32([samples, 1, 28, 28], (0..samples * 784).map(value).collect()).expect("as many values")
}

fn labels(samples: usize) -> Tensor {
    Tensor::from_i64([samples], vec![0; samples]).expect("as many values")
}

#[test]
fn what_compression_costs_is_measured_kept_and_told() -> Result<()> {
    let folder = Folder::new()?;
    let calibration = folder.data("calibration", vec![("image", images(SAMPLES, 1000))])?;
    let evaluation =
        folder.data("evaluation", vec![("image", images(SAMPLES, 0)), ("label", labels(SAMPLES))])?;
    let (int8, auto, report) = (folder.text("int8.glow"), folder.text("auto.glow"), folder.text("report.md"));
    let measured = ["--eval", &evaluation, "--metric", "cosine:logits", "--json"];
    let pack = |output: &str, args: &[&str]| -> Result<Value> {
        let args = [&folder.pack(output, args)[..], &measured].concat();
        glowplug_json(&args)
    };
    let number = |value: &Value| value.as_f64().with_context(|| format!("{value} is no number"));

    let nearest = pack(&int8, &["--weights", "int8"])?;
    let better = pack(&int8, &["--weights", "int8", "--calibrate", &calibration])?;
    let drop = |packed: &Value| number(&packed["compression"]["accuracy"]["drop"]);
    // Both are close to the model, and calibration is closer.
    ensure!(
        drop(&nearest)? < 1e-3 && drop(&better)? < drop(&nearest)?,
        "{} {}",
        drop(&better)?,
        drop(&nearest)?
    );

    let bounds = ["--weights", "auto", "--max-drop", "1pt", "--calibrate", &calibration, "--report", &report];
    let found = pack(&auto, &bounds)?;
    let (small, large) = (number(&found["pack_bytes"])?, number(&better["pack_bytes"])?);
    ensure!(drop(&found)? <= 0.01 && small < 0.6 * large, "{small} of {large}, {}", drop(&found)?);
    ensure!(number(&found["pack_bytes"])? == std::fs::metadata(&auto)?.len() as f64);
    let layers = found["compression"]["layers"].as_array().context("no layers")?;
    ensure!(layers.iter().any(|l| l["rounding"].as_str().is_some_and(|r| r.contains("steps"))), "{layers:?}");
    // The manifest keeps it, for whoever inspects the pack later.
    let inspected: Value = glowplug_json(&["inspect", &auto, "--json"])?;
    let options = &inspected["manifest"]["provenance"]["options"];
    for (name, part) in [
        ("accuracy", "cosine:logits 1.00000 -> 0.99"),
        ("calibration", "48 samples, blake3:"),
        ("weights chosen", "in steps of"),
    ] {
        ensure!(options[name].as_str().is_some_and(|text| text.contains(part)), "{name}: {options}");
    }
    // The same by another way: the pack beside one in f32.
    let f32 = folder.text("f32.glow");
    pack(&f32, &[])?;
    let runs = ["--runs", "1"];
    let compared = glowplug_ok(&[&["compare", &f32, &auto], &runs[..], &measured].concat())?;
    let compared: Value = serde_json::from_str(&compared)?;
    let scores = compared["packs"].as_array().context("no packs")?.iter().map(|p| number(&p["score"]));
    let scores = scores.collect::<Result<Vec<_>>>()?;
    ensure!(
        scores[0] == 1.0 && (1.0 - scores[1] - drop(&found)?).abs() < 1e-6,
        "{scores:?} {}",
        drop(&found)?
    );
    // The report in its three forms.
    let read = |name: &str| std::fs::read_to_string(folder.path(name)).context(name.to_owned());
    ensure!(read("report.md")?.contains("![size and accuracy](report.svg)"));
    ensure!(read("report.svg")?.matches("<circle").count() > 3);
    let json: Value = serde_json::from_str(&read("report.json")?)?;
    ensure!(json["digest"] == found["digest"], "{json}");
    Ok(())
}

#[test]
fn a_pack_that_breaks_its_contract_is_not_written() -> Result<()> {
    let folder = Folder::new()?;
    let evaluation = folder.data("evaluation", vec![("image", images(SAMPLES, 0))])?;
    let output = folder.text("m.glow");
    std::fs::write(&output, b"what was there before")?;
    let measured = ["--eval", &evaluation, "--metric", "max-abs"];
    for (args, parts) in [
        (
            &["--weights", "int8", "--max-drop", "0"][..],
            &["loses at most 0 of max-abs", "the best found"][..],
        ),
        (&["--weights", "int8", "--max-bytes", "10kB"], &["has at most 10000 bytes", "the best found has"]),
        (&["--weights", "auto", "--max-bytes", "9kB"], &["has at most 9000 bytes", "the best found has"]),
        (&["--weights", "auto", "--max-drop", "0"], &["loses at most 0 of max-abs"]),
    ] {
        let e = glowplug_fails(1, &[&folder.pack(&output, args)[..], &measured].concat())?;
        for part in parts {
            ensure!(e.contains(part), "{e:?} does not say {part:?}");
        }
    }
    // The bound holds for the pack of all targets, which is larger than the first one's.
    let targets = ["--target", "common,avx512", "--max-bytes", "300kB"];
    let e = glowplug_fails(1, &folder.pack(&output, &targets))?;
    ensure!(e.contains("at most 300000 bytes: this one has"), "{e}");
    ensure!(std::fs::read(&output)? == b"what was there before", "the file was touched");
    let beside = std::fs::read_dir(folder.temp.path())?.count();
    ensure!(beside == 2, "{beside} files, wanted the data and what was there");
    Ok(())
}

#[test]
fn data_that_do_not_fit_are_told() -> Result<()> {
    let folder = Folder::new()?;
    let bad = |shape: [usize; 4], value: f32| {
        Tensor::from_f32(shape, vec![value; shape.iter().product()]).expect("as many values")
    };
    let good = folder.data("good", vec![("image", images(4, 0))])?;
    let nan = folder.data("nan", vec![("image", bad([2, 1, 28, 28], f32::NAN))])?;
    let wide = folder.data("wide", vec![("image", bad([2, 1, 28, 29], 0.0))])?;
    let other = folder.data("other", vec![("picture", images(2, 0))])?;
    let uneven = folder.data("uneven", vec![("image", images(4, 0)), ("label", labels(3))])?;
    let integers = folder.data("integers", vec![("image", labels(4))])?;
    let labelled = folder.data("labelled", vec![("image", images(4, 0)), ("label", labels(4))])?;
    let none = folder.text("none.npz");
    let output = folder.text("m.glow");
    let (data_report, no_folder) = (folder.text("good.npz"), folder.text("none/r.md"));
    let own = folder.text("m.md");
    std::os::unix::fs::symlink(&good, folder.path("m.json"))?;
    for (args, parts) in [
        (vec!["--calibrate", &nan], vec!["input \"image\" of sample 0 holds NaN"]),
        (
            vec!["--calibrate", &wide],
            vec!["input \"image\" has [1, 28, 29] for each sample, wanted [1, 28, 28]"],
        ),
        (vec!["--calibrate", &other], vec!["input \"image\" is not in the data", "\"picture\""]),
        (vec!["--calibrate", &integers], vec!["input \"image\" is i64, wanted f32"]),
        (vec!["--calibrate", &none], vec!["--calibrate", "none.npz"]),
        (vec!["--eval", &uneven, "--metric", "top1"], vec!["uneven.npz", "\"label\" has 3 samples"]),
        (vec!["--eval", &good, "--metric", "top1"], vec!["metric top1 needs a member \"label (i64)\""]),
        (vec!["--eval", &good, "--metric", "cer"], vec!["metric cer needs a member \"text\""]),
        (vec!["--eval", &labelled, "--metric", "auc"], vec!["gave 40 answers, the data have 4 labels"]),
        (vec!["--eval", &good, "--metric", "cosine:scores"], vec!["no output \"scores\"", "logits"]),
        (vec!["--eval", &good, "--metric", "f1"], vec!["unknown metric \"f1\"", "top1"]),
        (vec!["--eval", &good], vec!["--metric"]),
        (vec!["--max-drop", "1%"], vec!["--max-drop", "0.5pt"]),
        (vec!["--max-bytes", "many"], vec!["8MB"]),
        (vec!["--weights", "auto"], vec!["weights auto need a bound", "--max-drop", "--max-bytes"]),
        (vec!["--compute", "int8"], vec!["compute int8 needs calibration data", "--calibrate"]),
        (
            vec!["--weights", "auto", "--compute", "int8", "--max-bytes", "1MB"],
            vec!["compute int8 takes weights"],
        ),
        // What other CPUs would do cannot be chosen, nor measured, for all of them.
        (
            vec!["--target", "common,avx512", "--weights", "f16"],
            vec!["--weights other than f32 takes one --target"],
        ),
        (
            vec![
                "--target",
                "common,avx512",
                "--weights",
                "f32",
                "--eval",
                &good,
                "--metric",
                "cosine",
                "--max-drop",
                "1pt",
            ],
            vec!["--max-drop takes one --target"],
        ),
        // A report that would be written over something else.
        (vec!["--calibrate", &good, "--report", &data_report], vec!["--report", "expected FILE.md"]),
        (vec!["--report", &no_folder], vec!["--report", "no such folder"]),
        (vec!["--calibrate", &good, "--report", &own], vec!["--report", "another file of this command"]),
        (vec!["--weights", "auto", "--max-bytes", "1MB"], vec!["need calibration or evaluation data"]),
    ] {
        let weights: &[&str] = if args.contains(&"--weights") { &[] } else { &["--weights", "int8"] };
        let e = glowplug_fails(2, &[&folder.pack(&output, &args)[..], weights].concat())?;
        for part in parts {
            ensure!(e.contains(part), "{args:?}: {e:?} does not say {part:?}");
        }
        ensure!(!Path::new(&output).exists(), "{args:?}: a pack was written");
    }
    // Nor can what this CPU cannot run be calibrated.
    #[cfg(target_arch = "x86_64")]
    if !std::arch::is_x86_feature_detected!("avx512f") {
        for how in [["--weights", "int8"], ["--prune", "25%"], ["--compute", "int8"]] {
            let args = [&how[..], &["--target", "avx512", "--calibrate", &good]].concat();
            let e = glowplug_fails(2, &folder.pack(&output, &args))?;
            ensure!(e.contains("avx512") && e.contains("no data on this CPU"), "{how:?}: {e}");
        }
    }
    Ok(())
}

/// The digits that ONNX Runtime answered for, each in the folder of its label, and the first in a wrong one too; how many it is
/// right about, of how many.
fn digits(folder: &Folder) -> Result<(String, f64, f64)> {
    let digits: Value = serde_json::from_slice(&std::fs::read(repo("tests/data/digits/digits.json"))?)?;
    let digits = digits["digits"].as_array().context("no digits")?;
    for digit in digits {
        let (file, label) = (digit["file"].as_str().context("no file")?, &digit["label"]);
        let class = folder.path("digits").join(label.to_string());
        std::fs::create_dir_all(&class)?;
        std::fs::copy(repo("tests/data/digits").join(file), class.join(file))?;
    }
    let right = digits.iter().filter(|digit| digit["label"] == digit["top1"]).count();
    let first = digits[0]["file"].as_str().context("no file")?;
    std::fs::copy(repo("tests/data/digits").join(first), folder.path("digits/9").join(first))?;
    Ok((folder.text("digits"), right as f64, digits.len() as f64 + 1.0))
}

#[test]
fn samples_may_be_raw_files_in_folders_of_their_classes() -> Result<()> {
    let folder = Folder::new()?;
    let (data, right, all) = digits(&folder)?;
    let (output, other) = (folder.text("m.glow"), folder.text("f32.glow"));
    let manifest = repo("tests/data/models/mnist-cnn.toml").display().to_string();
    let measured = ["--eval", &data, "--metric", "top1", "--json"];
    let args = ["--manifest", &manifest, "--weights", "int8", "--calibrate", &data];
    let found = glowplug_ok(&[&folder.pack(&output, &args)[..], &measured].concat())?;
    let found: Value = serde_json::from_str(&found)?;
    let compression = &found["compression"];
    let before = compression["accuracy"]["before"].as_f64().context("no score")?;
    ensure!((before - right / all).abs() < 1e-9, "{before}, wanted {right} of {all}");
    ensure!(compression["calibration"]["samples"] == all, "{compression}");
    // Packs know their pipelines.
    glowplug_ok(&folder.pack(&other, &["--manifest", &manifest]))?;
    let compared = glowplug_ok(&[&["compare", &other, &output, "--runs", "1"], &measured[..]].concat())?;
    let compared: Value = serde_json::from_str(&compared)?;
    ensure!(compared["samples"] == all && compared["packs"][0]["score"] == before, "{compared}");

    // The labels are the model's: other folders are none of them.
    let put = |name: &str, bytes: &[u8]| -> Result<()> {
        let path = folder.path(name);
        std::fs::create_dir_all(path.parent().context("no folder")?)?;
        Ok(std::fs::write(path, bytes)?)
    };
    let image = std::fs::read(repo("tests/data/digits/00-0.png"))?;
    put("flat/00.png", &image)?;
    put("classes/ten/00.png", &image)?;
    put("mixed/0/00.png", &image)?;
    put("mixed/00.png", &image)?;
    put("broken/0/00.png", b"no image")?;
    std::fs::create_dir(folder.path("empty"))?;
    let none = folder.text("none.glow");
    let [flat, classes, mixed, broken, empty] =
        ["flat", "classes", "mixed", "broken", "empty"].map(|n| folder.text(n));
    for (args, parts) in [
        (vec!["--manifest", &manifest, "--eval", &flat, "--metric", "top1"], vec!["needs a member \"label"]),
        (
            vec!["--manifest", &manifest, "--eval", &classes, "--metric", "top1"],
            vec!["ten is no label of the model, which has 0, 1, 2"],
        ),
        (vec!["--manifest", &manifest, "--calibrate", &mixed], vec!["00.png lies beside folders of classes"]),
        (vec!["--manifest", &manifest, "--calibrate", &broken], vec!["--calibrate", "00.png", "image"]),
        (vec!["--manifest", &manifest, "--calibrate", &empty], vec!["empty holds no files"]),
        (vec!["--calibrate", &data], vec!["needs a pipeline in the model's manifest (--manifest)"]),
    ] {
        let weights = ["--weights", "int8"];
        let e = glowplug_fails(2, &[&folder.pack(&none, &args)[..], &weights].concat())?;
        for part in parts {
            ensure!(e.contains(part), "{args:?}: {e:?} does not say {part:?}");
        }
        ensure!(!folder.path("none.glow").exists(), "{args:?}: a pack was written");
    }
    // Without labels there is only the order of the folders.
    let bare = std::fs::read_to_string(&manifest)?.replace("labels = \"mnist-cnn.labels.txt\"", "");
    std::fs::write(folder.path("bare.toml"), bare)?;
    let bare = folder.text("bare.toml");
    let args = ["--manifest", &bare, "--eval", &data, "--metric", "top1", "--json"];
    let found: Value = glowplug_json(&folder.pack(&output, &args))?;
    ensure!(found["compression"]["accuracy"]["before"] == before, "{found}");
    Ok(())
}
