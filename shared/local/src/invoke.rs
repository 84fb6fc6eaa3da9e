//! What an invocation gives back: the payload of the function, or the error document that Lambda would answer.
//!
//! An error of a function is a result, not a Rust error: on Lambda, too, the call succeeds and the payload is the error.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde_json::json;
use tokio::sync::mpsc;

/// The largest event of a synchronous invocation, in bytes.
pub const MAX_REQUEST_BYTES: usize = 6 * 1024 * 1024;
/// The largest buffered response, in bytes.
pub const MAX_RESPONSE_BYTES: usize = 6 * 1024 * 1024 + 100;
/// The largest streamed response, in bytes.
pub const MAX_STREAM_BYTES: usize = 200 * 1024 * 1024;

/// Why a function did not answer with a payload of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FunctionErrorKind {
    /// The function reported an error itself; its process lives on.
    Handled,
    /// The function was still running at its deadline and was killed.
    Timeout,
    /// The process ended in mid-invocation.
    Exit,
    /// The process ended, or reported an error, before it asked for its first event.
    Init,
    /// The process did not ask for an event within the init timeout.
    InitTimeout,
    /// The response was larger than Lambda allows.
    TooLarge,
    /// The local cloud was shut down meanwhile.
    Shutdown,
}

/// A function's error: its kind, and the JSON document `{"errorType", "errorMessage"}` that the caller gets as payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionError {
    /// Why.
    pub kind: FunctionErrorKind,
    /// The error document.
    pub payload: Bytes,
}

impl FunctionError {
    pub(crate) fn new(kind: FunctionErrorKind, error_type: &str, message: &str) -> Self {
        let payload = json!({"errorType": error_type, "errorMessage": message}).to_string().into();
        Self { kind, payload }
    }

    pub(crate) fn timeout(request_id: &str, limit: Duration) -> Self {
        let seconds = limit.as_secs_f64();
        let message = format!("RequestId: {request_id} Error: Task timed out after {seconds:.2} seconds");
        Self::new(FunctionErrorKind::Timeout, "Sandbox.Timedout", &message)
    }

    pub(crate) fn exit(request_id: &str, status: &str) -> Self {
        let message = format!("RequestId: {request_id} Error: Runtime exited with error: {status}");
        Self::new(FunctionErrorKind::Exit, "Runtime.ExitError", &message)
    }

    pub(crate) fn too_large() -> Self {
        let message = format!(
            "Response payload size exceeded maximum allowed payload size ({MAX_RESPONSE_BYTES} bytes)."
        );
        Self::new(FunctionErrorKind::TooLarge, "Function.ResponseSizeTooLarge", &message)
    }

    pub(crate) fn shutdown() -> Self {
        Self::new(FunctionErrorKind::Shutdown, "Sandbox.Shutdown", "the local cloud was shut down")
    }
}

/// The whole answer to one invocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvokeResult {
    /// The id that the function saw.
    pub request_id: String,
    /// The length of the init phase if this was a cold start, else `None`.
    pub init: Option<Duration>,
    /// From the event given to the process until its whole answer was here.
    pub duration: Duration,
    /// The response payload, or the error.
    pub outcome: Result<Bytes, FunctionError>,
}

/// The answer as it leaves the environment: a stream has only begun.
pub(crate) struct Reply {
    pub(crate) request_id: String,
    pub(crate) init: Option<Duration>,
    pub(crate) started: tokio::time::Instant,
    pub(crate) outcome: Result<Payload, FunctionError>,
}

/// A response payload, buffered or still coming.
pub(crate) enum Payload {
    Buffered(Bytes),
    Stream(StreamPayload),
}

/// A piece of a streamed response; `Ok(None)` is its proper end, an error ends it early.
pub(crate) type Chunk = Result<Option<Bytes>, FunctionError>;

/// A streamed response: its content type and the chunks to come.
pub(crate) struct StreamPayload {
    pub(crate) content_type: String,
    pub(crate) chunks: mpsc::Receiver<Chunk>,
}

impl StreamPayload {
    /// The next chunk. A stream whose writer is gone without a proper end is an error, not an end.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, FunctionError>> {
        match self.chunks.recv().await {
            Some(Ok(chunk)) => chunk.map(Ok),
            Some(Err(error)) => Some(Err(error)),
            None => Some(Err(FunctionError::shutdown())),
        }
    }
}

impl Reply {
    /// Waits for the end of a stream and returns everything.
    pub(crate) async fn collect(self) -> InvokeResult {
        let outcome = match self.outcome {
            Ok(Payload::Buffered(bytes)) => Ok(bytes),
            Ok(Payload::Stream(stream)) => collect(stream).await,
            Err(error) => Err(error),
        };
        let duration = self.started.elapsed();
        InvokeResult { request_id: self.request_id, init: self.init, duration, outcome }
    }
}

async fn collect(mut stream: StreamPayload) -> Result<Bytes, FunctionError> {
    let mut all = BytesMut::new();
    while let Some(chunk) = stream.next().await {
        all.extend_from_slice(&chunk?);
    }
    Ok(all.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn collected(chunks: Vec<Chunk>) -> Result<Bytes, FunctionError> {
        let (give, take) = mpsc::channel(8);
        for chunk in chunks {
            give.send(chunk).await.unwrap();
        }
        drop(give);
        collect(StreamPayload { content_type: String::new(), chunks: take }).await
    }

    #[tokio::test]
    async fn only_a_properly_ended_stream_is_a_success() {
        let data = |text: &'static str| Ok(Some(Bytes::from_static(text.as_bytes())));
        let late = FunctionError::timeout("r", Duration::from_millis(1500));
        assert_eq!(collected(vec![data("ab"), data("c"), Ok(None)]).await, Ok(Bytes::from_static(b"abc")));
        assert_eq!(collected(vec![data("ab"), Err(late.clone())]).await, Err(late));
        assert_eq!(collected(vec![data("ab")]).await, Err(FunctionError::shutdown()));
    }

    #[test]
    fn a_timeout_is_worded_as_lambda_words_it() {
        let error = FunctionError::timeout("r-1", Duration::from_millis(2500));
        let document: serde_json::Value = serde_json::from_slice(&error.payload).unwrap();
        assert_eq!(document["errorType"], "Sandbox.Timedout");
        assert_eq!(document["errorMessage"], "RequestId: r-1 Error: Task timed out after 2.50 seconds");
    }
}
