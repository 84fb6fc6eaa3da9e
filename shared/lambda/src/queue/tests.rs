//! Batches against handlers that fail, panic, block and miscount.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use serde_json::json;

use super::*;
use crate::host::tests::{Lines, config};

/// Does what the body says: `ok`, `bad`, `panic`, `slow` or `short` (one result too few). Remembers what it was given.
#[derive(Default)]
struct Script {
    calls: Mutex<Vec<Vec<String>>>,
}

#[async_trait]
impl RecordHandler for Script {
    async fn records(&self, records: &[&Record], _: &Invocation) -> Vec<Result<Outcome, Error>> {
        self.calls
            .lock()
            .expect("no panic while locked")
            .push(records.iter().map(|r| r.id.clone()).collect());
        let mut results = Vec::new();
        for record in records {
            match record.body.as_str() {
                "panic" => panic!("poison"),
                "slow" => tokio::time::sleep(Duration::from_secs(60)).await,
                "short" => continue,
                _ => {}
            }
            let outcome = Outcome { model: Some("m".into()), ..Outcome::default() };
            results.push(if record.body == "bad" { Err(Error::invalid("bad")) } else { Ok(outcome) });
        }
        results
    }
}

fn batch(bodies: &[&str]) -> String {
    let record = |(i, body): (usize, &&str)| json!({"messageId": i.to_string(), "body": body, "eventSource": "aws:sqs", "eventSourceARN": "arn:aws:sqs:q"});
    json!({ "Records": bodies.iter().enumerate().map(record).collect::<Vec<_>>() }).to_string()
}

/// The ids that fail of a batch with these bodies.
async fn failures(bodies: &[&str], ms: u64) -> Vec<String> {
    let server = Server::new(&config(), Script::default()).with_metrics(|_| ());
    let invocation = Invocation::new("req-1", Duration::from_millis(ms));
    let response = server.handle(&batch(bodies), &invocation).await.expect("an SQS batch");
    response.failures().map(str::to_owned).collect()
}

#[tokio::test]
async fn bad_records_fail_alone() {
    assert_eq!(failures(&["ok", "ok"], 5000).await, [""; 0]);
    assert_eq!(failures(&["ok", "bad", "ok", "bad"], 5000).await, ["1", "3"]);
}

#[tokio::test]
async fn panicking_records_fail_alone() {
    let bodies = ["ok", "ok", "panic", "ok", "bad", "ok", "panic"];
    assert_eq!(failures(&bodies, 5000).await, ["2", "4", "6"]);
}

#[tokio::test]
async fn the_next_batch_is_served_after_a_panic() {
    let server = Server::new(&config(), Script::default()).with_metrics(|_| ());
    let invocation = Invocation::new("req-1", Duration::from_secs(5));
    for (bodies, failed) in [(["panic"], 1), (["ok"], 0)] {
        let response = server.handle(&batch(&bodies), &invocation).await.expect("an SQS batch");
        assert_eq!(response.failures().count(), failed);
    }
}

#[tokio::test]
async fn a_late_batch_fails_in_time_and_what_was_done_stays_done() {
    let bodies: Vec<_> = [["ok"; 16], ["slow"; 16], ["ok"; 16]].concat();
    let start = Instant::now();
    let failed = failures(&bodies, 1000).await;
    assert_eq!(failed, (16..48).map(|i| i.to_string()).collect::<Vec<_>>());
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_handler_that_miscounts_fails_its_batch() {
    assert_eq!(failures(&["ok", "short"], 5000).await, ["0", "1"]);
}

#[tokio::test]
async fn a_fifo_group_is_failed_from_its_first_failure_on() {
    let record = |(i, (group, body)): (usize, &(&str, &str))| {
        json!({
            "messageId": i.to_string(), "body": body, "attributes": {"MessageGroupId": group},
            "eventSource": "aws:sqs", "eventSourceARN": "arn:aws:sqs:q.fifo",
        })
    };
    let sent = [("a", "ok"), ("b", "panic"), ("a", "bad"), ("b", "ok"), ("a", "ok"), ("c", "ok")];
    let event = json!({ "Records": sent.iter().enumerate().map(record).collect::<Vec<_>>() });
    let server = Server::new(&config(), Script::default()).with_metrics(|_| ());
    let invocation = Invocation::new("req-1", Duration::from_secs(5));
    let response = server.handle(&event.to_string(), &invocation).await.expect("an SQS batch");
    assert_eq!(response.failures().collect::<Vec<_>>(), ["1", "2", "3", "4"]);
    let calls = server.app.calls.lock().expect("no panic while locked").concat();
    assert!(!calls.contains(&"3".to_owned()) && !calls.contains(&"4".to_owned()), "handed over: {calls:?}");
}

#[tokio::test]
async fn poison_is_found_by_halving() {
    let server = Server::new(&config(), Script::default()).with_metrics(|_| ());
    let invocation = Invocation::new("req-1", Duration::from_secs(5));
    server.handle(&batch(&["ok", "ok", "ok", "panic"]), &invocation).await.expect("an SQS batch");
    let calls = server.app.calls.lock().expect("no panic while locked").clone();
    assert_eq!(calls, [vec!["0", "1", "2", "3"], vec!["0", "1"], vec!["2", "3"], vec!["2"], vec!["3"]]);
}

#[tokio::test]
async fn metrics_count_batch_and_failures() {
    let lines = Lines::default();
    let server = Server::new(&config(), Script::default()).with_metrics(lines.writer());
    let invocation = Invocation { cold: true, ..Invocation::new("req-1", Duration::from_secs(5)) };
    server.handle(&batch(&["ok", "bad", "ok"]), &invocation).await.expect("an SQS batch");
    let document = lines.only();
    assert_eq!((&document["BatchSize"], &document["BatchFailures"]), (&json!(3), &json!(1)));
    assert_eq!(
        (&document["ColdStart"], &document["Errors"], &document["model"]),
        (&json!(1), &json!(0), &json!("m"))
    );
}

#[tokio::test]
async fn another_kind_of_event_is_an_error_and_counted() {
    let lines = Lines::default();
    let server = Server::new(&config(), Script::default()).with_metrics(lines.writer());
    let invocation = Invocation::new("req-1", Duration::from_secs(5));
    let error = server.handle(r#"{"requestContext":{}}"#, &invocation).await.expect_err("HTTP");
    assert!(error.to_string().ends_with("wanted an SQS batch"), "{error}");
    assert_eq!(lines.only()["Errors"], 1);
}
