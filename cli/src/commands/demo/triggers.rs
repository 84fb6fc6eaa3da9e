//! The three ways in: HTTP, an upload, a queue.

use super::data::{DIGITS, Data, LINES};
use super::{Row, stages};
use crate::cloud;
use anyhow::{Context, Result, bail, ensure};
use glowplug_local::{LocalCloud, Reply, post};
use glowplug_pack::Tensor;
use glowplug_predict::Timings;
use glowplug_processing::pipeline::{Limits, Pipeline};
use glowplug_processing::v2::{InferRequest, NamedTensor};
use glowplug_store::{Digest, OpenedPack};
use serde::Deserialize;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Digits that go through the queue, one of them poisoned.
const QUEUED: usize = 20;
/// Which of them is poisoned.
const POISONED: usize = 7;
/// Longest wait for something that happens in the background.
const PATIENCE: Duration = Duration::from_secs(30);

/// Digits as tensors, by the pack's own pipeline.
pub(crate) struct Digits {
    input: String,
    pipeline: Pipeline,
}

impl Digits {
    pub(crate) fn new(data: &Data, packs: &[(String, Vec<u8>)]) -> Result<Digits> {
        let (_, bytes) =
            packs.iter().find(|(name, _)| name == DIGITS).context("the digits' model is not packed")?;
        ensure!(data.digits.len() >= QUEUED, "{} digits, expected at least {QUEUED}", data.digits.len());
        let OpenedPack { pack, region, .. } = glowplug_store::open_bytes(bytes)?;
        let manifest = pack.manifest();
        let input = manifest.inputs.first().context("the digits' model has no input")?.name.clone();
        let asset = |name: &str| pack.asset_range(name).ok().and_then(|r| region.wait(r, None).ok());
        Ok(Digits { input, pipeline: Pipeline::compile(manifest, asset)? })
    }

    fn tensor(&self, png: &[u8]) -> Result<Tensor> {
        let mut tensors = self.pipeline.run(Some("image/png"), png, &Limits::default())?;
        tensors.pop().context("the pipeline gave no tensor")
    }

    /// A V2 infer document of one digit.
    fn document(&self, png: &[u8]) -> Result<Value> {
        let inputs = vec![NamedTensor { name: self.input.clone(), tensor: self.tensor(png)? }];
        let request = InferRequest { inputs, ..InferRequest::default() };
        Ok(serde_json::from_slice(&request.encode(false)?.body)?)
    }
}

/// `POST predict` with pictures, then `POST infer` with a tensor.
pub(crate) async fn http(cloud: &LocalCloud, data: &Data, digits: &Digits) -> Result<Vec<Row>> {
    let url = |model: &str, verb: &str| format!("{}/v2/models/{model}/{verb}", cloud.urls().gateway);
    let mut rows = Vec::new();
    for digit in data.digits.iter().take(3) {
        let png = data.file(&format!("digits/{}", digit.file))?;
        let reply = post(&url(DIGITS, "predict"), "image/png", png).await?;
        rows.push(http_row("http predict", &digit.file, &digit.top1.to_string(), &reply)?);
    }
    for digit in data.digits.iter().skip(3).take(1) {
        let document = digits.document(&data.file(&format!("digits/{}", digit.file))?)?;
        let reply = post(&url(DIGITS, "infer"), "application/json", document.to_string()).await?;
        rows.push(http_row("http infer", &digit.file, &digit.top1.to_string(), &reply)?);
    }
    for line in &data.lines {
        let png = data.file(&format!("lines/{}", line.file))?;
        let reply = post(&url(LINES, "predict"), "image/png", png).await?;
        rows.push(http_row("http predict", &line.file, &line.top1, &reply)?);
    }
    Ok(rows)
}

fn http_row(trigger: &'static str, input: &str, expected: &str, reply: &Reply) -> Result<Row> {
    let text = String::from_utf8_lossy(&reply.body);
    ensure!(reply.status.is_success(), "{trigger} of {input}: status {}: {text}", reply.status);
    let answer =
        top1(&serde_json::from_slice(&reply.body)?).with_context(|| format!("{trigger} of {input}"))?;
    let header = reply.headers.get("server-timing").and_then(|h| h.to_str().ok()).unwrap_or_default();
    Ok(row(trigger, input, answer, expected, stages::of_header(header)))
}

/// Puts a picture into the uploads' bucket and waits for its result object.
pub(crate) async fn upload(cloud: &LocalCloud, data: &Data, model: &Digest) -> Result<Row> {
    let digit = data.digits.get(4).context("no digit to upload")?;
    let png = data.file(&format!("digits/{}", digit.file))?;
    let key = format!("{model}/{}.json", blake3::hash(&png).to_hex());
    cloud.buckets().put(cloud::UPLOADS, &format!("in/{}", digit.file), png)?;
    let result = result(cloud, &key).await.with_context(|| format!("upload of {}", digit.file))?;
    let answer = top1(&result.result)?;
    Ok(row("s3 upload", &digit.file, answer, &digit.top1.to_string(), result.timings))
}

/// Sends twenty records, one of them poisoned: nineteen results and one dead letter.
pub(crate) async fn queue(
    cloud: &LocalCloud,
    data: &Data,
    digits: &Digits,
    model: &Digest,
) -> Result<Vec<Row>> {
    let queue = cloud.queue(cloud::QUEUE)?;
    let mut sent = Vec::new();
    for (i, digit) in data.digits.iter().take(QUEUED).enumerate() {
        let mut document = digits.document(&data.file(&format!("digits/{}", digit.file))?)?;
        document["model"] = DIGITS.into();
        if i == POISONED {
            document["inputs"][0]["data"] = serde_json::json!(["not", "a", "digit"]);
        }
        let body = document.to_string();
        sent.push((digit, format!("{model}/{}.json", blake3::hash(body.as_bytes()).to_hex())));
        queue.send(body)?;
    }
    let mut rows = Vec::new();
    for (i, (digit, key)) in sent.iter().enumerate().filter(|(i, _)| *i != POISONED) {
        let result = result(cloud, key).await.with_context(|| format!("record {i}, {}", digit.file))?;
        let answer = top1(&result.result)?;
        rows.push(row("sqs record", &digit.file, answer, &digit.top1.to_string(), result.timings));
    }
    let dead = cloud.queue(cloud::DEAD_LETTERS)?;
    wait_for(|| (!dead.is_empty() && queue.is_empty()).then_some(())).await.context("no dead letter came")?;
    let found =
        if dead.len() == 1 { "dead letter".to_owned() } else { format!("{} dead letters", dead.len()) };
    rows.push(row("sqs record", "poisoned", found, "dead letter", Timings::default()));
    Ok(rows)
}

/// A result object.
#[derive(Deserialize)]
struct ResultDocument {
    result: Value,
    timings: Timings,
}

async fn result(cloud: &LocalCloud, key: &str) -> Result<ResultDocument> {
    let object = wait_for(|| cloud.buckets().get(cloud::RESULTS, key).ok()).await;
    let object = object.with_context(|| format!("no result object {key}"))?;
    serde_json::from_slice(&object.bytes).with_context(|| format!("result object {key}"))
}

async fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(found) = look() {
            return Some(found);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    None
}

/// The best label of a `predict` answer, or the largest index of an `infer` response.
fn top1(answer: &Value) -> Result<String> {
    let output = &answer["outputs"][0];
    if let Some(best) = output["topk"].get(0) {
        let label = best["label"].as_str().map(str::to_owned);
        return label
            .or_else(|| best["index"].as_u64().map(|i| i.to_string()))
            .context("a topk without a label");
    }
    let Some(data) = output["data"].as_array() else { bail!("neither topk nor data in {answer}") };
    let best = data.iter().filter_map(Value::as_f64).enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
    best.map(|(i, _)| i.to_string()).context("no numbers in the answer")
}

fn row(trigger: &'static str, input: &str, answer: String, expected: &str, timings: Timings) -> Row {
    let (input, expected) = (input.to_owned(), expected.to_owned());
    Row {
        trigger,
        input,
        right: answer == expected,
        answer,
        expected,
        cold: timings.run_ms.map(|_| timings.plan_ms.is_some()),
        timings,
    }
}
