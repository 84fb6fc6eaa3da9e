//! A batch of messages as the event that Lambda gets, and what its answer says about each of them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::store::Message;
use crate::clock;

/// What a record costs beyond its body, generously.
const RECORD_BYTES: usize = 1024;

/// The event for a batch.
pub(crate) fn batch(messages: &[Message], queue_arn: &str, region: &str, account: &str) -> Value {
    let record = |message: &Message| {
        let mut attributes = json!({
            "ApproximateReceiveCount": message.receive_count.to_string(),
            "SentTimestamp": clock::epoch_ms(message.sent).to_string(),
            "SenderId": account,
            "ApproximateFirstReceiveTimestamp": clock::epoch_ms(message.first_received).to_string(),
        });
        if let Some(source) = &message.dead_letter_source {
            attributes["DeadLetterQueueSourceArn"] = json!(source);
        }
        json!({
            "messageId": message.id,
            "receiptHandle": message.receipt_handle,
            "body": message.body,
            "attributes": attributes,
            "messageAttributes": {},
            "md5OfBody": message.body_md5,
            "eventSource": "aws:sqs",
            "eventSourceARN": queue_arn,
            "awsRegion": region,
        })
    };
    json!({"Records": messages.iter().map(record).collect::<Vec<_>>()})
}

/// At most how many bytes a message takes in an event.
pub(crate) fn size_in_event(message: &Message) -> usize {
    let escaped: usize = message
        .body
        .bytes()
        .map(|byte| {
            if byte.is_ascii_control() {
                6
            } else if matches!(byte, b'"' | b'\\') {
                2
            } else {
                1
            }
        })
        .sum();
    escaped + RECORD_BYTES
}

/// What a function's successful answer says about a batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All messages but these, by id, are done.
    Failed(BTreeSet<String>),
    /// The answer is not a batch response that fits the batch: the whole batch failed.
    Invalid(String),
}

/// Reads a batch response as Lambda does: empty or absent lists are success; an id that is missing, empty or not of
/// this batch, or anything that is not such a document, fails the whole batch.
pub(crate) fn verdict(payload: &[u8], messages: &[Message]) -> Verdict {
    let document: Value = match serde_json::from_slice(payload) {
        Ok(document) => document,
        Err(_) if payload.is_empty() => Value::Null,
        Err(error) => return Verdict::Invalid(format!("response is not JSON: {error}")),
    };
    let list = match &document {
        Value::Null => &Value::Null,
        Value::Object(fields) => fields.get("batchItemFailures").unwrap_or(&Value::Null),
        other => return Verdict::Invalid(format!("response is {other}, wanted an object")),
    };
    let items = match list {
        Value::Null => &[][..],
        Value::Array(items) => items,
        other => return Verdict::Invalid(format!("batchItemFailures is {other}, wanted a list")),
    };
    let mut failed = BTreeSet::new();
    for item in items {
        let id = item.get("itemIdentifier").and_then(Value::as_str);
        match id.filter(|id| messages.iter().any(|message| message.id == *id)) {
            Some(id) => drop(failed.insert(id.to_owned())),
            None => {
                return Verdict::Invalid(format!("batch item failure {item} names no message of the batch"));
            }
        }
    }
    Verdict::Failed(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn message(id: &str, body: &str) -> Message {
        let sent = UNIX_EPOCH + Duration::from_millis(1_500);
        Message {
            id: id.into(),
            receipt_handle: "handle".into(),
            body: body.into(),
            body_md5: "md5".into(),
            receive_count: 2,
            sent,
            first_received: sent + Duration::from_millis(10),
            dead_letter_source: None,
        }
    }

    #[test]
    fn the_event_has_sqss_shape() {
        let event = batch(&[message("m1", "hello")], "arn:aws:sqs:eu-west-1:0:q", "eu-west-1", "0");
        let wanted = json!({"Records": [{
            "messageId": "m1", "receiptHandle": "handle", "body": "hello", "md5OfBody": "md5",
            "attributes": {"ApproximateReceiveCount": "2", "SentTimestamp": "1500", "SenderId": "0",
                "ApproximateFirstReceiveTimestamp": "1510"},
            "messageAttributes": {}, "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:eu-west-1:0:q", "awsRegion": "eu-west-1",
        }]});
        assert_eq!(event, wanted);
    }

    #[test]
    fn the_size_in_an_event_is_never_underestimated() {
        for body in ["", "plain", "\"quotes\\\"", "\t\n\u{1}\u{7f}", "ü😀"] {
            let message = message("0123456789-0123456789-0123456789-0123", body);
            let real = batch(
                std::slice::from_ref(&message),
                "arn:aws:sqs:eu-west-1:000000000000:queue",
                "eu-west-1",
                "0",
            );
            assert!(size_in_event(&message) >= real.to_string().len(), "{body:?}");
        }
    }

    #[test]
    fn answers_are_read_as_lambda_reads_them() {
        let messages = [message("a", "1"), message("b", "2")];
        let failed = |ids: &[&str]| Verdict::Failed(ids.iter().map(|id| (*id).to_owned()).collect());
        for (payload, wanted) in [
            ("", failed(&[])),
            ("null", failed(&[])),
            ("{}", failed(&[])),
            (r#"{"other":1}"#, failed(&[])),
            (r#"{"batchItemFailures":null}"#, failed(&[])),
            (r#"{"batchItemFailures":[]}"#, failed(&[])),
            (r#"{"batchItemFailures":[{"itemIdentifier":"b"}]}"#, failed(&["b"])),
            (r#"{"batchItemFailures":[{"itemIdentifier":"b"},{"itemIdentifier":"b"}]}"#, failed(&["b"])),
            (r#"{"batchItemFailures":[{"itemIdentifier":"a"},{"itemIdentifier":"b"}]}"#, failed(&["a", "b"])),
        ] {
            assert_eq!(verdict(payload.as_bytes(), &messages), wanted, "{payload}");
        }
        for payload in [
            "not json",
            "\"ok\"",
            "[]",
            r#"{"batchItemFailures":"a"}"#,
            r#"{"batchItemFailures":[{"itemIdentifier":""}]}"#,
            r#"{"batchItemFailures":[{"itemIdentifier":null}]}"#,
            r#"{"batchItemFailures":[{"messageId":"a"}]}"#,
            r#"{"batchItemFailures":["a"]}"#,
            r#"{"batchItemFailures":[{"itemIdentifier":"a"},{"itemIdentifier":"c"}]}"#,
        ] {
            assert!(matches!(verdict(payload.as_bytes(), &messages), Verdict::Invalid(_)), "{payload}");
        }
    }
}
