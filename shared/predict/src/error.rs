//! The one error of this crate: a kind to decide by, a text that holds its causes.

use glowplug_engine::EngineError;
use glowplug_pack::PackError;
use glowplug_processing::ProcessingError;
use glowplug_store::{StoreError, StoreErrorKind};
use std::error::Error;
use std::fmt;
use std::time::Duration;

/// What a caller can do about it. Each kind becomes one HTTP status, one batch item failure or one retry
/// in exactly one place, at the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is not what the model takes.
    InvalidInput,
    /// No such model, version or alias.
    NotFound,
    /// The request or the model is larger than a limit.
    TooLarge,
    /// A content type or file format that the model's pipeline does not read.
    UnsupportedMedia,
    /// The request is fine, its answer cannot be given in the form that was asked for.
    Unprocessable,
    /// Loading failed and will be tried again after [`PredictError::retry_after`].
    Unavailable,
    /// The deadline passed first.
    Timeout,
    /// The pack, this machine or this program is at fault.
    Internal,
}

/// A model that could not be loaded or run.
#[derive(Clone, Debug)]
pub struct PredictError {
    kind: ErrorKind,
    text: String,
    retry_after: Option<Duration>,
}

impl PredictError {
    /// An error of `kind`; `text` names the thing, what was found and what was wanted.
    pub fn new(kind: ErrorKind, text: impl Into<String>) -> PredictError {
        PredictError { kind, text: text.into(), retry_after: None }
    }

    /// The same error, not worth a retry before `wait` has passed.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> PredictError {
        self.retry_after = Some(wait);
        self
    }

    /// What to do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// How long to wait before trying again, where trying again may help.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// A store failure while loading `what`. The store's text holds its causes, and mostly the model's name.
    pub(crate) fn store(what: impl fmt::Display, error: &StoreError) -> PredictError {
        let kind = match error.kind() {
            StoreErrorKind::NotFound => ErrorKind::NotFound,
            StoreErrorKind::Invalid => ErrorKind::InvalidInput,
            StoreErrorKind::TooLarge => ErrorKind::TooLarge,
            StoreErrorKind::Timeout | StoreErrorKind::Unavailable | StoreErrorKind::Changed => {
                ErrorKind::Unavailable
            }
            _ => ErrorKind::Internal,
        };
        let text = error.to_string();
        let named = text.starts_with("model ");
        PredictError::new(kind, if named { text } else { format!("model {what}: {text}") })
    }
}

impl fmt::Display for PredictError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for PredictError {}

impl From<PackError> for PredictError {
    fn from(error: PackError) -> PredictError {
        let kind = pack_kind(error.kind());
        PredictError::new(kind, format!("pack: {error}"))
    }
}

fn pack_kind(kind: glowplug_pack::ErrorKind) -> ErrorKind {
    use glowplug_pack::ErrorKind as Pack;
    match kind {
        Pack::Timeout => ErrorKind::Timeout,
        Pack::Failed | Pack::Cancelled => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    }
}

impl From<ProcessingError> for PredictError {
    fn from(error: ProcessingError) -> PredictError {
        use glowplug_processing::ErrorKind as Processing;
        let kind = match error.kind() {
            Processing::InvalidInput => ErrorKind::InvalidInput,
            Processing::TooLarge => ErrorKind::TooLarge,
            Processing::UnsupportedMedia => ErrorKind::UnsupportedMedia,
            Processing::NotRepresentable => ErrorKind::Unprocessable,
            _ => ErrorKind::Internal,
        };
        PredictError::new(kind, error.to_string())
    }
}

impl From<EngineError> for PredictError {
    fn from(error: EngineError) -> PredictError {
        use glowplug_engine::ErrorKind as Engine;
        let kind = match error.kind() {
            Engine::Input | Engine::Run => ErrorKind::InvalidInput,
            Engine::Timeout => ErrorKind::Timeout,
            Engine::Transfer => ErrorKind::Unavailable,
            _ => ErrorKind::Internal,
        };
        PredictError::new(kind, error.to_string())
    }
}
