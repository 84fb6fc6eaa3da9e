//! The HTTP gateway: what API Gateway's HTTP API does with a Lambda proxy integration, payload format 2.0.
//!
//! Request -> event (event.rs) -> the function bound to the longest matching prefix -> response (response.rs).
//! Every failure is a status code and API Gateway's own body; the client never sees why a function failed.

mod event;
mod response;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use serde_json::json;

use crate::clock;
use crate::error::{LocalError, LocalErrorKind};
use crate::net::{self, HttpBody, HttpResult, Limited, Listener, Server};
use crate::runtime_api::Function;

/// The largest request body that API Gateway takes, in bytes.
pub const MAX_BODY_BYTES: usize = 10 * 1024 * 1024;

/// One route: every path at or below `prefix` goes to `function`; the longest prefix wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// A path such as `/v2`, matched in whole segments; `/` matches everything.
    pub prefix: String,
    /// The name of the function.
    pub function: String,
}

impl Route {
    /// A route from its two parts.
    pub fn new(prefix: impl Into<String>, function: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), function: function.into() }
    }
}

/// A route with its function.
pub(crate) type Bound = (Route, Arc<Function>);

struct Gateway {
    routes: Vec<Bound>,
    timeout: Duration,
    account: String,
}

/// Serves the routes; `timeout` is API Gateway's patience with a function.
pub(crate) fn serve(
    listener: Listener,
    mut routes: Vec<Bound>,
    timeout: Duration,
    account: String,
) -> Server {
    routes.sort_by_key(|(route, _)| std::cmp::Reverse(route.prefix.trim_end_matches('/').len()));
    let gateway = Arc::new(Gateway { routes, timeout, account });
    net::serve(listener, move |peer| {
        let gateway = Arc::clone(&gateway);
        service_fn(move |request| {
            let gateway = Arc::clone(&gateway);
            async move { gateway.handle(peer, request).await }
        })
    })
}

impl Gateway {
    async fn handle(&self, peer: SocketAddr, request: Request<Incoming>) -> HttpResult {
        let Some(function) = self.function_for(request.uri().path()) else {
            return Ok(problem(StatusCode::NOT_FOUND, "Not Found"));
        };
        let (parts, body) = request.into_parts();
        Ok(match net::read(body, MAX_BODY_BYTES).await {
            Ok(Limited::Whole(body)) => {
                let trace_id = clock::trace_id();
                let event = event::from_request(&parts, &body, peer, &self.account, &trace_id);
                self.call(function, event, trace_id).await
            }
            Ok(Limited::TooLarge) => problem(StatusCode::PAYLOAD_TOO_LARGE, "Request Entity Too Large"),
            Err(_) => problem(StatusCode::BAD_REQUEST, "Bad Request"),
        })
    }

    fn function_for(&self, path: &str) -> Option<&Arc<Function>> {
        self.routes.iter().find(|(route, _)| covers(&route.prefix, path)).map(|(_, function)| function)
    }

    async fn call(&self, function: &Arc<Function>, event: String, trace_id: String) -> Response<HttpBody> {
        let answered = async {
            match function.begin(event.into(), trace_id).await {
                Ok(reply) => response::from_reply(reply).await.ok_or(StatusCode::BAD_GATEWAY),
                Err(error) => Err(refusal(&error)),
            }
        };
        match tokio::time::timeout(self.timeout, answered).await {
            Ok(Ok(response)) => response,
            Ok(Err(StatusCode::PAYLOAD_TOO_LARGE)) => {
                problem(StatusCode::PAYLOAD_TOO_LARGE, "Request Entity Too Large")
            }
            Ok(Err(status)) => problem(status, "Internal Server Error"),
            Err(_) => problem(StatusCode::GATEWAY_TIMEOUT, "Endpoint request timed out"),
        }
    }
}

fn refusal(error: &LocalError) -> StatusCode {
    match error.kind() {
        LocalErrorKind::Payload => StatusCode::PAYLOAD_TOO_LARGE,
        LocalErrorKind::Spec | LocalErrorKind::NotFound | LocalErrorKind::Io => StatusCode::BAD_GATEWAY,
    }
}

/// Whether a prefix covers a path: whole segments only, so that `/v2` is not a prefix of `/v20`.
fn covers(prefix: &str, path: &str) -> bool {
    let rest = path.strip_prefix(prefix.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn problem(status: StatusCode, message: &str) -> Response<HttpBody> {
    net::json(status, &json!({"message": message}))
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn prefixes_match_whole_segments() {
        for (prefix, path, wanted) in [
            ("/", "/", true),
            ("/", "/anything/at/all", true),
            ("/v2", "/v2", true),
            ("/v2", "/v2/models", true),
            ("/v2/", "/v2", true),
            ("/v2", "/v20", false),
            ("/v2/models", "/v2", false),
        ] {
            assert_eq!(covers(prefix, path), wanted, "{prefix} {path}");
        }
    }
}
