//! Images against Pillow: every case of tests/data/cases.json, which make_fixtures.py wrote.

use crate::{input, manifest};
use glowplug_pack::manifest::Step;
use glowplug_pack::{Dtype, Tensor};
use glowplug_processing::pipeline::{Limits, Pipeline};
use std::path::Path;

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    file: String,
    steps: Vec<Step>,
    dtype: Dtype,
    shape: Vec<usize>,
    tolerance: f64,
}

fn data(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn as_f64(tensor: &Tensor) -> Vec<f64> {
    match tensor.dtype() {
        Dtype::U8 => tensor.as_u8().unwrap().iter().map(|x| f64::from(*x)).collect(),
        _ => tensor.as_f32().unwrap().iter().map(|x| f64::from(*x)).collect(),
    }
}

/// The largest difference from Pillow's elements.
fn largest_difference(case: &Case) -> f64 {
    let manifest = manifest(vec![input("image", case.dtype, &case.shape, case.steps.clone())]);
    let pipeline = Pipeline::compile(&manifest, |_| None).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    let tensors = pipeline.run(None, &data(&case.file), &Limits::default());
    let found = tensors.unwrap_or_else(|e| panic!("{}: {e}", case.name)).remove(0);
    let expected = data(&format!("{}.{}", case.name, case.dtype));
    let expected = Tensor::from_le_bytes(case.dtype, case.shape.clone(), &expected).unwrap();
    assert_eq!(found.shape(), expected.shape(), "{}", case.name);
    as_f64(&found).iter().zip(as_f64(&expected)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn every_case_is_what_pillow_makes_of_it() {
    let cases: Vec<Case> = serde_json::from_slice(&data("cases.json")).unwrap();
    assert!(cases.len() > 50, "{} cases", cases.len());
    let wrong: Vec<String> = cases
        .iter()
        .map(|case| (case, largest_difference(case)))
        .filter(|(case, difference)| *difference > case.tolerance)
        .map(|(case, difference)| format!("{}: off by {difference}, allowed {}", case.name, case.tolerance))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
