//! The queue function: an SQS batch in, a partial batch response out. A bad record fails alone.
//!
//! Records are handed over in batches of the handler's choice, so that it can run them through a model together. A batch
//! that panics is halved until the poisoned record stands alone. The deadline is kept between batches: what was
//! not started is reported as failed, and SQS delivers it again.

mod schedule;

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    BatchResponse, BoxError, Error, ErrorKind, Invocation, Outcome,
    config::Config,
    event::{self, Kind},
    guard::{Broken, guard},
    host::Host,
    sqs,
    telemetry::{Batch, Report},
};
use schedule::Schedule;

/// One message of the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The message's id, by which it is reported.
    pub id: String,
    /// What was sent.
    pub body: String,
    /// How often it was delivered, this time included.
    pub receive_count: u32,
    /// In a FIFO queue, the message group: records of one group are never handed over together, and none after one that failed.
    pub group: Option<String>,
}

/// The port of the queue function.
#[async_trait]
pub trait RecordHandler: Send + Sync + 'static {
    /// The most records that [`records`](Self::records) is given at once.
    fn batch_size(&self) -> usize {
        16
    }

    /// Scores `records` and returns one result for each, in the same order. It may be asked again about a record that it
    /// has already scored: after a panic beside it, and when SQS delivers twice.
    async fn records(&self, records: &[&Record], invocation: &Invocation) -> Vec<Result<Outcome, Error>>;
}

/// Polls for SQS batches for ever.
///
/// # Errors
/// If Lambda's runtime interface cannot be reached.
pub async fn serve<A: RecordHandler>(config: &Config, app: A) -> Result<(), BoxError> {
    let server = Server::new(config, app);
    server
        .host
        .serve(async |event: &str, invocation: &Invocation| server.handle(event, invocation).await)
        .await
}

/// The queue function without its polling loop.
pub struct Server<A> {
    app: Arc<A>,
    host: Host,
}

impl<A: RecordHandler> Server<A> {
    /// A server for `app`.
    pub fn new(config: &Config, app: A) -> Self {
        Self { app: Arc::new(app), host: Host::new(config) }
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
    /// If the event is not an SQS batch. A record that fails is part of the response, not an error.
    pub async fn handle(&self, event: &str, invocation: &Invocation) -> Result<BatchResponse, Error> {
        let records = decode(event).map_err(|error| self.host.fail(invocation, error))?;
        let results = Run { app: &self.app, records: records.into(), invocation }.all().await;
        Ok(self.close(invocation, results))
    }

    fn close(
        &self,
        invocation: &Invocation,
        results: Vec<(Record, Result<Outcome, Error>)>,
    ) -> BatchResponse {
        let size = results.len();
        let (mut failed, mut outcomes) = (Vec::new(), Vec::new());
        for (record, result) in results {
            match result {
                Ok(outcome) => outcomes.push(outcome),
                Err(error) => {
                    let Record { id, receive_count, .. } = record;
                    tracing::warn!(message_id = id, receive_count, kind = ?error.kind(), "record failed: {error}");
                    failed.push(id);
                }
            }
        }
        let batch = Batch { size, failures: failed.len() };
        tracing::info!(size, failures = batch.failures, "batch answered");
        self.host.report(invocation, Report { batch: Some(batch), outcomes, ..Report::default() });
        failed.into_iter().collect()
    }
}

/// The records of an SQS event.
fn decode(event: &str) -> Result<Vec<Record>, Error> {
    let event = event::parse(event)?;
    let kind = Kind::of(&event);
    if kind != Kind::Sqs {
        return Err(kind.unwanted("an SQS batch"));
    }
    let batch = sqs::Batch::parse(event)?;
    Ok(batch.records.into_iter().map(record).collect())
}

fn record(mut message: sqs::Message) -> Record {
    let (receive_count, group) = (message.receive_count(), message.ordered_group());
    Record { id: message.message_id, body: message.body, receive_count, group }
}

/// One batch on its way through the handler.
struct Run<'a, A> {
    app: &'a Arc<A>,
    records: Arc<[Record]>,
    invocation: &'a Invocation,
}

impl<A: RecordHandler> Run<'_, A> {
    /// Each record with its result, in the order of delivery.
    async fn all(self) -> Vec<(Record, Result<Outcome, Error>)> {
        let mut schedule = Schedule::new(&self.records, self.app.batch_size());
        while let Some(batch) = schedule.next() {
            for (index, result) in self.batch(batch).await {
                schedule.done(index, result);
            }
        }
        self.records.iter().cloned().zip(schedule.results()).collect()
    }

    /// Runs one batch; one that panics is halved, so that only the record which panics alone is failed for it.
    async fn batch(&self, batch: Vec<usize>) -> Vec<(usize, Result<Outcome, Error>)> {
        let mut results = Vec::with_capacity(batch.len());
        let mut todo = vec![batch];
        while let Some(mut batch) = todo.pop() {
            match self.call(&batch).await {
                Ok(answers) => results.extend(batch.into_iter().zip(answers)),
                Err(Broken::Panicked) if batch.len() > 1 => {
                    todo.push(batch.split_off(batch.len() / 2));
                    todo.push(batch);
                }
                Err(broken) => {
                    let error = broken.error(self.invocation);
                    results.extend(batch.into_iter().map(|index| (index, Err(error.clone()))));
                }
            }
        }
        results
    }

    async fn call(&self, batch: &[usize]) -> Result<Vec<Result<Outcome, Error>>, Broken> {
        let (app, records, invocation) = (self.app.clone(), self.records.clone(), self.invocation.clone());
        let indices = batch.to_vec();
        let answers = guard(self.invocation, async move {
            let records: Vec<_> = indices.iter().map(|index| &records[*index]).collect();
            app.records(&records, &invocation).await
        });
        Ok(complete(answers.await?, batch.len()))
    }
}

/// A handler that answers for fewer or more records than it was given has mixed them up: none of its answers counts.
fn complete(answers: Vec<Result<Outcome, Error>>, wanted: usize) -> Vec<Result<Outcome, Error>> {
    if answers.len() == wanted {
        return answers;
    }
    let text = format!("the handler gave {} results, wanted {wanted}", answers.len());
    vec![Err(Error::new(ErrorKind::Internal, text)); wanted]
}

#[cfg(test)]
mod tests;
