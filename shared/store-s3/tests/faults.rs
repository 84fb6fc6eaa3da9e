//! Failures of the network and of the server: the right bytes after all, or an error that tells what to do.

use crate::{cloud, options, store};
use glowplug_local::{Fault, FaultKind, LocalCloud};
use glowplug_store::StoreErrorKind::{self, *};
use glowplug_store::conformance::sample_pack;
use glowplug_store::{
    FetchOptions, FetchStats, ModelName, ModelStore, ObjectStore, OpenedPack, PackStore, Resolved, Retry,
    StoreError, Version,
};
use glowplug_store_s3::{S3Credentials, S3Store};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

fn inject(cloud: &LocalCloud, nth: u32, kind: FaultKind) {
    cloud.buckets().inject(Fault { key: None, nth, kind });
}

fn is(error: &StoreError, kind: StoreErrorKind, texts: &[&str]) {
    assert_eq!(error.kind(), kind, "{error}");
    for text in texts {
        assert!(error.to_string().contains(text), "{text:?} is not in: {error}");
    }
}

#[tokio::test]
async fn a_get_outlives_what_passes() {
    let cloud = cloud().await;
    let store = store(&cloud, "");
    store.put("key", vec![7; 100_000].into()).await.unwrap();
    for kind in [
        FaultKind::Status(503),
        FaultKind::Status(500),
        FaultKind::Status(429),
        FaultKind::ResetAfter(0),
        FaultKind::ResetAfter(50_000),
    ] {
        inject(&cloud, 1, kind);
        inject(&cloud, 2, kind);
        assert_eq!(store.get("key", None, None).await.unwrap().bytes, vec![7; 100_000], "{kind:?}");
    }
}

#[tokio::test]
async fn what_does_not_pass_is_told_at_once() {
    let cloud = cloud().await;
    let store = store(&cloud, "p");
    store.put("key", "x".into()).await.unwrap();
    for (status, kind) in [(403, Denied), (400, Other)] {
        inject(&cloud, 1, FaultKind::Status(status));
        let error = store.get("key", None, None).await.unwrap_err();
        is(&error, kind, &["s3://bucket/p/key", &status.to_string()]);
        assert!(!error.to_string().contains("tries"), "{error}");
    }
    is(&store.get("none", None, None).await.unwrap_err(), NotFound, &["s3://bucket/p/none", "NoSuchKey"]);
    let nowhere = store.with_bucket("nowhere", "").unwrap();
    is(&nowhere.get("key", None, None).await.unwrap_err(), NotFound, &["s3://nowhere/key", "NoSuchBucket"]);
    is(&nowhere.list("").await.unwrap_err(), NotFound, &["NoSuchBucket"]);
    is(&nowhere.put("key", "x".into()).await.unwrap_err(), NotFound, &["NoSuchBucket"]);
}

#[tokio::test]
async fn wrong_credentials_are_denied_and_not_printed() {
    let cloud = cloud().await;
    let mut options = options(&cloud.urls().s3, "");
    options.credentials = S3Credentials::fixed("local", "wrong-secret");
    let store = S3Store::connect(options).unwrap();
    let errors = [
        store.get("key", None, None).await.unwrap_err(),
        store.put("key", "x".into()).await.unwrap_err(),
        store.put_if_absent("key", "x".into()).await.unwrap_err(),
        store.list("").await.unwrap_err(),
    ];
    for error in errors {
        is(&error, Denied, &["s3://bucket/"]);
        assert!(!format!("{error} {error:?}").contains("wrong-secret"), "{error:?}");
    }
}

#[tokio::test]
async fn nobody_listening_is_unavailable_after_some_tries() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let store = S3Store::connect(options(&endpoint, "")).unwrap();
    is(&store.get("key", None, None).await.unwrap_err(), Unavailable, &["after 3 tries", "s3://bucket/key"]);
    is(&store.put("key", "x".into()).await.unwrap_err(), Unavailable, &["after 3 tries"]);
}

#[tokio::test]
async fn a_server_that_never_answers_is_a_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut options = options(&format!("http://{}", listener.local_addr().unwrap()), "");
    options.attempt_timeout = Duration::from_millis(100);
    options.retry = Retry { tries: 2, ..options.retry };
    let accept = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            kept.push(connection);
        }
    });
    let (store, started) = (S3Store::connect(options).unwrap(), Instant::now());
    is(&store.list("").await.unwrap_err(), Timeout, &["after 2 tries"]);
    is(&store.put("key", "x".into()).await.unwrap_err(), Timeout, &["after 2 tries"]);
    assert!(started.elapsed() < Duration::from_secs(60));
    accept.abort();
}

/// A pack of 3 MB under `m/1`, read in parts of two chunks.
async fn models(cloud: &LocalCloud) -> PackStore {
    let objects = Arc::new(store(cloud, ""));
    objects.put("m/1/model.glow", sample_pack("m", 3_000_000, 7)).await.unwrap();
    let retry =
        Retry { tries: 3, first_wait: Duration::from_millis(1), longest_wait: Duration::from_millis(5) };
    PackStore::new(objects).with_options(FetchOptions {
        first_bytes: 2 << 20,
        part_bytes: 600_000,
        parallel: 2,
        retry,
        ..FetchOptions::default()
    })
}

fn model() -> Resolved {
    Resolved::exact(ModelName::new("m").unwrap(), Version::new("1").unwrap())
}

async fn finished(opened: &OpenedPack) -> Result<FetchStats, StoreError> {
    tokio::time::timeout(Duration::from_secs(30), opened.fetch.finished()).await.unwrap()
}

#[tokio::test]
async fn a_transfer_outlives_broken_connections() {
    let cloud = cloud().await;
    let models = models(&cloud).await;
    // The first fault hits the front read, the others parts.
    for (nth, kind) in [
        (1, FaultKind::Status(503)),
        (2, FaultKind::ResetAfter(0)),
        (4, FaultKind::ResetAfter(300_000)),
        (5, FaultKind::Status(500)),
    ] {
        inject(&cloud, nth, kind);
    }
    let opened = models.get(&model()).await.unwrap();
    finished(&opened).await.unwrap();
    opened.pack.verify_content(&opened.region, Some(Instant::now())).unwrap();
}

#[tokio::test]
async fn a_wrong_byte_names_its_chunk_and_the_next_get_is_right() {
    let cloud = cloud().await;
    let models = models(&cloud).await;
    // Armed for one GET each, so that it hits the one whose range holds the byte, whichever that is.
    for nth in 1..=7 {
        inject(&cloud, nth, FaultKind::WrongByte(2_000_000));
    }
    let opened = models.get(&model()).await.unwrap();
    is(&finished(&opened).await.unwrap_err(), Corrupt, &["m/1/model.glow", "chunk "]);
    drop(opened);
    let right = async {
        // Faults that were not used up may still hit; they fire once each.
        for _ in 0..8 {
            let opened = models.get(&model()).await.unwrap();
            if finished(&opened).await.is_ok() {
                return opened;
            }
        }
        panic!("the faults never end");
    };
    let opened = right.await;
    opened.pack.verify_content(&opened.region, Some(Instant::now())).unwrap();
}

#[tokio::test]
async fn an_object_replaced_in_mid_transfer_has_changed() {
    let cloud = cloud().await;
    let models = models(&cloud).await;
    let opened = models.get(&model()).await.unwrap();
    // The runtime has one thread, so no part has been asked for yet.
    cloud.buckets().put("bucket", "m/1/model.glow", sample_pack("m", 3_000_000, 8)).unwrap();
    is(&finished(&opened).await.unwrap_err(), Changed, &["m/1/model.glow", "has changed"]);
    let opened = models.get(&model()).await.unwrap();
    finished(&opened).await.unwrap();
    opened.pack.verify_content(&opened.region, Some(Instant::now())).unwrap();
}
