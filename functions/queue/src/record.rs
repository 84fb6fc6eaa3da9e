//! The two forms of a record: a V2 infer document with `"model"`, or `{"model": .., "s3": {"bucket": .., "key": ..}}`.

use glowplug_lambda::Error;
use glowplug_predict::ModelRef;
use glowplug_predict::v2::InferRequest;
use serde::Deserialize;

/// What a record asks for.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) model: ModelRef,
    pub(crate) payload: Payload,
}

/// What a record brings.
#[derive(Debug)]
pub(crate) enum Payload {
    Tensors(InferRequest),
    Object { bucket: String, key: String },
}

/// What both forms have, and what the second has alone; a V2 document's own fields are left to its parser.
#[derive(Deserialize)]
struct Envelope {
    model: Option<String>,
    model_version: Option<String>,
    s3: Option<S3>,
    inputs: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct S3 {
    bucket: String,
    key: String,
}

/// The record in `body`. Errors name what is missing, doubled or malformed.
pub(crate) fn parse(body: &str) -> Result<Parsed, Error> {
    let invalid = |text: String| Error::invalid(format!("record: {text}"));
    let envelope: Envelope = serde_json::from_str(body).map_err(|e| invalid(e.to_string()))?;
    let name = envelope.model.ok_or_else(|| invalid("\"model\" is missing".into()))?;
    let model = ModelRef {
        name: name.parse().map_err(|e| invalid(format!("{e}")))?,
        version: envelope
            .model_version
            .map(|v| v.parse())
            .transpose()
            .map_err(|e| invalid(format!("{e}")))?,
    };
    let payload = match (envelope.s3, envelope.inputs) {
        (Some(S3 { bucket, key }), None) => Payload::Object { bucket, key },
        (None, Some(_)) => {
            Payload::Tensors(InferRequest::parse(body.as_bytes(), None).map_err(|e| invalid(e.to_string()))?)
        }
        (Some(_), Some(_)) => {
            return Err(invalid("has both \"s3\" and \"inputs\", wanted one of them".into()));
        }
        (None, None) => return Err(invalid("has neither \"s3\" nor \"inputs\", wanted one of them".into())),
    };
    Ok(Parsed { model, payload })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_parse() {
        let parsed =
            parse(r#"{"model":"m","model_version":"3","s3":{"bucket":"b","key":"a b/ü.png"}}"#).unwrap();
        assert_eq!((parsed.model.name.as_str(), parsed.model.version.unwrap().as_str()), ("m", "3"));
        assert!(
            matches!(parsed.payload, Payload::Object { bucket, key } if bucket == "b" && key == "a b/ü.png")
        );
        let v2 = r#"{"model":"m","inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}"#;
        let Payload::Tensors(request) = parse(v2).unwrap().payload else { panic!("no tensors") };
        assert_eq!(request.inputs[0].tensor.shape(), [1, 2]);
    }

    #[test]
    fn a_bad_record_is_told_what_it_lacks() {
        for (body, text) in [
            ("not json", "record: expected"),
            ("{}", "\"model\" is missing"),
            (r#"{"model":"../x","inputs":[]}"#, "model name \"../x\""),
            (r#"{"model":"m"}"#, "neither \"s3\" nor \"inputs\""),
            (r#"{"model":"m","s3":{"bucket":"b","key":"k"},"inputs":[]}"#, "both \"s3\" and \"inputs\""),
            (r#"{"model":"m","s3":{"bucket":"b"}}"#, "missing field `key`"),
            (r#"{"model":"m","inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":[1]}]}"#, "\"x\""),
        ] {
            let e = parse(body).unwrap_err().to_string();
            assert!(e.contains(text), "{body}: {e}");
        }
    }
}
