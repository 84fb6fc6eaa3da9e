//! What the measured programs share, so that they differ in the engine alone.
//!
//! Every program of `src/bin` is one engine in a process of its own. `cargo xtask bench` prepares their files,
//! starts them in turn and takes the time; nothing here decides what is compared with what.
//!
//! - [`args`]: model, inputs, where outputs go, how many warm runs or for how long, on how many threads.
//! - [`npz`]: tensors in and out, the same reader for all.
//! - [`engine`]: what an engine is, and the order in which a process loads, answers and reports.
//! - [`ort`], [`rten`], [`openvino`]: rivals that are used by more than one program, or through C.
//! - [`serving`]: V2 documents for the rivals' Lambda functions.
#![deny(missing_docs)]

pub mod args;
pub mod engine;
pub mod npz;
pub mod openvino;
pub mod ort;
pub mod rten;
pub mod serving;

/// A tensor under its ONNX name.
pub type Named = (String, glowplug_pack::Tensor);
