//! Functions as processes: what a panic, a deadline and a bad environment do to them.
//!
//! The test binary starts itself with `child` as its only test, which becomes a function where the parent says so.

use std::{
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use glowplug_lambda::{
    Error, Invocation, Outcome, Timings,
    config::Role,
    http::{Answer, Inference, Request},
    objects::{self, ObjectHandler, ObjectRef},
    queue::{self, Record, RecordHandler},
};
use serde_json::{Value, json};

use crate::runtime_api::{Event, RuntimeApi};

/// Set in children: the role to play.
const ROLE: &str = "GLOWPLUG_TEST_ROLE";

/// Does what the model, key or body says.
struct Script;

#[expect(clippy::panic, reason = "what happens then is what is tested")]
async fn act(what: &str) -> Result<Outcome, Error> {
    match what {
        "panic" => panic!("poison"),
        "slow" => std::future::pending().await,
        "bad" => Err(Error::invalid("bad")),
        model => {
            let timings = Timings { run_ms: Some(1.25), ..Timings::default() };
            Ok(Outcome { model: Some(model.to_owned()), timings })
        }
    }
}

#[async_trait]
impl Inference for Script {
    async fn call(&self, request: Request, _: &Invocation) -> Result<Answer, Error> {
        let Request::Infer(model, _) = request else { return Err(Error::not_found("only infer")) };
        Ok(Answer::json("{}").with_outcome(act(&model.name).await?))
    }
}

#[async_trait]
impl ObjectHandler for Script {
    async fn object(&self, object: ObjectRef, _: &Invocation) -> Result<Outcome, Error> {
        act(&object.key).await
    }
}

#[async_trait]
impl RecordHandler for Script {
    async fn records(&self, records: &[&Record], _: &Invocation) -> Vec<Result<Outcome, Error>> {
        let mut results = Vec::new();
        for record in records {
            results.push(act(&record.body).await);
        }
        results
    }
}

/// Not a test of its own: the process that the tests below start.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let code = match role.as_str() {
        "api" => glowplug_lambda::run(Role::Api, async |config| {
            glowplug_lambda::http::serve(&config, Script).await
        }),
        "upload" => glowplug_lambda::run(Role::Upload, async |config| objects::serve(&config, Script).await),
        _ => glowplug_lambda::run(Role::Queue, async |config| queue::serve(&config, Script).await),
    };
    std::process::exit(i32::from(code != std::process::ExitCode::SUCCESS));
}

/// A function process, killed when dropped.
struct Function(Option<Child>);

impl Function {
    fn start(role: &str, env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this test"));
        command.args(["--exact", "process::child", "--nocapture"]).env_clear().env(ROLE, role);
        command.envs(env.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(Some(command.spawn().expect("a process")))
    }

    fn alive(&mut self) -> bool {
        self.0.as_mut().is_some_and(|child| child.try_wait().expect("a child").is_none())
    }

    /// Waits for its end.
    fn wait(mut self) -> Output {
        self.0.take().expect("a running child").wait_with_output().expect("output")
    }

    /// Kills it and returns the JSON lines that it wrote to stdout.
    fn lines(mut self) -> Vec<Value> {
        let mut child = self.0.take().expect("a running child");
        child.kill().expect("it still runs");
        json_lines(&child.wait_with_output().expect("output"))
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The test harness writes to stdout too, but no JSON.
fn json_lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().filter_map(|line| serde_json::from_str(&line[line.find('{')?..]).ok()).collect()
}

fn start(role: &str, events: Vec<Event>) -> (RuntimeApi, Function) {
    let api = RuntimeApi::start(events);
    let address = api.address.to_string();
    let env = [
        ("AWS_LAMBDA_RUNTIME_API", address.as_str()),
        ("AWS_LAMBDA_FUNCTION_NAME", "score"),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "1769"),
        ("GLOWPLUG_STORE", "file:///models"),
        ("GLOWPLUG_RESULTS", "file:///results"),
    ];
    let function = Function::start(role, &env);
    (api, function)
}

fn event(id: &'static str, body: &Value) -> Event {
    Event { id, time: Duration::from_secs(10), body: body.to_string() }
}

fn infer(model: &str) -> Value {
    json!({"rawPath": format!("/v2/models/{model}/infer"), "requestContext": {"http": {"method": "POST"}}, "body": "{}"})
}

fn s3(key: &str) -> Value {
    let s3 = json!({"bucket": {"name": "b"}, "object": {"key": key}});
    json!({"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": s3}]})
}

fn sqs(bodies: &[&str]) -> Value {
    let record = |body: &&str| json!({"messageId": body, "body": body, "eventSource": "aws:sqs"});
    json!({ "Records": bodies.iter().map(record).collect::<Vec<_>>() })
}

#[test]
fn http_a_panic_is_a_500_with_the_request_id_and_the_same_process_serves_on() {
    let (api, mut function) =
        start("api", vec![event("req-1", &infer("panic")), event("req-2", &infer("mnist-cnn"))]);
    let (first, second) = (api.outcome(), api.outcome());
    assert_eq!(
        (first.id.as_str(), first.verb.as_str(), &first.body["statusCode"]),
        ("req-1", "response", &json!(500))
    );
    assert_eq!(first.body["headers"]["x-request-id"], "req-1");
    assert_eq!(first.body["headers"]["x-glowplug-cold"], "true");
    assert_eq!((second.id.as_str(), &second.body["statusCode"]), ("req-2", &json!(200)));
    assert_eq!(second.body["headers"]["x-glowplug-cold"], "false");
    assert_eq!(second.body["headers"]["server-timing"], "run_ms;dur=1.250");
    assert!(function.alive());
    assert_logs(&function.lines());
}

/// One metric document per request; every log line of the panicked request carries its id, and one the panic's text.
fn assert_logs(lines: &[Value]) {
    let metrics: Vec<_> = lines.iter().filter(|line| line.get("_aws").is_some()).collect();
    let told = |line: &Value| json!([line["request_id"], line["ColdStart"], line["Errors"], line["model"]]);
    let told: Vec<_> = metrics.iter().map(|line| told(line)).collect();
    assert_eq!(told, [json!(["req-1", 1, 1, null]), json!(["req-2", 0, 0, "mnist-cnn"])]);
    let panic = lines.iter().find(|line| line["message"] == "panic: poison").expect("the panic in the log");
    assert_eq!(
        (&panic["span"]["request_id"], &panic["span"]["function"]),
        (&json!("req-1"), &json!("score"))
    );
    let answered: Vec<_> = lines.iter().filter(|line| line["message"] == "answered").collect();
    let told: Vec<_> =
        answered.iter().map(|line| json!([line["span"]["request_id"], line["span"]["cold"]])).collect();
    assert_eq!(told, [json!(["req-1", true]), json!(["req-2", false])]);
}

#[test]
fn http_a_deadline_is_a_504_before_lambda_would_kill() {
    let time = Duration::from_millis(1500);
    let events =
        vec![Event { id: "req-1", time, body: infer("slow").to_string() }, event("req-2", &infer("a"))];
    let (api, mut function) = start("api", events);
    let first = api.outcome();
    assert_eq!(first.body["statusCode"], 504);
    assert_eq!(api.outcome().body["statusCode"], 200);
    assert!(function.alive());
}

#[test]
fn http_an_event_of_another_kind_is_an_error_of_a_stable_type() {
    let (api, _function) = start("api", vec![event("req-1", &s3("a")), event("req-2", &infer("a"))]);
    let first = api.outcome();
    assert_eq!((first.verb.as_str(), &first.body["errorType"]), ("error", &json!("Glowplug.InvalidInput")));
    let text = first.body["errorMessage"].as_str().expect("text");
    assert!(text.starts_with("event is an S3 notification, wanted an HTTP request"), "{text}");
    assert_eq!(api.outcome().verb, "response");
}

#[test]
fn objects_a_panic_is_a_reported_error_and_the_same_process_serves_on() {
    let (api, mut function) = start("upload", vec![event("req-1", &s3("panic")), event("req-2", &s3("a"))]);
    let (first, second) = (api.outcome(), api.outcome());
    assert_eq!((first.verb.as_str(), &first.body["errorType"]), ("error", &json!("Glowplug.Internal")));
    let text = first.body["errorMessage"].as_str().expect("text");
    assert!(text.contains("req-1") && !text.contains("poison"), "{text}");
    assert_eq!((second.verb.as_str(), second.body), ("response", json!({"objects": 1})));
    assert!(function.alive());
}

#[test]
fn queue_panicking_and_bad_records_fail_alone() {
    let events = vec![event("req-1", &sqs(&["a", "panic", "b", "bad"])), event("req-2", &sqs(&["a"]))];
    let (api, mut function) = start("queue", events);
    let failed = json!({"batchItemFailures": [{"itemIdentifier": "panic"}, {"itemIdentifier": "bad"}]});
    assert_eq!(api.outcome().body, failed);
    assert_eq!(api.outcome().body, json!({"batchItemFailures": []}));
    assert!(function.alive());
}

#[test]
fn a_bad_environment_ends_the_process_with_every_problem_on_one_line() {
    let started = Instant::now();
    let output = Function::start("upload", &[("GLOWPLUG_THREADS", "0")]).wait();
    assert_eq!(output.status.code(), Some(1));
    assert!(started.elapsed() < Duration::from_secs(60));
    let lines = json_lines(&output);
    let message = lines[0]["message"].as_str().expect("text");
    assert!(message.contains("GLOWPLUG_THREADS is \"0\", wanted 1..=64"), "{message}");
    assert!(message.contains("GLOWPLUG_STORE is missing"), "{message}");
    assert!(message.contains("AWS_LAMBDA_RUNTIME_API is missing"), "{message}");
    assert_eq!((lines.len(), &lines[0]["level"]), (1, &json!("ERROR")));
}
