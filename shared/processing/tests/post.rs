//! Outputs to answers, and post steps that contradict themselves.

use crate::{input, manifest};
use glowplug_pack::manifest::{Manifest, OutputSpec, PostStep};
use glowplug_pack::{Dtype, Tensor};
use glowplug_processing::post::Post;
use glowplug_processing::{ErrorKind, ProcessingError};

fn output(dtype: Dtype, shape: &[usize], post: &[PostStep], labels: Option<&str>) -> Manifest {
    let output = OutputSpec {
        name: "y".into(),
        dtype,
        axes: input("y", dtype, shape, vec![]).axes,
        post: post.to_vec(),
        labels: labels.map(Into::into),
    };
    Manifest { outputs: vec![output], ..manifest(vec![]) }
}

fn compile(manifest: &Manifest) -> Result<Post, ProcessingError> {
    Post::compile(manifest, |name| match name {
        "abc" => Some(&b"a\nb\r\nc\n"[..]),
        "latin1" => Some(b"\xE9\nb\nc"),
        _ => None,
    })
}

/// The answer to one output, as JSON.
fn answer(manifest: &Manifest, tensor: Tensor) -> Result<String, ProcessingError> {
    let answer = compile(manifest).unwrap().answer(vec![tensor])?;
    Ok(serde_json::to_string(&answer).unwrap())
}

#[test]
fn each_form_of_answer_is_spelled_as_documented() {
    use PostStep::{Normalize, Softmax, TopK};
    let f32s = |shape: &[usize], v: &[f32]| Tensor::from_f32(shape, v.to_vec()).unwrap();
    for (manifest, tensor, expected) in [
        (
            output(Dtype::F32, &[1, 3], &[Softmax, TopK(2)], Some("abc")),
            f32s(&[1, 3], &[0.0, 0.0, -1e9]),
            r#"{"name":"y","topk":[{"label":"a","index":0,"score":0.5},{"label":"b","index":1,"score":0.5}]}"#,
        ),
        (
            output(Dtype::F32, &[2, 2], &[TopK(1)], None),
            f32s(&[2, 2], &[1.0, 2.0, 4.0, 3.0]),
            r#"{"name":"y","topk":[[{"index":1,"score":2.0}],[{"index":0,"score":4.0}]]}"#,
        ),
        (
            output(Dtype::F32, &[1, 2], &[Normalize], None),
            f32s(&[1, 2], &[3.0, 4.0]),
            r#"{"name":"y","datatype":"FP32","shape":[1,2],"data":[0.6,0.8]}"#,
        ),
        (
            output(Dtype::I64, &[2], &[], None),
            Tensor::from_i64([2], vec![-1, i64::MAX]).unwrap(),
            r#"{"name":"y","datatype":"INT64","shape":[2],"data":[-1,9223372036854775807]}"#,
        ),
        (
            output(Dtype::F16, &[2], &[TopK(1)], None),
            Tensor::from_f16_bits([2], vec![0x3C00, 0x4000]).unwrap(),
            r#"{"name":"y","topk":[{"index":1,"score":2.0}]}"#,
        ),
        (
            output(Dtype::F32, &[0, 3], &[Softmax, TopK(1)], None),
            f32s(&[0, 3], &[]),
            r#"{"name":"y","topk":[]}"#,
        ),
    ] {
        let found = answer(&manifest, tensor).unwrap();
        assert_eq!(found, format!(r#"{{"outputs":[{expected}]}}"#));
    }
}

#[test]
fn softmax_is_a_distribution_per_row() {
    let manifest = output(Dtype::F32, &[2, 3], &[PostStep::Softmax], None);
    let tensor = Tensor::from_f32([2, 3], vec![1.0, 2.0, 3.0, -50.0, 80.0, 0.0]).unwrap();
    let answer: serde_json::Value = serde_json::from_str(&answer(&manifest, tensor).unwrap()).unwrap();
    let data: Vec<f64> = serde_json::from_value(answer["outputs"][0]["data"].clone()).unwrap();
    let exact = [0.090_030_573, 0.244_728_471, 0.665_240_956];
    assert!(data[..3].iter().zip(exact).all(|(a, b)| (a - b).abs() < 1e-7), "{data:?}");
    assert!((data[3..].iter().sum::<f64>() - 1.0).abs() < 1e-6, "{data:?}");
}

#[test]
fn an_answer_that_json_cannot_hold_names_its_output() {
    for (post, value) in [(vec![], f32::INFINITY), (vec![PostStep::TopK(1)], f32::NAN)] {
        let tensor = Tensor::from_f32([2], vec![0.0, value]).unwrap();
        let e = answer(&output(Dtype::F32, &[2], &post, None), tensor).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NotRepresentable);
        assert!(
            e.to_string().starts_with(r#"output "y": element 1 is "#) && e.to_string().contains("binary"),
            "{e}"
        );
    }
}

#[test]
fn outputs_that_are_not_the_manifests_are_refused() {
    let manifest = output(Dtype::F32, &[2], &[], None);
    let e = answer(&manifest, Tensor::zeros(Dtype::F32, [3]).unwrap()).unwrap_err();
    assert_eq!(e.to_string(), r#"output "y": found f32[3], expected f32[2]"#);
    let e = compile(&manifest).unwrap().answer(vec![]).unwrap_err();
    assert_eq!(
        (e.kind(), e.to_string()),
        (ErrorKind::BadManifest, "the plan gave 0 outputs, expected 1".into())
    );
}

#[test]
fn post_steps_that_do_not_fit_are_told_when_the_model_is_loaded() {
    use PostStep::{Softmax, TopK};
    for (manifest, text) in [
        (output(Dtype::F32, &[1, 3], &[TopK(4)], None), "topk:4 of an axis of 3"),
        (
            output(Dtype::F32, &[1, 3], &[TopK(1), Softmax], None),
            "softmax comes after topk, expected it last",
        ),
        (output(Dtype::I64, &[1, 3], &[Softmax], None), "steps need f32 or f16, the output is i64"),
        (output(Dtype::F32, &[], &[Softmax], None), "the output is a scalar"),
        (
            output(Dtype::F32, &[1, 4], &[], Some("abc")),
            r#"labels "abc": 3 lines, expected 4 for the last axis"#,
        ),
        (output(Dtype::F32, &[1, 3], &[], Some("latin1")), r#"labels "latin1": not UTF-8 at byte 0"#),
        (output(Dtype::F32, &[1, 3], &[], Some("none")), r#"labels "none": not in the pack"#),
    ] {
        let e = compile(&manifest).expect_err(text);
        assert_eq!(e.kind(), ErrorKind::BadManifest, "{e}");
        assert!(
            e.to_string().starts_with(r#"post steps of output "y": "#) && e.to_string().contains(text),
            "{e}"
        );
    }
}
