//! The use case: a model is loaded once, lazily, and run many times.
//!
//! A [`Predictor`] joins the layers below it: a `ModelStore` brings bytes into a region, the engine builds a
//! plan over them, processing turns requests into tensors and tensors into answers. It keeps one slot per
//! model (empty, loading, ready, failed-until) within a memory budget. A [`Model`] alone is enough for tools.
//!
//! Level 3: knows no AWS, no Lambda, no HTTP; nor does it name a type of tract.
#![deny(missing_docs)]

mod batch;
mod error;
mod model;
mod predictor;
mod shapes;
mod slots;
mod timings;

pub use batch::run_batched;
pub use error::{ErrorKind, PredictError};
pub use model::{Model, ModelOptions};
pub use predictor::{Loaded, ModelRef, Predictor, PredictorOptions, Served};
pub use timings::{Timings, ms_since, timed};

// What a function needs of the layers below, so that it names them through this crate alone.
pub use glowplug_engine::{Allocator, NodeTime, prepare_process, record};
pub use glowplug_pack::{Manifest, Tensor};
pub use glowplug_processing::pipeline::Limits;
pub use glowplug_processing::post::Answer;
pub use glowplug_processing::v2;
