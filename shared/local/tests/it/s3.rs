//! The local S3 over HTTP with real signatures, its faults, and its notifications.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use glowplug_local::{Fault, FaultKind, LocalCloud, Notification, QueueSpec, Shape, Target};
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::harness::{Output, S3Client, cloud, eventually, send};

async fn with_bucket() -> (LocalCloud, S3Client) {
    let (cloud, _) = cloud(|spec| spec.buckets = vec!["models".into()]).await;
    let client = S3Client::new(&cloud);
    (cloud, client)
}

#[tokio::test]
async fn objects_are_put_got_and_deleted() {
    let (_cloud, s3) = with_bucket().await;
    let put = s3
        .put("/models/a/b.glow", &[("content-type", "x/y"), ("x-amz-meta-kind", "digit")], "0123456789")
        .await;
    assert_eq!((put.status.as_u16(), put.header("etag")), (200, "\"781e5e245d69b566979b86e28d23f2c7\""));
    let got = s3.get("/models/a/b.glow", &[]).await.unwrap();
    assert_eq!(
        (got.status.as_u16(), got.text().as_str(), got.header("content-type")),
        (200, "0123456789", "x/y")
    );
    assert_eq!((got.header("etag"), got.header("x-amz-meta-kind")), (put.header("etag"), "digit"));
    let head = s3.call(Method::HEAD, "/models/a/b.glow", &[], "").await.unwrap();
    assert_eq!((head.status.as_u16(), head.header("content-length"), head.body.len()), (200, "10", 0));
    let deleted = s3.call(Method::DELETE, "/models/a/b.glow", &[], "").await.unwrap();
    assert_eq!(deleted.status, 204);
    for (path, code) in [("/models/a/b.glow", "NoSuchKey"), ("/nothing/k", "NoSuchBucket")] {
        let got = s3.get(path, &[]).await.unwrap();
        assert_eq!(got.status, 404);
        assert!(got.text().contains(&format!("<Code>{code}</Code>")), "{}", got.text());
    }
}

#[tokio::test]
async fn ranges_and_conditions_are_honoured() {
    let (_cloud, s3) = with_bucket().await;
    let tag = s3.put("/models/k", &[], "0123456789").await.header("etag").to_owned();
    let past = "Mon, 01 Jan 2001 00:00:00 GMT";
    let future = "Fri, 01 Jan 2100 00:00:00 GMT";
    let cases: [(&str, &str, u16, &str, &str); 15] = [
        ("range", "bytes=2-4", 206, "234", "bytes 2-4/10"),
        ("range", "bytes=7-", 206, "789", "bytes 7-9/10"),
        ("range", "bytes=8-99", 206, "89", "bytes 8-9/10"),
        ("range", "bytes=-3", 206, "789", "bytes 7-9/10"),
        ("range", "bytes=-99", 206, "0123456789", "bytes 0-9/10"),
        ("range", "bytes=10-", 416, "", ""),
        ("if-match", &tag, 200, "0123456789", ""),
        ("if-match", "*", 200, "0123456789", ""),
        ("if-match", "\"other\"", 412, "", ""),
        ("if-none-match", &tag, 304, "", ""),
        ("if-none-match", "\"other\"", 200, "0123456789", ""),
        ("if-modified-since", past, 200, "0123456789", ""),
        ("if-modified-since", future, 304, "", ""),
        ("if-unmodified-since", past, 412, "", ""),
        ("if-unmodified-since", future, 200, "0123456789", ""),
    ];
    for (name, value, status, body, content_range) in cases {
        let got = s3.get("/models/k", &[(name, value)]).await.unwrap();
        assert_eq!(
            (got.status.as_u16(), got.header("content-range")),
            (status, content_range),
            "{name}: {value}"
        );
        if status < 300 {
            assert_eq!((got.text().as_str(), got.header("etag")), (body, tag.as_str()), "{name}: {value}");
        }
        let head = s3.call(Method::HEAD, "/models/k", &[(name, value)], "").await.unwrap();
        if name != "range" {
            assert_eq!(head.status.as_u16(), status, "HEAD {name}: {value}");
        }
    }
    let empty = s3.put("/models/empty", &[], "").await;
    assert_eq!(empty.header("etag"), "\"d41d8cd98f00b204e9800998ecf8427e\"");
    assert_eq!(s3.get("/models/empty", &[]).await.unwrap().body.len(), 0);
    assert_eq!(s3.get("/models/empty", &[("range", "bytes=-5")]).await.unwrap().status, 416);
}

#[tokio::test]
async fn of_many_writers_that_want_to_be_first_one_is() {
    let (_cloud, s3) = with_bucket().await;
    let first = [("if-none-match", "*")];
    let writers = (0..20).map(|n| s3.put("/models/result.json", &first, format!("writer {n}")));
    let statuses: Vec<u16> =
        futures_util::future::join_all(writers).await.iter().map(|got| got.status.as_u16()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 412).count(), 19, "{statuses:?}");
    let tag = s3.get("/models/result.json", &[]).await.unwrap().header("etag").to_owned();
    assert_eq!(s3.put("/models/result.json", &[("if-match", &tag)], "next").await.status, 200);
    assert_eq!(s3.put("/models/result.json", &[("if-match", &tag)], "late").await.status, 412);
    assert_eq!(s3.put("/models/none", &[("if-match", &tag)], "").await.status, 404);
    assert_eq!(s3.put("/models/none", &[("if-none-match", "\"x\"")], "").await.status, 501);
}

#[tokio::test]
async fn signatures_and_digests_are_checked() {
    let (cloud, s3) = with_bucket().await;
    let wrong = S3Client { url: s3.url.clone(), secret: "wrong" };
    let got = wrong.get("/models/k", &[]).await.unwrap();
    assert_eq!(got.status, 403);
    assert!(got.text().contains("SignatureDoesNotMatch"), "{}", got.text());
    let unsigned = Request::get(format!("{}/models/k", cloud.urls().s3)).body(Full::default()).unwrap();
    assert_eq!(send(unsigned).await.unwrap().status, 403);
    for header in [("content-md5", "1B2M2Y8AsgTpgAmY7PhCfg=="), ("x-amz-checksum-crc32", "AAAAAA==")] {
        let got = s3.put("/models/k", &[header], "not empty").await;
        assert_eq!(got.status, 400, "{header:?}");
        assert!(got.text().contains("BadDigest"), "{}", got.text());
    }
    assert!(cloud.buckets().get("models", "k").is_err());
    // The CRC-32 of "123456789" is cbf43926.
    assert_eq!(s3.put("/models/k", &[("x-amz-checksum-crc32", "y/Q5Jg==")], "123456789").await.status, 200);
}

#[tokio::test]
async fn listing_pages_and_groups() {
    let (cloud, s3) = with_bucket().await;
    for key in ["a", "b/1", "b/2", "c d", "e"] {
        cloud.buckets().put("models", key, key.to_owned()).unwrap();
    }
    let list = async |query: &str| s3.get(&format!("/models?{query}"), &[]).await.unwrap().text();
    let first = list("delimiter=%2F&list-type=2&max-keys=2").await;
    assert!(first.contains("<Key>a</Key>") && first.contains("<Prefix>b/</Prefix>"), "{first}");
    assert!(
        first.contains("<IsTruncated>true</IsTruncated>") && !first.contains("<Key>c d</Key>"),
        "{first}"
    );
    let token = first.split("<NextContinuationToken>").nth(1).unwrap().split('<').next().unwrap();
    let second =
        list(&format!("continuation-token={token}&delimiter=%2F&encoding-type=url&list-type=2")).await;
    assert!(second.contains("<Key>c%20d</Key><") && second.contains("<Key>e</Key>"), "{second}");
    assert!(
        second.contains("<IsTruncated>false</IsTruncated>") && !second.contains("<Key>a</Key>"),
        "{second}"
    );
    assert!(list("list-type=2&prefix=b%2F").await.contains("<KeyCount>2</KeyCount>"));
    assert!(list("continuation-token=%21&list-type=2").await.contains("InvalidArgument"));
}

#[tokio::test]
async fn buckets_copies_and_multipart_uploads_work() {
    let (cloud, s3) = with_bucket().await;
    assert_eq!(s3.put("/fresh", &[], "").await.status, 200);
    assert_eq!(s3.put("/fresh", &[], "").await.status, 409);
    assert!(s3.get("/", &[]).await.unwrap().text().contains("<Name>fresh</Name>"));
    s3.put("/models/k", &[("content-type", "x/y")], "copy me").await;
    assert_eq!(s3.put("/fresh/copy", &[("x-amz-copy-source", "/models/k")], "").await.status, 200);
    let copy = cloud.buckets().get("fresh", "copy").unwrap();
    assert_eq!((&copy.bytes[..], copy.content_type.as_deref()), (&b"copy me"[..], Some("x/y")));

    let begun = s3.call(Method::POST, "/fresh/large?uploads=", &[], "").await.unwrap().text();
    let id = begun.split("<UploadId>").nth(1).unwrap().split('<').next().unwrap().to_owned();
    let mut tags = Vec::new();
    for (number, size) in [(1, 5 * 1024 * 1024), (2, 7)] {
        let part =
            s3.put(&format!("/fresh/large?partNumber={number}&uploadId={id}"), &[], vec![number; size]).await;
        tags.push(part.header("etag").to_owned());
    }
    let parts: String = (1..)
        .zip(&tags)
        .map(|(n, tag)| format!("<Part><PartNumber>{n}</PartNumber><ETag>{tag}</ETag></Part>"))
        .collect();
    let document = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
    let path = format!("/fresh/large?uploadId={id}");
    let done = s3.call(Method::POST, &path, &[], document.clone()).await.unwrap();
    assert_eq!(done.status, 200, "{}", done.text());
    let large = cloud.buckets().get("fresh", "large").unwrap();
    assert_eq!((large.bytes.len(), large.e_tag.ends_with("-2")), (5 * 1024 * 1024 + 7, true));
    assert_eq!(s3.call(Method::POST, &path, &[], document).await.unwrap().status, 404);
}

#[tokio::test]
async fn injected_faults_hit_the_get_they_name() {
    let (cloud, s3) = with_bucket().await;
    let body = "x".repeat(100_000);
    s3.put("/models/k", &[], body.clone()).await;
    let fault = |nth, kind| cloud.buckets().inject(Fault { key: Some("k".into()), nth, kind });
    fault(1, FaultKind::Status(503));
    fault(2, FaultKind::Status(403));
    fault(3, FaultKind::ResetAfter(50_000));
    fault(4, FaultKind::WrongByte(70_000));
    for wanted in [503, 403] {
        assert_eq!(s3.get("/models/k", &[]).await.unwrap().status.as_u16(), wanted);
    }
    assert!(s3.get("/models/k", &[]).await.is_err());
    let spoiled = s3.get("/models/k", &[("range", "bytes=60000-79999")]).await.unwrap();
    let wrong: Vec<usize> = (0..20_000).filter(|at| spoiled.body[*at] != b'x').collect();
    assert_eq!(wrong, [10_000]);
    assert_eq!(s3.get("/models/k", &[]).await.unwrap().text(), body);
}

#[tokio::test]
async fn a_shaped_link_is_slow_per_connection() {
    let (cloud, s3) = with_bucket().await;
    s3.put("/models/k", &[], vec![0; 200_000]).await;
    let first_byte = Duration::from_millis(100);
    cloud.buckets().set_shape(Shape {
        bytes_per_second: NonZeroU64::new(500_000),
        first_byte,
        ..Shape::default()
    });
    let started = Instant::now();
    let both = tokio::join!(s3.get("/models/k", &[]), s3.get("/models/k", &[]));
    let took = started.elapsed();
    assert_eq!((both.0.unwrap().body.len(), both.1.unwrap().body.len()), (200_000, 200_000));
    // 100 ms and then 400 ms each; at once, not one after the other.
    assert!(took >= Duration::from_millis(499), "{took:?}");
}

fn notify(id: &str, suffix: &str, target: Target) -> Notification {
    Notification {
        id: id.into(),
        bucket: "uploads".into(),
        prefix: "in/".into(),
        suffix: suffix.into(),
        target,
    }
}

async fn notified() -> (LocalCloud, S3Client, Output) {
    let (cloud, output) = cloud(|spec| {
        spec.buckets = vec!["uploads".into()];
        spec.retry_delay = Duration::from_millis(10);
        spec.queues = vec![QueueSpec::new("q")];
        let function = Target::Function("f".into());
        spec.notifications = vec![
            notify("pictures", ".png", function.clone()),
            notify("binaries", "crash.bin", function),
            notify("texts", ".txt", Target::Queue("q".into())),
        ];
        spec.notifications[1].prefix = String::new();
    })
    .await;
    let client = S3Client::new(&cloud);
    (cloud, client, output)
}

#[tokio::test]
async fn created_objects_are_told_to_a_function() {
    let (cloud, s3, output) = notified().await;
    let put = s3.put("/uploads/in/a%2Bb%20%C3%BC.png", &[], "picture").await;
    assert_eq!(put.status, 200, "{}", put.text());
    cloud.buckets().put("uploads", "out/no.png", "").unwrap();
    cloud.buckets().put("uploads", "in/second.png", "22").unwrap();
    eventually("two events are here", || output.events().len() == 2).await;
    let mut records: Vec<Value> = output.events().iter().map(|event| event["Records"][0].clone()).collect();
    records.sort_by_key(|record| record["s3"]["object"]["sequencer"].to_string());
    assert_eq!(records[0]["s3"]["object"]["key"], "in/a%2Bb+%C3%BC.png");
    assert_eq!(records[0]["s3"]["object"]["size"], 7);
    assert_eq!(records[0]["s3"]["configurationId"], "pictures");
    assert_eq!(records[0]["eventName"], "ObjectCreated:Put");
    assert_eq!(format!("\"{}\"", records[0]["s3"]["object"]["eTag"].as_str().unwrap()), put.header("etag"));
    assert_eq!(records[1]["s3"]["object"]["key"], "in/second.png");
    assert!(cloud.dropped_events().is_empty());
}

#[tokio::test]
async fn created_objects_are_told_to_a_queue() {
    let (cloud, s3, _) = notified().await;
    s3.put("/uploads/in/a.txt", &[], "text").await;
    let message = cloud.queue("q").unwrap().receive(1, Duration::from_secs(10), None).await.remove(0);
    let event: Value = serde_json::from_str(&message.body).unwrap();
    assert_eq!(event["Records"][0]["s3"]["object"]["key"], "in/a.txt");
}

#[tokio::test]
async fn an_event_that_fails_three_times_is_on_the_list_of_dropped_events() {
    let (cloud, s3, output) = notified().await;
    s3.put("/uploads/crash.bin", &[], "boom").await;
    eventually("the event is dropped", || !cloud.dropped_events().is_empty()).await;
    let dropped = cloud.dropped_events();
    assert_eq!((dropped.len(), dropped[0].target.as_str(), dropped[0].attempts), (1, "f", 3));
    assert!(dropped[0].reason.contains("Runtime.ExitError"), "{}", dropped[0].reason);
    let event: Value = serde_json::from_slice(&dropped[0].payload).unwrap();
    assert_eq!(event["Records"][0]["s3"]["object"]["key"], json!("crash.bin"));
    assert_eq!(output.events().len(), 3);
}
