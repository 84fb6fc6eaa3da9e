//! The HTTP gateway in front of real processes.

use std::time::{Duration, Instant};

use bytes::Bytes;
use glowplug_local::{LocalCloud, MAX_BODY_BYTES, Route};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::harness::{Got, Output, cloud, function, send};

async fn gateway() -> (LocalCloud, Output) {
    cloud(|spec| {
        spec.functions[0].timeout = Duration::from_secs(20);
        spec.functions.push(function("g", "ordinary"));
        spec.gateway_timeout = Duration::from_secs(5);
        spec.routes = vec![Route::new("/", "f"), Route::new("/only/g", "g")];
    })
    .await
}

async fn call(cloud: &LocalCloud, method: &str, path: &str, body: impl Into<Bytes>) -> Got {
    let request = Request::builder().method(method).uri(format!("{}{path}", cloud.urls().gateway));
    send(request.body(Full::new(body.into())).unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_request_goes_through_and_back_whole() {
    let (cloud, _) = gateway().await;
    let body: Vec<u8> = (0..=255).collect();
    let request =
        Request::post(format!("{}/v2?q=1&q=2", cloud.urls().gateway)).header("content-type", "image/png");
    let request = request.header("cookie", "s=1").body(Full::new(body.clone().into())).unwrap();
    let got = send(request).await.unwrap();
    assert_eq!(
        (got.status.as_u16(), got.header("content-type"), &got.body[..]),
        (201, "image/png", &body[..])
    );
    assert_eq!(got.headers.get_all("set-cookie").iter().collect::<Vec<_>>(), ["a=1", "b=2"]);
    let told: serde_json::Value = serde_json::from_str(got.header("x-event")).unwrap();
    assert_eq!(told, json!({"method": "POST", "cookies": ["s=1"], "query": {"q": "1,2"}, "base64": true}));
}

#[tokio::test]
async fn json_without_a_status_is_a_200() {
    let (cloud, _) = gateway().await;
    let got = call(&cloud, "GET", "/any/path", "").await;
    assert_eq!((got.status.as_u16(), got.header("content-type")), (200, "application/json"));
    assert_eq!(got.json()["event"]["rawPath"], "/any/path");
}

#[tokio::test]
async fn the_longest_prefix_wins_and_other_paths_are_not_found() {
    let (cloud, output) = gateway().await;
    for (path, wanted) in [("/only/g/x", "g"), ("/only", "f"), ("/only/gg", "f")] {
        let before = output.events().len();
        call(&cloud, "GET", path, "").await;
        crate::harness::eventually("the event is told", || output.events().len() > before).await;
        let last = output.lines().into_iter().rfind(|line| line.text.starts_with("GOT ")).unwrap();
        assert_eq!(last.function, wanted, "{path}");
    }
    let (bare, _) = crate::harness::cloud(|spec| spec.routes = vec![Route::new("/v2", "f")]).await;
    let got = call(&bare, "GET", "/v3", "").await;
    assert_eq!((got.status.as_u16(), got.json()), (404, json!({"message": "Not Found"})));
}

#[tokio::test]
async fn every_failure_of_a_function_is_a_502() {
    let (cloud, _) = gateway().await;
    for path in ["/crash", "/exit", "/error", "/void"] {
        let got = call(&cloud, "GET", path, "").await;
        assert_eq!(
            (got.status.as_u16(), got.json()),
            (502, json!({"message": "Internal Server Error"})),
            "{path}"
        );
    }
    assert_eq!(call(&cloud, "GET", "/ok", "").await.status, 200);
}

#[tokio::test]
async fn patience_ends_in_a_504() {
    let (cloud, _) = cloud(|spec| {
        spec.gateway_timeout = Duration::from_millis(400);
        spec.routes = vec![Route::new("/", "f")];
    })
    .await;
    let started = Instant::now();
    let got = call(&cloud, "GET", "/hang", "").await;
    assert_eq!((got.status.as_u16(), got.json()), (504, json!({"message": "Endpoint request timed out"})));
    assert!((Duration::from_millis(400)..Duration::from_secs(8)).contains(&started.elapsed()));
    // The process that hangs is busy until its own deadline; another one serves the next request.
    assert_eq!(call(&cloud, "GET", "/ok", "").await.status, 200);
}

#[tokio::test]
async fn large_bodies_are_refused_with_an_answer() {
    let (cloud, _) = gateway().await;
    // Above API Gateway's limit, and below it but too large as a base64 event.
    for size in [MAX_BODY_BYTES + 1, 5 * 1024 * 1024] {
        let got = call(&cloud, "POST", "/v2", vec![0; size]).await;
        assert_eq!(
            (got.status.as_u16(), got.json()),
            (413, json!({"message": "Request Entity Too Large"})),
            "{size}"
        );
    }
    assert_eq!(call(&cloud, "POST", "/ok", vec![0; 4 * 1024 * 1024]).await.status, 200);
}

#[tokio::test]
async fn head_and_options_reach_the_function() {
    let (cloud, _) = gateway().await;
    for method in ["HEAD", "OPTIONS", "DELETE", "PATCH"] {
        let got = call(&cloud, method, "/v2", "").await;
        let told: serde_json::Value = serde_json::from_str(got.header("x-event")).unwrap();
        assert_eq!((got.status.as_u16(), &told["method"]), (201, &json!(method)));
    }
}

#[tokio::test]
async fn a_stream_is_passed_on_with_its_prelude_decoded() {
    let (cloud, _) = gateway().await;
    let got = call(&cloud, "GET", "/stream", "").await;
    assert_eq!(
        (got.status.as_u16(), got.header("x-streamed"), got.text().as_str()),
        (202, "yes", "first second")
    );
    assert_eq!(got.header("set-cookie"), "k=v");
    for path in ["/stream-error", "/stream-break"] {
        let request = Request::get(format!("{}{path}", cloud.urls().gateway)).body(Full::default()).unwrap();
        let broken = send(request).await;
        assert!(broken.is_err(), "{path}: a broken stream was taken for whole: {broken:?}");
    }
}

#[tokio::test]
async fn the_first_chunk_does_not_wait_for_the_last() {
    let (cloud, _) = gateway().await;
    let request =
        Request::get(format!("{}/stream-hang", cloud.urls().gateway)).body(Full::<Bytes>::default()).unwrap();
    // This stream goes on until the function is killed.
    let mut response = Client::builder(TokioExecutor::new()).build_http().request(request).await.unwrap();
    assert_eq!(response.status(), 202);
    let first = response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(first.starts_with(b"first "), "{first:?}");
}

#[tokio::test]
async fn a_caller_that_leaves_does_not_stop_the_function() {
    let (cloud, output) = cloud(|spec| {
        spec.functions[0].max_processes = 1;
        spec.routes = vec![Route::new("/", "f")];
    })
    .await;
    let pid = call(&cloud, "GET", "/ok", "").await.json()["pid"].clone();
    let left = tokio::time::timeout(Duration::from_millis(100), call(&cloud, "GET", "/stall", "")).await;
    assert!(left.is_err());
    assert_eq!(call(&cloud, "GET", "/ok", "").await.json()["pid"], pid);
    assert_eq!(output.events().len(), 3);
}

#[tokio::test]
async fn garbage_on_the_wire_stops_no_server() {
    let (cloud, _) = gateway().await;
    let urls = cloud.urls();
    for url in [&urls.gateway, &urls.s3, &urls.sqs] {
        for garbage in [
            &b"\0\xff\xfe not http\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
            b"POST /%ff%00 HTTP/1.1\r\nhost: \xff\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999\r\n\r\nshort",
        ] {
            let mut socket = tokio::net::TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
            socket.write_all(garbage).await.unwrap();
        }
        let request = Request::get(format!("{url}/ok")).body(Full::<Bytes>::default()).unwrap();
        let got = send(request).await.unwrap();
        assert!([200, 400, 403].contains(&got.status.as_u16()), "{url}: {got:?}");
    }
}
