//! Responses in each form, held against the types that Lambda documents.

use std::time::Duration;

use aws_lambda_events::{
    alb::AlbTargetGroupResponse,
    apigw::{ApiGatewayProxyResponse, ApiGatewayV2httpResponse},
};
use serde_json::Value;

use super::*;

const ALL: [Form; 4] =
    [Form::V1, Form::V2, Form::Alb { multi_value: false }, Form::Alb { multi_value: true }];

fn invocation() -> Invocation {
    Invocation { cold: true, ..Invocation::new("req-1", Duration::from_secs(1)) }
}

fn encode(result: Result<Answer, Error>, form: Form) -> (StatusCode, Value) {
    let encoded = Reply::new(result, &invocation()).encode(form);
    (encoded.status, serde_json::from_str(encoded.json.get()).expect("JSON"))
}

fn timed(body: &'static str) -> Answer {
    let timings = Timings { plan_ms: Some(0.91234), run_ms: Some(2.0), ..Timings::default() };
    Answer::json(body).with_outcome(Outcome { model: Some("m".into()), timings })
}

#[test]
fn an_answer_has_its_headers() {
    let (status, wire) = encode(Ok(timed(r#"{"outputs":[]}"#)), Form::V2);
    assert_eq!(status, StatusCode::OK);
    let expected = json!({
        "statusCode": 200,
        "headers": {
            "content-type": "application/json",
            "server-timing": "plan_ms;dur=0.912, run_ms;dur=2.000",
            "x-glowplug-cold": "true",
            "x-request-id": "req-1",
        },
        "body": "{\"outputs\":[]}",
        "isBase64Encoded": false,
    });
    assert_eq!(wire, expected);
}

#[test]
fn an_error_has_the_protocols_document_and_the_request_id() {
    let (status, wire) =
        encode(Err(Error::not_ready("model \"a\" is loading", Duration::from_secs(2))), Form::V2);
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(wire["body"], r#"{"error":"model \"a\" is loading"}"#);
    assert_eq!(wire["headers"]["retry-after"], "2");
    assert_eq!(wire["headers"]["x-request-id"], "req-1");
    assert_eq!(wire["headers"]["content-type"], "application/json");
}

#[test]
fn binary_answers_are_base64() {
    let answer = Answer {
        content_type: "application/octet-stream".into(),
        json_length: Some(2),
        ..Answer::json(&b"{}\x00\xff"[..])
    };
    let (_, wire) = encode(Ok(answer), Form::V2);
    assert_eq!((&wire["body"], &wire["isBase64Encoded"]), (&json!("e30A/w=="), &json!(true)));
    assert_eq!(wire["headers"]["inference-header-content-length"], "2");
}

#[test]
fn text_that_is_not_utf8_is_base64_too() {
    let (_, wire) = encode(Ok(Answer::json(&b"\xff"[..])), Form::V2);
    assert_eq!((&wire["body"], &wire["isBase64Encoded"]), (&json!("/w=="), &json!(true)));
}

#[test]
fn every_form_reads_as_its_documented_type() {
    for form in ALL {
        let (_, mut wire) = encode(Ok(timed("{}")), form);
        let (status, headers, lists) = match form {
            Form::V1 => {
                let typed: ApiGatewayProxyResponse = serde_json::from_value(wire).expect("v1");
                (typed.status_code, typed.headers, typed.multi_value_headers)
            }
            Form::V2 => {
                wire["cookies"] = json!([]); // optional in the service, not in the type
                let typed: ApiGatewayV2httpResponse = serde_json::from_value(wire).expect("v2");
                (typed.status_code, typed.headers, typed.multi_value_headers)
            }
            Form::Alb { .. } => {
                let typed: AlbTargetGroupResponse = serde_json::from_value(wire).expect("ALB");
                assert_eq!(typed.status_description.as_deref(), Some("200 OK"));
                (typed.status_code, typed.headers, typed.multi_value_headers)
            }
        };
        let (filled, empty) =
            if form == (Form::Alb { multi_value: true }) { (lists, headers) } else { (headers, lists) };
        assert_eq!(
            (status, filled["x-request-id"].as_bytes(), empty.len()),
            (200, &b"req-1"[..], 0),
            "{form:?}"
        );
    }
}

#[test]
fn an_answer_over_the_limit_is_an_error_that_says_so() {
    for (form, limit) in
        ALL.map(|form| (form, if matches!(form, Form::Alb { .. }) { ALB_LIMIT } else { LAMBDA_LIMIT }))
    {
        let (status, wire) = encode(Ok(Answer::json(vec![b'1'; limit])), form);
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{form:?}");
        let body = wire["body"].as_str().expect("text");
        assert!(body.contains(&format!("wanted at most {limit}")), "{body}");
        let (status, _) = encode(Ok(Answer::json(vec![b'1'; limit - 1000])), form);
        assert_eq!(status, StatusCode::OK, "{form:?}");
    }
}
