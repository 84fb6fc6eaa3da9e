//! From an event to the objects that it tells about, through whatever it is wrapped in.
//!
//! S3 notifications encode keys as forms do (`+` is a space); EventBridge leaves them as they are.

use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::{Decoded, ObjectRef};
use crate::{
    Error,
    event::{self, Kind},
    name::clip,
    sqs,
};

const WANTED: &str =
    "news of an object created in S3: an S3 notification or an EventBridge event, alone or in SQS or SNS";

/// SQS around SNS around S3 is the deepest that AWS builds.
const DEEPEST: usize = 3;

/// The objects of an event.
#[derive(Debug)]
pub(super) struct Delivery {
    /// From SQS, the ids of the messages: each fails by itself.
    pub(super) messages: Option<Vec<String>>,
    /// Each with the number of its message.
    pub(super) objects: Vec<(usize, Decoded)>,
}

/// Decodes an event as Lambda delivers it.
pub(super) fn delivery(event: &str) -> Result<Delivery, Error> {
    let event = event::parse(event)?;
    if Kind::of(&event) != Kind::Sqs {
        let objects = objects(&event, 1)?.into_iter().map(|object| (0, object)).collect();
        return Ok(Delivery { messages: None, objects });
    }
    let (mut ids, mut all) = (Vec::new(), Vec::new());
    for (i, message) in sqs::Batch::parse(event)?.records.into_iter().enumerate() {
        let objects = nested(&message.body, 1).unwrap_or_else(|error| vec![Err(error)]);
        all.extend(objects.into_iter().map(|object| (i, object)));
        ids.push(message.message_id);
    }
    Ok(Delivery { messages: Some(ids), objects: all })
}

/// The objects of an event inside another.
fn nested(text: &str, depth: usize) -> Result<Vec<Decoded>, Error> {
    if depth >= DEEPEST {
        return Err(Error::invalid(format!("event is wrapped more than {DEEPEST} deep")));
    }
    objects(&event::parse(text)?, depth + 1)
}

fn objects(event: &Value, depth: usize) -> Result<Vec<Decoded>, Error> {
    match Kind::of(event) {
        Kind::S3 => Ok(records(event).map(from_s3).collect()),
        Kind::EventBridge(detail) if detail == "Object Created" => Ok(vec![from_eventbridge(event)]),
        Kind::Sns => Ok(records(event).flat_map(|record| from_sns(record, depth)).collect()),
        Kind::SnsEnvelope => nested(text(event, "/Message")?, depth),
        Kind::S3Test => {
            tracing::info!(
                bucket = event["Bucket"].as_str(),
                "test notification: S3 can reach this function"
            );
            Ok(Vec::new())
        }
        other => Err(other.unwanted(WANTED)),
    }
}

fn records(event: &Value) -> impl Iterator<Item = &Value> {
    event["Records"].as_array().into_iter().flatten()
}

fn from_sns(record: &Value, depth: usize) -> Vec<Decoded> {
    let objects = text(record, "/Sns/Message").and_then(|message| nested(message, depth));
    objects.unwrap_or_else(|error| vec![Err(error)])
}

fn from_s3(record: &Value) -> Decoded {
    let name = text(record, "/eventName")?;
    // Notifications name it ObjectCreated:Put; replayed ones may carry the s3: of the configuration.
    if !name.trim_start_matches("s3:").starts_with("ObjectCreated:") {
        return Err(Error::invalid(format!("S3 event is {:?}, wanted ObjectCreated:*", clip(name))));
    }
    let encoded = text(record, "/s3/object/key")?;
    object(
        text(record, "/s3/bucket/name")?,
        form_decode(encoded)?,
        &record["s3"]["object"],
        ["versionId", "eTag"],
    )
}

fn from_eventbridge(event: &Value) -> Decoded {
    let detail = &event["detail"];
    let (bucket, key) = (text(detail, "/bucket/name")?, text(detail, "/object/key")?);
    object(bucket, key.to_owned(), &detail["object"], ["version-id", "etag"])
}

fn object(bucket: &str, key: String, fields: &Value, [version, etag]: [&str; 2]) -> Decoded {
    if key.is_empty() || key.len() > 1024 {
        return Err(Error::invalid(format!("object key has {} bytes, wanted 1 to 1024", key.len())));
    }
    let field = |name: &str| fields[name].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let etag = field(etag).map(|etag| etag.trim_matches('"').to_owned());
    Ok(ObjectRef {
        bucket: bucket.to_owned(),
        key,
        size: fields["size"].as_u64(),
        version_id: field(version),
        etag,
    })
}

/// `in/a+b%2B%C3%BC.png` is `in/a b+ü.png`.
fn form_decode(encoded: &str) -> Result<String, Error> {
    let spaced = encoded.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    let bad = |_| Error::invalid(format!("object key {:?} is not UTF-8 once decoded", clip(encoded)));
    decoded.map(Into::into).map_err(bad)
}

/// The text at `pointer`.
fn text<'a>(value: &'a Value, pointer: &str) -> Result<&'a str, Error> {
    let found = value.pointer(pointer);
    let bad = || {
        let found = if found.is_some() { "is no text" } else { "is missing" };
        Error::invalid(format!("{} {found}", pointer.trim_start_matches('/').replace('/', ".")))
    };
    found.and_then(Value::as_str).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn s3(name: &str, key: &str) -> Value {
        json!({"Records": [{
            "eventSource": "aws:s3", "eventName": name,
            "s3": {"bucket": {"name": "b"}, "object": {"key": key, "size": 3, "versionId": "v", "eTag": "e"}},
        }]})
    }

    fn only(event: &Value) -> Decoded {
        let mut objects = objects(event, 1)?;
        assert_eq!(objects.len(), 1);
        objects.remove(0)
    }

    #[test]
    fn keys_of_notifications_are_form_encoded() {
        let table = [
            ("in/digit.png", "in/digit.png"),
            ("in/a+b%2B%C3%BC.png", "in/a b+ü.png"),
            ("100%25+sure", "100% sure"),
            ("%E6%97%A5%E6%9C%AC/%F0%9F%94%A5.png", "日本/🔥.png"),
            ("a%2Fb%3Dc%26d", "a/b=c&d"),
        ];
        for (encoded, key) in table {
            let expected = ObjectRef {
                bucket: "b".into(),
                key: key.into(),
                size: Some(3),
                version_id: Some("v".into()),
                etag: Some("e".into()),
            };
            assert_eq!(only(&s3("ObjectCreated:Put", encoded)).expect(encoded), expected);
        }
    }

    #[test]
    fn keys_of_eventbridge_are_not_encoded() {
        let detail = json!({"bucket": {"name": "b"}, "object": {"key": "a+b%2B ü.png", "etag": "\"e\""}});
        let event = json!({"detail-type": "Object Created", "source": "aws.s3", "detail": detail});
        let object = only(&event).expect("an object");
        assert_eq!(
            (object.key.as_str(), object.etag.as_deref(), object.size),
            ("a+b%2B ü.png", Some("e"), None)
        );
    }

    #[test]
    fn bad_records_say_what_is_wrong() {
        let long = "k".repeat(1025);
        let table = [
            (s3("ObjectRemoved:Delete", "k"), "S3 event is \"ObjectRemoved:Delete\", wanted ObjectCreated:*"),
            (s3("ObjectCreated:Put", "%FF"), "object key \"%FF\" is not UTF-8 once decoded"),
            (s3("ObjectCreated:Put", ""), "object key has 0 bytes, wanted 1 to 1024"),
            (s3("ObjectCreated:Put", &long), "object key has 1025 bytes, wanted 1 to 1024"),
            (json!({"Records": [{"eventSource": "aws:s3"}]}), "eventName is missing"),
            (
                json!({"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": {"object": {"key": 1}}}]}),
                "s3.object.key is no text",
            ),
            (json!({"Records": [{"EventSource": "aws:sns", "Sns": {}}]}), "Sns.Message is missing"),
        ];
        for (event, text) in table {
            assert_eq!(only(&event).expect_err(text).to_string(), text);
        }
    }

    #[test]
    fn wrapping_has_an_end() {
        let mut event = s3("ObjectCreated:Put", "k");
        for depth in 1..5 {
            let result = objects(&event, 1);
            assert_eq!(result.is_ok_and(|objects| objects[0].is_ok()), depth <= DEEPEST, "depth {depth}");
            event = json!({"Type": "Notification", "Message": event.to_string()});
        }
    }
}
