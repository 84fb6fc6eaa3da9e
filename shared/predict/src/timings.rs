//! Stage timings: the same six names in answers, logs, metrics and the CLI.

use serde::{Deserialize, Serialize};
use std::time::Instant;

/// Milliseconds spent in each stage; `None` where a stage did not happen (a warm model is not fetched).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// Opening the pack: the store's first reads and the checks of its structure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetch_ms: Option<f64>,
    /// Hashing content that was not hashed while it arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify_ms: Option<f64>,
    /// From the pack to a runnable plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_ms: Option<f64>,
    /// Raw request to tensors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preprocess_ms: Option<f64>,
    /// The plan's run, including what it waited for bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_ms: Option<f64>,
    /// Tensors to answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postprocess_ms: Option<f64>,
}

/// Runs `work` and writes how long it took into `stage`.
pub fn timed<T>(stage: &mut Option<f64>, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let value = work();
    *stage = Some(ms_since(start));
    value
}

/// Milliseconds since `start`.
#[must_use]
pub fn ms_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}
