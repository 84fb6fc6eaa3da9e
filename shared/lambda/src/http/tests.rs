//! Requests through the whole server, against a handler that answers, fails and panics by model.

use std::{sync::Mutex, time::Duration};

use serde_json::{Value, json};

use super::*;
use crate::{
    ErrorKind, Timings,
    host::tests::{Lines, config},
};

/// Answers `ok`, and otherwise does what the model is called; remembers what it was asked.
#[derive(Default)]
struct Script {
    requests: Mutex<Vec<Request>>,
}

#[async_trait]
impl Inference for Script {
    async fn call(&self, request: Request, _: &Invocation) -> Result<Answer, Error> {
        self.requests.lock().expect("no panic while locked").push(request.clone());
        let (Request::Infer(model, _) | Request::Predict(model, _) | Request::ModelReady(model)) = request
        else {
            return Ok(Answer::json("{}"));
        };
        match model.name.as_str() {
            "panic" => panic!("secret of the handler"),
            "slow" => std::future::pending().await,
            "absent" => Err(Error::not_found("model \"absent\" is not in the store")),
            "loading" => Err(Error::not_ready("model \"loading\" is loading", Duration::from_secs(2))),
            _ => {
                let timings = Timings { run_ms: Some(1.5), ..Timings::default() };
                Ok(Answer::json("{}").with_outcome(Outcome { model: Some(model.name), timings }))
            }
        }
    }
}

fn server() -> Server<Script> {
    Server::new(&config(), Script::default()).with_metrics(|_| ())
}

fn event(method: &str, path: &str, content_type: &str, body: &str) -> String {
    let headers = if content_type.is_empty() { json!({}) } else { json!({ "content-type": content_type }) };
    json!({
        "version": "2.0", "rawPath": path, "requestContext": {"http": {"method": method}, "stage": "$default"},
        "headers": headers, "body": body, "isBase64Encoded": false,
    })
    .to_string()
}

fn infer(model: &str) -> String {
    event("POST", &format!("/v2/models/{model}/infer"), "application/json", "{}")
}

async fn send(server: &Server<Script>, event: &str) -> Value {
    let time = if event.contains("slow") { Duration::from_millis(50) } else { Duration::from_secs(10) };
    let invocation = Invocation::new("req-1", time);
    let json = server.handle(event, &invocation).await.expect("an HTTP event");
    serde_json::from_str(json.get()).expect("JSON")
}

#[tokio::test]
async fn statuses() {
    let server = server();
    let table = [
        (event("GET", "/v2", "", ""), 200),
        (event("GET", "/v2/models/a/ready", "", ""), 200),
        (infer("a"), 200),
        (event("POST", "/v2/models/a/infer", "", "{}"), 200),
        (event("POST", "/v2/models/a/predict", "text/plain", "hello"), 200),
        (event("GET", "/nothing", "", ""), 404),
        (infer("absent"), 404),
        (event("PUT", "/v2/models/a/infer", "", ""), 405),
        (event("POST", "/v2/models/a%20b/infer", "", ""), 400),
        (event("POST", "/v2/models/a/infer", "text/html", ""), 415),
        (infer("loading"), 503),
        (infer("slow"), 504),
        (infer("panic"), 500),
    ];
    for (event, status) in table {
        assert_eq!(send(&server, &event).await["statusCode"], status, "{event}");
    }
}

#[tokio::test]
async fn a_panic_is_a_500_with_the_request_id_and_the_next_request_is_served() {
    let server = server();
    let broken = send(&server, &infer("panic")).await;
    assert_eq!((&broken["statusCode"], &broken["headers"]["x-request-id"]), (&json!(500), &json!("req-1")));
    let body = broken["body"].as_str().expect("text");
    assert!(body.contains("req-1") && !body.contains("secret"), "{body}");
    assert_eq!(send(&server, &infer("a")).await["statusCode"], 200);
}

#[tokio::test]
async fn the_handler_sees_the_decoded_request() {
    let server = server();
    let event = json!({
        "httpMethod": "POST", "path": "/v2/models/a/versions/3/infer", "requestContext": {"stage": "prod"},
        "headers": {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": "2"},
        "body": "e30A/w==", "isBase64Encoded": true,
    });
    send(&server, &event.to_string()).await;
    let model = ModelRef { name: "a".into(), version: Some("3".into()) };
    let payload = Payload {
        content_type: Some("application/octet-stream".into()),
        json_length: Some(2),
        body: Bytes::from_static(b"{}\x00\xff"),
    };
    let seen = server.app.requests.lock().expect("no panic while locked").clone();
    assert_eq!(seen, [Request::Infer(model, payload)]);
}

#[tokio::test]
async fn a_body_over_the_limit_never_reaches_the_handler() {
    let small = Config { max_body_bytes: 10, ..config() };
    let server = Server::new(&small, Script::default()).with_metrics(|_| ());
    let answer =
        send(&server, &event("POST", "/v2/models/a/infer", "application/json", &"1".repeat(11))).await;
    assert_eq!(answer["statusCode"], 413);
    assert_eq!(answer["body"], r#"{"error":"body has 11 bytes, wanted at most 10"}"#);
    assert!(server.app.requests.lock().expect("no panic while locked").is_empty());
}

#[tokio::test]
async fn metrics_name_models_that_served_and_no_others() {
    let table = [("a", 0, Some("a"), Some(1.5)), ("absent", 0, None, None), ("panic", 1, None, None)];
    for (name, errors, model, run_ms) in table {
        let lines = Lines::default();
        let server = Server::new(&config(), Script::default()).with_metrics(lines.writer());
        send(&server, &infer(name)).await;
        let document = lines.only();
        assert_eq!(document["Errors"], errors, "{name}");
        assert_eq!(document.get("model").and_then(Value::as_str), model, "{name}");
        assert_eq!(document.get("run_ms").and_then(Value::as_f64), run_ms, "{name}");
        assert_eq!(document["request_id"], "req-1");
    }
}

#[tokio::test]
async fn another_kind_of_event_is_an_error() {
    let invocation = Invocation::new("req-1", Duration::from_secs(1));
    let event = r#"{"Records":[{"eventSource":"aws:sqs"}]}"#;
    let error = server().handle(event, &invocation).await.expect_err("not HTTP");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().starts_with("event is an SQS batch, wanted an HTTP request"), "{error}");
}
