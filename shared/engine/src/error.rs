//! The one error of this crate: a kind to decide by, a text to read.

use glowplug_pack::{ErrorKind as PackErrorKind, PackError};

/// What a caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The pack holds no plan that fits this CPU and this build.
    UnsupportedCpu,
    /// The pack is damaged or contradicts itself.
    Pack,
    /// The caller's tensors are not what the model takes.
    Input,
    /// Bytes of the pack did not arrive: the transfer failed or was cancelled.
    Transfer,
    /// Bytes of the pack did not arrive in time.
    Timeout,
    /// An operator failed on these inputs, such as an index out of range.
    Run,
}

/// A plan that could not be built or run.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub struct EngineError {
    kind: ErrorKind,
    text: String,
}

impl EngineError {
    /// An error of `kind`; `text` names the thing, what was found and what was wanted.
    pub(crate) fn new(kind: ErrorKind, text: impl Into<String>) -> EngineError {
        EngineError { kind, text: text.into() }
    }

    /// What to do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// An operator's error. A [`PackError`] among its causes (bytes that did not come) decides the kind.
    pub(crate) fn from_tract(kind: ErrorKind, error: &tract_core::internal::TractError) -> EngineError {
        let kind = error.chain().find_map(|e| e.downcast_ref::<PackError>()).map_or(kind, kind_of);
        EngineError::new(kind, format!("{error:#}"))
    }
}

fn kind_of(error: &PackError) -> ErrorKind {
    match error.kind() {
        PackErrorKind::Timeout => ErrorKind::Timeout,
        PackErrorKind::Failed | PackErrorKind::Cancelled => ErrorKind::Transfer,
        _ => ErrorKind::Pack,
    }
}

impl From<PackError> for EngineError {
    fn from(error: PackError) -> EngineError {
        EngineError::new(kind_of(&error), error.to_string())
    }
}
