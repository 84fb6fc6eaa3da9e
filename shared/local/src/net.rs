//! The small HTTP floor under all four servers: bind on loopback, serve, read a body within a limit.
//!
//! Every server of this crate is hyper's HTTP/1 over a loopback listener; stopping one is dropping it.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::error::LocalError;

/// Any error that a body can end with.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of every response that this crate makes itself.
pub(crate) type HttpBody = UnsyncBoxBody<Bytes, BoxError>;
/// What the handlers of this crate return: failures are responses, never errors.
pub(crate) type HttpResult = Result<Response<HttpBody>, Infallible>;

/// A bound listener and where it listens.
pub(crate) type Listener = (TcpListener, SocketAddr);

/// How much of a too large body is read and thrown away, so that the client gets to see the answer.
const DRAIN_BYTES: usize = 256 << 20;

/// A running server. Dropping it closes the listener and every connection.
pub(crate) struct Server(JoinHandle<()>);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A listener on 127.0.0.1, not yet served; port 0 takes a free one. `what` names it in the error.
pub(crate) async fn bind(port: u16, what: &str) -> Result<Listener, LocalError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
    let bound = listener.and_then(|listener| listener.local_addr().map(|address| (listener, address)));
    bound.map_err(|source| LocalError::io(format!("{what} cannot listen on 127.0.0.1:{port}"), source))
}

/// Serves a listener until the returned server is dropped; `service` makes one service per connection.
pub(crate) fn serve<M, S, B>((listener, _): Listener, service: M) -> Server
where
    M: Fn(SocketAddr) -> S + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => { connections.spawn(connection(stream, service(peer))); }
                    // Out of file handles, most likely: closing connections will free some.
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
    });
    Server(task)
}

async fn connection<S, B>(stream: TcpStream, service: S)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    // Small answers must not wait for Nagle; a failure only costs latency.
    let _ = stream.set_nodelay(true);
    if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "connection ended early");
    }
}

/// A body that was read under a limit.
pub(crate) enum Limited {
    /// All of it.
    Whole(Bytes),
    /// It was longer than the limit; its bytes are gone.
    TooLarge,
}

/// Reads a body of at most `limit` bytes. What is longer is drained, so that the client can read our answer.
pub(crate) async fn read(mut body: Incoming, limit: usize) -> Result<Limited, hyper::Error> {
    let (mut kept, mut seen) = (BytesMut::new(), 0_usize);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        seen = seen.saturating_add(data.len());
        if seen <= limit {
            kept.extend_from_slice(&data);
        } else {
            kept = BytesMut::new();
        }
        if seen > limit.saturating_add(DRAIN_BYTES) {
            break;
        }
    }
    Ok(if seen > limit { Limited::TooLarge } else { Limited::Whole(kept.freeze()) })
}

/// A body that is already here.
pub(crate) fn full(bytes: impl Into<Bytes>) -> HttpBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A JSON response.
pub(crate) fn json(status: StatusCode, value: &serde_json::Value) -> Response<HttpBody> {
    let mut response = Response::new(full(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}
