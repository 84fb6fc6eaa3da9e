//! The one error of this crate: a kind to decide by, the key it is about, a text to read.
//!
//! Adapters (memory, directory, S3) map their own failures to a [`StoreErrorKind`] once; callers map the kind
//! to a status or a retry in one `match`. Texts never hold credentials or signed URLs.

use glowplug_pack::{ErrorKind, PackError};
use std::fmt;

/// What a caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// No such object, model, version or alias.
    NotFound,
    /// What was to be created is there already, with another content.
    AlreadyExists,
    /// The caller's name, key, range or URI is not a legal one.
    Invalid,
    /// The object is not, or no longer, the version that was asked for.
    Changed,
    /// The store refuses these credentials.
    Denied,
    /// Bytes that contradict their pack: truncated, altered, or not a pack at all.
    Corrupt,
    /// The caller has no room for it.
    TooLarge,
    /// The store did not answer in time. Trying again may help.
    Timeout,
    /// The store could not be reached or failed by its own fault. Trying again may help.
    Unavailable,
    /// The transfer was given up because its owner dropped it.
    Cancelled,
    /// Anything else: a full disk, a request the store calls wrong. Trying again will not help.
    Other,
}

impl StoreErrorKind {
    /// Whether the same request may succeed when it is sent again.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(self, StoreErrorKind::Timeout | StoreErrorKind::Unavailable)
    }
}

/// A store operation that failed.
///
/// The text holds the whole story, causes included. There is no `source`, so that it can be cloned: a slot keeps
/// the error of its last load, and several requests get it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct StoreError {
    kind: StoreErrorKind,
    text: String,
}

impl StoreError {
    /// An error of `kind`; `text` names the key, what was found and what was wanted.
    pub fn new(kind: StoreErrorKind, text: impl Into<String>) -> StoreError {
        StoreError { kind, text: text.into() }
    }

    /// A pack that is none, or that did not arrive, as an error about `place`.
    pub(crate) fn of_pack(place: impl fmt::Display, error: &PackError) -> StoreError {
        let kind = match error.kind() {
            ErrorKind::Timeout => StoreErrorKind::Timeout,
            ErrorKind::Cancelled => StoreErrorKind::Cancelled,
            _ => StoreErrorKind::Corrupt,
        };
        StoreError::new(kind, format!("{place}: {error}"))
    }

    /// The same error with `place: ` in front of its text.
    #[must_use]
    pub fn within(mut self, place: impl fmt::Display) -> StoreError {
        self.text = format!("{place}: {}", self.text);
        self
    }

    /// What to do about it.
    #[must_use]
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }
}
