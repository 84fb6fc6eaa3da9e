//! The one error of this crate: a kind to decide by, a text to read.

use glowplug_pack::PackError;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a caller can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The bytes are not an ONNX model.
    NotOnnx,
    /// The model uses an operator, a dtype or a pattern that this packer does not cover.
    Unsupported,
    /// An `--input` pin is misspelled, names no input or contradicts the model.
    Pin,
    /// The manifest file is misspelled or contradicts the model.
    Manifest,
    /// The model itself contradicts its own shapes or types.
    Model,
    /// This process or machine cannot make the plan that was asked for.
    Target,
    /// The pack's outputs differ from the reference's by more than the tolerance.
    Verify,
    /// Calibration or evaluation data contradict the model or the metric.
    Data,
    /// No pack of this model keeps the accuracy or the size that was asked for.
    Contract,
    /// A pack that was just written could not be read back: a bug of the packer.
    Internal,
}

/// A model that could not be packed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub struct PackerError {
    kind: ErrorKind,
    text: String,
}

impl PackerError {
    /// An error of `kind`; `text` names the thing, what was found and what was wanted.
    pub fn new(kind: ErrorKind, text: impl Into<String>) -> PackerError {
        PackerError { kind, text: text.into() }
    }

    /// What to do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// A model that tract's analysis refuses, with its whole chain of causes on one line.
    pub(crate) fn model(stage: &str, cause: &impl fmt::Display) -> PackerError {
        PackerError::new(ErrorKind::Model, format!("{stage}: {cause:#}"))
    }
}

impl From<PackError> for PackerError {
    fn from(e: PackError) -> PackerError {
        PackerError::new(ErrorKind::Internal, e.to_string())
    }
}

/// tract panics on some models that contradict themselves. Such a model is an error, not the end of a tool.
pub(crate) fn guard<T>(stage: &str, f: impl FnOnce() -> Result<T, PackerError>) -> Result<T, PackerError> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
        Err(PackerError::new(
            ErrorKind::Model,
            format!("{stage}: the model broke an assumption of tract: {text}"),
        ))
    })
}
