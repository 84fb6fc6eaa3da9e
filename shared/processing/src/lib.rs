//! Requests to tensors and tensors to answers, as pure functions.
//!
//! A tour: [`v2`] reads and writes the documents of the Open Inference Protocol; [`pipeline`] makes tensors
//! of a raw image, text or row of numbers, as the pack's manifest says; [`post`] makes an answer of a plan's
//! outputs. Everything that fails is a [`ProcessingError`].
//!
//! Nothing here does IO, waits, or knows a model's graph. Level 1: imports `glowplug-pack` alone.
#![deny(missing_docs)]

pub mod v2;

pub mod pipeline;

pub mod post;

mod error;

pub use error::{ErrorKind, ProcessingError};
