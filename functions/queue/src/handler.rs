//! Records in, one result or one failure each.

use crate::record::{Payload, parse};
use async_trait::async_trait;
use futures_util::future::join_all;
use glowplug_function::{Input, Scorer};
use glowplug_lambda::queue::{Record, RecordHandler};
use glowplug_lambda::{Error, Invocation, Outcome};

/// Scores records; the predictor bounds how many run at once.
pub(crate) struct Queue {
    pub(crate) scorer: Scorer,
}

#[async_trait]
impl RecordHandler for Queue {
    async fn records(&self, records: &[&Record], invocation: &Invocation) -> Vec<Result<Outcome, Error>> {
        join_all(records.iter().map(|record| self.record(record, invocation))).await
    }
}

impl Queue {
    async fn record(&self, record: &Record, invocation: &Invocation) -> Result<Outcome, Error> {
        let parsed = parse(&record.body)?;
        let (input, source) = match parsed.payload {
            Payload::Tensors(request) => {
                (Input::V2(request, record.body.clone().into()), format!("sqs message {}", record.id))
            }
            Payload::Object { bucket, key } => {
                (Input::Raw(self.scorer.object(&bucket, &key, None).await?), format!("s3://{bucket}/{key}"))
            }
        };
        Ok(self.scorer.score(&parsed.model, input, &source, invocation.deadline).await?.outcome)
    }
}
