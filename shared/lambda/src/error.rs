//! The one error of this crate's ports, and the one place where a kind becomes a status code.
//!
//! Handlers map the kinds of their own libraries to [`ErrorKind`]; the servers turn it into an HTTP answer, a batch
//! item failure or a function error.

use std::time::Duration;

use ::http::StatusCode;
use lambda_runtime::Diagnostic;

/// What went wrong, as the caller needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request or the event is malformed.
    InvalidInput,
    /// No such path, model or version.
    NotFound,
    /// The path exists, but not for this method.
    MethodNotAllowed,
    /// The body is over the limit.
    TooLarge,
    /// The content type or encoding is not one that the endpoint reads.
    UnsupportedMedia,
    /// Well-formed, but cannot be served: a tensor that does not fit the model, an answer over the response limit.
    Unprocessable,
    /// The model is loading or the process is not ready: worth retrying.
    NotReady,
    /// The invocation's deadline came first.
    Timeout,
    /// A fault on our side, a panic included.
    Internal,
}

impl ErrorKind {
    /// The status code of this kind: the only such mapping.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::InvalidInput => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMedia => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Unprocessable => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NotReady => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// An error with a kind, a message for the caller and, for HTTP, at most one header of its own.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    header: Option<(&'static str, String)>,
}

impl Error {
    /// An error of `kind`. The message reaches the caller: noun, found, wanted.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), header: None }
    }

    /// A malformed request or event.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    /// Something that is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// A fault on our side.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// Not ready yet; HTTP callers are told to come back after `retry_after`, rounded up to a whole second.
    pub fn not_ready(message: impl Into<String>, retry_after: Duration) -> Self {
        let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
        Self::new(ErrorKind::NotReady, message).with_header("retry-after", seconds.max(1).to_string())
    }

    pub(crate) fn with_header(mut self, name: &'static str, value: String) -> Self {
        self.header = Some((name, value));
        self
    }

    /// The kind, by which callers decide.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The header that goes with the status: `Allow` or `Retry-After`.
    pub(crate) fn header(&self) -> Option<(&'static str, String)> {
        match (&self.header, self.kind) {
            (Some(header), _) => Some(header.clone()),
            (None, ErrorKind::NotReady) => Some(("retry-after", "1".into())),
            (None, _) => None,
        }
    }
}

impl From<Error> for Diagnostic {
    /// What Lambda records for a failed invocation: a stable type instead of a Rust type name.
    fn from(error: Error) -> Self {
        Diagnostic { error_type: format!("Glowplug.{:?}", error.kind), error_message: error.message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_status() {
        let table = [
            (ErrorKind::InvalidInput, 400),
            (ErrorKind::NotFound, 404),
            (ErrorKind::MethodNotAllowed, 405),
            (ErrorKind::TooLarge, 413),
            (ErrorKind::UnsupportedMedia, 415),
            (ErrorKind::Unprocessable, 422),
            (ErrorKind::Internal, 500),
            (ErrorKind::NotReady, 503),
            (ErrorKind::Timeout, 504),
        ];
        for (kind, status) in table {
            assert_eq!(kind.status().as_u16(), status, "{kind:?}");
        }
    }

    #[test]
    fn retry_after_is_whole_seconds_and_never_zero() {
        for (ms, seconds) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2")] {
            let error = Error::not_ready("loading", Duration::from_millis(ms));
            assert_eq!(error.header(), Some(("retry-after", seconds.to_string())), "{ms} ms");
        }
        let plain = Error::new(ErrorKind::NotReady, "loading");
        assert_eq!(plain.header(), Some(("retry-after", "1".to_string())));
        assert_eq!(Error::internal("x").header(), None);
    }

    #[test]
    fn lambda_sees_a_stable_type() {
        let diagnostic = Diagnostic::from(Error::not_found("model \"x\" is not in the store"));
        assert_eq!(diagnostic.error_type, "Glowplug.NotFound");
        assert_eq!(diagnostic.error_message, "model \"x\" is not in the store");
    }
}
