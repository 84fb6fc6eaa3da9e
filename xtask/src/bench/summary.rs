//! What a run comes to: plain data, written as summary.json and read again for tables and plots.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a run is about: an archive holds one kind.
pub(crate) trait Kind {
    const KIND: &'static str;
    /// What tells how it is measured.
    const DOCUMENT: &'static str = "docs/benchmarks.md";
}

impl Kind for CaseSummary {
    const KIND: &'static str = "cold";
}

impl Kind for WarmCase {
    const KIND: &'static str = "warm";
}

impl Kind for CompressedCase {
    const KIND: &'static str = "compress";
    const DOCUMENT: &'static str = "docs/quantization.md";
}

/// One model, packed in several ways.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CompressedCase {
    pub(crate) model: String,
    /// Of which output, where it is not the first.
    pub(crate) metric: String,
    pub(crate) samples: usize,
    pub(crate) onnx_bytes: u64,
    pub(crate) packs: Vec<Compressed>,
}

/// One pack of it: bytes, metric, medians in milliseconds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Compressed {
    pub(crate) variant: String,
    pub(crate) bytes: u64,
    pub(crate) before: f64,
    pub(crate) after: f64,
    pub(crate) drop: f64,
    pub(crate) load_ms: f64,
    pub(crate) first_run_ms: f64,
    pub(crate) run_ms: f64,
    pub(crate) peak_rss_bytes: Option<u64>,
    /// From the first request to S3 to the first output, by link.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) streamed: Vec<Streamed>,
}

/// A median over fresh processes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Streamed {
    pub(crate) mb_per_s: f64,
    pub(crate) first_output_ms: f64,
}

/// The kind of the first runs, which did not say it.
pub(crate) fn first_kind() -> String {
    CaseSummary::KIND.to_owned()
}

/// One archived run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Summary<C = CaseSummary> {
    #[serde(default = "first_kind")]
    pub(crate) kind: String,
    pub(crate) date: String,
    /// The command that was typed.
    pub(crate) command: String,
    /// The commit that was measured, with `+` where the tree had changes.
    pub(crate) commit: String,
    pub(crate) machine: BTreeMap<String, String>,
    pub(crate) versions: BTreeMap<String, String>,
    /// Rounds that were asked for; of the cold part, where there are more.
    pub(crate) runs: usize,
    pub(crate) cases: Vec<C>,
}

/// One model.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CaseSummary {
    pub(crate) name: String,
    pub(crate) onnx_bytes: u64,
    pub(crate) random_weights: bool,
    pub(crate) engines: Vec<EngineSummary>,
    #[serde(default)]
    pub(crate) stream: Vec<StreamSummary>,
    #[serde(default)]
    pub(crate) lambda: Vec<LambdaSummary>,
}

/// One engine on one model: figures, or why there are none.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct EngineSummary {
    pub(crate) id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) figures: Option<Figures>,
}

/// Milliseconds and bytes; medians over fresh processes unless said.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) file_bytes: u64,
    pub(crate) load_ms: f64,
    pub(crate) exec_ms: f64,
    pub(crate) exec_ms_p10: f64,
    pub(crate) exec_ms_p90: f64,
    pub(crate) first_run_ms: f64,
    /// Median of the warm processes' medians.
    pub(crate) run_ms: f64,
    /// First run over warm run of the same process, median.
    pub(crate) first_over_warm: f64,
    pub(crate) peak_rss_bytes: Option<u64>,
    pub(crate) warm_peak_rss_bytes: Option<u64>,
    /// Exec to first answer of Glowplug over this engine's, median of the rounds: below 1 Glowplug is faster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ours_over_this: Option<f64>,
    /// Largest difference from ONNX Runtime's answer over the largest output; absent where it cannot be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) output_error: Option<f64>,
}

/// S3 to first output over a shaped link.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StreamSummary {
    pub(crate) mb_per_s: f64,
    pub(crate) fetched_bytes: u64,
    /// `2 x first_byte_ms + max(fetched_bytes / bandwidth, warm run_ms)`
    pub(crate) bound_ms: f64,
    /// From the first request to the first output, median.
    pub(crate) first_output_ms: f64,
    /// From exec to the first output, median.
    pub(crate) exec_ms: f64,
}

/// One engine in a function, from exec to the response of the first invocation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LambdaSummary {
    pub(crate) engine: String,
    pub(crate) mb_per_s: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cold_ms: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) warm_ms: Option<f64>,
    /// Largest difference of the answer from ONNX Runtime's over the largest output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) output_error: Option<f64>,
}

/// One model at one batch on so many threads.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WarmCase {
    pub(crate) model: String,
    pub(crate) batch: u32,
    pub(crate) threads: u32,
    pub(crate) random_weights: bool,
    /// Rounds that were run: fewer than asked for where each takes long.
    pub(crate) rounds: usize,
    /// Why nobody was measured, where the model takes no such batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<String>,
    pub(crate) engines: Vec<WarmEngine>,
}

/// One engine there: figures, or why there are none.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct WarmEngine {
    pub(crate) id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<String>,
    /// Its answer is none: the largest difference was too large.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) wrong: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) figures: Option<WarmFigures>,
}

/// Over all timed runs of all rounds, unless said.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct WarmFigures {
    /// How many runs were timed.
    pub(crate) runs: usize,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    /// Rows of the batch per second of timed runs, median of the rounds.
    pub(crate) rows_per_second: f64,
    /// The round's median over ONNX Runtime's of the same round, median: below 1 the engine is faster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) over_ort: Option<f64>,
    /// Largest difference from ONNX Runtime's answer over the largest output.
    pub(crate) output_error: f64,
    /// Most memory of a process, median of the rounds.
    pub(crate) peak_rss_bytes: Option<u64>,
}

impl WarmCase {
    /// An engine's figures, if it has any.
    pub(crate) fn figures(&self, engine: &str) -> Option<&WarmFigures> {
        self.engines.iter().find(|e| e.id == engine)?.figures.as_ref()
    }
}

impl CaseSummary {
    /// An engine's figures, if it has any.
    pub(crate) fn figures(&self, engine: &str) -> Option<&Figures> {
        self.engines.iter().find(|e| e.id == engine)?.figures.as_ref()
    }
}

/// The value at `part` (0 to 1) of the sorted values; NaN for none.
pub(crate) fn quantile(values: impl IntoIterator<Item = f64>, part: f64) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return f64::NAN };
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let index = (part * last as f64).round() as usize;
    values[index.min(last)]
}

/// The middle one; of an even number, the mean of the middle two.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

/// The middle one of bytes, without a mean; nothing for none.
pub(crate) fn median_bytes(values: impl Iterator<Item = u64>) -> Option<u64> {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

/// The mean of ratios; nothing for none.
pub(crate) fn geometric_mean(values: &[f64]) -> Option<f64> {
    let sum: f64 = values.iter().map(|v| v.ln()).sum();
    (!values.is_empty()).then(|| (sum / values.len() as f64).exp())
}

/// What a link allows: two round trips, and then the slower of the transfer and the run.
pub(crate) fn bound_ms(first_byte_ms: f64, bytes: u64, mb_per_s: f64, run_ms: f64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "packs are far below 2^52 bytes")]
    let transfer_ms = bytes as f64 / (mb_per_s * 1e3);
    2.0 * first_byte_ms + transfer_ms.max(run_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_quantiles() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median([]).is_nan() && quantile([], 0.5).is_nan());
        let values = || (0..=10).map(f64::from);
        assert_eq!((quantile(values(), 0.1), quantile(values(), 0.9)), (1.0, 9.0));
    }

    #[test]
    fn ratios_have_a_geometric_mean() {
        assert!((geometric_mean(&[0.5, 2.0]).unwrap() - 1.0).abs() < 1e-12);
        assert!((geometric_mean(&[1.0, 8.0, 1.0]).unwrap() - 2.0).abs() < 1e-12);
        assert_eq!(geometric_mean(&[]), None);
    }

    #[test]
    fn the_bound_is_transfer_or_run_whichever_is_longer() {
        assert_eq!(bound_ms(15.0, 100_000_000, 100.0, 40.0), 1030.0);
        assert_eq!(bound_ms(15.0, 1_000_000, 100.0, 40.0), 70.0);
    }
}
