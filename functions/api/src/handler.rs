//! One request of the protocol, one answer.

use async_trait::async_trait;
use glowplug_function::{lambda_error, outcome};
use glowplug_lambda::http::{Answer, Inference, ModelRef as PathModel, Payload, Request};
use glowplug_lambda::{Error, ErrorKind, Invocation};
use glowplug_predict::v2::{Encoded, InferRequest, ModelMetadata, ServerMetadata};
use glowplug_predict::{Loaded, ModelRef, PredictError, Predictor, timed};
use serde::Serialize;
use serde_json::json;
use std::time::Instant;

/// What `infer` reads. Binary tensors come as octets with a JSON part of told length.
const INFER_TYPES: [&str; 2] = ["application/json", "application/octet-stream"];

/// Serves any model of the store; `models` are those that have to be there for the server to be ready.
pub(crate) struct Api {
    pub(crate) predictor: Predictor,
    pub(crate) models: Vec<ModelRef>,
}

#[async_trait]
impl Inference for Api {
    async fn call(&self, request: Request, invocation: &Invocation) -> Result<Answer, Error> {
        let deadline = invocation.deadline;
        match request {
            Request::ServerMetadata => answer(&ServerMetadata::of_this_build()),
            Request::ServerLive => answer(&json!({"live": true})),
            Request::ServerReady => {
                for model in &self.models {
                    self.ready(model, deadline).await?;
                }
                answer(&json!({"ready": true}))
            }
            Request::ModelReady(model) => {
                self.ready(&model_ref(model)?, deadline).await?;
                answer(&json!({"ready": true}))
            }
            Request::ModelMetadata(model) => {
                let model = self.predictor.model(&model_ref(model)?, deadline).await;
                let Loaded { resolved, model } = model.map_err(|e| lambda_error(&e))?;
                let metadata = ModelMetadata::new(model.manifest(), vec![resolved.version.to_string()]);
                answer(&ModelMetadata { name: resolved.name.to_string(), ..metadata })
            }
            Request::Infer(model, payload) => self.infer(&model_ref(model)?, payload, deadline).await,
            Request::Predict(model, payload) => self.predict(&model_ref(model)?, payload, deadline).await,
        }
    }
}

impl Api {
    /// Waits for the load: a function that is frozen between requests cannot finish it in the background.
    async fn ready(&self, model: &ModelRef, deadline: Instant) -> Result<(), Error> {
        let loaded = self.predictor.model(model, deadline).await;
        loaded.map(|_| ()).map_err(|e| match lambda_error(&e) {
            error if error.kind() == ErrorKind::NotFound => error,
            error => Error::new(ErrorKind::NotReady, error.to_string()),
        })
    }

    async fn infer(&self, model: &ModelRef, payload: Payload, deadline: Instant) -> Result<Answer, Error> {
        if let Some(found) = payload.content_type.as_deref().filter(|t| !INFER_TYPES.contains(t)) {
            let text = format!("content-type is {found:?}, infer reads {}", INFER_TYPES.join(" and "));
            return Err(Error::new(ErrorKind::UnsupportedMedia, text));
        }
        let served = self.predictor.run(model, deadline, move |model, resolved, timings| {
            let mut parse_ms = None;
            let mut request =
                timed(&mut parse_ms, || InferRequest::parse(&payload.body, payload.json_length))?;
            let version = Some(resolved.version.as_str());
            let mut response = model.infer_v2(&mut request, version, Some(deadline), timings)?;
            response.model_name = resolved.name.to_string();
            timings.preprocess_ms = timings.preprocess_ms.zip(parse_ms).map(|(check, parse)| check + parse);
            Ok(response.encode(|name| request.wants_binary(name))?)
        });
        let served = served.await.map_err(|e| lambda_error(&e))?;
        let outcome = outcome(&served);
        let Encoded { body, header_len } = served.value;
        let content_type = INFER_TYPES[usize::from(header_len.is_some())].into();
        Ok(Answer { body: body.into(), content_type, json_length: header_len, outcome })
    }

    async fn predict(&self, model: &ModelRef, payload: Payload, deadline: Instant) -> Result<Answer, Error> {
        let served = self.predictor.run(model, deadline, move |model, _, timings| {
            model.predict(payload.content_type.as_deref(), &payload.body, Some(deadline), timings)
        });
        let served = served.await.map_err(|e: PredictError| lambda_error(&e))?;
        Ok(answer(&served.value)?.with_outcome(outcome(&served)))
    }
}

/// The model that a path names. The adapter has checked its form already; the store's names are stricter.
fn model_ref(model: PathModel) -> Result<ModelRef, Error> {
    let invalid = |e: &dyn std::fmt::Display| Error::invalid(e.to_string());
    Ok(ModelRef {
        name: model.name.parse().map_err(|e| invalid(&e))?,
        version: model.version.map(|v| v.parse()).transpose().map_err(|e| invalid(&e))?,
    })
}

fn answer(document: &impl Serialize) -> Result<Answer, Error> {
    let body = serde_json::to_vec(document).map_err(|e| Error::internal(format!("answer: {e}")))?;
    Ok(Answer::json(body))
}
