//! From an answer or an error to the JSON that the event's source turns into an HTTP response.

use std::collections::BTreeMap;

use ::http::StatusCode;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Serialize;
use serde_json::{json, value::RawValue, value::to_raw_value};

use super::{Answer, event::Form};
use crate::{Error, ErrorKind, Invocation, Outcome, Timings};

/// What Lambda takes of a buffered response: 6 MiB and a hundred bytes. Load balancers take 1 MiB.
const LAMBDA_LIMIT: usize = 6 * 1024 * 1024 + 100;
const ALB_LIMIT: usize = 1024 * 1024;

type Headers = BTreeMap<&'static str, String>;

/// A response before it takes its form.
pub(crate) struct Reply {
    status: StatusCode,
    headers: Headers,
    body: Bytes,
    outcome: Option<Outcome>,
    error: Option<String>,
    common: Headers,
}

/// A response in its form, and what is told about it.
pub(crate) struct Encoded {
    pub(crate) status: StatusCode,
    pub(crate) json: Box<RawValue>,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) error: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    status_code: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<&'a Headers>,
    #[serde(skip_serializing_if = "Option::is_none")]
    multi_value_headers: Option<BTreeMap<&'static str, [&'a str; 1]>>,
    body: &'a str,
    is_base64_encoded: bool,
}

impl Reply {
    pub(crate) fn new(result: Result<Answer, Error>, invocation: &Invocation) -> Self {
        let common = Headers::from([
            ("x-request-id", invocation.request_id.clone()),
            ("x-glowplug-cold", invocation.cold.to_string()),
        ]);
        match result {
            Ok(answer) => Self::ok(answer, common),
            Err(error) => Self::error(&error, common),
        }
    }

    fn ok(answer: Answer, common: Headers) -> Self {
        let mut headers = common.clone();
        headers.insert("content-type", answer.content_type.into_owned());
        if let Some(length) = answer.json_length {
            headers.insert("inference-header-content-length", length.to_string());
        }
        if let Some(timing) = server_timing(&answer.outcome.timings) {
            headers.insert("server-timing", timing);
        }
        let outcome = answer.outcome.model.is_some().then_some(answer.outcome);
        Self { status: StatusCode::OK, headers, body: answer.body, outcome, error: None, common }
    }

    /// The protocol's error document.
    fn error(error: &Error, common: Headers) -> Self {
        let mut headers = common.clone();
        headers.insert("content-type", "application/json".into());
        headers.extend(error.header());
        let text = error.to_string();
        let body = json!({ "error": text }).to_string().into();
        Self { status: error.kind().status(), headers, body, outcome: None, error: Some(text), common }
    }

    /// The response in `form`. One that is too large for its way back becomes an error that says so.
    pub(crate) fn encode(self, form: Form) -> Encoded {
        let limit = if matches!(form, Form::Alb { .. }) { ALB_LIMIT } else { LAMBDA_LIMIT };
        let json = self.wire(form);
        let size = json.get().len();
        if size <= limit {
            return Encoded { status: self.status, json, outcome: self.outcome, error: self.error };
        }
        let text = format!(
            "answer takes {size} bytes, wanted at most {limit}: ask for fewer outputs or a smaller batch"
        );
        let small = Self::error(&Error::new(ErrorKind::Unprocessable, text), self.common);
        Encoded { json: small.wire(form), status: small.status, outcome: self.outcome, error: small.error }
    }

    fn wire(&self, form: Form) -> Box<RawValue> {
        let (body, is_base64_encoded) = self.body();
        let lists = form == Form::Alb { multi_value: true };
        let list = || self.headers.iter().map(|(name, value)| (*name, [value.as_str()])).collect();
        let description = || self.status.to_string();
        let wire = Wire {
            status_code: self.status.as_u16(),
            status_description: matches!(form, Form::Alb { .. }).then(description),
            headers: (!lists).then_some(&self.headers),
            multi_value_headers: lists.then(list),
            body: &body,
            is_base64_encoded,
        };
        to_raw_value(&wire).expect("strings, numbers and maps with text keys are always JSON")
    }

    /// Text as it is, all else as base64.
    fn body(&self) -> (std::borrow::Cow<'_, str>, bool) {
        let media = self.headers.get("content-type").map_or("", String::as_str);
        let textual = media.starts_with("text/") || media.starts_with("application/json");
        match std::str::from_utf8(&self.body) {
            Ok(text) if textual => (text.into(), false),
            _ => (STANDARD.encode(&self.body).into(), true),
        }
    }
}

/// The stages in the form of the `Server-Timing` header.
fn server_timing(timings: &Timings) -> Option<String> {
    let stages: Vec<_> = timings.iter().map(|(name, ms)| format!("{name};dur={ms:.3}")).collect();
    (!stages.is_empty()).then(|| stages.join(", "))
}

#[cfg(test)]
mod tests;
