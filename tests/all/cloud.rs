//! The functions in the local cloud: what users and AWS would see.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use glowplug_cli::cloud::{self, CloudOptions};
use glowplug_local::{LocalCloud, Reply, get, post};
use glowplug_tests::{bin_dir, binary, glowplug_ok, repo};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

type Logs = Arc<Mutex<Vec<String>>>;

/// The cloud with mnist-cnn in it, and everything its functions printed.
struct Lab {
    cloud: LocalCloud,
    digest: String,
    logs: Logs,
}

async fn lab() -> Result<Lab> {
    binary("glowplug-api")?;
    let temp = tempfile::tempdir()?;
    let pack = temp.path().join("m.glow").display().to_string();
    let model = repo("tests/data/models/mnist-cnn");
    let (onnx, manifest) = (format!("{}.onnx", model.display()), format!("{}.toml", model.display()));
    glowplug_ok(&["pack", &onnx, "-o", &pack, "--manifest", &manifest])?;
    let logs = Logs::default();
    let sink = {
        let logs = logs.clone();
        Arc::new(move |line: glowplug_local::LogLine| {
            logs.lock().expect("no panic while locked").push(line.text);
        })
    };
    let options = CloudOptions {
        functions: &bin_dir()?,
        models: &["mnist-cnn".to_owned()],
        gateway_port: 0,
        s3_port: 0,
        sqs_port: 0,
        visibility_timeout: Duration::from_secs(2),
        log: "info",
    };
    let cloud = cloud::start(&options, sink).await?;
    let digest = cloud::publish(&cloud, "mnist-cnn", std::fs::read(&pack)?).await?;
    Ok(Lab { cloud, digest: digest.to_string(), logs })
}

impl Lab {
    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.cloud.urls().gateway)
    }

    async fn post(&self, path: &str, content_type: &str, body: impl Into<Bytes>) -> Result<Reply> {
        Ok(post(&self.url(path), content_type, body).await?)
    }

    async fn result(&self, input: &[u8]) -> Result<Value> {
        let key = format!("{}/{}.json", self.digest, blake3::hash(input).to_hex());
        let start = Instant::now();
        loop {
            if let Ok(object) = self.cloud.buckets().get(cloud::RESULTS, &key) {
                return Ok(serde_json::from_slice(&object.bytes)?);
            }
            ensure!(start.elapsed() < Duration::from_secs(20), "no result {key}\n{:?}", self.logs.lock());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn digit(file: &str) -> Result<Vec<u8>> {
    let path = repo("tests/data/digits").join(file);
    std::fs::read(&path).with_context(|| path.display().to_string())
}

fn body(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap_or(Value::Null)
}

#[tokio::test(flavor = "multi_thread")]
async fn http_speaks_the_protocol_and_tells_errors_by_name() -> Result<()> {
    let lab = lab().await?;
    let ok = lab.post("/v2/models/mnist-cnn/predict", "image/png", digit("00-0.png")?).await?;
    ensure!(ok.status == 200 && body(&ok)["outputs"][0]["topk"][0]["label"] == "0", "{:?}", body(&ok));
    ensure!(ok.headers["x-glowplug-cold"] == "true" && ok.headers.contains_key("server-timing"));

    let tensor = |name: &str, shape: Value, datatype: &str, data: Value| {
        json!({"inputs": [{"name": name, "shape": shape, "datatype": datatype, "data": data}]}).to_string()
    };
    let zeros = |n: usize| json!(vec![0.0; n]);
    let infer = "/v2/models/mnist-cnn/infer";
    let batch = lab
        .post(infer, "application/json", tensor("image", json!([2, 1, 28, 28]), "FP32", zeros(1568)))
        .await?;
    ensure!(
        batch.status == 200 && body(&batch)["outputs"][0]["shape"] == json!([2, 10]),
        "{:?}",
        body(&batch)
    );
    ensure!(batch.headers["x-glowplug-cold"] == "false");

    let huge = vec![b' '; 6 * 1024 * 1024 + 1];
    let cases: Vec<(&str, &str, Vec<u8>, u16, &str)> = vec![
        (infer, "application/json", b"not json".to_vec(), 400, "expected"),
        (
            infer,
            "application/json",
            tensor("picture", json!([1, 1, 28, 28]), "FP32", zeros(784)).into(),
            400,
            "picture",
        ),
        (
            infer,
            "application/json",
            tensor("image", json!([1, 1, 28, 27]), "FP32", zeros(756)).into(),
            400,
            "27",
        ),
        (
            infer,
            "application/json",
            tensor("image", json!([1, 1, 28, 28]), "INT64", json!(vec![0; 784])).into(),
            400,
            "INT64",
        ),
        (infer, "application/json", tensor("image", json!([1, 784]), "FP32", zeros(784)).into(), 400, "rank"),
        (
            infer,
            "application/json",
            br#"{"inputs":[{"name":"image","shape":[1],"datatype":"FP32","data":[NaN]}]}"#.to_vec(),
            400,
            "image",
        ),
        (infer, "text/csv", b"1,2".to_vec(), 415, "text/csv"),
        ("/v2/models/mnist-cnn/predict", "image/png", b"\x89PNG not".to_vec(), 400, "PNG"),
        (
            "/v2/models/nobody/infer",
            "application/json",
            tensor("x", json!([1]), "FP32", zeros(1)).into(),
            404,
            "nobody",
        ),
        (
            "/v2/models/mnist-cnn/versions/9/infer",
            "application/json",
            tensor("x", json!([1]), "FP32", zeros(1)).into(),
            404,
            "9",
        ),
        ("/v2/models/..%2Fx/infer", "application/json", b"{}".to_vec(), 400, "model name"),
        ("/v2/nowhere", "application/json", b"{}".to_vec(), 404, "nowhere"),
        ("/v2/health/live", "application/json", b"{}".to_vec(), 405, "POST"),
        (infer, "application/json", huge, 413, ""),
    ];
    for (path, content_type, request, status, text) in cases {
        let reply = lab.post(path, content_type, request).await?;
        let answer = body(&reply).to_string();
        ensure!(
            reply.status == status && answer.contains(text),
            "{path}: {} {answer}, expected {status} {text:?}",
            reply.status
        );
    }
    let questions = [
        ("/v2", 200, "\"glowplug\""),
        ("/v2/health/live", 200, "true"),
        ("/v2/health/ready", 200, "true"),
        ("/v2/models/mnist-cnn", 200, "[-1,1,28,28]"),
        ("/v2/models/mnist-cnn/versions/1/ready", 200, "true"),
        ("/v2/models/nobody/ready", 404, "nobody"),
        ("/v2/models/nobody", 404, "nobody"),
    ];
    for (path, status, text) in questions {
        let reply = get(&lab.url(path)).await?;
        let answer = body(&reply).to_string();
        ensure!(reply.status == status && answer.contains(text), "{path}: {} {answer}", reply.status);
    }
    // After all that, the same process still serves.
    let ok = lab.post("/v2/models/mnist-cnn/predict", "image/png", digit("02-1.png")?).await?;
    ensure!(ok.status == 200 && ok.headers["x-glowplug-cold"] == "false");
    lab.cloud.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_has_one_result_however_often_it_is_told() -> Result<()> {
    let lab = lab().await?;
    let png = digit("04-2.png")?;
    for key in ["in/a b+ü.png", "in/again.png"] {
        lab.cloud.buckets().put(cloud::UPLOADS, key, png.clone())?;
    }
    let result = lab.result(&png).await?;
    ensure!(result["result"]["outputs"][0]["topk"][0]["label"] == "2", "{result}");
    ensure!(result["model"] == "mnist-cnn" && result["version"] == "1", "{result}");
    // What is no image is reported to Lambda, tried again and at last given up: not lost without a trace.
    lab.cloud.buckets().put(cloud::UPLOADS, "in/broken.png", "no image")?;
    let start = Instant::now();
    while lab.cloud.dropped_events().is_empty() {
        ensure!(start.elapsed() < Duration::from_secs(30), "the broken upload was forgotten");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ensure!(lab.cloud.buckets().keys(cloud::RESULTS, "")?.len() == 1);
    lab.cloud.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_record_fails_alone_and_ends_as_a_dead_letter() -> Result<()> {
    let lab = lab().await?;
    let queue = lab.cloud.queue(cloud::QUEUE)?.clone();
    let good = json!({"model": "mnist-cnn", "inputs": [
        {"name": "image", "shape": [1, 1, 28, 28], "datatype": "FP32", "data": vec![0.5; 784]}]})
    .to_string();
    let png = digit("06-3.png")?;
    lab.cloud.buckets().put("uploads", "q/3.png", png.clone())?;
    let by_key = json!({"model": "mnist-cnn", "s3": {"bucket": "uploads", "key": "q/3.png"}}).to_string();
    let bad = [
        "not json",
        r#"{"model":"nobody","inputs":[]}"#,
        r#"{"model":"mnist-cnn","s3":{"bucket":"uploads","key":"gone"}}"#,
    ];
    for record in [good.as_str(), by_key.as_str()].into_iter().chain(bad) {
        queue.send(record)?;
    }
    ensure!(lab.result(good.as_bytes()).await?["result"]["outputs"][0]["shape"] == json!([1, 10]));
    ensure!(lab.result(&png).await?["result"]["outputs"][0]["topk"][0]["label"] == "3");
    let dead = lab.cloud.queue(cloud::DEAD_LETTERS)?.clone();
    let start = Instant::now();
    while dead.len() < bad.len() || !queue.is_empty() {
        ensure!(
            start.elapsed() < Duration::from_secs(30),
            "{} dead letters, {} left",
            dead.len(),
            queue.len()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let bodies: Vec<String> =
        dead.receive(10, Duration::ZERO, None).await.into_iter().map(|m| m.body).collect();
    ensure!(
        bad.iter().all(|b| bodies.iter().any(|found| found == b)) && bodies.len() == bad.len(),
        "{bodies:?}"
    );
    lab.cloud.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_tells_every_problem_of_its_environment() -> Result<()> {
    let mut spec = glowplug_local::FunctionSpec::new("api", binary("glowplug-api")?);
    spec.env = [("GLOWPLUG_STORE", "ftp://x"), ("GLOWPLUG_THREADS", "many")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
    let logs = Logs::default();
    let sink = {
        let logs = logs.clone();
        Arc::new(move |line: glowplug_local::LogLine| {
            logs.lock().expect("no panic while locked").push(line.text);
        })
    };
    let spec = glowplug_local::CloudSpec { functions: vec![spec], ..Default::default() };
    let cloud = LocalCloud::start(spec, sink).await?;
    let result = cloud.invoke("api", "{}").await?;
    ensure!(result.outcome.is_err(), "the function started");
    let logs = logs.lock().expect("no panic while locked").join("\n");
    for part in ["GLOWPLUG_STORE", "ftp://x", "s3://BUCKET/PREFIX", "GLOWPLUG_THREADS", "many", "64"] {
        ensure!(logs.contains(part), "the log does not say {part:?}:\n{logs}");
    }
    cloud.shutdown().await;
    Ok(())
}

/// A pack in the store that is not one: every request is told, and the process lives.
#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_pack_in_the_store_is_an_error_and_not_a_crash() -> Result<()> {
    let lab = lab().await?;
    let mut pack = lab.cloud.buckets().get(cloud::MODELS, "mnist-cnn/1/model.glow")?.bytes.to_vec();
    pack[200] ^= 0xff;
    lab.cloud.buckets().put(cloud::MODELS, "evil/1/model.glow", pack)?;
    let evil = lab.post("/v2/models/evil/versions/1/infer", "application/json", "{\"inputs\":[]}").await?;
    ensure!(
        evil.status == 500 && body(&evil)["error"].as_str().is_some_and(|e| e.contains("evil")),
        "{:?}",
        body(&evil)
    );
    let ok = lab.post("/v2/models/mnist-cnn/predict", "image/png", digit("00-0.png")?).await?;
    ensure!(ok.status == 200 && ok.headers["x-glowplug-cold"] == "false", "{:?}", body(&ok));
    lab.cloud.shutdown().await;
    Ok(())
}
