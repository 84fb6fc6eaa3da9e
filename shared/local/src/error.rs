//! The one error of this crate's boundary: what a caller of the local cloud can get wrong, or be denied by the host.
//!
//! Failures of *functions* are not here: they are results (`invoke::FunctionError`), as they are on Lambda.

use std::io;

/// What failed, for the one `match` at the caller's edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalErrorKind {
    /// The plan of the cloud is not legal: a bad name, a number out of range, a reference to nothing.
    Spec,
    /// A function, bucket, object or queue with that name does not exist.
    NotFound,
    /// A payload, body or key breaks a limit of the service that it was given to.
    Payload,
    /// The operating system refused: a port in use, a file that cannot be read.
    Io,
}

/// An error of the local cloud: a kind to decide on, and a message that holds noun, found and wanted.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct LocalError {
    kind: LocalErrorKind,
    message: String,
    source: Option<io::Error>,
}

impl LocalError {
    pub(crate) fn spec(message: impl Into<String>) -> Self {
        Self { kind: LocalErrorKind::Spec, message: message.into(), source: None }
    }

    pub(crate) fn not_found(noun: &str, name: &str) -> Self {
        Self { kind: LocalErrorKind::NotFound, message: format!("no {noun} named {name:?}"), source: None }
    }

    pub(crate) fn payload(message: impl Into<String>) -> Self {
        Self { kind: LocalErrorKind::Payload, message: message.into(), source: None }
    }

    pub(crate) fn io(message: impl Into<String>, source: io::Error) -> Self {
        Self {
            kind: LocalErrorKind::Io,
            message: format!("{}: {source}", message.into()),
            source: Some(source),
        }
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> LocalErrorKind {
        self.kind
    }
}
