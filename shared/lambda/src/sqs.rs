//! SQS batches on the wire: the message as Lambda delivers it, and the partial batch response.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;

/// An SQS batch. Only the fields that we use; all others are ignored.
#[derive(Debug, Deserialize)]
pub(crate) struct Batch {
    #[serde(rename = "Records")]
    pub(crate) records: Vec<Message>,
}

/// One message of a batch.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Message {
    pub(crate) message_id: String,
    #[serde(default)]
    pub(crate) body: String,
    #[serde(default)]
    attributes: HashMap<String, String>,
    #[serde(default, rename = "eventSourceARN")]
    source: String,
}

impl Batch {
    /// The messages of an event that is known to be an SQS batch. A message that has no id could not be reported as
    /// failed, so such an event fails as a whole.
    pub(crate) fn parse(event: Value) -> Result<Self, Error> {
        serde_json::from_value(event)
            .map_err(|error| Error::invalid(format!("SQS batch is malformed: {error}")))
    }
}

impl Message {
    /// How often this message was delivered, this time included.
    pub(crate) fn receive_count(&self) -> u32 {
        let count = self.attributes.get("ApproximateReceiveCount");
        count.and_then(|text| text.parse().ok()).unwrap_or(1)
    }

    /// The group within which order counts. Standard queues have group ids too (fair queues), but no order.
    pub(crate) fn ordered_group(&mut self) -> Option<String> {
        self.source.ends_with(".fifo").then(|| self.attributes.remove("MessageGroupId").unwrap_or_default())
    }
}

/// What an SQS batch is answered with: the messages to deliver again. The event source mapping needs
/// `ReportBatchItemFailures`, otherwise SQS takes any answer for success and failed records would be lost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchResponse {
    batch_item_failures: Vec<Failure>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Failure {
    item_identifier: String,
}

impl BatchResponse {
    /// The ids of the messages that failed, in the order in which they were delivered.
    pub fn failures(&self) -> impl Iterator<Item = &str> {
        self.batch_item_failures.iter().map(|failure| failure.item_identifier.as_str())
    }
}

impl FromIterator<String> for BatchResponse {
    fn from_iter<I: IntoIterator<Item = String>>(ids: I) -> Self {
        let failure = |item_identifier| Failure { item_identifier };
        Self { batch_item_failures: ids.into_iter().map(failure).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn message(event: serde_json::Value) -> Message {
        serde_json::from_value(event).expect("a message")
    }

    #[test]
    fn groups_count_only_in_fifo_queues() {
        let fair = json!({"messageId": "1", "attributes": {"MessageGroupId": "tenant"}, "eventSourceARN": "arn:x:jobs"});
        assert_eq!(message(fair).ordered_group(), None);
        let fifo = json!({"messageId": "1", "attributes": {"MessageGroupId": "g"}, "eventSourceARN": "arn:x:jobs.fifo"});
        assert_eq!(message(fifo).ordered_group().as_deref(), Some("g"));
    }

    #[test]
    fn receive_count() {
        for (count, expected) in [(json!({"ApproximateReceiveCount": "3"}), 3), (json!({}), 1)] {
            assert_eq!(message(json!({"messageId": "1", "attributes": count})).receive_count(), expected);
        }
    }

    #[test]
    fn a_message_without_id_fails_the_batch() {
        let error = Batch::parse(json!({"Records": [{"body": "{}"}]})).expect_err("no id");
        assert!(
            error.to_string().starts_with("SQS batch is malformed: missing field `messageId`"),
            "{error}"
        );
    }

    #[test]
    fn the_response_reads_as_the_type_that_lambda_documents() {
        let response: BatchResponse = ["a".to_owned(), "b".to_owned()].into_iter().collect();
        let json = serde_json::to_value(&response).expect("plain data");
        let typed: aws_lambda_events::sqs::SqsBatchResponse =
            serde_json::from_value(json).expect("the same shape");
        let ids: Vec<_> = typed.batch_item_failures.into_iter().map(|item| item.item_identifier).collect();
        assert_eq!(ids, response.failures().collect::<Vec<_>>());
    }
}
