//! One input to one stored result. The key follows from what the model and the input are, and the first
//! result stays: an event that is delivered twice changes nothing.

use crate::edge::{lambda_error, outcome, store_error};
use crate::open::{Buckets, Threads, open_predictor, results_store};
use bytes::Bytes;
use glowplug_lambda::config::Config;
use glowplug_lambda::{BoxError, Error, ErrorKind, Outcome};
use glowplug_predict::v2::InferRequest;
use glowplug_predict::{Answer, ModelRef, PredictError, Predictor, Served, Timings};
use glowplug_store::{ETag, ObjectStore, PutOutcome};
use serde::Serialize;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Instant;

/// What is scored.
pub enum Input {
    /// Raw bytes, through the manifest's pipeline.
    Raw(Bytes),
    /// A V2 infer document, with the bytes it was parsed from.
    V2(InferRequest, Bytes),
}

/// What became of an input.
#[derive(Debug)]
pub struct Scored {
    /// Where the result is, within the results' location.
    pub key: String,
    /// Whether this call wrote it; false where it was there already.
    pub created: bool,
    /// For metrics.
    pub outcome: Outcome,
}

/// The stored result: `<results>/<model digest>/<input digest>.json`.
#[derive(Serialize)]
struct ResultDocument<'a> {
    model: &'a str,
    version: &'a str,
    model_digest: &'a str,
    input_digest: &'a str,
    source: &'a str,
    result: &'a RawValue,
    timings: Timings,
}

/// Scores inputs and stores results.
pub struct Scorer {
    predictor: Predictor,
    results: Arc<dyn ObjectStore>,
    buckets: Buckets,
    max_bytes: usize,
}

impl Scorer {
    /// A scorer by the configuration.
    pub fn open(config: &Config) -> Result<Scorer, BoxError> {
        Ok(Scorer {
            predictor: open_predictor(config, Threads::Across)?,
            results: results_store(config)?,
            buckets: Buckets::new(config),
            max_bytes: config.max_body_bytes,
        })
    }

    /// The models.
    #[must_use]
    pub fn predictor(&self) -> &Predictor {
        &self.predictor
    }

    /// The bytes of an object that an event or a record names; with `etag`, of that state of it alone.
    /// Errors: not there; replaced since; larger than `GLOWPLUG_MAX_BODY_BYTES`, of which no more is read.
    pub async fn object(&self, bucket: &str, key: &str, etag: Option<&str>) -> Result<Bytes, Error> {
        let what = format!("object s3://{bucket}/{key}");
        let store = self.buckets.get(bucket).map_err(|e| store_error(&what, &e))?;
        let limit = self.max_bytes as u64;
        let etag = etag.map(|tag| ETag::new(format!("\"{tag}\"")));
        let object = store.get(key, Some(0..limit + 1), etag.as_ref()).await;
        let object = object.map_err(|e| store_error(&what, &e))?;
        if object.total_len > limit {
            let text = format!(
                "{what} has {} bytes, the limit is {limit} (GLOWPLUG_MAX_BODY_BYTES)",
                object.total_len
            );
            return Err(Error::new(ErrorKind::TooLarge, text));
        }
        Ok(object.bytes)
    }

    /// Scores `input` with `model` and stores the result. `source` tells people where the input came from.
    pub async fn score(
        &self,
        model: &ModelRef,
        input: Input,
        source: &str,
        deadline: Instant,
    ) -> Result<Scored, Error> {
        let bytes = match &input {
            Input::Raw(bytes) | Input::V2(_, bytes) => bytes,
        };
        let input_digest = blake3::hash(bytes).to_hex().to_string();
        let served = self.run(model, input, deadline).await.map_err(|e| lambda_error(&e))?;
        let model_digest = served.model.model.digest();
        let document = ResultDocument {
            model: served.model.resolved.name.as_str(),
            version: served.model.resolved.version.as_str(),
            model_digest: &model_digest,
            input_digest: &input_digest,
            source,
            result: &served.value,
            timings: served.timings,
        };
        let document = serde_json::to_vec(&document).map_err(|e| Error::internal(format!("result: {e}")))?;
        let key = format!("{model_digest}/{input_digest}.json");
        let put = self.results.put_if_absent(&key, document.into()).await;
        let created = put.map_err(|e| store_error("result", &e))? == PutOutcome::Created;
        tracing::info!(source, key, created, model = %served.model.resolved, "scored");
        Ok(Scored { key, created, outcome: outcome(&served) })
    }

    async fn run(
        &self,
        model: &ModelRef,
        input: Input,
        deadline: Instant,
    ) -> Result<Served<Box<RawValue>>, PredictError> {
        self.predictor
            .run(model, deadline, move |model, resolved, timings| match input {
                Input::Raw(body) => {
                    let answer: Answer = model.predict(None, &body, Some(deadline), timings)?;
                    json(&answer)
                }
                Input::V2(mut request, _) => {
                    let version = Some(resolved.version.as_str());
                    let mut response = model.infer_v2(&mut request, version, Some(deadline), timings)?;
                    response.model_name = resolved.name.to_string();
                    raw(&response.encode(|_| false)?.body)
                }
            })
            .await
    }
}

fn json(value: &impl Serialize) -> Result<Box<RawValue>, PredictError> {
    serde_json::value::to_raw_value(value).map_err(|e| not_json(&e))
}

fn raw(bytes: &[u8]) -> Result<Box<RawValue>, PredictError> {
    serde_json::from_slice(bytes).map_err(|e| not_json(&e))
}

fn not_json(error: &serde_json::Error) -> PredictError {
    PredictError::new(glowplug_predict::ErrorKind::Unprocessable, format!("result: {error}"))
}
