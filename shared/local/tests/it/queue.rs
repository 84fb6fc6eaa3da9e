//! Queues that feed a function, and the SQS protocol.

use std::collections::BTreeMap;
use std::time::Duration;

use glowplug_local::{DeadLetter, LocalCloud, MappingSpec, Notification, QueueSpec, Target};
use serde_json::{Value, json};

use crate::harness::{Output, cloud, eventually, sqs};

/// A queue `q` with dead letters after two receives, mapped to `f`.
async fn mapped(change: impl FnOnce(&mut MappingSpec)) -> (LocalCloud, Output) {
    cloud(|spec| {
        spec.functions[0].timeout = Duration::from_millis(900);
        let dead_letter = Some(DeadLetter { queue: "dead".into(), max_receive_count: 2 });
        let visibility_timeout = Duration::from_secs(1);
        spec.queues =
            vec![QueueSpec { name: "q".into(), visibility_timeout, dead_letter }, QueueSpec::new("dead")];
        let mut mapping = MappingSpec::new("q", "f");
        change(&mut mapping);
        spec.mappings = vec![mapping];
    })
    .await
}

/// How often each body was given to the function.
fn deliveries(output: &Output) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for event in output.events() {
        for record in event["Records"].as_array().unwrap() {
            *counts.entry(record["body"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    counts
}

#[tokio::test]
async fn a_bad_record_fails_alone_and_becomes_a_dead_letter() {
    let (cloud, output) = mapped(|mapping| mapping.batch_window = Duration::from_millis(50)).await;
    let queue = cloud.queue("q").unwrap();
    for n in 0..19 {
        queue.send(format!("digit {n}")).unwrap();
    }
    let poison = queue.send("poison").unwrap();
    eventually("the queue is empty", || queue.is_empty()).await;
    let dead = queue.dead_letters();
    assert_eq!((dead.len(), &dead[0].id, dead[0].body.as_str()), (1, &poison.id, "poison"));
    assert_eq!(cloud.queue("dead").unwrap().len(), 1);
    let counts = deliveries(&output);
    assert_eq!((counts.len(), counts["poison"], counts["digit 7"]), (20, 2, 1));
    let record = &output.events()[0]["Records"][0];
    assert_eq!(record["eventSourceARN"], "arn:aws:sqs:us-east-1:000000000000:q");
    assert_eq!(record["attributes"]["ApproximateReceiveCount"], "1");
}

#[tokio::test]
async fn a_crash_or_a_nonsense_answer_fails_the_whole_batch() {
    for bad in ["crash", "nonsense"] {
        let (cloud, output) = mapped(|mapping| mapping.batch_window = Duration::from_millis(100)).await;
        let queue = cloud.queue("q").unwrap();
        queue.send("good").unwrap();
        queue.send(bad).unwrap();
        eventually("both are dead letters", || queue.dead_letters().len() == 2).await;
        assert_eq!(deliveries(&output), BTreeMap::from([("good".into(), 2), (bad.into(), 2)]), "{bad}");
    }
}

#[tokio::test]
async fn without_partial_responses_any_success_deletes_the_batch() {
    let (cloud, output) = mapped(|mapping| mapping.report_batch_item_failures = false).await;
    let queue = cloud.queue("q").unwrap();
    queue.send("poison").unwrap();
    queue.send("nonsense").unwrap();
    eventually("the queue is empty", || queue.is_empty()).await;
    assert!(queue.dead_letters().is_empty());
    assert_eq!(deliveries(&output).values().copied().collect::<Vec<_>>(), [1, 1]);
}

#[tokio::test]
async fn an_upload_reaches_a_function_through_a_queue() {
    let (cloud, output) = cloud(|spec| {
        spec.buckets = vec!["uploads".into()];
        spec.queues = vec![QueueSpec::new("q")];
        spec.mappings = vec![MappingSpec::new("q", "f")];
        let (prefix, suffix, target) = ("in/".into(), String::new(), Target::Queue("q".into()));
        spec.notifications =
            vec![Notification { id: "n".into(), bucket: "uploads".into(), prefix, suffix, target }];
    })
    .await;
    cloud.buckets().put("uploads", "in/a b.png", "picture").unwrap();
    eventually("the event is here", || !output.events().is_empty()).await;
    let body = output.events()[0]["Records"][0]["body"].as_str().unwrap().to_owned();
    let inner: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(inner["Records"][0]["s3"]["object"]["key"], "in/a+b.png");
    eventually("the message is done", || cloud.queue("q").unwrap().is_empty()).await;
}

async fn plain() -> (LocalCloud, String) {
    let (cloud, _) = cloud(|spec| {
        let dead_letter = Some(DeadLetter { queue: "dead".into(), max_receive_count: 3 });
        spec.queues = vec![QueueSpec { dead_letter, ..QueueSpec::new("q") }, QueueSpec::new("dead")];
    })
    .await;
    let url = sqs(&cloud, "GetQueueUrl", json!({"QueueName": "q"})).await.json()["QueueUrl"]
        .as_str()
        .unwrap()
        .to_owned();
    (cloud, url)
}

#[tokio::test]
async fn messages_go_through_the_protocol_and_back() {
    let (cloud, url) = plain().await;
    assert_eq!(url, format!("{}/000000000000/q", cloud.urls().sqs));
    let sent = sqs(&cloud, "SendMessage", json!({"QueueUrl": url, "MessageBody": "hello"})).await;
    assert_eq!((sent.status.as_u16(), sent.header("content-type")), (200, "application/x-amz-json-1.0"));
    assert_eq!(sent.json()["MD5OfMessageBody"], "5d41402abc4b2a76b9719d911017c592");
    let input = json!({"QueueUrl": url, "AttributeNames": ["All"], "WaitTimeSeconds": 1});
    let message = sqs(&cloud, "ReceiveMessage", input.clone()).await.json()["Messages"][0].clone();
    assert_eq!((&message["Body"], &message["MessageId"]), (&json!("hello"), &sent.json()["MessageId"]));
    assert_eq!(message["Attributes"]["ApproximateReceiveCount"], "1");
    let attributes =
        sqs(&cloud, "GetQueueAttributes", json!({"QueueUrl": url, "AttributeNames": ["All"]})).await;
    let attributes = attributes.json()["Attributes"].clone();
    assert_eq!(attributes["ApproximateNumberOfMessagesNotVisible"], "1");
    let policy: Value = serde_json::from_str(attributes["RedrivePolicy"].as_str().unwrap()).unwrap();
    assert_eq!(
        policy,
        json!({"deadLetterTargetArn": "arn:aws:sqs:us-east-1:000000000000:dead", "maxReceiveCount": 3})
    );
    let receipt = json!({"QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"]});
    assert_eq!(sqs(&cloud, "DeleteMessage", receipt).await.json(), json!({}));
    assert!(cloud.queue("q").unwrap().is_empty());
    assert_eq!(sqs(&cloud, "ReceiveMessage", json!({"QueueUrl": url})).await.json(), json!({}));
}

#[tokio::test]
async fn in_a_batch_each_entry_stands_for_itself() {
    let (cloud, url) = plain().await;
    let entries = json!([{"Id": "a", "MessageBody": "1"}, {"Id": "b", "MessageBody": ""}]);
    let answer = sqs(&cloud, "SendMessageBatch", json!({"QueueUrl": url, "Entries": entries})).await.json();
    assert_eq!((&answer["Successful"][0]["Id"], &answer["Failed"][0]["Id"]), (&json!("a"), &json!("b")));
    assert_eq!(cloud.queue("q").unwrap().len(), 1);
}

#[tokio::test]
async fn mistakes_are_answered_by_name() {
    let (cloud, url) = plain().await;
    let entry = |id: &str| json!({"Id": id, "MessageBody": "x"});
    let attribute = json!({"a": {"DataType": "String", "StringValue": "b"}});
    for (operation, input, kind, message) in [
        ("GetQueueUrl", json!({"QueueName": "no"}), "QueueDoesNotExist", "no queue named \"no\""),
        (
            "SendMessage",
            json!({"QueueUrl": "http://x/0/no", "MessageBody": "x"}),
            "QueueDoesNotExist",
            "\"no\"",
        ),
        (
            "SendMessage",
            json!({"QueueUrl": url}),
            "InvalidParameterValueException",
            "missing field `MessageBody`",
        ),
        (
            "SendMessage",
            json!({"QueueUrl": url, "MessageBody": ""}),
            "InvalidParameterValueException",
            "has 0 bytes",
        ),
        (
            "SendMessage",
            json!({"QueueUrl": url, "MessageBody": "x", "MessageAttributes": attribute}),
            "UnsupportedOperation",
            "message attributes are not kept",
        ),
        (
            "SendMessageBatch",
            json!({"QueueUrl": url, "Entries": [entry("a"), entry("a")]}),
            "BatchEntryIdsNotDistinct",
            "same id",
        ),
        (
            "SendMessageBatch",
            json!({"QueueUrl": url, "Entries": []}),
            "InvalidParameterValueException",
            "has 0 entries",
        ),
        (
            "ReceiveMessage",
            json!({"QueueUrl": url, "MaxNumberOfMessages": 11}),
            "InvalidParameterValueException",
            "MaxNumberOfMessages is 11, wanted 1..=10",
        ),
        ("PurgeQueue", json!({"QueueUrl": url}), "UnsupportedOperation", "\"PurgeQueue\""),
        ("SendMessage", json!("not an object"), "InvalidParameterValueException", "not a JSON object"),
    ] {
        let got = sqs(&cloud, operation, input).await;
        assert_eq!(got.status, 400, "{operation}");
        let answer = got.json();
        assert_eq!(answer["__type"], format!("com.amazonaws.sqs#{kind}"), "{answer}");
        assert!(answer["message"].as_str().unwrap().contains(message), "{answer}");
    }
    assert!(cloud.queue("q").unwrap().is_empty());
}
