//! The metric documents of one invocation: a pure function, so that the format is tested and not hoped for.
//!
//! Specification: CloudWatch Embedded Metric Format, version of 2019-09 and later. At most 100 metrics per directive,
//! at most 100 values per metric, at most 30 dimensions per set, timestamp in milliseconds.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{Outcome, Timings};

/// How many values one metric may hold in one document.
const MAX_VALUES: usize = 100;

/// What one invocation did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Lambda's request id: a property of the document, not a dimension.
    pub request_id: String,
    /// Whether it was the first of its process.
    pub cold: bool,
    /// Whether the invocation failed for a reason on our side.
    pub failed: bool,
    /// For batches: how many records, and how many failed.
    pub batch: Option<Batch>,
    /// The work done, one entry per inference.
    pub outcomes: Vec<Outcome>,
}

/// The size of a batch and what failed of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Records or objects received.
    pub size: usize,
    /// Those reported as failed.
    pub failures: usize,
}

/// The documents of `report`: the first holds the counts, and the timings of the first model; further models, and
/// more than 100 inferences of one model, get further documents that hold timings only.
pub fn documents(namespace: &str, function: &str, timestamp_ms: u64, report: &Report) -> Vec<Value> {
    let mut groups = timings_by_model(&report.outcomes).into_iter();
    let (model, first) = groups.next().unwrap_or_default();
    let mut documents = vec![Document::new(model).counts(report).timings(&first)];
    documents.extend(groups.map(|(model, timings)| Document::new(model).timings(&timings)));
    documents.retain(|document| !document.metrics.is_empty());
    let finish =
        |document: Document<'_>| document.finish(namespace, function, timestamp_ms, &report.request_id);
    documents.into_iter().map(finish).collect()
}

/// Timings grouped by model, at most `MAX_VALUES` in each group.
fn timings_by_model(outcomes: &[Outcome]) -> Vec<(Option<&str>, Vec<Timings>)> {
    let mut models = BTreeMap::<Option<&str>, Vec<Timings>>::new();
    for outcome in outcomes {
        models.entry(outcome.model.as_deref()).or_default().push(outcome.timings);
    }
    let chunks = |(model, timings): (_, Vec<Timings>)| {
        timings.chunks(MAX_VALUES).map(|chunk| (model, chunk.to_vec())).collect::<Vec<_>>()
    };
    models.into_iter().flat_map(chunks).collect()
}

/// A document in the making: metric definitions and their values.
struct Document<'a> {
    model: Option<&'a str>,
    metrics: Vec<Value>,
    fields: Map<String, Value>,
}

impl<'a> Document<'a> {
    fn new(model: Option<&'a str>) -> Self {
        Self { model, metrics: Vec::new(), fields: Map::new() }
    }

    fn metric(&mut self, name: &str, unit: &str, value: Value) {
        self.metrics.push(json!({ "Name": name, "Unit": unit }));
        self.fields.insert(name.to_owned(), value);
    }

    fn counts(mut self, report: &Report) -> Self {
        self.metric("ColdStart", "Count", u8::from(report.cold).into());
        self.metric("Invocations", "Count", 1.into());
        self.metric("Errors", "Count", u8::from(report.failed).into());
        if let Some(batch) = report.batch {
            self.metric("BatchSize", "Count", batch.size.into());
            self.metric("BatchFailures", "Count", batch.failures.into());
        }
        self
    }

    /// One metric per stage that happened; several inferences give a list of values.
    fn timings(mut self, timings: &[Timings]) -> Self {
        for stage in Timings::STAGES {
            let values = timings.iter().flat_map(Timings::iter).filter(|(name, _)| *name == stage);
            let mut values: Vec<Value> = values.map(|(_, ms)| ms.into()).collect();
            match values.len() {
                0 => {}
                1 => self.metric(stage, "Milliseconds", values.remove(0)),
                _ => self.metric(stage, "Milliseconds", values.into()),
            }
        }
        self
    }

    fn finish(mut self, namespace: &str, function: &str, timestamp_ms: u64, request_id: &str) -> Value {
        let mut dimensions = vec![json!(["function"])];
        if let Some(model) = self.model {
            dimensions.push(json!(["function", "model"]));
            self.fields.insert("model".into(), model.into());
        }
        let directive = json!({ "Namespace": namespace, "Dimensions": dimensions, "Metrics": self.metrics });
        let head = json!({ "Timestamp": timestamp_ms, "CloudWatchMetrics": [directive] });
        self.fields.insert("_aws".into(), head);
        self.fields.insert("function".into(), function.into());
        self.fields.insert("request_id".into(), request_id.into());
        Value::Object(self.fields)
    }
}

#[cfg(test)]
mod tests;
