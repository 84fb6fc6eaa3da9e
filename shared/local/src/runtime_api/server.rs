//! The HTTP face of the Runtime API: requests of one process become `Call`s to its environment.
//!
//! No state is kept here. Whether a call is timely is decided by the environment, which answers each one.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use crate::invoke::MAX_RESPONSE_BYTES;
use crate::net::{self, HttpBody, HttpResult, Limited, Listener, Server};

const VERSION: &str = "2018-06-01";

/// What `next` hands to the process.
pub(crate) struct Invocation {
    pub(crate) request_id: String,
    pub(crate) deadline_ms: u64,
    pub(crate) function_arn: String,
    pub(crate) trace_id: String,
    pub(crate) payload: Bytes,
}

/// A request of the process, with the place for its answer.
pub(crate) enum Call {
    /// `GET runtime/invocation/next`; dropping the sender refuses it.
    Next(oneshot::Sender<Invocation>),
    /// `POST runtime/invocation/{id}/response`.
    Response { id: String, body: ResponseBody, ack: oneshot::Sender<Ack> },
    /// `POST runtime/invocation/{id}/error`, or `runtime/init/error` where there is no id.
    Error { id: Option<String>, payload: Bytes, ack: oneshot::Sender<Ack> },
}

/// A response as it arrived.
pub(crate) enum ResponseBody {
    Buffered(Bytes),
    TooLarge,
    Stream { content_type: String, body: Incoming },
}

/// How the environment answers a response or an error.
pub(crate) enum Ack {
    Accepted,
    TooLarge,
    /// The id is not that of the event being worked on.
    InvalidId,
    /// Not now: nothing is being worked on, or init is over.
    InvalidState,
}

/// Serves the Runtime API of one process.
pub(crate) fn serve(listener: Listener, calls: mpsc::Sender<Call>) -> Server {
    net::serve(listener, move |_| {
        let calls = calls.clone();
        service_fn(move |request| handle(calls.clone(), request))
    })
}

async fn handle(calls: mpsc::Sender<Call>, request: Request<Incoming>) -> HttpResult {
    let path = request.uri().path().to_owned();
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    Ok(match (request.method(), segments.as_slice()) {
        (&Method::GET, [VERSION, "runtime", "invocation", "next"]) => next(&calls).await,
        (&Method::POST, [VERSION, "runtime", "invocation", id, "response"]) => {
            response(&calls, (*id).to_owned(), request).await
        }
        (&Method::POST, [VERSION, "runtime", "invocation", id, "error"]) => {
            error(&calls, Some((*id).to_owned()), request).await
        }
        (&Method::POST, [VERSION, "runtime", "init", "error"]) => error(&calls, None, request).await,
        _ => problem(StatusCode::NOT_FOUND, "NotFound", "no such operation of the runtime api"),
    })
}

async fn next(calls: &mpsc::Sender<Call>) -> Response<HttpBody> {
    let (give, take) = oneshot::channel();
    if calls.send(Call::Next(give)).await.is_err() {
        return gone();
    }
    match take.await {
        Ok(invocation) => event(invocation),
        Err(_) => answer(&Ack::InvalidState),
    }
}

fn event(invocation: Invocation) -> Response<HttpBody> {
    let mut response = Response::new(net::full(invocation.payload));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let values = [
        ("lambda-runtime-aws-request-id", invocation.request_id),
        ("lambda-runtime-deadline-ms", invocation.deadline_ms.to_string()),
        ("lambda-runtime-invoked-function-arn", invocation.function_arn),
        ("lambda-runtime-trace-id", invocation.trace_id),
    ];
    for (name, value) in values {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
    response
}

async fn response(calls: &mpsc::Sender<Call>, id: String, request: Request<Incoming>) -> Response<HttpBody> {
    let (parts, body) = request.into_parts();
    let body = if is_streaming(&parts.headers) {
        ResponseBody::Stream { content_type: content_type(&parts.headers), body }
    } else {
        match net::read(body, MAX_RESPONSE_BYTES).await {
            Ok(Limited::Whole(bytes)) => ResponseBody::Buffered(bytes),
            Ok(Limited::TooLarge) => ResponseBody::TooLarge,
            Err(error) => return cut_off(&error),
        }
    };
    ask(calls, |ack| Call::Response { id, body, ack }).await
}

async fn error(
    calls: &mpsc::Sender<Call>,
    id: Option<String>,
    request: Request<Incoming>,
) -> Response<HttpBody> {
    match net::read(request.into_body(), MAX_RESPONSE_BYTES).await {
        Ok(Limited::Whole(payload)) => ask(calls, |ack| Call::Error { id, payload, ack }).await,
        Ok(Limited::TooLarge) => answer(&Ack::TooLarge),
        Err(error) => cut_off(&error),
    }
}

async fn ask(
    calls: &mpsc::Sender<Call>,
    call: impl FnOnce(oneshot::Sender<Ack>) -> Call,
) -> Response<HttpBody> {
    let (give, take) = oneshot::channel();
    if calls.send(call(give)).await.is_err() {
        return gone();
    }
    take.await.map_or_else(|_| gone(), |ack| answer(&ack))
}

fn is_streaming(headers: &HeaderMap) -> bool {
    let mode = headers.get("lambda-runtime-function-response-mode");
    mode.is_some_and(|mode| mode.as_bytes().eq_ignore_ascii_case(b"streaming"))
}

fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.unwrap_or("application/octet-stream").to_owned()
}

fn answer(ack: &Ack) -> Response<HttpBody> {
    match ack {
        Ack::Accepted => net::json(StatusCode::ACCEPTED, &json!({"status": "OK"})),
        Ack::TooLarge => {
            let message = format!("Exceeded maximum allowed payload size ({MAX_RESPONSE_BYTES} bytes).");
            problem(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", &message)
        }
        Ack::InvalidId => problem(StatusCode::BAD_REQUEST, "InvalidRequestID", "Invalid request ID"),
        Ack::InvalidState => problem(
            StatusCode::FORBIDDEN,
            "InvalidStateTransition",
            "the environment is not in a state for this",
        ),
    }
}

fn gone() -> Response<HttpBody> {
    problem(StatusCode::INTERNAL_SERVER_ERROR, "ContainerError", "the environment is shutting down")
}

fn cut_off(error: &hyper::Error) -> Response<HttpBody> {
    problem(StatusCode::BAD_REQUEST, "BadRequest", &format!("body was cut off: {error}"))
}

fn problem(status: StatusCode, kind: &str, message: &str) -> Response<HttpBody> {
    net::json(status, &json!({"errorType": kind, "errorMessage": message}))
}
