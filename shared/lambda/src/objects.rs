//! The upload function: objects created in S3, however the news arrives: an S3 notification, an EventBridge event, or
//! either of them inside SQS or SNS.
//!
//! Nothing is lost: all objects of an event are worked on, and then those that failed are reported to the source: as
//! batch item failures where SQS delivered, else as an error of the function, for Lambda to try again.

mod decode;

use std::{collections::BTreeSet, fmt, sync::Arc};

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use serde::Serialize;

use crate::{
    BatchResponse, BoxError, Error, Invocation, Outcome,
    config::{Config, Location},
    guard::guard,
    host::Host,
    telemetry::{Batch, Report},
};

/// An object that was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRef {
    /// The bucket's name.
    pub bucket: String,
    /// The key as S3 stores it: decoded.
    pub key: String,
    /// Bytes, where the event tells.
    pub size: Option<u64>,
    /// The version, in versioned buckets.
    pub version_id: Option<String>,
    /// The entity tag, without quotes.
    pub etag: Option<String>,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

/// The port of the upload function.
#[async_trait]
pub trait ObjectHandler: Send + Sync + 'static {
    /// Scores one object. It may be asked again about an object that it has already scored: events are delivered at least once.
    async fn object(&self, object: ObjectRef, invocation: &Invocation) -> Result<Outcome, Error>;
}

/// What Lambda is answered with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// To SQS: what failed.
    Batch(BatchResponse),
    /// To all others, who read no answer: how many objects were scored.
    Done {
        /// The number of objects.
        objects: usize,
    },
}

/// Polls for events for ever.
///
/// # Errors
/// If Lambda's runtime interface cannot be reached.
pub async fn serve<A: ObjectHandler>(config: &Config, app: A) -> Result<(), BoxError> {
    let server = Server::new(config, app);
    server
        .host
        .serve(async |event: &str, invocation: &Invocation| server.handle(event, invocation).await)
        .await
}

/// The upload function without its polling loop.
pub struct Server<A> {
    app: Arc<A>,
    host: Host,
    concurrency: usize,
    results: Option<Location>,
}

impl<A: ObjectHandler> Server<A> {
    /// A server for `app`, which gets at most `config.max_concurrency` objects at once, and none of its own results.
    pub fn new(config: &Config, app: A) -> Self {
        let concurrency = config.max_concurrency.max(1);
        Self { app: Arc::new(app), host: Host::new(config), concurrency, results: config.results.clone() }
    }

    /// Sends metric documents to `write` instead of stdout.
    #[must_use]
    pub fn with_metrics(mut self, write: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.host.set_metrics_writer(write);
        self
    }

    /// Answers one event.
    ///
    /// # Errors
    /// If the event brings no news of objects, or, except from SQS, if any of its objects failed.
    pub async fn handle(&self, event: &str, invocation: &Invocation) -> Result<Answer, Error> {
        let delivery = decode::delivery(event).map_err(|error| self.host.fail(invocation, error))?;
        let size = delivery.objects.len();
        let Scored { outcomes, errors } = self.score(delivery.objects, invocation).await;
        let report = Report { outcomes, ..Report::default() };
        match delivery.messages {
            Some(ids) => Ok(Answer::Batch(self.close_batch(invocation, &ids, &errors, report))),
            None => self.close(invocation, size, &errors, report),
        }
    }

    /// Those messages of which any object failed.
    fn close_batch(
        &self,
        call: &Invocation,
        ids: &[String],
        errors: &[Failed],
        report: Report,
    ) -> BatchResponse {
        let failed: BTreeSet<_> = errors.iter().map(|(message, _)| *message).collect();
        let batch = Some(Batch { size: ids.len(), failures: failed.len() });
        self.host.report(call, Report { batch, ..report });
        failed.into_iter().map(|message| ids[message].clone()).collect()
    }

    /// An event that cannot be failed in parts: all is well, or all of it comes again.
    fn close(
        &self,
        call: &Invocation,
        size: usize,
        errors: &[Failed],
        report: Report,
    ) -> Result<Answer, Error> {
        let failures = errors.len();
        let batch = Some(Batch { size, failures });
        self.host.report(call, Report { batch, failed: failures > 0, ..report });
        match errors.first() {
            None => Ok(Answer::Done { objects: size }),
            Some((_, first)) => {
                let text = format!("{failures} of {size} objects failed, the first: {first}");
                Err(Error::new(first.kind(), text))
            }
        }
    }

    /// Works on all objects, at most `concurrency` at once.
    async fn score(&self, objects: Vec<(usize, Decoded)>, invocation: &Invocation) -> Scored {
        let work = objects.into_iter().map(async |(i, object)| (i, self.object(object, invocation).await));
        let mut results = stream::iter(work).buffered(self.concurrency);
        let mut scored = Scored::default();
        while let Some((message, result)) = results.next().await {
            match result {
                Ok(outcome) => scored.outcomes.extend(outcome),
                Err(error) => {
                    tracing::warn!(kind = ?error.kind(), "object failed: {error}");
                    scored.errors.push((message, error));
                }
            }
        }
        scored
    }

    /// `None` for an object that is not to be scored.
    async fn object(&self, object: Decoded, invocation: &Invocation) -> Result<Option<Outcome>, Error> {
        let object = object?;
        let name = object.to_string();
        if self.is_result(&object)? {
            tracing::warn!(
                object = name,
                "ignored: a result of this function, notify of other prefixes only"
            );
            return Ok(None);
        }
        let (app, context) = (self.app.clone(), invocation.clone());
        let result = guard(invocation, async move { app.object(object, &context).await }).await;
        let result = result.unwrap_or_else(|broken| Err(broken.error(invocation)));
        result.map(Some).map_err(|error| Error::new(error.kind(), format!("{name}: {error}")))
    }

    /// Whether `object` lies where results go. To score it would write the next one there, for ever and at a price.
    fn is_result(&self, object: &ObjectRef) -> Result<bool, Error> {
        match &self.results {
            Some(Location::S3 { bucket, prefix }) if *bucket == object.bucket => match prefix.as_str() {
                "" => Err(Error::internal(format!(
                    "{object}: GLOWPLUG_RESULTS is the bucket of the uploads, wanted a prefix or another bucket"
                ))),
                prefix => Ok(object.key.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))),
            },
            _ => Ok(false),
        }
    }
}

/// An object of an event, or why it is none.
type Decoded = Result<ObjectRef, Error>;

/// The number of a message, and why an object of it failed.
type Failed = (usize, Error);

/// What came of an event's objects.
#[derive(Default)]
struct Scored {
    outcomes: Vec<Outcome>,
    errors: Vec<Failed>,
}

#[cfg(test)]
mod tests;
