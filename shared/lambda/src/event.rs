//! Names the kind of an event, so that one sent to the wrong function gets a message that says what it is.

use std::fmt;

use serde_json::Value;

use crate::{Error, name::clip};

/// The JSON of an event, or of one inside another.
pub(crate) fn parse(event: &str) -> Result<Value, Error> {
    serde_json::from_str(event).map_err(|error| Error::invalid(format!("event is not JSON: {error}")))
}

/// What an event is, by the shape that its source gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// API Gateway, a function URL or a load balancer.
    Http,
    /// An S3 notification.
    S3,
    /// What S3 sends once, when notifications are switched on.
    S3Test,
    /// An EventBridge event, with its detail type.
    EventBridge(String),
    /// A batch from SQS.
    Sqs,
    /// A delivery from SNS.
    Sns,
    /// The envelope in which SNS writes to SQS.
    SnsEnvelope,
    /// Anything else, described.
    Other(String),
}

impl Kind {
    /// The kind of `event`, by its outermost fields.
    pub(crate) fn of(event: &Value) -> Self {
        let text = |name: &str| event.get(name).and_then(Value::as_str);
        if let Some(records) = event.get("Records").and_then(Value::as_array) {
            return Self::of_records(records);
        }
        if event.get("requestContext").is_some() {
            return Self::Http;
        }
        if text("Event") == Some("s3:TestEvent") {
            return Self::S3Test;
        }
        match (text("detail-type"), text("Type")) {
            (Some(detail), _) => Self::EventBridge(detail.to_owned()),
            (None, Some("Notification")) => Self::SnsEnvelope,
            (None, _) => Self::Other(describe(event)),
        }
    }

    /// SNS writes `EventSource`, all others `eventSource`.
    fn of_records(records: &[Value]) -> Self {
        let Some(first) = records.first() else { return Self::Other("an event without records".into()) };
        let source = first.get("eventSource").or_else(|| first.get("EventSource")).and_then(Value::as_str);
        match source {
            Some("aws:s3") => Self::S3,
            Some("aws:sqs") => Self::Sqs,
            Some("aws:sns") => Self::Sns,
            Some(other) => Self::Other(format!("records of {:?}", clip(other))),
            None => Self::Other("records without an event source".into()),
        }
    }

    /// The error of a function that wanted something else.
    pub(crate) fn unwanted(&self, wanted: &str) -> Error {
        Error::invalid(format!("event is {self}, wanted {wanted}"))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http => f.write_str("an HTTP request (API Gateway, function URL or load balancer)"),
            Self::S3 => f.write_str("an S3 notification"),
            Self::S3Test => f.write_str("an S3 test notification"),
            Self::EventBridge(detail) => write!(f, "an EventBridge event {:?}", clip(detail)),
            Self::Sqs => f.write_str("an SQS batch"),
            Self::Sns => f.write_str("an SNS delivery"),
            Self::SnsEnvelope => f.write_str("an SNS envelope"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

fn describe(event: &Value) -> String {
    match event {
        Value::Object(fields) if fields.is_empty() => "an empty object".into(),
        Value::Object(fields) => {
            let names: Vec<_> = fields.keys().take(5).map(|name| clip(name)).collect();
            format!("an object with {}", names.join(", "))
        }
        Value::Array(_) => "an array".into(),
        Value::String(_) => "a string".into(),
        Value::Number(_) => "a number".into(),
        Value::Bool(_) => "a boolean".into(),
        Value::Null => "null".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kinds() {
        let table = [
            (json!({"requestContext": {}}), "an HTTP request (API Gateway, function URL or load balancer)"),
            (json!({"Records": [{"eventSource": "aws:s3"}]}), "an S3 notification"),
            (json!({"Records": [{"eventSource": "aws:sqs"}]}), "an SQS batch"),
            (json!({"Records": [{"EventSource": "aws:sns"}]}), "an SNS delivery"),
            (json!({"Records": [{"eventSource": "aws:kinesis"}]}), "records of \"aws:kinesis\""),
            (json!({"Records": [{}]}), "records without an event source"),
            (json!({"Records": []}), "an event without records"),
            (json!({"Event": "s3:TestEvent"}), "an S3 test notification"),
            (json!({"detail-type": "Scheduled Event"}), "an EventBridge event \"Scheduled Event\""),
            (json!({"Type": "Notification"}), "an SNS envelope"),
            (json!({"b": 1, "a": 2}), "an object with a, b"),
            (json!({}), "an empty object"),
            (json!([1]), "an array"),
            (json!("x"), "a string"),
            (json!(null), "null"),
        ];
        for (event, text) in table {
            assert_eq!(Kind::of(&event).to_string(), text, "{event}");
        }
    }
}
