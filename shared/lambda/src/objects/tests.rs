//! Deliveries against a handler that fails and panics by key.

use std::{sync::Mutex, time::Duration};

use serde_json::{Value, json};

use super::*;
use crate::{
    ErrorKind,
    host::tests::{Lines, config, config_with},
};

/// Fails for keys that start with `bad`, panics for `panic`, never ends for `slow`; remembers all keys.
#[derive(Default)]
struct Script {
    keys: Mutex<Vec<String>>,
}

#[async_trait]
impl ObjectHandler for Script {
    async fn object(&self, object: ObjectRef, _: &Invocation) -> Result<Outcome, Error> {
        self.keys.lock().expect("no panic while locked").push(object.key.clone());
        match object.key.as_str() {
            "bad" => Err(Error::new(ErrorKind::Unprocessable, "image does not decode")),
            "panic" => panic!("poison"),
            "slow" => std::future::pending().await,
            _ => Ok(Outcome { model: Some("m".into()), ..Outcome::default() }),
        }
    }
}

fn s3(keys: &[&str]) -> Value {
    let record = |key: &&str| {
        let s3 = json!({"bucket": {"name": "scans"}, "object": {"key": key}});
        json!({"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": s3})
    };
    json!({ "Records": keys.iter().map(record).collect::<Vec<_>>() })
}

fn sqs(bodies: &[String]) -> Value {
    let record = |(i, body): (usize, &String)| json!({"messageId": i.to_string(), "body": body, "eventSource": "aws:sqs"});
    json!({ "Records": bodies.iter().enumerate().map(record).collect::<Vec<_>>() })
}

struct Played {
    answer: Result<Answer, Error>,
    keys: Vec<String>,
    metrics: Value,
}

async fn play(event: &Value, ms: u64) -> Played {
    let lines = Lines::default();
    let server = Server::new(&config(), Script::default()).with_metrics(lines.writer());
    let invocation = Invocation::new("req-1", Duration::from_millis(ms));
    let answer = server.handle(&event.to_string(), &invocation).await;
    let mut keys = server.app.keys.lock().expect("no panic while locked").clone();
    keys.sort();
    Played { answer, keys, metrics: lines.only() }
}

#[tokio::test]
async fn all_objects_of_a_notification_are_scored() {
    let played = play(&s3(&["a", "b"]), 5000).await;
    assert_eq!(played.answer.expect("scored"), Answer::Done { objects: 2 });
    assert_eq!(played.keys, ["a", "b"]);
    assert_eq!((&played.metrics["BatchSize"], &played.metrics["Errors"]), (&json!(2), &json!(0)));
}

#[tokio::test]
async fn a_failed_object_fails_the_event_after_all_others_were_scored() {
    let played = play(&s3(&["a", "bad", "panic", "z"]), 5000).await;
    assert_eq!(played.keys, ["a", "bad", "panic", "z"]);
    let error = played.answer.expect_err("two failed");
    assert_eq!(error.kind(), ErrorKind::Unprocessable);
    assert_eq!(error.to_string(), "2 of 4 objects failed, the first: s3://scans/bad: image does not decode");
    assert_eq!(played.metrics["Errors"], 1);
}

#[tokio::test]
async fn a_panic_is_a_reported_error_and_the_next_event_is_served() {
    let server = Server::new(&config(), Script::default()).with_metrics(|_| ());
    let invocation = Invocation::new("req-1", Duration::from_secs(5));
    let error = server.handle(&s3(&["panic"]).to_string(), &invocation).await.expect_err("a panic");
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.to_string().contains("the handler panicked, see the log of request req-1"), "{error}");
    let answer = server.handle(&s3(&["a"]).to_string(), &invocation).await;
    assert_eq!(answer.expect("scored"), Answer::Done { objects: 1 });
}

#[tokio::test]
async fn an_object_that_takes_too_long_fails_in_time() {
    let error = play(&s3(&["slow"]), 50).await.answer.expect_err("late");
    assert_eq!(error.kind(), ErrorKind::Timeout);
}

#[tokio::test]
async fn messages_of_a_queue_fail_one_by_one() {
    let bodies = [
        s3(&["a"]).to_string(),
        s3(&["b", "bad", "c"]).to_string(),
        "not JSON".to_owned(),
        json!({"Event": "s3:TestEvent"}).to_string(),
        json!({"Type": "Notification", "Message": s3(&["d"]).to_string()}).to_string(),
        json!({"requestContext": {}}).to_string(),
    ];
    let played = play(&sqs(&bodies), 5000).await;
    let Ok(Answer::Batch(response)) = played.answer else { panic!("a batch response") };
    assert_eq!(response.failures().collect::<Vec<_>>(), ["1", "2", "5"]);
    assert_eq!(played.keys, ["a", "b", "bad", "c", "d"]);
    assert_eq!((&played.metrics["BatchSize"], &played.metrics["BatchFailures"]), (&json!(6), &json!(3)));
}

/// The keys that reach the handler when results go to `results`.
async fn scored(results: &str, key: &str) -> Result<Vec<String>, String> {
    let server =
        Server::new(&config_with(&[("GLOWPLUG_RESULTS", results)]), Script::default()).with_metrics(|_| ());
    let invocation = Invocation::new("req-1", Duration::from_secs(5));
    let answer = server.handle(&s3(&[key]).to_string(), &invocation).await;
    let keys = server.app.keys.lock().expect("no panic while locked").clone();
    answer.map(|_| keys).map_err(|error| error.to_string())
}

#[tokio::test]
async fn own_results_are_not_scored_again() {
    let table = [
        ("s3://scans/out", "out/1.json", 0),
        ("s3://scans/out", "outer/1.png", 1),
        ("s3://scans/out", "out", 1),
        ("s3://other/out", "out/1.json", 1),
        ("file:///out", "out/1.json", 1),
    ];
    for (results, key, count) in table {
        assert_eq!(scored(results, key).await.expect(key).len(), count, "{results} {key}");
    }
    let error = scored("s3://scans", "in/a.png").await.expect_err("no prefix");
    assert!(error.contains("s3://scans/in/a.png: GLOWPLUG_RESULTS is the bucket of the uploads"), "{error}");
}

#[tokio::test]
async fn at_most_max_concurrency_objects_at_once() {
    struct Count(Mutex<(usize, usize)>);
    #[async_trait]
    impl ObjectHandler for Count {
        async fn object(&self, _: ObjectRef, _: &Invocation) -> Result<Outcome, Error> {
            {
                let mut now = self.0.lock().expect("no panic while locked");
                now.0 += 1;
                now.1 = now.1.max(now.0);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            self.0.lock().expect("no panic while locked").0 -= 1;
            Ok(Outcome::default())
        }
    }
    let server = Server::new(&config(), Count(Mutex::default())).with_metrics(|_| ());
    let keys = ["k"; 12];
    let bodies = [s3(&keys).to_string(), s3(&keys).to_string(), s3(&keys).to_string()];
    let invocation = Invocation::new("req-1", Duration::from_secs(5));
    server.handle(&sqs(&bodies).to_string(), &invocation).await.expect("scored");
    let most = server.app.0.lock().expect("no panic while locked").1;
    assert_eq!(most, config().max_concurrency);
}
