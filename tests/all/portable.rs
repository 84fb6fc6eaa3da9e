//! The portable graph through the command line: it serves where no tuned plan fits, with the same answers and
//! a reason, and at shapes that no plan was made for.

use anyhow::{Context, Result, ensure};
use glowplug_cli::npz;
use glowplug_tests::{assert_close, binary, glowplug_json, glowplug_ok, large_models, repo};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// Floats may differ by this much of the largest value in the reference.
const TOLERANCE: f32 = 1e-4;
/// Takes from tract what every tuned plan on x86-64 needs.
const PLAIN_CPU: &str = "-avx2,-fma,-avx512f";

/// A pack of a model, in a folder of its own.
struct Packed {
    folder: TempDir,
    report: Value,
}

impl Packed {
    fn of(onnx: &Path, pins: &[&str]) -> Result<Packed> {
        let folder = tempfile::tempdir()?;
        let pack = folder.path().join("m.glow").display().to_string();
        let onnx = onnx.display().to_string();
        let mut args = vec!["pack", &onnx, "-o", &pack, "--json"];
        args.extend(pins.iter().flat_map(|pin| ["--input", pin]));
        let report = glowplug_json(&args)?;
        Ok(Packed { folder, report })
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Runs a golden of `name` (`-24` is input-24.npz) with these `flags`, on a CPU with `isa` taken away: answers as ONNX Runtime's.
    /// Gives the command's answer and what it wrote to stderr.
    fn run(&self, name: &str, golden: &str, flags: &[&str], isa: Option<&str>) -> Result<(Value, String)> {
        let goldens = repo("tests/data/goldens").join(name);
        let mut command = Command::new(binary("glowplug")?);
        command.args(["run", &self.path("m.glow"), "--json", "--output", &self.path("out.npz"), "--input"]);
        command.arg(goldens.join(format!("input{golden}.npz"))).args(flags);
        command.envs(isa.map(|isa| ("TRACT_CPU_ISA", isa)));
        let output = command.output()?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{name} {flags:?} {isa:?}: {}\n{errors}", output.status);
        let found = npz::read(Path::new(&self.path("out.npz")))?;
        assert_close(&found, &npz::read(&goldens.join(format!("output{golden}.npz")))?, TOLERANCE)
            .with_context(|| format!("{name} {flags:?}"))?;
        Ok((serde_json::from_slice(&output.stdout)?, errors))
    }
}

fn models(name: &str) -> std::path::PathBuf {
    repo("tests/data/models").join(format!("{name}.onnx"))
}

#[test]
fn a_cpu_without_the_plans_instruction_sets_is_served_by_the_portable_graph() -> Result<()> {
    // Of images, and of nothing but products.
    let cases = [
        ("mnist-cnn", vec![]),
        ("ppocr-cls", vec!["x=f32[1,3,48,192]"]),
        ("tab_digits_mlp", vec!["X=f32[8,64]"]),
    ];
    for (name, pins) in cases {
        let packed = Packed::of(&models(name), &pins)?;
        let (run, errors) = packed.run(name, "", &[], None)?;
        ensure!(run["source"] == "tuned" && errors.is_empty(), "{run}\n{errors}");
        let (run, errors) = packed.run(name, "", &["--portable"], None)?;
        ensure!(run["source"] == "portable" && errors.is_empty(), "{run}\n{errors}");
        if cfg!(target_arch = "x86_64") {
            let (run, errors) = packed.run(name, "", &[], Some(PLAIN_CPU))?;
            ensure!(run["source"] == "portable", "{run}");
            ensure!(
                errors.contains("portable graph serves") && errors.contains("this CPU lacks"),
                "{errors}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_pack_tells_what_its_portable_graph_leaves_open() -> Result<()> {
    let packed = Packed::of(&models("mnist-cnn"), &[])?;
    ensure!(packed.report["portable"]["symbols"] == serde_json::json!(["N"]), "{}", packed.report);
    let inspection: Value = glowplug_json(&["inspect", &packed.path("m.glow"), "--json"])?;
    let portable = &inspection["portable"];
    ensure!(portable["symbols"] == serde_json::json!(["N"]), "{inspection}");
    // No matrix: at most the single values that plans hold in their operators.
    ensure!(portable["second_copy_bytes"].as_u64().is_some_and(|bytes| bytes <= 64), "{inspection}");
    let text = glowplug_ok(&["inspect", &packed.path("m.glow")])?;
    ensure!(text.contains("portable graph"), "{text}");
    glowplug_ok(&["verify", &packed.path("m.glow")])?;
    Ok(())
}

#[test]
fn a_length_without_a_plan_is_served_by_the_portable_graph() -> Result<()> {
    let Some(dir) = large_models() else { return Ok(()) };
    let name = "minilm-l6-v2-f32";
    let pins = ["input_ids=i64[1,16]", "attention_mask=i64[1,16]", "token_type_ids=i64[1,16]"];
    let packed = Packed::of(&dir.join(format!("{name}.onnx")), &pins)?;
    let (run, _) = packed.run(name, "", &[], None)?;
    ensure!(run["source"] == "tuned", "{run}");
    let (_, errors) = packed.run(name, "-24", &[], None)?;
    ensure!(errors.contains("portable graph serves") && errors.contains("[1,24]"), "{errors}");
    packed.run(name, "", &["--portable"], None)?;
    Ok(())
}
