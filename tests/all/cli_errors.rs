//! Nonsense in, a clear error out: exit code 2 (or 1 where a check failed), the name, what was found and wanted.

use anyhow::{Result, ensure};
use glowplug_cli::npz;
use glowplug_pack::Tensor;
use glowplug_processing::v2::NamedTensor;
use glowplug_tests::{binary, glowplug_fails, glowplug_ok, repo};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A folder with the pack of mnist-cnn in it.
fn digits_pack() -> Result<(TempDir, PathBuf)> {
    let temp = tempfile::tempdir()?;
    let pack = temp.path().join("m.glow");
    let onnx = repo("tests/data/models/mnist-cnn.onnx");
    glowplug_ok(&["pack", text(&onnx), "-o", text(&pack)])?;
    Ok((temp, pack))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

/// Every one of `parts` is in `found`.
fn says(found: &str, parts: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(found.contains(part), "{found:?} does not say {part:?}");
    }
    Ok(())
}

#[test]
fn what_is_no_onnx_is_not_packed() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let (input, output) = (temp.path().join("x.onnx"), temp.path().join("x.glow"));
    std::fs::write(&input, b"this is text")?;
    let e = glowplug_fails(2, &["pack", text(&input), "-o", text(&output)])?;
    says(&e, &["x.onnx", "ONNX"])?;
    ensure!(!output.exists(), "a pack was written");
    says(
        &glowplug_fails(2, &["pack", "no-such.onnx", "-o", text(&output)])?,
        &["no-such.onnx", "No such file"],
    )
}

/// An ONNX file of one node: `y = OP(x)`, both f32[1,4].
fn one_node_model(op: &str) -> Vec<u8> {
    fn field(tag: u8, bytes: &[u8]) -> Vec<u8> {
        let len = u8::try_from(bytes.len()).expect("short messages only");
        [&[tag << 3 | 2, len], bytes].concat()
    }
    let dims = [field(1, &[0x08, 1]), field(1, &[0x08, 4])].concat();
    let value = |name: &str| {
        let tensor = [vec![0x08, 1], field(2, &dims)].concat();
        [field(1, name.as_bytes()), field(2, &field(1, &tensor))].concat()
    };
    let node = [field(1, b"x"), field(2, b"y"), field(3, b"the_node"), field(4, op.as_bytes())].concat();
    let graph = [field(1, &node), field(2, b"g"), field(11, &value("x")), field(12, &value("y"))].concat();
    [vec![0x08, 8], field(7, &graph), field(8, &[0x10, 13])].concat()
}

#[test]
fn an_operator_outside_of_the_coverage_is_told_with_its_node() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let (input, output) = (temp.path().join("x.onnx"), temp.path().join("x.glow"));
    for op in ["Sinh", "NoSuchOperator"] {
        std::fs::write(&input, one_node_model(op))?;
        says(&glowplug_fails(2, &["pack", text(&input), "-o", text(&output)])?, &["the_node", op])?;
    }
    ensure!(!output.exists(), "a pack was written");
    // The same file with an operator that is covered packs, so it is the operator that was refused.
    std::fs::write(&input, one_node_model("Sigmoid"))?;
    glowplug_ok(&["pack", text(&input), "-o", text(&output)])?;
    Ok(())
}

#[test]
fn wrong_pins_are_told_with_the_flag_that_mends_them() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let output = temp.path().join("x.glow");
    let pack = |model: &str, pins: &[&str]| {
        let onnx = repo("tests/data/models").join(model);
        let mut args = vec!["pack", text(&onnx), "-o", text(&output)];
        for pin in pins {
            args.extend(["--input", pin]);
        }
        glowplug_fails(2, &args)
    };
    says(&pack("ppocr-cls.onnx", &[])?, &["--input", "x=f32["])?;
    says(&pack("mnist-cnn.onnx", &["picture=f32[1,1,28,28]"])?, &["picture", "image"])?;
    says(&pack("mnist-cnn.onnx", &["image=i64[1,1,28,28]"])?, &["image", "i64", "f32"])?;
    says(&pack("mnist-cnn.onnx", &["image=f32[1,28,28]"])?, &["image"])?;
    says(&pack("mnist-cnn.onnx", &["image=f33[1]"])?, &["f33"])?;
    ensure!(!output.exists(), "a pack was written");
    Ok(())
}

#[test]
fn wrong_tensors_are_told_by_name_found_and_wanted() -> Result<()> {
    let (temp, pack) = digits_pack()?;
    let (input, output) = (temp.path().join("in.npz"), temp.path().join("out.npz"));
    let run = |name: &str, tensor: Tensor| -> Result<String> {
        npz::write(&input, &[NamedTensor { name: name.into(), tensor }])?;
        glowplug_fails(2, &["run", text(&pack), "--input", text(&input), "--output", text(&output)])
    };
    let zeros = |shape: &[usize]| Tensor::zeros(glowplug_pack::Dtype::F32, shape);
    says(&run("picture", zeros(&[1, 1, 28, 28])?)?, &["\"picture\"", "\"image\""])?;
    says(&run("image", zeros(&[1, 28, 28])?)?, &["\"image\"", "rank is 3", "expected 4"])?;
    says(&run("image", zeros(&[1, 1, 28, 27])?)?, &["\"image\"", "27", "28"])?;
    let bytes = Tensor::zeros(glowplug_pack::Dtype::U8, [1, 1, 28, 28])?;
    says(&run("image", bytes)?, &["\"image\"", "UINT8", "FP32"])?;
    ensure!(!output.exists(), "an output was written");
    Ok(())
}

#[test]
fn a_damaged_pack_is_refused_and_verify_says_where() -> Result<()> {
    let (temp, pack) = digits_pack()?;
    let good = std::fs::read(&pack)?;
    let bad = temp.path().join("bad.glow");
    let verify = |bytes: &[u8]| -> Result<String> {
        std::fs::write(&bad, bytes)?;
        let output = glowplug_tests::glowplug(&["verify", text(&bad), "--json"])?;
        ensure!(output.status.code() == Some(1), "{}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    };
    says(&verify(&good[..good.len() - 1])?, &["bytes"])?;
    says(&verify(b"PK\x03\x04 no pack")?, &["not a pack"])?;
    let mut flipped = good.clone();
    let last = flipped.len() - 300;
    flipped[last] ^= 1;
    says(&verify(&flipped)?, &["\"ok\":false", "its hash is"])?;
    says(&glowplug_ok(&["verify", text(&pack)])?, &["sound"])
}

#[test]
fn a_version_is_published_once() -> Result<()> {
    let (temp, pack) = digits_pack()?;
    let store = format!("file://{}", temp.path().join("store").display());
    let publish = |pack: &Path| {
        let to = store.clone();
        let args =
            ["publish", text(pack), "--to", &to, "--name", "d", "--version", "1", "--alias", "default"];
        glowplug_tests::glowplug(&args)
    };
    ensure!(publish(&pack)?.status.success() && publish(&pack)?.status.success());
    let other = temp.path().join("other.glow");
    let onnx = repo("tests/data/models/ppocr-cls.onnx");
    glowplug_ok(&["pack", text(&onnx), "-o", text(&other), "--input", "x=f32[1,3,48,192]"])?;
    let second = publish(&other)?;
    ensure!(second.status.code() == Some(2));
    says(&String::from_utf8_lossy(&second.stderr), &["d/1", "already"])?;
    let e = glowplug_fails(2, &["publish", text(&pack), "--to", &store, "--version", "../x"])?;
    says(&e, &["--version", "../x"])
}

#[test]
fn a_model_without_the_asked_batch_axis_refuses_it() -> Result<()> {
    let (_temp, pack) = digits_pack()?;
    glowplug_ok(&["bench", text(&pack), "--runs", "1", "--batch", "3"])?;
    says(&glowplug_fails(2, &["bench", text(&pack), "--threads", "0"])?, &["--threads", "0"])
}

#[test]
fn a_log_filter_that_is_none_is_told() -> Result<()> {
    let mut command = Command::new(binary("glowplug")?);
    let output = command.args(["inspect", "no-such.glow"]).env("GLOWPLUG_LOG", "info,x=loud").output()?;
    ensure!(output.status.code() == Some(2), "{}", output.status);
    says(&String::from_utf8(output.stderr)?, &["GLOWPLUG_LOG", "info,x=loud", "directives"])
}
