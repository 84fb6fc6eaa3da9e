//! The event-source mapping: polls a queue, invokes a function with batches, deletes what succeeded.
//!
//! What failed is left alone: it becomes visible again after the queue's visibility timeout, as on AWS.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::event::{Verdict, batch, size_in_event, verdict};
use super::store::{Message, Queue};
use crate::error::LocalError;
use crate::invoke::{InvokeResult, MAX_REQUEST_BYTES};
use crate::runtime_api::Function;

/// How long one poll waits.
const POLL: Duration = Duration::from_secs(20);

/// A mapping from a queue to a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappingSpec {
    /// The name of the queue.
    pub queue: String,
    /// The name of the function.
    pub function: String,
    /// Most messages per event, 1..=10000; above 10 a batch window of at least 1 s is needed.
    pub batch_size: usize,
    /// How long to wait for a batch to fill after its first message, up to 300 s.
    pub batch_window: Duration,
    /// Whether the function answers with batch item failures; else any success deletes the whole batch.
    pub report_batch_item_failures: bool,
    /// Most batches at once, 1..=100.
    pub concurrency: usize,
}

impl MappingSpec {
    /// A mapping with batches of 10, no window, partial failures reported, 2 batches at once.
    pub fn new(queue: impl Into<String>, function: impl Into<String>) -> Self {
        Self {
            queue: queue.into(),
            function: function.into(),
            batch_size: 10,
            batch_window: Duration::ZERO,
            report_batch_item_failures: true,
            concurrency: 2,
        }
    }

    pub(crate) fn check(&self) -> Result<(), LocalError> {
        let Self { batch_size, batch_window, concurrency, .. } = self;
        let message = match () {
            () if !(1..=10_000).contains(batch_size) => {
                format!("batch_size is {batch_size}, wanted 1..=10000")
            }
            () if *batch_window > Duration::from_secs(300) => {
                format!("batch_window is {batch_window:?}, wanted at most 300 s")
            }
            () if *batch_size > 10 && *batch_window < Duration::from_secs(1) => {
                format!(
                    "batch_size {batch_size} needs a batch_window of at least 1 s, found {batch_window:?}"
                )
            }
            () if !(1..=100).contains(concurrency) => format!("concurrency is {concurrency}, wanted 1..=100"),
            () => return Ok(()),
        };
        Err(LocalError::spec(format!("mapping {:?} -> {:?}: {message}", self.queue, self.function)))
    }
}

/// One of a mapping's pollers; runs until it is dropped.
pub(crate) async fn run(
    spec: MappingSpec,
    queue: Arc<Queue>,
    function: Arc<Function>,
    region: String,
    account: String,
) {
    let mut kept_back = Vec::new();
    loop {
        let (messages, rest) = collect(&spec, &queue, kept_back).await;
        kept_back = rest;
        let event = batch(&messages, queue.arn(), &region, &account).to_string();
        match function.invoke(event.into()).await {
            Ok(result) => settle(&spec, &queue, &messages, &result),
            Err(error) => tracing::warn!(queue = %spec.queue, %error, "a batch could not be sent"),
        }
    }
}

/// Collects a batch that fits the window, the batch size and the largest event; the second list is what did not fit.
async fn collect(spec: &MappingSpec, queue: &Queue, kept_back: Vec<Message>) -> (Vec<Message>, Vec<Message>) {
    let (mut messages, mut bytes, mut rest) = (Vec::new(), RESERVE_BYTES, Vec::new());
    let mut arrived = kept_back;
    let mut until = None;
    loop {
        for message in arrived {
            bytes += size_in_event(&message);
            let fits = messages.is_empty() || bytes <= MAX_REQUEST_BYTES;
            if fits { messages.push(message) } else { rest.push(message) }
        }
        let room = spec.batch_size.saturating_sub(messages.len());
        let wait = match (messages.is_empty(), until) {
            (true, _) => POLL,
            (false, None) => {
                until = Some(Instant::now() + spec.batch_window);
                spec.batch_window
            }
            (false, Some(until)) => until.saturating_duration_since(Instant::now()),
        };
        if room == 0 || !rest.is_empty() || (!messages.is_empty() && wait.is_zero()) {
            return (messages, rest);
        }
        // Ten at a time, as SQS gives them.
        arrived = queue.receive(room.min(10), wait, None).await;
    }
}

/// What an event costs beyond its records.
const RESERVE_BYTES: usize = 64;

/// Deletes what succeeded.
fn settle(spec: &MappingSpec, queue: &Queue, messages: &[Message], result: &InvokeResult) {
    let (id, name) = (&result.request_id, &spec.queue);
    let payload = match &result.outcome {
        Ok(payload) => payload,
        Err(error) => {
            return tracing::warn!(queue = %name, request_id = %id, kind = ?error.kind, "a batch failed");
        }
    };
    let failed = match verdict(payload, messages) {
        Verdict::Failed(failed) if spec.report_batch_item_failures => failed,
        Verdict::Invalid(reason) if spec.report_batch_item_failures => {
            return tracing::warn!(queue = %name, request_id = %id, %reason, "a batch failed: invalid response");
        }
        Verdict::Failed(_) | Verdict::Invalid(_) => Default::default(),
    };
    for message in messages.iter().filter(|message| !failed.contains(&message.id)) {
        if !queue.delete(&message.receipt_handle) {
            tracing::warn!(queue = %name, message_id = %message.id, "a message was done after its visibility timeout");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::QueueSpec;

    fn queue() -> Arc<Queue> {
        Queue::new(QueueSpec::new("q"), "arn:q".into(), None)
    }

    fn spec(batch_size: usize, window_ms: u64) -> MappingSpec {
        MappingSpec {
            batch_size,
            batch_window: Duration::from_millis(window_ms),
            ..MappingSpec::new("q", "f")
        }
    }

    #[tokio::test]
    async fn without_a_window_a_batch_is_what_is_there() {
        let queue = queue();
        for n in 0..13 {
            queue.send(n.to_string()).unwrap();
        }
        let spec = spec(10, 0);
        let (first, rest) = collect(&spec, &queue, Vec::new()).await;
        let (second, _) = collect(&spec, &queue, rest).await;
        assert_eq!((first.len(), second.len()), (10, 3));
    }

    #[tokio::test]
    async fn a_window_fills_a_batch_until_it_is_over() {
        let queue = queue();
        let sender = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move {
                for n in 0..30 {
                    queue.send(n.to_string()).unwrap();
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        });
        let started = Instant::now();
        let (filled, _) = collect(&spec(15, 20_000), &queue, Vec::new()).await;
        assert_eq!(filled.len(), 15);
        assert!(started.elapsed() >= Duration::from_millis(14 * 20), "{:?}", started.elapsed());
        let started = Instant::now();
        let (over, _) = collect(&spec(100, 100), &queue, Vec::new()).await;
        assert!(
            (1..100).contains(&over.len()) && started.elapsed() >= Duration::from_millis(100),
            "{}",
            over.len()
        );
        sender.await.unwrap();
    }

    #[tokio::test]
    async fn an_event_never_gets_too_large() {
        let queue = queue();
        for _ in 0..8 {
            queue.send("x".repeat(1024 * 1024)).unwrap();
        }
        let spec = spec(10, 0);
        let (first, rest) = collect(&spec, &queue, Vec::new()).await;
        assert_eq!((first.len(), rest.len()), (5, 3));
        assert!(batch(&first, "arn:q", "eu-west-1", "0").to_string().len() <= MAX_REQUEST_BYTES);
        let (second, rest) = collect(&spec, &queue, rest).await;
        assert_eq!((second.len(), rest.len()), (3, 0));
    }

    #[test]
    fn an_illegal_mapping_is_named() {
        spec(10, 0).check().unwrap();
        spec(10_000, 1000).check().unwrap();
        for (spec, wanted) in [
            (spec(0, 0), "batch_size is 0, wanted 1..=10000"),
            (spec(11, 999), "needs a batch_window of at least 1 s, found 999ms"),
            (spec(1, 300_001), "batch_window is 300.001s"),
            (MappingSpec { concurrency: 0, ..spec(1, 0) }, "concurrency is 0, wanted 1..=100"),
        ] {
            let message = spec.check().unwrap_err().to_string();
            assert!(message.contains(wanted), "{message:?} does not hold {wanted:?}");
        }
    }
}
