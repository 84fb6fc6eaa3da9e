//! From an ONNX model to a verified pack: import, simplify, quantize, plan, write, verify.
//!
//! [`pack()`] is all there is to call; [`describe`] tells beforehand what a pack will take and give. What it packs is planned by
//! tract's own passes and loaded again by the very engine that will run it; a pack whose outputs differ from the model's is refused.
//! Reading order: `pack` for the stages, `import` for ONNX, `prune` for channels that go, `quantize` for weights in fewer bits,
//! `calibrate`, `evaluate` and `compress` for what they may cost, `graphs` for the ways to a plan, `blocked` for what is planned
//! by our own passes, `batch` for batches image by image, `encode` for the table of operators, `verify` for the check, `report`
//! for what is told of it.
//!
//! This crate belongs to the build ring: no function links it. It reads no files and shows nothing; files
//! that a manifest names are asked for, progress is told to a callback.
#![deny(missing_docs)]

mod batch;
mod blocked;
mod calibrate;
mod compress;
mod encode;
mod entropy;
mod error;
mod evaluate;
mod fingerprint;
mod fuse;
mod graphs;
mod import;
mod int8;
mod manifest;
mod merge;
mod pack;
mod pin;
mod planned;
mod portable;
mod prune;
mod quantize;
mod report;
mod simplify;
mod target;
mod verify;

pub use compress::{
    Accuracy, AccuracyReport, CompressionReport, Contract, DataReport, Int8Layer, Int8Point, Int8Report,
    LayerReport, Point,
};
pub use entropy::EntropyReport;
pub use error::{ErrorKind, PackerError};
pub use evaluate::{Answers, Dataset, Feed, InputPort, Metric, Score, Texts};
pub use import::Quantized;
pub use int8::Compute;
pub use merge::merge;
pub use pack::{PackOptions, Packed, Stage, describe, pack};
pub use pin::{InputPin, InputPins};
pub use portable::PortableReport;
pub use prune::{Prune, PruneReport, PrunedLayer};
pub use quantize::Weights;
pub use report::{Report, WeightsReport};
pub use target::Target;
