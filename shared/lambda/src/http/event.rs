//! HTTP as Lambda delivers it: three payload forms read by one lenient struct that holds only the fields we use.

use std::collections::HashMap;

use base64::{DecodeError, Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::{
    Error, ErrorKind,
    event::{self, Kind},
};

/// The form of a payload, which the answer has to share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// API Gateway HTTP APIs and function URLs.
    V2,
    /// API Gateway REST APIs, and HTTP APIs with payload format 1.0.
    V1,
    /// Load balancers; with several values per header, if the target group is set so.
    Alb {
        /// Headers are lists.
        multi_value: bool,
    },
}

/// A request as it arrived.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) form: Form,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) stage: Option<String>,
    headers: HashMap<String, String>,
    body: String,
    base64: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    raw_path: Option<String>,
    path: Option<String>,
    http_method: Option<String>,
    headers: Option<HashMap<String, Option<String>>>,
    multi_value_headers: Option<HashMap<String, Option<Vec<String>>>>,
    request_context: Context,
    body: Option<String>,
    is_base64_encoded: Option<bool>,
}

#[derive(Deserialize)]
struct Context {
    stage: Option<String>,
    http: Option<Http>,
    elb: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Http {
    method: String,
}

impl Incoming {
    /// Reads an event of any of the forms.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let event: Event = serde_json::from_str(text).map_err(|error| unwanted(text, &error.to_string()))?;
        let stage = event.request_context.stage;
        let multi_value = event.multi_value_headers.is_some();
        let (form, method, path) = match (event.request_context.http, event.request_context.elb) {
            (Some(http), _) => (Form::V2, Some(http.method), event.raw_path),
            (None, Some(_)) => (Form::Alb { multi_value }, event.http_method, event.path),
            (None, None) => (Form::V1, event.http_method, event.path),
        };
        let (Some(method), Some(path)) = (method, path) else {
            return Err(unwanted(text, "method or path is missing"));
        };
        Ok(Self {
            form,
            method: method.to_ascii_uppercase(),
            path,
            stage,
            headers: headers(
                event.headers.unwrap_or_default(),
                event.multi_value_headers.unwrap_or_default(),
            ),
            body: event.body.unwrap_or_default(),
            base64: event.is_base64_encoded.unwrap_or_default(),
        })
    }

    /// The header called `name`, which is given in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The body, at most `limit` bytes of it after base64: a longer one is refused before it is decoded.
    pub(crate) fn into_body(self, limit: usize) -> Result<Bytes, Error> {
        let padding = self.body.bytes().rev().take_while(|b| *b == b'=').count().min(2);
        let size =
            if self.base64 { (self.body.len() / 4 * 3).saturating_sub(padding) } else { self.body.len() };
        if size > limit {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!("body has {size} bytes, wanted at most {limit}"),
            ));
        }
        if !self.base64 {
            return Ok(self.body.into());
        }
        let bad =
            |error: DecodeError| Error::invalid(format!("body is marked as base64, but is not: {error}"));
        STANDARD.decode(self.body).map(Into::into).map_err(bad)
    }
}

/// The headers that we look at, by lower-case name. Of several values the last counts.
fn headers(
    single: HashMap<String, Option<String>>,
    multi: HashMap<String, Option<Vec<String>>>,
) -> HashMap<String, String> {
    let multi = multi.into_iter().filter_map(|(name, values)| Some((name, values?.pop()?)));
    let single = single.into_iter().filter_map(|(name, value)| Some((name, value?)));
    multi.chain(single).map(|(name, value)| (name.to_ascii_lowercase(), value)).collect()
}

/// Why `text` is not an HTTP event: what it is instead, or, if it means to be one, what is wrong with it.
fn unwanted(text: &str, problem: &str) -> Error {
    match event::parse(text).map(|event| Kind::of(&event)) {
        Ok(Kind::Http) => Error::invalid(format!("HTTP event is malformed: {problem}")),
        Ok(kind) => kind.unwanted("an HTTP request (API Gateway, function URL or load balancer)"),
        Err(error) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn post(body: &str, base64: bool) -> Incoming {
        let event = json!({
            "rawPath": "/v2", "requestContext": {"http": {"method": "POST"}}, "body": body, "isBase64Encoded": base64,
        });
        Incoming::parse(&event.to_string()).expect("an HTTP event")
    }

    #[test]
    fn bodies_are_decoded_within_the_limit() {
        let table = [
            ("", false, 0, Ok("")),
            ("abc", false, 3, Ok("abc")),
            ("abcd", false, 3, Err("body has 4 bytes, wanted at most 3")),
            ("YWJj", true, 3, Ok("abc")),
            ("YWI=", true, 2, Ok("ab")),
            ("YQ==", true, 1, Ok("a")),
            ("YWJj", true, 2, Err("body has 3 bytes, wanted at most 2")),
            ("YW!j", true, 9, Err("body is marked as base64, but is not: Invalid symbol 33, offset 2.")),
            ("=", true, 9, Err("body is marked as base64")),
        ];
        for (body, base64, limit, expected) in table {
            match (post(body, base64).into_body(limit), expected) {
                (Ok(bytes), Ok(text)) => assert_eq!(bytes, text.as_bytes()),
                (Err(error), Err(text)) => assert!(error.to_string().starts_with(text), "{error}"),
                (found, _) => panic!("{body:?} at {limit}: {found:?}, wanted {expected:?}"),
            }
        }
    }

    #[test]
    fn forms_are_told_apart() {
        let v1 = json!({"httpMethod": "get", "path": "/v2", "requestContext": {"stage": "prod"}});
        let single =
            json!({"httpMethod": "GET", "path": "/v2", "requestContext": {"elb": {}}, "headers": {}});
        let multi = json!({"httpMethod": "GET", "path": "/v2", "requestContext": {"elb": {}}, "multiValueHeaders": {}});
        let v2 =
            json!({"rawPath": "/v2", "requestContext": {"http": {"method": "GET"}, "stage": "$default"}});
        let table = [
            (v1, Form::V1),
            (single, Form::Alb { multi_value: false }),
            (multi, Form::Alb { multi_value: true }),
            (v2, Form::V2),
        ];
        for (event, form) in table {
            let incoming = Incoming::parse(&event.to_string()).expect("an HTTP event");
            assert_eq!(
                (incoming.form, incoming.method.as_str(), incoming.path.as_str()),
                (form, "GET", "/v2")
            );
        }
    }

    #[test]
    fn headers_have_no_case_and_may_be_null() {
        let event = json!({
            "httpMethod": "GET", "path": "/v2", "requestContext": {"elb": {}},
            "headers": {"X-One": "1", "x-null": null},
            "multiValueHeaders": {"X-Two": ["a", "b"], "x-none": null, "x-empty": []},
        });
        let incoming = Incoming::parse(&event.to_string()).expect("an HTTP event");
        let found = ["x-one", "x-two", "x-null", "x-none", "x-empty"].map(|name| incoming.header(name));
        assert_eq!(found, [Some("1"), Some("b"), None, None, None]);
    }

    #[test]
    fn other_events_are_named() {
        let table = [
            (
                r#"{"Records":[{"eventSource":"aws:s3"}]}"#,
                "event is an S3 notification, wanted an HTTP request",
            ),
            (r#"{"requestContext":{"stage":"x"}}"#, "HTTP event is malformed: method or path is missing"),
            (r#"{"requestContext":{"http":{}}}"#, "HTTP event is malformed: missing field `method`"),
            (r#"{"requestContext":7,"path":"/"}"#, "HTTP event is malformed: invalid type"),
            ("[]", "event is an array, wanted an HTTP request"),
            ("{", "event is not JSON: EOF"),
        ];
        for (event, text) in table {
            let error = Incoming::parse(event).expect_err(event);
            assert!(error.to_string().starts_with(text), "{error}");
        }
    }
}
