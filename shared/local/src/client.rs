//! A small HTTP client for whoever runs a local cloud: one POST, one answer.

use crate::error::LocalError;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::io;

/// What came back.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Sends `body` to `url`, over a connection of its own. Errors: no legal URL; nobody answers.
pub async fn post(url: &str, content_type: &str, body: impl Into<Bytes>) -> Result<Reply, LocalError> {
    let failed = |e: io::Error| LocalError::io(format!("POST {url}"), e);
    let request = Request::post(url).header("content-type", content_type).body(Full::new(body.into()));
    let request = request.map_err(|e| failed(io::Error::other(e)))?;
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(request).await.map_err(|e| failed(io::Error::other(e)))?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(|e| failed(io::Error::other(e)))?.to_bytes();
    Ok(Reply { status: parts.status, headers: parts.headers, body })
}
