//! What the end-to-end tests share: where things are, how the binaries are run, how tensors are compared.

use anyhow::{Context, Result, bail, ensure};
use glowplug_cli::npz;
use glowplug_pack::{Tensor, TensorData};
use glowplug_processing::v2::NamedTensor;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A file or folder of the repository.
#[must_use]
pub fn repo(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The folder of the built binaries: `GLOWPLUG_BIN_DIR`, else where this test binary was built.
pub fn bin_dir() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("GLOWPLUG_BIN_DIR") {
        return Ok(dir.into());
    }
    let exe = std::env::current_exe()?;
    let dir = exe.parent().and_then(Path::parent).context("the test binary has no folder")?;
    Ok(dir.to_path_buf())
}

/// A built binary. Errors: it is not there, with the command that builds it.
pub fn binary(name: &str) -> Result<PathBuf> {
    let path = bin_dir()?.join(name);
    ensure!(
        path.is_file(),
        "no {}: run `cargo xtask test`, or name the folder of the built binaries in GLOWPLUG_BIN_DIR",
        path.display()
    );
    Ok(path)
}

/// Runs `glowplug` with `args` in the repository's root.
pub fn glowplug(args: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary("glowplug")?);
    Ok(command.args(args).current_dir(repo("")).output()?)
}

/// Runs `glowplug` and gives its stdout. Errors: any exit code but 0, with stderr.
pub fn glowplug_ok(args: &[&str]) -> Result<String> {
    let output = glowplug(args)?;
    let (out, err) =
        (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr).into_owned());
    ensure!(output.status.success(), "glowplug {args:?}: {}\n{err}\n{out}", output.status);
    Ok(out)
}

/// Runs `glowplug` and reads its stdout as JSON.
pub fn glowplug_json(args: &[&str]) -> Result<Value> {
    Ok(serde_json::from_str(&glowplug_ok(args)?)?)
}

/// The tensors of a golden that are named `PART.`, without that.
pub fn golden_part(path: &Path, part: &str) -> Result<Vec<NamedTensor>> {
    let named = npz::read(path)?.into_iter().filter_map(|NamedTensor { name, tensor }| {
        let name = name.strip_prefix(part)?.strip_prefix('.')?.to_owned();
        Some(NamedTensor { name, tensor })
    });
    Ok(named.collect())
}

/// Runs `glowplug`, which must fail with `code`, and gives its stderr.
pub fn glowplug_fails(code: i32, args: &[&str]) -> Result<String> {
    let output = glowplug(args)?;
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.code() == Some(code),
        "glowplug {args:?}: {}, expected {code}\n{err}",
        output.status
    );
    Ok(err)
}

/// The folder of the large models (`cargo xtask models`), if it was brought. Says so where it was not.
#[must_use]
pub fn large_models() -> Option<PathBuf> {
    let dir = std::env::var_os("GLOWPLUG_MODELS_DIR").map(PathBuf::from).filter(|dir| dir.is_dir());
    if dir.is_none() {
        eprintln!(
            "skipped: large models are not here, `cargo xtask models` brings them (GLOWPLUG_MODELS_DIR)"
        );
    }
    dir
}

/// Compares tensors by the table in tests/data/goldens/README.md: floats within `tolerance` of the largest
/// absolute value, everything else exactly.
pub fn assert_close(found: &[NamedTensor], wanted: &[NamedTensor], tolerance: f32) -> Result<()> {
    let names =
        |t: &[NamedTensor]| t.iter().map(|t| t.name.clone()).collect::<std::collections::BTreeSet<_>>();
    ensure!(names(found) == names(wanted), "outputs {:?}, expected {:?}", names(found), names(wanted));
    for NamedTensor { name, tensor: wanted } in wanted {
        let found = &found.iter().find(|t| t.name == *name).context("checked above")?.tensor;
        close(found, wanted, tolerance).with_context(|| format!("output {name:?}"))?;
    }
    Ok(())
}

fn close(found: &Tensor, wanted: &Tensor, tolerance: f32) -> Result<()> {
    ensure!(found.shape() == wanted.shape(), "is {found}, expected {wanted}");
    let (TensorData::F32(found), TensorData::F32(wanted)) = (found.data(), wanted.data()) else {
        ensure!(found == wanted, "differs");
        return Ok(());
    };
    let largest = wanted.iter().fold(0.0f32, |a, b| a.max(b.abs()));
    for (i, (f, w)) in found.iter().zip(wanted).enumerate() {
        let error = (f - w).abs() / largest;
        if error.is_nan() || error > tolerance {
            bail!("element {i} is {f}, expected {w} ({error:.1e} of the largest, {tolerance:.0e} allowed)");
        }
    }
    Ok(())
}
