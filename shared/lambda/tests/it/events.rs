//! Every file of `events/` through the function that it is for, by the same door as in Lambda. A file without an
//! expectation fails, and so does an expectation without a file.
//!
//! Valid events: `EXPECTED` says what the handler must see. Invalid ones say themselves which function gets them and what
//! it must answer.

use aws_lambda_events::{
    alb::AlbTargetGroupRequest,
    apigw::{ApiGatewayProxyRequest, ApiGatewayV2httpRequest},
    eventbridge::EventBridgeEvent,
    s3::S3Event,
    sns::SnsEvent,
    sqs::SqsEvent,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::support::{Function, Invalid, Played, files, play, play_all};

/// File, function, and what the handler sees.
const EXPECTED: &[(&str, Function, &[&str])] = &[
    ("alb-health-ready", Function::Api, &["ready"]),
    ("alb-hostile-host", Function::Api, &["metadata of mnist-cnn"]),
    ("alb-multi-value-predict-png", Function::Api, &["predict mnist-cnn: image/png, 207 bytes"]),
    ("apigw-v1-infer-json", Function::Api, &["infer mnist-cnn: application/json, 2091 bytes"]),
    ("apigw-v1-model-metadata", Function::Api, &["metadata of mnist-cnn"]),
    ("apigw-v2-health-live", Function::Api, &["live"]),
    (
        "apigw-v2-infer-binary",
        Function::Api,
        &["infer mnist-cnn: application/octet-stream, 3242 bytes, 106 of JSON"],
    ),
    ("apigw-v2-infer-json", Function::Api, &["infer mnist-cnn: application/json, 1943 bytes"]),
    ("apigw-v2-infer-version", Function::Api, &["infer mnist-cnn version 3: application/json, 1911 bytes"]),
    ("apigw-v2-predict-png", Function::Api, &["predict mnist-cnn: image/png, 207 bytes"]),
    ("apigw-v2-server-metadata-stage", Function::Api, &["server metadata"]),
    ("function-url-model-ready", Function::Api, &["readiness of mnist-cnn version 3"]),
    ("function-url-predict-png", Function::Api, &["predict mnist-cnn: image/png, 207 bytes"]),
    ("eventbridge-object-created", Function::Upload, &["s3://scans-eu/in/a+b%2Bü.png, 285 bytes"]),
    (
        "s3-multipart-two-records",
        Function::Upload,
        &["s3://scans-eu/in/scan-0001.png, 7340032 bytes", "s3://scans-eu/in/copy of scan.png, 512 bytes"],
    ),
    ("s3-put", Function::Upload, &["s3://scans-eu/in/04-2.png, 285 bytes"]),
    ("s3-put-encoded-key", Function::Upload, &["s3://scans-eu/in/a b+ü.png, 285 bytes"]),
    ("s3-test-event", Function::Upload, &[]),
    ("sns-wrapping-s3", Function::Upload, &["s3://scans-eu/in/déjà vu.png, 285 bytes"]),
    ("sqs-wrapping-eventbridge", Function::Upload, &["s3://scans-eu/in/a+b.png, 285 bytes"]),
    (
        "sqs-wrapping-s3",
        Function::Upload,
        &["s3://scans-eu/in/00-0.png, 285 bytes", "s3://scans-eu/in/01-0.png, 285 bytes"],
    ),
    ("sqs-wrapping-sns-wrapping-s3", Function::Upload, &["s3://scans-eu/in/04-2.png, 285 bytes"]),
    (
        "sqs-batch",
        Function::Queue,
        &["mnist-cnn, delivery 1", "mnist-cnn, delivery 2", "mnist-cnn, delivery 3"],
    ),
    ("sqs-fair-queue", Function::Queue, &["mnist-cnn, delivery 1", "mnist-cnn, delivery 1"]),
    (
        "sqs-fifo-batch",
        Function::Queue,
        &[
            "mnist-cnn, delivery 1, group line-1",
            "mnist-cnn, delivery 1, group line-2",
            "mnist-cnn, delivery 1, group line-1",
            "mnist-cnn, delivery 1, group line-1",
        ],
    ),
    ("sqs-s3-reference", Function::Queue, &["mnist-cnn, delivery 1"]),
];

fn names(folder: &str) -> Vec<String> {
    files(folder).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn every_file_has_an_expectation_and_every_expectation_a_file() {
    let mut expected: Vec<_> = EXPECTED.iter().map(|(name, ..)| *name).collect();
    expected.sort_unstable();
    assert_eq!(names(""), expected);
    assert!(names("invalid").len() >= 25, "the invalid events are gone");
}

#[test]
fn valid_events_reach_the_handler() {
    for (name, event) in files("") {
        let (_, function, seen) = EXPECTED.iter().find(|(known, ..)| *known == name).expect(&name);
        let played = play(*function, &event, &[]);
        assert_eq!(played.seen, *seen, "{name}");
        assert_eq!(played.error, None, "{name}");
        assert_eq!(played.failures, [""; 0], "{name}");
        assert_eq!(played.status, (*function == Function::Api).then_some(200), "{name}");
    }
}

#[test]
fn invalid_events_name_their_error() {
    for (name, file) in files("invalid") {
        let invalid: Invalid = serde_json::from_value(file).expect(&name);
        let env: Vec<_> = invalid.env.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let Played { error, logs, status, failures, .. } = play(invalid.function, &invalid.event, &env);
        // What fails alone in a batch is told in the log, all else to whoever sent it.
        let told = if invalid.failures.is_empty() { error.unwrap_or_default() } else { logs };
        assert!(told.contains(&invalid.error), "{name}: {told:?}, wanted {:?}", invalid.error);
        assert_eq!((status, failures), (invalid.status, invalid.failures), "{name}");
    }
}

#[test]
fn a_valid_event_at_the_wrong_function_says_what_it_is_and_what_was_wanted() {
    for (name, event) in files("") {
        let (_, right, _) = EXPECTED.iter().find(|(known, ..)| *known == name).expect(&name);
        for wrong in [Function::Api, Function::Upload, Function::Queue] {
            // One SQS batch looks like another from outside: its messages fail, one by one.
            if wrong == *right || (wrong != Function::Api && name.starts_with("sqs-")) {
                continue;
            }
            let played = play(wrong, &event, &[]);
            let error = played.error.unwrap_or_default();
            assert!(error.starts_with("event is a"), "{name} at {wrong:?}: {error:?}");
            assert!(error.contains(", wanted "), "{name} at {wrong:?}: {error:?}");
            assert_eq!(played.seen, [""; 0], "{name} at {wrong:?}");
        }
    }
}

/// Every field of every event, missing or holding something else: the function answers or says what is wrong.
#[test]
fn no_mutation_of_an_event_panics() {
    let mut played = 0;
    for (name, event) in files("") {
        let (_, function, _) = EXPECTED.iter().find(|(known, ..)| *known == name).expect(&name);
        let mutations: Vec<_> =
            pointers(&event).iter().flat_map(|pointer| mutations(&event, pointer)).collect();
        played += mutations.len();
        play_all(*function, mutations.into_iter(), |event, Played { error, status, .. }| {
            let said = error.as_ref().is_none_or(|error| !error.is_empty() && !error.contains("panicked"));
            assert!(said, "{name} changed to {event}: {error:?}");
            assert!(status.is_none_or(|status| status < 500), "{name} changed to {event}: {status:?}");
        });
    }
    assert!(played > 5_000, "only {played} mutations");
}

/// The place of every value in `event`, but its root.
fn pointers(event: &Value) -> Vec<String> {
    let children: Vec<(String, &Value)> = match event {
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (name.replace('~', "~0").replace('/', "~1"), value)).collect()
        }
        Value::Array(items) => items.iter().enumerate().map(|(i, value)| (i.to_string(), value)).collect(),
        _ => Vec::new(),
    };
    let below = |(name, value): (String, &Value)| {
        let deeper = pointers(value).into_iter().map({
            let name = name.clone();
            move |rest| format!("/{name}{rest}")
        });
        std::iter::once(format!("/{name}")).chain(deeper).collect::<Vec<_>>()
    };
    children.into_iter().flat_map(below).collect()
}

/// `event` without the value at `pointer`, and with others in its place.
fn mutations(event: &Value, pointer: &str) -> Vec<Value> {
    let others =
        [json!(null), json!(true), json!(-1), json!("%ff\u{0}"), json!([]), json!({}), json!([[{"a": 1}]])];
    let with = |other| {
        let mut event = event.clone();
        *event.pointer_mut(pointer).expect("a pointer into it") = other;
        event
    };
    others.into_iter().map(with).chain(without(event, pointer)).collect()
}

/// `event` without a field; `None` if `pointer` leads to no field of an object.
fn without(event: &Value, pointer: &str) -> Option<Value> {
    let (parent, name) = pointer.rsplit_once('/')?;
    let mut event = event.clone();
    event.pointer_mut(parent)?.as_object_mut()?.remove(&name.replace("~1", "/").replace("~0", "~"))?;
    Some(event)
}

/// The documented types of AWS read our fixtures, so that these have the shape of real events.
#[test]
fn fixtures_have_the_documented_shapes() {
    for (name, event) in files("") {
        match &name {
            name if name.starts_with("apigw-v1-") => reads::<ApiGatewayProxyRequest>(name, &event),
            name if name.starts_with("apigw-v2-") => reads::<ApiGatewayV2httpRequest>(name, &event),
            name if name.starts_with("function-url-") => reads::<ApiGatewayV2httpRequest>(name, &event),
            name if name.starts_with("alb-") => reads::<AlbTargetGroupRequest>(name, &event),
            name if name.starts_with("eventbridge-") => reads::<EventBridgeEvent>(name, &event),
            name if name.starts_with("sns-") => reads::<SnsEvent>(name, &event),
            name if name.starts_with("sqs-") => reads::<SqsEvent>(name, &event),
            name if name == "s3-test-event" => {}
            name => reads::<S3Event>(name, &event),
        }
    }
}

fn reads<T: DeserializeOwned + Serialize>(name: &str, event: &Value) {
    let typed: T = serde_json::from_value(event.clone()).expect(name);
    serde_json::to_value(typed).expect(name);
}
