//! The one error of this crate: a kind to decide by, a text to read.

use std::fmt;

/// What a caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The bytes do not start as a pack does.
    NotAPack,
    /// A pack of a format version, coding or section that this build does not read.
    Unsupported,
    /// More bytes are needed than there are.
    Truncated,
    /// The bytes contradict themselves or the format.
    Corrupt,
    /// The caller's own request cannot be written or answered.
    Invalid,
    /// The bytes that were waited for will not come: the transfer failed.
    Failed,
    /// The bytes that were waited for did not come in time.
    Timeout,
    /// The wait was given up because its owner cancelled it.
    Cancelled,
}

/// A pack that could not be read, written or waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackError {
    kind: ErrorKind,
    text: String,
}

impl PackError {
    /// An error of `kind`; `text` names the thing, what was found and what was wanted.
    pub fn new(kind: ErrorKind, text: impl Into<String>) -> PackError {
        PackError { kind, text: text.into() }
    }

    /// A [`ErrorKind::Corrupt`].
    pub fn corrupt(text: impl Into<String>) -> PackError {
        PackError::new(ErrorKind::Corrupt, text)
    }

    /// What to do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The same error with `place: ` in front of its text.
    #[must_use]
    pub fn within(mut self, place: impl fmt::Display) -> PackError {
        self.text = format!("{place}: {}", self.text);
        self
    }
}

impl fmt::Display for PackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for PackError {}
