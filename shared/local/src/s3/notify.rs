//! Object-created notifications: who is told of which keys, and the event as S3 spells it.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};

use super::backend::Object;
use crate::clock;

/// A subscription to the objects created in a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// Its name, told to the receiver as `configurationId`.
    pub id: String,
    /// The bucket.
    pub bucket: String,
    /// Only keys that begin so; empty is all.
    pub prefix: String,
    /// Only keys that end so; empty is all.
    pub suffix: String,
    /// Who is told.
    pub target: Target,
}

/// Who gets a notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The function of this name, invoked asynchronously.
    Function(String),
    /// The queue of this name.
    Queue(String),
}

impl Notification {
    /// Whether it concerns an object.
    pub(crate) fn matches(&self, created: &Created) -> bool {
        self.bucket == created.bucket
            && created.key.starts_with(&self.prefix)
            && created.key.ends_with(&self.suffix)
    }
}

/// An object that was written.
pub(crate) struct Created {
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) object: Object,
    /// `ObjectCreated:Put` and its sisters.
    pub(crate) event_name: &'static str,
}

/// The notification, as JSON. `sequencer` grows with every event, so that receivers can order those of one key.
pub(crate) fn event(created: &Created, configuration_id: &str, region: &str, sequencer: u64) -> Value {
    let Created { bucket, key, object, event_name } = created;
    json!({"Records": [{
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": region,
        "eventTime": clock::iso_millis(object.modified),
        "eventName": event_name,
        "userIdentity": {"principalId": "AWS:LOCAL"},
        "requestParameters": {"sourceIPAddress": IpAddr::V4(Ipv4Addr::LOCALHOST)},
        "responseElements": {"x-amz-request-id": clock::request_id(), "x-amz-id-2": "local"},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": configuration_id,
            "bucket": {
                "name": bucket,
                "ownerIdentity": {"principalId": "LOCAL"},
                "arn": format!("arn:aws:s3:::{bucket}"),
            },
            "object": {
                "key": form_encode(key),
                "size": object.bytes.len(),
                "eTag": object.e_tag,
                "sequencer": format!("{sequencer:018X}"),
            },
        },
    }]})
}

/// A key as notifications spell it: a space is `+`, everything but unreserved characters and `/` is UTF-8 in percent.
fn form_encode(key: &str) -> String {
    key.bytes().fold(String::with_capacity(key.len()), |mut text, byte| {
        match byte {
            b' ' => text.push('+'),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' | b'/' => {
                text.push(char::from(byte));
            }
            // Writing to a string cannot fail.
            _ => drop(write!(text, "%{byte:02X}")),
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::time::{Duration, UNIX_EPOCH};

    fn created(key: &str) -> Created {
        let mut object = Object::new("hello".into(), None, BTreeMap::new());
        object.modified = UNIX_EPOCH + Duration::from_millis(1_583_348_638_390);
        Created { bucket: "uploads".into(), key: key.into(), object, event_name: "ObjectCreated:Put" }
    }

    #[test]
    fn keys_are_form_encoded_as_s3_does() {
        for (key, wanted) in [
            ("in/a b+ü.bin", "in/a+b%2B%C3%BC.bin"),
            ("photo (1).png", "photo+%281%29.png"),
            ("a=b&c%d~e", "a%3Db%26c%25d%7Ee"),
            ("plain-_.*/0Z", "plain-_.*/0Z"),
        ] {
            assert_eq!(form_encode(key), wanted);
        }
    }

    #[test]
    fn the_event_has_s3s_shape() {
        let event = event(&created("in/a b.png"), "digits", "eu-west-1", 255);
        let record = &event["Records"][0];
        assert_eq!(record["eventTime"], "2020-03-04T19:03:58.390Z");
        assert_eq!(record["eventName"], "ObjectCreated:Put");
        assert_eq!(record["awsRegion"], "eu-west-1");
        assert_eq!(record["s3"]["configurationId"], "digits");
        assert_eq!(record["s3"]["bucket"]["arn"], "arn:aws:s3:::uploads");
        let object = json!({"key": "in/a+b.png", "size": 5, "eTag": "5d41402abc4b2a76b9719d911017c592", "sequencer": "0000000000000000FF"});
        assert_eq!(record["s3"]["object"], object);
    }

    #[test]
    fn a_subscription_looks_at_bucket_prefix_and_suffix() {
        let target = Target::Function("f".into());
        let (prefix, suffix) = ("in/".to_owned(), ".png".to_owned());
        let wants = Notification { id: "n".into(), bucket: "uploads".into(), prefix, suffix, target };
        assert_eq!(
            ["in/a.png", "in/a.jpg", "out/a.png"].map(|key| wants.matches(&created(key))),
            [true, false, false]
        );
        let elsewhere = Created { bucket: "other".into(), ..created("in/a.png") };
        assert!(!wants.matches(&elsewhere));
    }
}
