//! Documents held against the rules of the format.

use super::*;

const NOW: u64 = 1_795_500_000_123;

fn outcome(model: &str, run_ms: f64) -> Outcome {
    Outcome { model: Some(model.into()), timings: Timings { run_ms: Some(run_ms), ..Timings::default() } }
}

fn written(report: &Report) -> Vec<Value> {
    let documents = documents("Glowplug", "score", NOW, report);
    documents.iter().for_each(assert_follows_the_specification);
    documents
}

/// Each rule of the specification that a document could break.
fn assert_follows_the_specification(document: &Value) {
    let head = &document["_aws"];
    assert!(head["Timestamp"].as_u64().is_some_and(|ms| ms > 1_000_000_000_000), "timestamp in ms: {head}");
    for directive in head["CloudWatchMetrics"].as_array().expect("directives") {
        let namespace = directive["Namespace"].as_str().expect("a namespace");
        assert!((1..=1024).contains(&namespace.len()));
        for set in directive["Dimensions"].as_array().expect("dimension sets") {
            let set = set.as_array().expect("a set");
            assert!((1..=30).contains(&set.len()));
            for name in set {
                let value = document[name.as_str().expect("a name")].as_str().expect("a string at the root");
                assert!((1..=1024).contains(&value.len()), "dimension {name} is {value:?}");
            }
        }
        let metrics = directive["Metrics"].as_array().expect("metrics");
        assert!((1..=100).contains(&metrics.len()), "{} metrics", metrics.len());
        metrics.iter().for_each(|metric| assert_metric(document, metric));
    }
}

fn assert_metric(document: &Value, metric: &Value) {
    let name = metric["Name"].as_str().expect("a name");
    let unit = metric["Unit"].as_str().expect("a unit");
    assert!(["Count", "Milliseconds"].contains(&unit), "{unit}");
    assert_eq!(unit == "Milliseconds", name.ends_with("_ms"), "{name} in {unit}");
    let value = &document[name];
    let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    assert!((1..=100).contains(&values.len()) && values.iter().all(Value::is_number), "{name}: {value}");
}

#[test]
fn one_cold_inference_is_one_document() {
    let timings = Timings {
        fetch_ms: Some(12.5),
        verify_ms: Some(0.0),
        plan_ms: Some(0.9),
        preprocess_ms: Some(0.3),
        run_ms: Some(2.25),
        postprocess_ms: Some(0.1),
    };
    let outcomes = vec![Outcome { model: Some("mnist-cnn".into()), timings }];
    let report = Report { request_id: "req-1".into(), cold: true, outcomes, ..Report::default() };
    let expected = json!({
        "_aws": { "Timestamp": NOW, "CloudWatchMetrics": [{
            "Namespace": "Glowplug",
            "Dimensions": [["function"], ["function", "model"]],
            "Metrics": [
                { "Name": "ColdStart", "Unit": "Count" },
                { "Name": "Invocations", "Unit": "Count" },
                { "Name": "Errors", "Unit": "Count" },
                { "Name": "fetch_ms", "Unit": "Milliseconds" },
                { "Name": "verify_ms", "Unit": "Milliseconds" },
                { "Name": "plan_ms", "Unit": "Milliseconds" },
                { "Name": "preprocess_ms", "Unit": "Milliseconds" },
                { "Name": "run_ms", "Unit": "Milliseconds" },
                { "Name": "postprocess_ms", "Unit": "Milliseconds" },
            ],
        }]},
        "function": "score", "model": "mnist-cnn", "request_id": "req-1",
        "ColdStart": 1, "Invocations": 1, "Errors": 0,
        "fetch_ms": 12.5, "verify_ms": 0.0, "plan_ms": 0.9,
        "preprocess_ms": 0.3, "run_ms": 2.25, "postprocess_ms": 0.1,
    });
    assert_eq!(written(&report), [expected]);
}

#[test]
fn without_a_model_there_is_no_model_dimension() {
    let documents = written(&Report { failed: true, ..Report::default() });
    assert_eq!(documents.len(), 1);
    assert_eq!(documents[0]["_aws"]["CloudWatchMetrics"][0]["Dimensions"], json!([["function"]]));
    assert_eq!((&documents[0]["Errors"], documents[0].get("model")), (&json!(1), None));
}

#[test]
fn a_batch_lists_its_values_and_counts_once() {
    let outcomes = vec![outcome("a", 1.0), outcome("b", 9.0), outcome("a", 2.0)];
    let batch = Some(Batch { size: 4, failures: 1 });
    let documents = written(&Report { batch, outcomes, ..Report::default() });
    assert_eq!(documents.len(), 2);
    assert_eq!((&documents[0]["model"], &documents[0]["run_ms"]), (&json!("a"), &json!([1.0, 2.0])));
    assert_eq!((&documents[0]["BatchSize"], &documents[0]["BatchFailures"]), (&json!(4), &json!(1)));
    assert_eq!((&documents[1]["model"], &documents[1]["run_ms"]), (&json!("b"), &json!(9.0)));
    assert_eq!(documents[1].get("Invocations"), None, "an invocation counts once");
}

#[test]
fn a_further_model_without_timings_has_no_document() {
    let untimed = Outcome { model: Some("b".into()), timings: Timings::default() };
    let documents = written(&Report { outcomes: vec![outcome("a", 1.0), untimed], ..Report::default() });
    assert_eq!(documents.len(), 1);
}

#[test]
fn more_than_a_hundred_values_are_split() {
    let outcomes = (0..250).map(|i| outcome("a", f64::from(i))).collect();
    let documents = written(&Report { outcomes, ..Report::default() });
    let lengths: Vec<_> = documents.iter().map(|d| d["run_ms"].as_array().expect("a list").len()).collect();
    assert_eq!(lengths, [100, 100, 50]);
}

#[test]
fn a_time_that_json_cannot_hold_is_left_out() {
    let documents = written(&Report { outcomes: vec![outcome("a", f64::INFINITY)], ..Report::default() });
    assert_eq!(documents[0].get("run_ms"), None);
}
