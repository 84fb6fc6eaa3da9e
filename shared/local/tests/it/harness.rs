//! What the tests share: a cloud whose functions are this binary, its output, an HTTP client, and S3 signatures.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use glowplug_local::{CloudSpec, FunctionSpec, LocalCloud, LogLine, LogSink};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use s3s::crypto::{Checksum, Sha256};
use serde_json::{Value, json};

use crate::child;

/// Everything that functions printed.
#[derive(Clone, Default)]
pub(crate) struct Output(Arc<Mutex<Vec<LogLine>>>);

impl Output {
    pub(crate) fn sink(&self) -> LogSink {
        let lines = Arc::clone(&self.0);
        Arc::new(move |line| lines.lock().unwrap().push(line))
    }

    pub(crate) fn lines(&self) -> Vec<LogLine> {
        self.0.lock().unwrap().clone()
    }

    /// The events that functions got, in order.
    pub(crate) fn events(&self) -> Vec<Value> {
        let texts =
            self.lines().into_iter().filter_map(|line| Some(line.text.strip_prefix("GOT ")?.to_owned()));
        texts.map(|text| serde_json::from_str(&text).unwrap()).collect()
    }
}

/// A function of the given role: this binary, started again.
pub(crate) fn function(name: &str, role: &str) -> FunctionSpec {
    let mut spec = FunctionSpec::new(name, std::env::current_exe().unwrap());
    spec.args = child::arguments();
    spec.env.insert("ROLE".into(), role.into());
    spec
}

/// A cloud with one ordinary function `f`, changed by `change`.
pub(crate) async fn cloud(change: impl FnOnce(&mut CloudSpec)) -> (LocalCloud, Output) {
    let mut spec = CloudSpec { functions: vec![function("f", "ordinary")], ..CloudSpec::default() };
    change(&mut spec);
    let output = Output::default();
    (LocalCloud::start(spec, output.sink()).await.unwrap(), output)
}

/// Waits until a condition holds, and panics with `what` after ten seconds.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < until, "not within 10 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Invokes `f` and returns its JSON answer.
pub(crate) async fn ask(cloud: &LocalCloud, event: Value) -> Value {
    let result = cloud.invoke("f", event.to_string()).await.unwrap();
    serde_json::from_slice(&result.outcome.unwrap()).unwrap()
}

/// Whether a process is still there and not a zombie.
pub(crate) fn is_alive(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().unwrap_or_default().trim_start().chars().next();
    state.is_some_and(|state| state != 'Z')
}

/// A response, read whole.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends a request; `Err` is a connection that broke.
pub(crate) async fn send(request: Request<Full<Bytes>>) -> Result<Got, String> {
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(request).await.map_err(|error| error.to_string())?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
    Ok(Got { status: parts.status, headers: parts.headers, body })
}

/// A client of the local S3 with a key pair of its own.
pub(crate) struct S3Client {
    pub(crate) url: String,
    pub(crate) secret: &'static str,
}

impl S3Client {
    pub(crate) fn new(cloud: &LocalCloud) -> Self {
        Self { url: cloud.urls().s3.clone(), secret: "local-secret" }
    }

    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Result<Got, String> {
        self.call(Method::GET, path, headers, "").await
    }

    pub(crate) async fn put(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Got {
        self.call(Method::PUT, path, headers, body).await.unwrap()
    }

    /// Signs (AWS Signature Version 4) and sends. The path and query must be spelled canonically.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Got, String> {
        let body = body.into();
        let now = time::OffsetDateTime::from(SystemTime::now());
        let date = format!("{:04}{:02}{:02}", now.year(), u8::from(now.month()), now.day());
        let stamp = format!("{date}T{:02}{:02}{:02}Z", now.hour(), now.minute(), now.second());
        let digest = hex(Sha256::checksum(&body).as_ref());
        let host = self.url.trim_start_matches("http://");
        let (resource, query) = path.split_once('?').unwrap_or((path, ""));
        let signed = "host;x-amz-content-sha256;x-amz-date";
        let canonical = format!(
            "{method}\n{resource}\n{query}\nhost:{host}\nx-amz-content-sha256:{digest}\nx-amz-date:{stamp}\n\n{signed}\n{digest}"
        );
        let scope = format!("{date}/us-east-1/s3/aws4_request");
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}",
            hex(Sha256::checksum(canonical.as_bytes()).as_ref())
        );
        let secret = format!("AWS4{}", self.secret).into_bytes();
        let key = [date.as_str(), "us-east-1", "s3", "aws4_request"]
            .iter()
            .fold(secret, |key, part| hmac(&key, part.as_bytes()));
        let signature = hex(&hmac(&key, to_sign.as_bytes()));
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        request = request.header("x-amz-date", stamp).header("x-amz-content-sha256", digest).header(
            "authorization",
            format!(
                "AWS4-HMAC-SHA256 Credential=local/{scope}, SignedHeaders={signed}, Signature={signature}"
            ),
        );
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        send(request.body(Full::new(body)).unwrap()).await
    }
}

/// HMAC-SHA-256 (RFC 2104).
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = [0_u8; 64];
    block[..key.len().min(64)].copy_from_slice(&key[..key.len().min(64)]);
    let pad = |byte: u8| block.iter().map(|k| k ^ byte).collect::<Vec<u8>>();
    let inner = Sha256::checksum(&[pad(0x36), message.to_vec()].concat());
    Sha256::checksum(&[pad(0x5c), inner.as_ref().to_vec()].concat()).as_ref().to_vec()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Sends one SQS operation.
pub(crate) async fn sqs(cloud: &LocalCloud, operation: &str, input: Value) -> Got {
    let request = Request::post(&cloud.urls().sqs)
        .header("x-amz-target", format!("AmazonSQS.{operation}"))
        .header("content-type", "application/x-amz-json-1.0");
    send(request.body(Full::new(input.to_string().into())).unwrap()).await.unwrap()
}

/// The event that makes the function do something.
pub(crate) fn does(action: &str) -> Value {
    json!({"do": action})
}
