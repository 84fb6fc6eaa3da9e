//! Which bodies an endpoint reads, and the header of the binary tensor extension.

use super::event::Incoming;
use crate::{Error, ErrorKind, name::clip};

/// Tensors: JSON, or JSON with binary tensors behind it.
pub(crate) const INFER: &[&str] = &["application/json", "application/octet-stream"];

/// The raw thing, in whatever form the model's pipeline reads. A family ends in `/*`.
pub(crate) const PREDICT: &[&str] =
    &["image/*", "audio/*", "text/plain", "text/csv", "application/json", "application/octet-stream"];

/// The media type of the request, if the endpoint accepts it. None given is accepted: the handler looks at the bytes.
pub(crate) fn content_type(incoming: &Incoming, accepted: &[&str]) -> Result<Option<String>, Error> {
    if let Some(encoding) =
        incoming.header("content-encoding").filter(|text| !text.eq_ignore_ascii_case("identity"))
    {
        let text = format!("content-encoding is {:?}, wanted none", clip(encoding));
        return Err(Error::new(ErrorKind::UnsupportedMedia, text));
    }
    let Some(full) = incoming.header("content-type") else { return Ok(None) };
    let essence = full.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if accepted.iter().any(|pattern| matches(pattern, &essence)) {
        return Ok(Some(essence));
    }
    let text = format!("content-type is {:?}, wanted one of {}", clip(&essence), accepted.join(", "));
    Err(Error::new(ErrorKind::UnsupportedMedia, text))
}

fn matches(pattern: &str, essence: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(family) => essence.len() > family.len() && essence.starts_with(family),
        None => pattern == essence,
    }
}

/// How much of a body of `length` bytes is JSON.
pub(crate) fn json_length(text: &str, length: usize) -> Result<usize, Error> {
    let parsed = text.trim().parse().ok().filter(|n| *n <= length);
    let found = || format!("inference-header-content-length is {:?}, wanted 0..={length}", clip(text));
    parsed.ok_or_else(|| Error::invalid(found()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Map, json};

    fn incoming(headers: &[(&str, &str)]) -> Incoming {
        let headers: Map<_, _> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let event =
            json!({"rawPath": "/", "requestContext": {"http": {"method": "POST"}}, "headers": headers});
        Incoming::parse(&event.to_string()).expect("an HTTP event")
    }

    #[test]
    fn content_types() {
        let table = [
            (INFER, "application/json", Some("application/json")),
            (INFER, "Application/JSON; charset=utf-8", Some("application/json")),
            (INFER, "application/octet-stream", Some("application/octet-stream")),
            (INFER, "image/png", None),
            (INFER, "application/x-www-form-urlencoded", None),
            (PREDICT, "image/png", Some("image/png")),
            (PREDICT, "text/csv", Some("text/csv")),
            (PREDICT, "image/", None),
            (PREDICT, "multipart/form-data; boundary=x", None),
            (PREDICT, "", None),
        ];
        for (accepted, text, expected) in table {
            let found = content_type(&incoming(&[("Content-Type", text)]), accepted);
            match expected {
                Some(essence) => assert_eq!(found.expect(text).as_deref(), Some(essence)),
                None => assert_eq!(found.expect_err(text).kind(), ErrorKind::UnsupportedMedia),
            }
        }
        assert_eq!(content_type(&incoming(&[]), INFER).expect("none is fine"), None);
    }

    #[test]
    fn a_refusal_names_what_is_accepted() {
        let error = content_type(&incoming(&[("content-type", "text/html")]), INFER).expect_err("HTML");
        let text = "content-type is \"text/html\", wanted one of application/json, application/octet-stream";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn compressed_bodies_are_refused() {
        let error = content_type(&incoming(&[("content-encoding", "gzip")]), INFER).expect_err("gzip");
        assert_eq!(error.to_string(), "content-encoding is \"gzip\", wanted none");
        assert!(content_type(&incoming(&[("content-encoding", "identity")]), INFER).is_ok());
    }

    #[test]
    fn json_lengths() {
        for (text, expected) in
            [("0", Some(0)), (" 10 ", Some(10)), ("11", None), ("-1", None), ("x", None), ("", None)]
        {
            assert_eq!(json_length(text, 10).ok(), expected, "{text:?}");
        }
        let error = json_length("11", 10).expect_err("too long");
        assert_eq!(error.to_string(), "inference-header-content-length is \"11\", wanted 0..=10");
    }
}
