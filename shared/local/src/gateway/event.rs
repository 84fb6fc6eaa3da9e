//! HTTP request -> payload format 2.0 event.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::request::Parts;
use http::{HeaderMap, header};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::clock;

/// The event for one request, as JSON text.
pub(crate) fn from_request(
    parts: &Parts,
    body: &[u8],
    peer: SocketAddr,
    account: &str,
    trace_id: &str,
) -> String {
    let query = parts.uri.query().unwrap_or_default();
    let (text, is_base64) = encode_body(&parts.headers, body);
    let mut event = json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": parts.uri.path(),
        "rawQueryString": query,
        "headers": headers(&parts.headers, peer, trace_id),
        "requestContext": request_context(parts, peer, account),
        "isBase64Encoded": is_base64,
    });
    let cookies = cookies(&parts.headers);
    let parameters = query_parameters(query);
    let optional = [
        ("cookies", (!cookies.is_empty()).then(|| json!(cookies))),
        ("queryStringParameters", (!parameters.is_empty()).then(|| json!(parameters))),
        ("body", text.map(Value::String)),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            event[name] = value;
        }
    }
    event.to_string()
}

fn request_context(parts: &Parts, peer: SocketAddr, account: &str) -> Value {
    let now = SystemTime::now();
    let host = text(&parts.headers, &header::HOST);
    let domain = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
    json!({
        "accountId": account,
        "apiId": "local",
        "domainName": domain,
        "domainPrefix": domain.split('.').next(),
        "http": {
            "method": parts.method.as_str(),
            "path": parts.uri.path(),
            "protocol": format!("{:?}", parts.version),
            "sourceIp": peer.ip().to_string(),
            "userAgent": text(&parts.headers, &header::USER_AGENT),
        },
        "requestId": clock::request_id(),
        "routeKey": "$default",
        "stage": "$default",
        "time": clock::common_log(now),
        "timeEpoch": clock::epoch_ms(now),
    })
}

/// Names are lower case already (the `http` crate sees to it); values of one name are joined with commas.
fn headers(headers: &HeaderMap, peer: SocketAddr, trace_id: &str) -> BTreeMap<String, String> {
    let mut joined = BTreeMap::new();
    for name in headers.keys().filter(|name| *name != header::COOKIE) {
        joined.insert(name.as_str().to_owned(), text(headers, name));
    }
    let forwarded = match joined.remove("x-forwarded-for") {
        Some(before) => format!("{before}, {}", peer.ip()),
        None => peer.ip().to_string(),
    };
    joined.insert("x-forwarded-for".to_owned(), forwarded);
    joined.insert("x-forwarded-proto".to_owned(), "http".to_owned());
    joined.insert("x-amzn-trace-id".to_owned(), trace_id.to_owned());
    joined
}

fn text(headers: &HeaderMap, name: &header::HeaderName) -> String {
    let values: Vec<_> =
        headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
    values.join(",")
}

fn cookies(headers: &HeaderMap) -> Vec<String> {
    let all: Vec<_> =
        headers.get_all(header::COOKIE).iter().map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
    let each = all.iter().flat_map(|line| line.split(';')).map(str::trim);
    each.filter(|cookie| !cookie.is_empty()).map(str::to_owned).collect()
}

/// Decoded parameters; those that come more than once are joined with commas.
fn query_parameters(query: &str) -> BTreeMap<String, String> {
    let mut parameters: BTreeMap<String, String> = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = form_decode(value);
        let joined = parameters.entry(form_decode(name));
        joined.and_modify(|before| *before = format!("{before},{value}")).or_insert(value);
    }
    parameters
}

fn form_decode(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

/// The body as text, and whether that text is base64. What is not declared as text, or is none, is base64.
fn encode_body(headers: &HeaderMap, body: &[u8]) -> (Option<String>, bool) {
    if body.is_empty() {
        return (None, false);
    }
    let plain = is_text(headers).then(|| std::str::from_utf8(body).ok()).flatten();
    match plain {
        Some(text) => (Some(text.to_owned()), false),
        None => (Some(STANDARD.encode(body)), true),
    }
}

fn is_text(headers: &HeaderMap) -> bool {
    let value = text(headers, &header::CONTENT_TYPE).to_ascii_lowercase();
    let essence = value.split(';').next().unwrap_or_default().trim();
    let by_name = matches!(essence, "application/json" | "application/xml" | "application/javascript");
    let textual =
        essence.starts_with("text/") || by_name || essence.ends_with("+json") || essence.ends_with("+xml");
    textual && !headers.contains_key(header::CONTENT_ENCODING)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn event(request: http::request::Builder, body: &[u8]) -> Value {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let peer = "127.0.0.1:5000".parse().unwrap();
        serde_json::from_str(&from_request(&parts, body, peer, "000000000000", "Root=1-x")).unwrap()
    }

    #[test]
    fn the_request_line_and_context_are_told() {
        let request = Request::post("/v2/a%20b?x=1&x=2&y=a+b%2B&flag").header("host", "api.local:9000");
        let event = event(request.header("user-agent", "curl/8"), b"");
        assert_eq!(event["version"], "2.0");
        assert_eq!(event["rawPath"], "/v2/a%20b");
        assert_eq!(event["rawQueryString"], "x=1&x=2&y=a+b%2B&flag");
        assert_eq!(event["queryStringParameters"], json!({"x": "1,2", "y": "a b+", "flag": ""}));
        let context = &event["requestContext"];
        assert_eq!(context["http"]["method"], "POST");
        assert_eq!(context["http"]["protocol"], "HTTP/1.1");
        assert_eq!(context["http"]["sourceIp"], "127.0.0.1");
        assert_eq!(context["http"]["userAgent"], "curl/8");
        assert_eq!(context["domainName"], "api.local");
        assert_eq!(context["domainPrefix"], "api");
        assert_eq!(context["stage"], "$default");
        assert!(context["timeEpoch"].as_u64().unwrap() > 1_600_000_000_000);
        assert!(event.get("body").is_none() && event.get("cookies").is_none());
    }

    #[test]
    fn headers_are_joined_and_cookies_are_apart() {
        let request =
            Request::get("/").header("Accept", "a").header("ACCEPT", "b").header("cookie", "k=1; l=2");
        let event = event(request.header("cookie", "m=3").header("x-forwarded-for", "10.0.0.1"), b"");
        assert_eq!(event["headers"]["accept"], "a,b");
        assert_eq!(event["cookies"], json!(["k=1", "l=2", "m=3"]));
        assert_eq!(event["headers"].get("cookie"), None);
        assert_eq!(event["headers"]["x-forwarded-for"], "10.0.0.1, 127.0.0.1");
        assert_eq!(event["headers"]["x-amzn-trace-id"], "Root=1-x");
    }

    #[test]
    fn only_declared_and_valid_text_goes_plain() {
        for (content_type, body, wanted, base64) in [
            ("application/json", &b"{}"[..], "{}", false),
            ("Application/JSON; charset=utf-8", b"{}", "{}", false),
            ("text/csv", b"a,b", "a,b", false),
            ("application/problem+json", b"{}", "{}", false),
            ("application/octet-stream", b"ab", "YWI=", true),
            ("image/png", b"\x89P", "iVA=", true),
            ("application/json", b"\xff", "/w==", true),
            ("", b"ab", "YWI=", true),
        ] {
            let event = event(Request::post("/").header("content-type", content_type), body);
            assert_eq!(
                (&event["body"], &event["isBase64Encoded"]),
                (&json!(wanted), &json!(base64)),
                "{content_type}"
            );
        }
        let zipped =
            Request::post("/").header("content-type", "text/plain").header("content-encoding", "gzip");
        assert_eq!(event(zipped, b"ab")["isBase64Encoded"], true);
    }
}
