//! The api function: HTTP in, HTTP out, by way of API Gateway (v1 and v2), a function URL or a load balancer.
//!
//! Paths, status codes and headers live here; the documents inside the bodies belong to the handler. The events are
//! decoded here rather than by `lambda_http`: that crate unwraps a URL made from the `Host` header, which the caller
//! writes (`events/alb-hostile-host.json` makes it panic), puts the stage into the path, tries each payload form in turn
//! (a body of 6 MB is parsed up to three times), and links character tables and URL rules that this function never
//! needs: an empty function on it is a zip of 949 kB, on this decoding 581 kB.

mod event;
mod media;
mod reply;
mod routes;

use std::{borrow::Cow, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::value::RawValue;

use crate::{
    BoxError, Error, Invocation, Outcome, config::Config, guard::guard, host::Host, name::clip,
    telemetry::Report,
};
use event::Incoming;
use reply::Reply;
pub use routes::ModelRef;
use routes::{Action, Route};

/// A request of the Open Inference Protocol (V2), or of the `predict` endpoint beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// `GET /v2`.
    ServerMetadata,
    /// `GET /v2/health/live`.
    ServerLive,
    /// `GET /v2/health/ready`. Not ready is [`ErrorKind::NotReady`](crate::ErrorKind::NotReady).
    ServerReady,
    /// `GET /v2/models/{name}[/versions/{version}]`.
    ModelMetadata(ModelRef),
    /// `GET .../ready`.
    ModelReady(ModelRef),
    /// `POST .../infer`: tensors.
    Infer(ModelRef, Payload),
    /// `POST .../predict`: the raw thing.
    Predict(ModelRef, Payload),
}

/// The body of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// The media type in lower case, without parameters; `None` if the caller named none.
    pub content_type: Option<String>,
    /// `Inference-Header-Content-Length`: how much of the body is JSON, binary tensors following; at most the body's length.
    pub json_length: Option<usize>,
    /// The body, base64 already decoded.
    pub body: Bytes,
}

/// What a request is answered with, status 200.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The body.
    pub body: Bytes,
    /// Its media type.
    pub content_type: Cow<'static, str>,
    /// For binary tensors: how much of the body is JSON.
    pub json_length: Option<usize>,
    /// The model and its timings: for metrics and the `server-timing` header.
    pub outcome: Outcome,
}

impl Answer {
    /// A JSON document.
    pub fn json(body: impl Into<Bytes>) -> Self {
        let (content_type, outcome) = (Cow::Borrowed("application/json"), Outcome::default());
        Self { body: body.into(), content_type, json_length: None, outcome }
    }

    /// The same answer with the work that it took.
    #[must_use]
    pub fn with_outcome(self, outcome: Outcome) -> Self {
        Self { outcome, ..self }
    }
}

/// The port of the api function.
#[async_trait]
pub trait Inference: Send + Sync + 'static {
    /// Answers one request. The error's kind becomes the status, its message the body `{"error": ".."}`.
    async fn call(&self, request: Request, invocation: &Invocation) -> Result<Answer, Error>;
}

/// Polls for HTTP events for ever.
///
/// # Errors
/// If Lambda's runtime interface cannot be reached.
pub async fn serve<A: Inference>(config: &Config, app: A) -> Result<(), BoxError> {
    let server = Server::new(config, app);
    server
        .host
        .serve(async |event: &str, invocation: &Invocation| server.handle(event, invocation).await)
        .await
}

/// The api function without its polling loop.
pub struct Server<A> {
    app: Arc<A>,
    host: Host,
    max_body_bytes: usize,
}

impl<A: Inference> Server<A> {
    /// A server for `app`.
    pub fn new(config: &Config, app: A) -> Self {
        Self { app: Arc::new(app), host: Host::new(config), max_body_bytes: config.max_body_bytes }
    }

    /// Sends metric documents to `write` instead of stdout.
    #[must_use]
    pub fn with_metrics(mut self, write: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.host.set_metrics_writer(write);
        self
    }

    /// Answers one event in the form that its source reads. A request that fails, for whatever reason, has an answer too.
    ///
    /// # Errors
    /// If the event is not an HTTP request.
    pub async fn handle(&self, event: &str, invocation: &Invocation) -> Result<Box<RawValue>, Error> {
        let incoming = Incoming::parse(event).map_err(|error| self.host.fail(invocation, error))?;
        let (form, method, path) = (incoming.form, incoming.method.clone(), incoming.path.clone());
        let result = self.answer(incoming, invocation).await;
        let reply = Reply::new(result, invocation).encode(form);
        let status = reply.status.as_u16();
        tracing::info!(method = clip(&method), path = clip(&path), status, error = reply.error, "answered");
        let report = Report {
            failed: status >= 500,
            outcomes: reply.outcome.into_iter().collect(),
            ..Report::default()
        };
        self.host.report(invocation, report);
        Ok(reply.json)
    }

    async fn answer(&self, incoming: Incoming, invocation: &Invocation) -> Result<Answer, Error> {
        let request = self.request(incoming)?;
        let (app, context) = (self.app.clone(), invocation.clone());
        let result = guard(invocation, async move { app.call(request, &context).await }).await;
        result.unwrap_or_else(|broken| Err(broken.error(invocation)))
    }

    /// Everything that is checked before the handler sees a request.
    fn request(&self, incoming: Incoming) -> Result<Request, Error> {
        let route = routes::find(&incoming.method, &incoming.path, incoming.stage.as_deref())?;
        Ok(match route {
            Route::Server(make) => make(),
            Route::Model(Action::Tell(make), model) => make(model),
            Route::Model(Action::Run(make, accepted), model) => {
                make(model, self.payload(incoming, accepted)?)
            }
        })
    }

    fn payload(&self, incoming: Incoming, accepted: &[&str]) -> Result<Payload, Error> {
        let content_type = media::content_type(&incoming, accepted)?;
        let json_length = incoming.header("inference-header-content-length").map(str::to_owned);
        let body = incoming.into_body(self.max_body_bytes)?;
        let json_length = json_length.map(|text| media::json_length(&text, body.len())).transpose()?;
        Ok(Payload { content_type, json_length, body })
    }
}

#[cfg(test)]
mod tests;
