//! The one error of this crate: a kind to decide by, a text to read.

use std::fmt;

/// What a caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request's bytes, names, types, shapes or values are not what the model takes.
    InvalidInput,
    /// The request asks for more than the limits allow.
    TooLarge,
    /// The request is of a content type or file format that the model's pipeline does not read.
    UnsupportedMedia,
    /// The manifest or an asset contradicts itself; no request can be served until it is mended.
    BadManifest,
    /// The answer holds a value that its form cannot: NaN or infinity in JSON.
    NotRepresentable,
}

/// A request that could not become tensors, or tensors that could not become an answer.
///
/// The text is lower-case, on one line, and holds the name of the thing, what was found and what was
/// wanted. Text of the request that it repeats is escaped and cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessingError {
    kind: ErrorKind,
    text: String,
}

/// What the functions of this crate return.
pub(crate) type Result<T> = std::result::Result<T, ProcessingError>;

impl ProcessingError {
    /// An error of `kind`; `text` names the thing, what was found and what was wanted.
    pub(crate) fn new(kind: ErrorKind, text: impl Into<String>) -> ProcessingError {
        ProcessingError { kind, text: text.into() }
    }

    /// A [`ErrorKind::InvalidInput`].
    pub(crate) fn invalid(text: impl Into<String>) -> ProcessingError {
        ProcessingError::new(ErrorKind::InvalidInput, text)
    }

    /// A [`ErrorKind::BadManifest`].
    pub(crate) fn manifest(text: impl Into<String>) -> ProcessingError {
        ProcessingError::new(ErrorKind::BadManifest, text)
    }

    /// What to do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The same error with `place: ` in front of its text.
    pub(crate) fn within(mut self, place: impl fmt::Display) -> ProcessingError {
        self.text = format!("{place}: {}", self.text);
        self
    }
}

impl fmt::Display for ProcessingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for ProcessingError {}

/// How much of a request's own text an error repeats.
const QUOTED_CHARS: usize = 64;

/// Text from outside for an error message: quoted, escaped, cut, so that no request writes the log.
pub(crate) fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTED_CHARS) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}..", &text[..end]),
    }
}

/// `"a", "b"`: the names that would have been right.
pub(crate) fn quote_all<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(quote).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_text_is_escaped_and_cut() {
        assert_eq!(quote("a\nb"), r#""a\nb""#);
        assert_eq!(quote(&"é".repeat(65)), format!("\"{}\"..", "é".repeat(64)));
        assert_eq!(quote_all(["a", "b"]), r#""a", "b""#);
    }

    #[test]
    fn the_place_comes_first() {
        let e = ProcessingError::invalid("found 1, expected 2").within("input \"x\"");
        assert_eq!(
            (e.kind(), e.to_string()),
            (ErrorKind::InvalidInput, "input \"x\": found 1, expected 2".into())
        );
    }
}
