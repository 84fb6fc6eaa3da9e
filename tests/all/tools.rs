//! Commands that need a cloud: `publish` into S3, and `dev` until it is told to end.

use anyhow::{Context, Result, ensure};
use glowplug_local::{CloudSpec, LocalCloud, post};
use glowplug_tests::{bin_dir, binary, glowplug_ok, repo};
use serde_json::Value;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn pack(dir: &Path, name: &str) -> Result<String> {
    let model = repo("tests/data/models/mnist-cnn").display().to_string();
    let manifest = std::fs::read_to_string(format!("{model}.toml"))?.replace("mnist-cnn", name);
    let (toml, out) = (dir.join(format!("{name}.toml")), dir.join(format!("{name}.glow")));
    std::fs::write(&toml, manifest.replace(&format!("{name}.labels"), "mnist-cnn.labels"))?;
    std::fs::copy(format!("{model}.labels.txt"), dir.join("mnist-cnn.labels.txt"))?;
    let (toml, out) = (toml.display().to_string(), out.display().to_string());
    glowplug_ok(&["pack", &format!("{model}.onnx"), "-o", &out, "--manifest", &toml])?;
    Ok(out)
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_writes_to_s3_once_and_points_the_alias() -> Result<()> {
    let spec = CloudSpec { buckets: vec!["models".into()], ..CloudSpec::default() };
    let (access, secret) = (spec.access_key.clone(), spec.secret_key.clone());
    let cloud = LocalCloud::start(spec, Arc::new(|_| ())).await?;
    let temp = tempfile::tempdir()?;
    let (first, second) = (pack(temp.path(), "digits")?, pack(temp.path(), "numbers")?);
    let endpoint = cloud.urls().s3.clone();
    let publish = async |pack: &str, secret: &str| -> Result<Output> {
        let mut command = Command::new(binary("glowplug")?);
        command.args(["publish", pack, "--to", "s3://models/prod", "--name", "digits", "--version", "7"]);
        command.args(["--alias", "default", "--s3-endpoint", &endpoint, "--s3-path-style", "--json"]);
        command.env("AWS_ACCESS_KEY_ID", &access).env("AWS_SECRET_ACCESS_KEY", secret);
        command.env("AWS_REGION", "us-east-1");
        Ok(tokio::task::spawn_blocking(move || command.output()).await??)
    };
    for created in [true, false] {
        let output = publish(&first, &secret).await?;
        let answer: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        ensure!(output.status.success() && answer["created"] == created, "{answer}");
        let alias = cloud.buckets().get("models", "prod/digits/aliases/default.json")?;
        let alias: Value = serde_json::from_slice(&alias.bytes)?;
        ensure!(alias["version"] == "7" && alias["digest"] == answer["digest"], "{alias} {answer}");
    }
    let stored = cloud.buckets().get("models", "prod/digits/7/model.glow")?;
    ensure!(stored.bytes == std::fs::read(&first)?);
    for (pack, secret, text) in [
        (&second, secret.as_str(), "versions never change"),
        (&first, "wrong", "s3://models/prod/digits/7/model.glow: 403"),
    ] {
        let output = publish(pack, secret).await?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(2) && error.contains(text), "{}: {error}", output.status);
    }
    ensure!(cloud.buckets().get("models", "prod/digits/7/model.glow")?.bytes == stored.bytes);
    cloud.shutdown().await;
    Ok(())
}

/// Ends with the test, however that ends.
struct Dev(Child);

impl Drop for Dev {
    fn drop(&mut self) {
        // Of no effect on a process that has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_serves_a_pack_until_it_is_told_to_end() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let pack = pack(temp.path(), "digits")?;
    let mut command = Command::new(binary("glowplug")?);
    command.args(["dev", "--pack", &pack, "--port", "0", "--json", "--functions"]).arg(bin_dir()?);
    let mut dev = Dev(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?);
    let mut stdout = dev.0.stdout.take().context("piped above")?;
    let told = tokio::task::spawn_blocking(move || -> Result<Value> {
        let (mut text, mut byte) = (Vec::new(), [0]);
        loop {
            ensure!(stdout.read(&mut byte)? == 1, "ended early: {}", String::from_utf8_lossy(&text));
            text.push(byte[0]);
            if let Ok(told) = serde_json::from_slice(&text) {
                return Ok(told);
            }
        }
    });
    let told = tokio::time::timeout(Duration::from_secs(60), told).await???;
    let url = format!("{}/v2/models/digits/predict", told["gateway"].as_str().context("a gateway")?);
    let digit = std::fs::read(repo("tests/data/digits/00-0.png"))?;
    let reply = post(&url, "image/png", digit).await?;
    let body: Value = serde_json::from_slice(&reply.body)?;
    ensure!(reply.status == 200 && body["outputs"][0]["topk"][0]["label"] == "0", "{body}");
    let pid = dev.0.id().to_string();
    ensure!(Command::new("kill").args(["-TERM", &pid]).status()?.success());
    let start = Instant::now();
    let status = loop {
        if let Some(status) = dev.0.try_wait()? {
            break status;
        }
        ensure!(start.elapsed() < Duration::from_secs(20), "it does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    ensure!(status.success(), "{status}");
    ensure!(post(&url, "image/png", "x").await.is_err(), "its gateway listens on");
    Ok(())
}
