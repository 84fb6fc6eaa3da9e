//! A small HTTP client for whoever runs a local cloud: one request, one answer.

use crate::error::LocalError;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::http::request::Builder;
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
    send(url, Request::post(url).header("content-type", content_type), body.into()).await
}

/// Asks for `url`, over a connection of its own. Errors: no legal URL; nobody answers.
pub async fn get(url: &str) -> Result<Reply, LocalError> {
    send(url, Request::get(url), Bytes::new()).await
}

async fn send(url: &str, request: Builder, body: Bytes) -> Result<Reply, LocalError> {
    let failed = |e: io::Error| LocalError::io(format!("request to {url}"), e);
    let request = request.body(Full::new(body)).map_err(|e| failed(io::Error::other(e)))?;
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(request).await.map_err(|e| failed(io::Error::other(e)))?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(|e| failed(io::Error::other(e)))?.to_bytes();
    Ok(Reply { status: parts.status, headers: parts.headers, body })
}
