//! Plays an event to a function whose handler only writes down what it sees.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use glowplug_lambda::{
    Error, Invocation, Outcome,
    config::{Config, Role},
    http::{Answer, Inference, ModelRef, Payload, Request},
    objects::{self, ObjectHandler, ObjectRef},
    queue::{Record, RecordHandler},
};
use serde::Deserialize;
use serde_json::Value;

/// Which of the functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Function {
    Api,
    Upload,
    Queue,
}

/// A file of `events/invalid`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Invalid {
    pub(crate) function: Function,
    /// Part of the message that is answered, or logged for what fails in a batch.
    pub(crate) error: String,
    /// For HTTP requests that are answered.
    pub(crate) status: Option<u64>,
    /// For batches: the messages that fail.
    #[serde(default)]
    pub(crate) failures: Vec<String>,
    /// Changes to the function's environment.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) event: Value,
}

/// The JSON files of a folder of `events/`, by name without ending, sorted.
pub(crate) fn files(folder: &str) -> Vec<(String, Value)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../events").join(folder);
    let entries = fs::read_dir(&root).expect("the folder of events");
    let paths = entries.map(|entry| entry.expect("a readable folder").path());
    let read = |path: std::path::PathBuf| {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).expect("UTF-8");
        let event = serde_json::from_str(&text).expect(&name);
        (name, event)
    };
    let mut files: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|end| end == "json")).map(read).collect();
    files.sort_by(|a: &(String, Value), b| a.0.cmp(&b.0));
    files
}

/// What came of an event.
#[derive(Default, Debug)]
pub(crate) struct Played {
    /// What the handler saw, one line each.
    pub(crate) seen: Vec<String>,
    /// The function's error, or that of the HTTP answer.
    pub(crate) error: Option<String>,
    pub(crate) status: Option<u64>,
    pub(crate) failures: Vec<String>,
    pub(crate) logs: String,
}

/// Plays each event to `function`, one server for all, and hands what came of it to `check`.
pub(crate) fn play_all(
    function: Function,
    events: impl Iterator<Item = Value>,
    check: impl Fn(&Value, Played),
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let config = config(function, &[]);
    for event in events {
        check(&event, runtime.block_on(run(function, &event.to_string(), &config)));
    }
}

/// Plays `event` to `function` with `env` on top of a healthy environment.
pub(crate) fn play(function: Function, event: &Value, env: &[(&str, &str)]) -> Played {
    let logs = Sink::default();
    let writer = logs.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let played = tracing::subscriber::with_default(subscriber, || {
        runtime.block_on(run(function, &event.to_string(), &config(function, env)))
    });
    Played { logs: logs.text(), ..played }
}

async fn run(function: Function, event: &str, config: &Config) -> Played {
    let invocation = Invocation::new("req-1", Duration::from_secs(5));
    let seen = Seen::default();
    let mut played = match function {
        Function::Api => {
            let server = glowplug_lambda::http::Server::new(config, seen.clone()).with_metrics(|_| ());
            http(
                server
                    .handle(event, &invocation)
                    .await
                    .map(|json| serde_json::from_str(json.get()).expect("JSON")),
            )
        }
        Function::Upload => {
            let server = objects::Server::new(config, seen.clone()).with_metrics(|_| ());
            batch(
                server
                    .handle(event, &invocation)
                    .await
                    .map(|answer| serde_json::to_value(answer).expect("JSON")),
            )
        }
        Function::Queue => {
            let server = glowplug_lambda::queue::Server::new(config, seen.clone()).with_metrics(|_| ());
            batch(
                server
                    .handle(event, &invocation)
                    .await
                    .map(|answer| serde_json::to_value(answer).expect("JSON")),
            )
        }
    };
    played.seen = seen.0.lock().expect("no panic while locked").clone();
    played
}

/// An HTTP answer, whose error is in its body.
fn http(result: Result<Value, Error>) -> Played {
    let answer = match result {
        Ok(answer) => answer,
        Err(error) => return Played { error: Some(error.to_string()), ..Played::default() },
    };
    let body: Value = serde_json::from_str(answer["body"].as_str().expect("text")).expect("JSON");
    let error = body.get("error").map(|text| text.as_str().expect("text").to_owned());
    Played { status: answer["statusCode"].as_u64(), error, ..Played::default() }
}

/// A batch response, or the answer to a direct event, which has no failures.
fn batch(result: Result<Value, Error>) -> Played {
    let answer = match result {
        Ok(answer) => answer,
        Err(error) => return Played { error: Some(error.to_string()), ..Played::default() },
    };
    let items = answer["batchItemFailures"].as_array().cloned().unwrap_or_default();
    let id = |item: &Value| item["itemIdentifier"].as_str().expect("text").to_owned();
    Played { failures: items.iter().map(id).collect(), ..Played::default() }
}

fn config(function: Function, env: &[(&str, &str)]) -> Config {
    let role = match function {
        Function::Api => Role::Api,
        Function::Upload => Role::Upload,
        Function::Queue => Role::Queue,
    };
    let healthy = [
        ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001"),
        ("AWS_LAMBDA_FUNCTION_NAME", "glowplug"),
        ("AWS_LAMBDA_FUNCTION_VERSION", "1"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "1769"),
        ("GLOWPLUG_STORE", "s3://models-eu/packs"),
        ("GLOWPLUG_RESULTS", "s3://results-eu/answers"),
    ];
    let lookup = |name: &str| {
        let found = env.iter().chain(&healthy).find(|(key, _)| *key == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    Config::from_env(role, lookup).expect("a healthy environment")
}

/// The handler of all three functions.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn note(&self, line: String) {
        self.0.lock().expect("no panic while locked").push(line);
    }
}

#[async_trait]
impl Inference for Seen {
    async fn call(&self, request: Request, _: &Invocation) -> Result<Answer, Error> {
        self.note(match &request {
            Request::ServerLive => "live".into(),
            Request::ServerReady => "ready".into(),
            Request::ServerMetadata => "server metadata".into(),
            Request::ModelMetadata(model) => format!("metadata of {}", full(model)),
            Request::ModelReady(model) => format!("readiness of {}", full(model)),
            Request::Infer(model, payload) => format!("infer {}: {}", full(model), described(payload)),
            Request::Predict(model, payload) => format!("predict {}: {}", full(model), described(payload)),
        });
        Ok(Answer::json("{}"))
    }
}

fn full(model: &ModelRef) -> String {
    match &model.version {
        Some(version) => format!("{} version {version}", model.name),
        None => model.name.clone(),
    }
}

fn described(payload: &Payload) -> String {
    let json = payload.json_length.map(|n| format!(", {n} of JSON")).unwrap_or_default();
    format!("{}, {} bytes{json}", payload.content_type.as_deref().unwrap_or("no type"), payload.body.len())
}

#[async_trait]
impl ObjectHandler for Seen {
    async fn object(&self, object: ObjectRef, _: &Invocation) -> Result<Outcome, Error> {
        self.note(format!("{object}, {} bytes", object.size.unwrap_or_default()));
        Ok(Outcome::default())
    }
}

#[async_trait]
impl RecordHandler for Seen {
    async fn records(&self, records: &[&Record], _: &Invocation) -> Vec<Result<Outcome, Error>> {
        for Record { body, receive_count, group, .. } in records {
            let body: Value = serde_json::from_str(body).unwrap_or_default();
            let group = group.as_ref().map(|group| format!(", group {group}")).unwrap_or_default();
            self.note(format!(
                "{}, delivery {receive_count}{group}",
                body["model"].as_str().unwrap_or("no model")
            ));
        }
        vec![Ok(Outcome::default()); records.len()]
    }
}

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("no panic while locked")).into_owned()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic while locked").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
