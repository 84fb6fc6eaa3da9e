//! The store's suites over HTTP against the embedded S3, which checks signatures; and what goes wrong on the way.
#![allow(clippy::unwrap_used, reason = "tests")]

mod faults;
mod suites;

use glowplug_local::{CloudSpec, LocalCloud};
use glowplug_store::Retry;
use glowplug_store_s3::{Roots, S3Credentials, S3Options, S3Store};
use std::sync::Arc;
use std::time::Duration;

/// An S3 with two empty buckets, `bucket` and `other`.
async fn cloud() -> LocalCloud {
    let spec = CloudSpec { buckets: vec!["bucket".to_owned(), "other".to_owned()], ..CloudSpec::default() };
    LocalCloud::start(spec, Arc::new(|_| ())).await.unwrap()
}

/// How to reach `bucket` behind `endpoint`. Impatient, so that tests of failures are short.
fn options(endpoint: &str, prefix: &str) -> S3Options {
    let retry =
        Retry { tries: 3, first_wait: Duration::from_millis(1), longest_wait: Duration::from_millis(5) };
    S3Options {
        bucket: "bucket".to_owned(),
        prefix: prefix.to_owned(),
        region: "us-east-1".to_owned(),
        endpoint: Some(endpoint.to_owned()),
        path_style: true,
        credentials: S3Credentials::fixed("local", "local-secret"),
        roots: Roots::System,
        connect_timeout: Duration::from_secs(1),
        attempt_timeout: Duration::from_secs(10),
        retry,
    }
}

fn store(cloud: &LocalCloud, prefix: &str) -> S3Store {
    S3Store::connect(options(&cloud.urls().s3, prefix)).unwrap()
}
