//! V2 documents: what is read, what is refused and how, and that printing and parsing are inverse.

use crate::{input, manifest};
use glowplug_pack::manifest::{Manifest, OutputSpec};
use glowplug_pack::{Dtype, Tensor};
use glowplug_processing::v2::{
    InferRequest, InferResponse, ModelMetadata, NamedTensor, RequestedOutput, ServerMetadata, check_inputs,
};
use glowplug_processing::{ErrorKind, ProcessingError};
use proptest::prelude::*;

fn parse(json: &str) -> Result<InferRequest, ProcessingError> {
    InferRequest::parse(json.as_bytes(), None)
}

/// A request of one input "x", of which `fields` are everything but the name.
fn one(fields: &str) -> String {
    format!(r#"{{"inputs":[{{"name":"x",{fields}}}]}}"#)
}

fn named(name: &str, tensor: Tensor) -> NamedTensor {
    NamedTensor { name: name.into(), tensor }
}

fn refused(result: Result<impl std::fmt::Debug, ProcessingError>, text: &str) {
    let e = result.expect_err(text);
    assert_eq!(e.kind(), ErrorKind::InvalidInput, "{e}");
    assert!(e.to_string().contains(text), "{e}\nhas not: {text}");
    assert!(e.to_string().len() < 400 && !e.to_string().contains('\n'), "{e}");
}

#[test]
fn elements_may_be_flat_or_nested_and_come_before_their_datatype() {
    for (fields, expected) in [
        (r#""shape":[2,2],"datatype":"FP32","data":[1,2.5,-3e1,4]"#, "f32[2,2]"),
        (r#""data":[[1,2.5],[-3e1,4]],"datatype":"FP32","shape":[2,2]"#, "f32[2,2]"),
        (r#""data":[ [ [1] , [2.5] ],[[-30.0], [4]] ],"shape":[2,2,1],"datatype":"FP32""#, "f32[2,2,1]"),
    ] {
        let request = parse(&one(fields)).unwrap();
        assert_eq!(request.inputs[0].tensor.to_string(), expected, "{fields}");
        assert_eq!(request.inputs[0].tensor.as_f32().unwrap(), [1.0, 2.5, -30.0, 4.0], "{fields}");
    }
    let scalar = parse(&one(r#""shape":[],"datatype":"INT64","data":[-9223372036854775808]"#)).unwrap();
    assert_eq!(scalar.inputs[0].tensor.as_i64().unwrap(), [i64::MIN]);
    for fields in [r#""shape":[0,3],"data":[]"#, r#""shape":[2,0],"data":[[],[]]"#] {
        let request = parse(&one(&format!(r#"{fields},"datatype":"BOOL""#))).unwrap();
        assert!(request.inputs[0].tensor.is_empty(), "{fields}");
    }
}

#[test]
fn what_we_do_not_know_is_ignored() {
    let json = r#"{"model":"m","id":"7","parameters":{"priority":1},"inputs":[{"name":"x","shape":[1],
        "datatype":"UINT8","parameters":{"content_type":"np"},"data":[255],"extra":{}}],"outputs":[{"name":"y"}]}"#;
    let request = parse(json).unwrap();
    assert_eq!(request.id.as_deref(), Some("7"));
    assert_eq!(request.outputs, [RequestedOutput { name: "y".into(), binary: None }]);
}

#[test]
fn a_bad_tensor_is_told_by_name_with_what_was_found_and_wanted() {
    for (fields, text) in [
        (
            r#""shape":[1],"datatype":"FP64","data":[1]"#,
            r#"input "x": datatype is "FP64", expected one of FP32"#,
        ),
        (r#""shape":[1],"datatype":"BYTES","data":["a"]"#, "takes strings"),
        (r#""shape":[2,2],"datatype":"FP32","data":[1,2,3]"#, r#"input "x": found 3 elements, expected 4"#),
        (r#""shape":[1],"datatype":"FP32","data":[1,2,3]"#, "found 3 elements, expected 1"),
        (r#""shape":[1],"datatype":"UINT8","data":[300]"#, "element 0 is 300, out of range for UINT8"),
        (r#""shape":[2],"datatype":"UINT8","data":[1,-1]"#, "element 1 is -1, out of range for UINT8"),
        (r#""shape":[1],"datatype":"INT8","data":[128]"#, "element 0 is 128, out of range for INT8"),
        (r#""shape":[1],"datatype":"INT32","data":[2147483648]"#, "out of range for INT32"),
        (r#""shape":[1],"datatype":"INT64","data":[9223372036854775808]"#, "out of range for INT64"),
        (
            r#""shape":[1],"datatype":"INT64","data":[1.5]"#,
            "element 0 is 1.5, expected a whole number for INT64",
        ),
        (r#""shape":[1],"datatype":"INT64","data":[true]"#, "element 0 is true, expected a whole number"),
        (r#""shape":[1],"datatype":"FP32","data":[1e39]"#, "element 0 is 1e39, out of range for FP32"),
        (r#""shape":[1],"datatype":"FP16","data":[70000]"#, "element 0 is 70000, out of range for FP16"),
        (r#""shape":[1],"datatype":"BOOL","data":[1]"#, "element 0 is 1, expected true or false for BOOL"),
        (r#""shape":[2],"datatype":"FP32","data":[1,null]"#, "element 1 is null, expected a number"),
        (r#""shape":[1],"datatype":"FP32","data":["a]\"b"]"#, "element 0 is a]"),
        (r#""shape":[1],"datatype":"FP32","data":[{"a":[1]}]"#, "element 0 is {"),
        (r#""shape":[1],"datatype":"FP32","data":5"#, "found 5, expected an array"),
        (r#""shape":[1],"datatype":"FP32","data":null"#, "data is missing"),
        (r#""shape":[1],"datatype":"FP32""#, r#"input "x": data is missing"#),
        (r#""shape":[1],"data":[1]"#, r#"input "x": datatype is missing"#),
        (r#""datatype":"FP32","data":[1]"#, r#"input "x": shape is missing"#),
        (r#""shape":[-1],"datatype":"FP32","data":[1]"#, "shape [-1] holds -1, expected 0 or more"),
        (
            r#""shape":[4,4],"datatype":"FP32","data":[[1,2],[3,4]]"#,
            "an array at depth 2 holds 2 items, expected 4",
        ),
        (r#""shape":[2,1],"datatype":"FP32","data":[[1]]"#, "an array at depth 1 holds 1 items, expected 2"),
        (r#""shape":[2,2],"datatype":"FP32","data":[[1,2],3,4]"#, "deep in places"),
        (r#""shape":[2,2],"datatype":"FP32","data":[1,2,[3,4]]"#, "deep in places"),
        (r#""shape":[4],"datatype":"FP32","data":[[1,2],[3,4]]"#, "deep in places"),
        (r#""shape":[1,1,4],"datatype":"FP32","data":[[1,2,3,4]]"#, "deep in places"),
        (
            r#""shape":[1099511627776,1099511627776],"datatype":"FP32","data":[1]"#,
            "too large for this machine",
        ),
        (
            r#""shape":[1099511627776],"datatype":"FP32","data":[1]"#,
            "found 1 elements, expected 1099511627776",
        ),
        (r#""shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"datatype":"FP32","data":[1]"#, "17 axes"),
        (
            r#""shape":[1],"datatype":"FP32","parameters":{"binary_data_size":4}"#,
            "no header Inference-Header",
        ),
        (r#""shape":[1],"datatype":"FP32","parameters":{"shared_memory_region":"r"}"#, "shared memory"),
    ] {
        refused(parse(&one(fields)), text);
    }
}

#[test]
fn a_bad_document_is_told_as_one() {
    let twice = r#"{"inputs":[{"name":"x","shape":[0],"datatype":"FP32","data":[]},
        {"name":"x","shape":[0],"datatype":"FP32","data":[]}]}"#;
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    for (json, text) in [
        ("", "the JSON part of the body is empty"),
        ("[]", "not a V2 infer request"),
        ("{}", "the request has no inputs"),
        (r#"{"inputs":[{"shape":[1]}]}"#, "input 0 has no name"),
        (r#"{"inputs":[{"name":""}]}"#, "input 0 has no name"),
        (twice, r#"input "x" is there twice"#),
        (r#"{"inputs":[],"outputs":[{"name":"y"},{"name":"y"}]}"#, r#"output "y": asked for twice"#),
        (
            r#"{"inputs":[],"outputs":[{"name":"y","parameters":{"classification":3}}]}"#,
            "classification is not supported",
        ),
        (&format!(r#"{{"inputs":[{{"name":{:?},"shape":[1]}}]}}"#, "n\n".repeat(5000)), r#"n\nn\n"#),
        (&one(&format!(r#""shape":[1],"datatype":"FP32","data":{deep}"#)), "deep in places"),
    ] {
        refused(parse(json), text);
    }
    refused(InferRequest::parse(b"{\"inputs\":[\xFF]}", None), "not UTF-8 at byte 11");
}

#[test]
fn not_a_number_is_told_by_tensor_and_element() {
    for word in ["NaN", "Infinity", "-Infinity"] {
        let text = format!(r#"input "x": element 1 is {word}, which JSON cannot hold"#);
        refused(parse(&one(&format!(r#""shape":[2],"datatype":"FP32","data":[1,{word}]"#))), &text);
        let name_last =
            format!(r#"{{"inputs":[{{"data":[1,{word}],"shape":[2],"datatype":"FP32","name":"x"}}]}}"#);
        refused(parse(&name_last), &text);
    }
    refused(parse(r#"{"inputs":NaN}"#), "not a V2 infer request");
    refused(parse(r#"{"id":"a NaN","inputs":[{]}"#), "not a V2 infer request");
}

#[test]
fn binary_tensors_follow_the_json_and_must_fill_the_body() {
    let json = one(r#""shape":[2],"datatype":"INT32","parameters":{"binary_data_size":8}"#);
    let body = |tail: &[u8]| [json.as_bytes(), tail].concat();
    let len = Some(json.len());
    let request = InferRequest::parse(&body(&[1, 0, 0, 0, 254, 255, 255, 255]), len).unwrap();
    assert_eq!(request.inputs[0].tensor.as_i32().unwrap(), [1, -2]);

    refused(InferRequest::parse(&body(&[0; 7]), len), "binary_data_size is 8, but only 7 bytes are left");
    refused(InferRequest::parse(&body(&[0; 9]), len), "1 bytes follow the last binary tensor");
    refused(InferRequest::parse(&body(&[0; 8]), Some(json.len() + 9)), "Inference-Header-Content-Length is");
    refused(InferRequest::parse(&body(&[0; 8]), Some(0)), "the JSON part of the body is empty");
    for (fields, text) in [
        (r#""datatype":"INT32","parameters":{"binary_data_size":4}"#, "is 4, expected 8 for INT32[2]"),
        (r#""datatype":"INT32","data":[1,2],"parameters":{"binary_data_size":8}"#, "both data and"),
        (r#""datatype":"BYTES","parameters":{"binary_data_size":8}"#, "datatype is \"BYTES\""),
    ] {
        let json = one(&format!(r#""shape":[2],{fields}"#));
        refused(InferRequest::parse(&[json.as_bytes(), &[0; 8]].concat(), Some(json.len())), text);
    }
    let json = one(r#""shape":[2],"datatype":"BOOL","parameters":{"binary_data_size":2}"#);
    let body = [json.as_bytes(), &[1, 2]].concat();
    refused(InferRequest::parse(&body, Some(json.len())), "bool element 1 is 2, expected 0 or 1");
    let json =
        one(r#""shape":[4294967296,4294967296],"datatype":"FP32","parameters":{"binary_data_size":0}"#);
    refused(InferRequest::parse(json.as_bytes(), Some(json.len())), "more than this machine holds");
}

fn two_inputs() -> Manifest {
    manifest(vec![input("a", Dtype::F32, &[1, 2], vec![]), input("b", Dtype::I64, &[1], vec![])])
}

#[test]
fn inputs_are_put_in_the_manifests_order() {
    let a = Tensor::from_f32([1, 2], vec![1.0, 2.0]).unwrap();
    let b = Tensor::from_i64([1], vec![3]).unwrap();
    let sent = vec![named("b", b.clone()), named("a", a.clone())];
    assert_eq!(check_inputs(&two_inputs(), false, sent).unwrap(), [a, b]);
}

#[test]
fn inputs_that_are_not_the_models_are_told_with_what_is() {
    let b = || named("b", Tensor::from_i64([1], vec![3]).unwrap());
    let a = |shape: &[usize]| named("a", Tensor::zeros(Dtype::F32, shape).unwrap());
    for (sent, text) in [
        (vec![named("c", b().tensor)], r#"input "c" is not the model's, expected "a", "b""#),
        (vec![b()], r#"input "a" is missing, expected FP32[1,2]"#),
        (vec![b(), b()], r#"input "b" is there twice"#),
        (vec![named("a", b().tensor)], r#"input "a": datatype is INT64, expected FP32"#),
        (vec![a(&[2])], r#"input "a": rank is 1 ([2]), expected 2 ([1,2])"#),
        (vec![a(&[1, 3])], r#"input "a": axis 1 ("d1") is 3, expected 2: shape is [1,3], expected [1,2]"#),
    ] {
        refused(check_inputs(&two_inputs(), false, sent), text);
    }
}

fn two_outputs() -> Manifest {
    let output = |name: &str| OutputSpec {
        name: name.into(),
        dtype: Dtype::F32,
        axes: input(name, Dtype::F32, &[2], vec![]).axes,
        post: vec![],
        labels: None,
    };
    Manifest { outputs: vec![output("p"), output("q")], ..two_inputs() }
}

#[test]
fn a_response_holds_the_outputs_asked_for_in_that_order_and_form() {
    let outputs = || ["0.5", "0.25"].map(|x| Tensor::from_f32([2], vec![x.parse().unwrap(), -1.0]).unwrap());
    let asked = |json: &str| parse(&format!(r#"{{"id":"i","inputs":[],{json}}}"#)).unwrap();

    let all = asked(r#""outputs":[]"#).respond(&two_outputs(), Some("3"), outputs().into()).unwrap();
    let json = r#"{"model_name":"m","model_version":"3","id":"i","outputs":[{"name":"p","datatype":"FP32","shape":[2],"data":[0.5,-1.0]},{"name":"q","datatype":"FP32","shape":[2],"data":[0.25,-1.0]}]}"#;
    let encoded = all.encode(|_| false).unwrap();
    assert_eq!((String::from_utf8(encoded.body).unwrap().as_str(), encoded.header_len), (json, None));

    let request = asked(
        r#""parameters":{"binary_data_output":true},"outputs":[{"name":"q"},{"name":"p","parameters":{"binary_data":false}}]"#,
    );
    assert_eq!([request.wants_binary("q"), request.wants_binary("p")], [true, false]);
    let response = request.respond(&two_outputs(), None, outputs().into()).unwrap();
    let names: Vec<&str> = response.outputs.iter().map(|o| o.name.as_str()).collect();
    assert_eq!(names, ["q", "p"]);
    let encoded = response.encode(|name| request.wants_binary(name)).unwrap();
    assert_eq!(encoded.body.len(), encoded.header_len.unwrap() + 8);
    assert_eq!(InferResponse::parse(&encoded.body, encoded.header_len).unwrap(), response);

    let unknown = asked(r#""outputs":[{"name":"r"}]"#);
    refused(
        unknown.check_outputs(&two_outputs()),
        r#"output "r" is not the model's, expected one of "p", "q""#,
    );
    refused(unknown.respond(&two_outputs(), None, outputs().into()), "output \"r\"");
    let e = asked(r#""outputs":[]"#).respond(&two_outputs(), None, vec![]).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::BadManifest);
}

#[test]
fn an_output_that_json_cannot_hold_is_named_and_binary_carries_it() {
    let tensor = Tensor::from_f32([2], vec![1.0, f32::NAN]).unwrap();
    let response = InferResponse {
        model_name: "m".into(),
        outputs: vec![named("p", tensor)],
        ..InferResponse::default()
    };
    let e = response.encode(|_| false).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotRepresentable);
    assert!(
        e.to_string().starts_with(r#"output "p": element 1 is NaN"#) && e.to_string().contains("binary"),
        "{e}"
    );
    let encoded = response.encode(|_| true).unwrap();
    let back = InferResponse::parse(&encoded.body, encoded.header_len).unwrap();
    assert!(back.outputs[0].tensor.as_f32().unwrap()[1].is_nan());
}

#[test]
fn metadata_is_spelled_as_v2_spells_it() {
    let found = serde_json::to_string(&ModelMetadata::new(&two_outputs(), vec!["1".into()])).unwrap();
    let expected = r#"{"name":"m","versions":["1"],"platform":"glowplug_pack","inputs":[{"name":"a","datatype":"FP32","shape":[1,2]},{"name":"b","datatype":"INT64","shape":[1]}],"outputs":[{"name":"p","datatype":"FP32","shape":[2]},{"name":"q","datatype":"FP32","shape":[2]}]}"#;
    assert_eq!(found, expected);
    let server = serde_json::to_value(ServerMetadata::of_this_build()).unwrap();
    assert_eq!(server["extensions"], serde_json::json!(["binary_tensor_data"]));
}

/// Tensors of every dtype; floats finite where they must fit JSON.
fn tensors(finite: bool) -> impl Strategy<Value = Tensor> {
    let shape = proptest::collection::vec(0_usize..4, 0..4);
    (0..Dtype::ALL.len(), shape).prop_flat_map(move |(dtype, shape)| {
        let dtype = Dtype::ALL[dtype];
        let len = shape.iter().product::<usize>() * dtype.size();
        proptest::collection::vec(any::<u8>(), len).prop_map(move |bytes| {
            Tensor::from_le_bytes(dtype, shape.clone(), &tamed(dtype, bytes, finite)).unwrap()
        })
    })
}

/// Bits that `dtype` has no value for (in JSON, where `finite`) made into ones that it has.
fn tamed(dtype: Dtype, mut bytes: Vec<u8>, finite: bool) -> Vec<u8> {
    for element in bytes.chunks_exact_mut(dtype.size()) {
        match (dtype, &mut *element) {
            (Dtype::Bool, [b]) => *b &= 1,
            // An exponent of all ones is infinity or NaN: clear one bit of it.
            (Dtype::F32, [.., low, high]) if finite && *high & 0x7F == 0x7F && *low & 0x80 != 0 => {
                *low &= 0x7F;
            }
            (Dtype::F16, [.., high]) if finite && *high & 0x7C == 0x7C => *high &= 0xFB,
            _ => {}
        }
    }
    bytes
}

/// The JSON array of `json`'s elements, nested as `shape`.
fn nest(elements: &mut std::vec::IntoIter<serde_json::Value>, shape: &[usize]) -> serde_json::Value {
    match shape.split_first() {
        None => elements.next().unwrap(),
        Some((n, rest)) => (0..*n).map(|_| nest(elements, rest)).collect(),
    }
}

fn same_bits(a: &[NamedTensor], b: &[NamedTensor]) -> bool {
    let bits = |t: &NamedTensor| (t.name.clone(), t.tensor.to_string(), t.tensor.to_le_bytes());
    a.iter().map(bits).eq(b.iter().map(bits))
}

proptest! {
    #[test]
    fn printing_and_parsing_are_inverse(
        list in proptest::collection::vec(tensors(true), 0..4),
        id in proptest::option::of(".{0,8}"),
        binary in any::<bool>(),
    ) {
        let inputs: Vec<_> = list.into_iter().enumerate().map(|(i, t)| named(&format!("n\"{i}"), t)).collect();
        let outputs = vec![RequestedOutput { name: "é".into(), binary: Some(binary) }];
        let request = InferRequest { id: id.clone(), inputs, outputs, binary_outputs: binary };
        let encoded = request.encode(binary).unwrap();
        let back = InferRequest::parse(&encoded.body, encoded.header_len).unwrap();
        prop_assert!(same_bits(&back.inputs, &request.inputs));
        prop_assert_eq!((&back.id, &back.outputs, back.binary_outputs), (&id, &request.outputs, binary));

        let response = InferResponse { model_name: "m".into(), model_version: id, id: None, outputs: request.inputs };
        let encoded = response.encode(|name| binary == (name == "n\"1")).unwrap();
        let back = InferResponse::parse(&encoded.body, encoded.header_len).unwrap();
        prop_assert!(same_bits(&back.outputs, &response.outputs));
    }

    #[test]
    fn binary_carries_every_bit(tensor in tensors(false)) {
        let request = InferRequest { inputs: vec![named("x", tensor)], ..InferRequest::default() };
        let encoded = request.encode(true).unwrap();
        let back = InferRequest::parse(&encoded.body, encoded.header_len).unwrap();
        prop_assert!(same_bits(&back.inputs, &request.inputs));
    }

    #[test]
    fn nested_data_is_read_as_flat_data_is(tensor in tensors(true)) {
        let request = InferRequest { inputs: vec![named("x", tensor)], ..InferRequest::default() };
        let mut json: serde_json::Value = serde_json::from_slice(&request.encode(false).unwrap().body).unwrap();
        let shape = request.inputs[0].tensor.shape();
        let data = json["inputs"][0]["data"].as_array().unwrap().clone();
        if !shape.is_empty() {
            json["inputs"][0]["data"] = nest(&mut data.into_iter(), shape);
        }
        let back = InferRequest::parse(json.to_string().as_bytes(), None).unwrap();
        prop_assert!(same_bits(&back.inputs, &request.inputs));
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), len in proptest::option::of(0_usize..250)) {
        let _ = InferRequest::parse(&bytes, len);
        let _ = InferResponse::parse(&bytes, len);
    }

    #[test]
    fn no_damage_to_a_request_panics(
        list in proptest::collection::vec(tensors(true), 1..3),
        binary in any::<bool>(),
        hits in proptest::collection::vec((any::<proptest::sample::Index>(), "[\\[\\]{}\",:0-9eE.+N\\-tn ]"), 1..6),
    ) {
        let inputs = list.into_iter().enumerate().map(|(i, t)| named(&i.to_string(), t)).collect();
        let request = InferRequest { inputs, ..InferRequest::default() };
        let mut encoded = request.encode(binary).unwrap();
        for (at, with) in hits {
            let at = at.index(encoded.body.len());
            encoded.body[at] = with.as_bytes()[0];
        }
        if let Ok(parsed) = InferRequest::parse(&encoded.body, encoded.header_len) {
            prop_assert!(parsed.inputs.iter().all(|i| i.tensor.len() <= encoded.body.len()));
        }
    }
}
