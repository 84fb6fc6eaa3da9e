//! What a handler tells about one piece of work: which model served it, and how long each stage took.

/// Stage timings of one inference, in milliseconds. A stage that did not happen (a warm call fetches nothing) is `None`.
///
/// The names are the same in metrics, headers, logs and the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timings {
    /// Bytes from the store.
    pub fetch_ms: Option<f64>,
    /// Content checks.
    pub verify_ms: Option<f64>,
    /// Pack to runnable plan.
    pub plan_ms: Option<f64>,
    /// Request to tensors.
    pub preprocess_ms: Option<f64>,
    /// The model itself.
    pub run_ms: Option<f64>,
    /// Tensors to answer.
    pub postprocess_ms: Option<f64>,
}

impl Timings {
    /// The stages' names, in the order in which they happen.
    pub const STAGES: [&'static str; 6] =
        ["fetch_ms", "verify_ms", "plan_ms", "preprocess_ms", "run_ms", "postprocess_ms"];

    /// The stages that happened: name and milliseconds. Values that are no time (negative, not finite) are left out.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, f64)> + use<> {
        let values = [
            self.fetch_ms,
            self.verify_ms,
            self.plan_ms,
            self.preprocess_ms,
            self.run_ms,
            self.postprocess_ms,
        ];
        Self::STAGES
            .into_iter()
            .zip(values)
            .filter_map(|(name, ms)| ms.filter(|ms| ms.is_finite() && *ms >= 0.0).map(|ms| (name, ms)))
    }
}

/// One piece of work done. `model` becomes a metric dimension, so it is the name of a model that served, never a name
/// that a request merely asked for: dimensions cost money, and callers must not be able to make new ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// The model that served.
    pub model: Option<String>,
    /// How long it took.
    pub timings: Timings,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_stages_that_happened() {
        let timings = Timings {
            fetch_ms: Some(f64::NAN),
            plan_ms: Some(0.9),
            run_ms: Some(2.0),
            verify_ms: Some(-1.0),
            ..Timings::default()
        };
        assert_eq!(timings.iter().collect::<Vec<_>>(), [("plan_ms", 0.9), ("run_ms", 2.0)]);
    }
}
