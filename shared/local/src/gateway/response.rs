//! The function's answer -> HTTP response: payload format 2.0, its inferred form, and streams with their prelude.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde::Deserialize;
use serde_json::Value;

use crate::invoke::{Payload, Reply, StreamPayload};
use crate::net::{self, BoxError, HttpBody};

/// The content type of a stream that begins with a JSON prelude: status, headers, cookies, then eight zero bytes.
const WITH_PRELUDE: &str = "application/vnd.awslambda.http-integration-response";
const PRELUDE_END: [u8; 8] = [0; 8];
/// A prelude longer than this is not one.
const MAX_PRELUDE_BYTES: usize = 64 * 1024;

/// The head of an answer. Unknown fields are ignored, as API Gateway does.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    status_code: u16,
    #[serde(default)]
    headers: Option<BTreeMap<String, Field>>,
    #[serde(default)]
    cookies: Option<Vec<String>>,
}

/// The rest of a buffered answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    is_base64_encoded: Option<bool>,
}

/// A header's value: JSON scalars are taken as text; a list, which preludes may hold, becomes several headers.
#[derive(Deserialize)]
#[serde(untagged)]
enum Field {
    Text(String),
    List(Vec<String>),
    Other(Value),
}

/// The response, or `None` where API Gateway would answer with its own error: the function failed, or made no sense.
pub(crate) async fn from_reply(reply: Reply) -> Option<Response<HttpBody>> {
    match reply.outcome.ok()? {
        Payload::Buffered(bytes) => buffered(&bytes),
        Payload::Stream(stream) if stream.content_type == WITH_PRELUDE => with_prelude(stream).await,
        Payload::Stream(stream) => {
            let content_type = HeaderValue::try_from(&stream.content_type).ok()?;
            let mut response = Response::new(streamed(Bytes::new(), stream));
            response.headers_mut().insert(header::CONTENT_TYPE, content_type);
            Some(response)
        }
    }
}

fn buffered(payload: &[u8]) -> Option<Response<HttpBody>> {
    let value: Value = serde_json::from_slice(payload).ok()?;
    if value.get("statusCode").is_none() {
        return Some(inferred(value));
    }
    let content = Content::deserialize(&value).ok()?;
    let body = content.body.unwrap_or_default();
    let bytes = match content.is_base64_encoded {
        Some(true) => STANDARD.decode(body).ok()?,
        Some(false) | None => body.into_bytes(),
    };
    Head::deserialize(&value).ok()?.respond(net::full(bytes), "text/plain;charset=UTF-8")
}

/// Valid JSON without a status code is the body of a 200; a string is its own text.
fn inferred(value: Value) -> Response<HttpBody> {
    let body = match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    let mut response = Response::new(net::full(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

async fn with_prelude(mut stream: StreamPayload) -> Option<Response<HttpBody>> {
    let mut seen = BytesMut::new();
    let end = loop {
        if let Some(at) = seen.windows(PRELUDE_END.len()).position(|window| window == PRELUDE_END) {
            break at;
        }
        if seen.len() > MAX_PRELUDE_BYTES {
            return None;
        }
        seen.extend_from_slice(&stream.next().await?.ok()?);
    };
    let prelude = seen.split_to(end);
    let rest = seen.split_off(PRELUDE_END.len()).freeze();
    let head: Head = serde_json::from_slice(&prelude).ok()?;
    head.respond(streamed(rest, stream), "application/octet-stream")
}

/// A body that passes chunks on as they come; an error in mid-stream breaks the connection, so that nobody takes
/// the part for the whole.
fn streamed(first: Bytes, stream: StreamPayload) -> HttpBody {
    let chunks = stream::unfold((Some(first), stream), |(first, mut stream)| async move {
        let chunk = match first {
            Some(first) => Ok(first),
            None => {
                stream.next().await?.map_err(|error| BoxError::from(format!("function error: {error:?}")))
            }
        };
        Some((chunk.map(Frame::data), (None, stream)))
    });
    StreamBody::new(chunks).boxed_unsync()
}

impl Head {
    fn respond(self, body: HttpBody, default_content_type: &'static str) -> Option<Response<HttpBody>> {
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(self.status_code).ok().filter(|s| s.as_u16() >= 200)?;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(default_content_type));
        for (name, field) in self.headers.unwrap_or_default() {
            let name = HeaderName::try_from(name).ok()?;
            // The length and the framing are ours to tell.
            if name == header::CONTENT_LENGTH || name == header::TRANSFER_ENCODING {
                continue;
            }
            headers.remove(&name);
            for value in field.values() {
                headers.append(&name, HeaderValue::try_from(value).ok()?);
            }
        }
        for cookie in self.cookies.unwrap_or_default() {
            headers.append(header::SET_COOKIE, HeaderValue::try_from(cookie).ok()?);
        }
        Some(response)
    }
}

impl Field {
    fn values(self) -> Vec<String> {
        match self {
            Self::Text(text) => vec![text],
            Self::List(list) => list,
            Self::Other(value) => vec![value.to_string()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invoke::{Chunk, FunctionError};
    use std::time::Duration;
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    fn reply(payload: Payload) -> Reply {
        Reply { request_id: "r".into(), init: None, started: Instant::now(), outcome: Ok(payload) }
    }

    async fn respond(payload: &str) -> Option<(u16, Vec<(String, String)>, Bytes)> {
        parts(from_reply(reply(Payload::Buffered(payload.to_owned().into()))).await?).await
    }

    async fn parts(response: Response<HttpBody>) -> Option<(u16, Vec<(String, String)>, Bytes)> {
        let (head, body) = response.into_parts();
        let headers =
            head.headers.iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect();
        Some((head.status.as_u16(), headers, body.collect().await.ok()?.to_bytes()))
    }

    fn header(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[tokio::test]
    async fn a_full_answer_is_taken_word_for_word() {
        let payload = r#"{"statusCode":201,"headers":{"Content-Type":"text/csv","x-n":7},
            "cookies":["a=1; Path=/","b=2"],"body":"YSxi","isBase64Encoded":true}"#;
        let (status, headers, body) = respond(payload).await.unwrap();
        assert_eq!((status, &body[..]), (201, &b"a,b"[..]));
        for wanted in
            [("content-type", "text/csv"), ("x-n", "7"), ("set-cookie", "a=1; Path=/"), ("set-cookie", "b=2")]
        {
            assert!(headers.contains(&header(wanted.0, wanted.1)), "{wanted:?} is not in {headers:?}");
        }
    }

    #[tokio::test]
    async fn json_without_a_status_code_is_a_200() {
        for (payload, wanted) in
            [(r#""hello""#, "hello"), (r#"{"a":1}"#, r#"{"a":1}"#), ("[1,2]", "[1,2]"), ("null", "null")]
        {
            let (status, headers, body) = respond(payload).await.unwrap();
            assert_eq!((status, &body[..]), (200, wanted.as_bytes()));
            assert_eq!(headers, [header("content-type", "application/json")]);
        }
    }

    #[tokio::test]
    async fn nonsense_is_no_response() {
        for payload in [
            "",
            "not json",
            r#"{"statusCode":"200"}"#,
            r#"{"statusCode":99}"#,
            r#"{"statusCode":100}"#,
            r#"{"statusCode":70000}"#,
            r#"{"statusCode":200,"body":1}"#,
            r#"{"statusCode":200,"headers":{"bad name":"x"}}"#,
            r#"{"statusCode":200,"headers":{"x":"line\nbreak"}}"#,
            r#"{"statusCode":200,"cookies":"a=1"}"#,
            r#"{"statusCode":200,"body":"*","isBase64Encoded":true}"#,
        ] {
            assert!(respond(payload).await.is_none(), "{payload}");
        }
    }

    async fn stream(content_type: &str, chunks: Vec<Chunk>) -> Option<Response<HttpBody>> {
        let (give, take) = mpsc::channel(16);
        for chunk in chunks {
            give.send(chunk).await.unwrap();
        }
        drop(give);
        from_reply(reply(Payload::Stream(StreamPayload { content_type: content_type.into(), chunks: take })))
            .await
    }

    fn data(bytes: &'static [u8]) -> Chunk {
        Ok(Some(Bytes::from_static(bytes)))
    }

    #[tokio::test]
    async fn a_prelude_is_decoded_wherever_it_is_cut() {
        let chunks = vec![
            data(br#"{"statusCode":202,"headers":{"x-a":["1","2"]},"#),
            data(b"\"cookies\":[\"k=v\"]}\0\0\0"),
            data(b"\0\0\0\0\0he"),
            data(b"llo"),
            Ok(None),
        ];
        let (status, headers, body) = parts(stream(WITH_PRELUDE, chunks).await.unwrap()).await.unwrap();
        assert_eq!((status, &body[..]), (202, &b"hello"[..]));
        for wanted in [("x-a", "1"), ("x-a", "2"), ("set-cookie", "k=v")] {
            assert!(headers.contains(&header(wanted.0, wanted.1)), "{wanted:?} is not in {headers:?}");
        }
    }

    #[tokio::test]
    async fn a_stream_that_breaks_is_never_taken_for_whole() {
        let error = || FunctionError::timeout("r", Duration::from_secs(1));
        assert!(stream(WITH_PRELUDE, vec![data(b"{"), Err(error())]).await.is_none());
        assert!(stream(WITH_PRELUDE, vec![data(b"no prelude at all"), Ok(None)]).await.is_none());
        assert!(stream(WITH_PRELUDE, vec![data(&[b'x'; 70_000]), Ok(None)]).await.is_none());
        let begun = stream("text/plain", vec![data(b"part"), Err(error())]).await.unwrap();
        assert_eq!(begun.headers()["content-type"], "text/plain");
        assert!(parts(begun).await.is_none());
    }
}
