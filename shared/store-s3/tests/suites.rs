//! S3 passes the suites that memory and directory pass.

use crate::{cloud, store};
use glowplug_store::conformance;
use glowplug_store::{ObjectStore, PackStore};
use std::sync::Arc;

#[tokio::test]
async fn objects() {
    let cloud = cloud().await;
    conformance::objects(&store(&cloud, "")).await;
}

#[tokio::test]
async fn objects_under_a_prefix() {
    let cloud = cloud().await;
    conformance::objects(&store(&cloud, "some/prefix")).await;
    let keys = cloud.buckets().keys("bucket", "").unwrap();
    assert!(keys.iter().all(|key| key.starts_with("some/prefix/")), "{keys:?}");
}

#[tokio::test]
async fn models() {
    let cloud = cloud().await;
    let objects: Arc<dyn ObjectStore> = Arc::new(store(&cloud, "models"));
    conformance::models(&PackStore::new(objects.clone()), objects.as_ref()).await;
}

#[tokio::test]
async fn listings_have_many_pages() {
    let cloud = cloud().await;
    let wanted: Vec<String> = (0..2345).map(|i| format!("page/{i:05}")).collect();
    for key in &wanted {
        cloud.buckets().put("bucket", key, "x").unwrap();
    }
    assert_eq!(store(&cloud, "").list("page/").await.unwrap(), wanted);
    assert_eq!(store(&cloud, "page").list("0").await.unwrap().len(), 2345);
}

#[tokio::test]
async fn another_bucket_over_the_same_connections() {
    let cloud = cloud().await;
    let other = store(&cloud, "a").with_bucket("other", "b").unwrap();
    other.put("key", "x".into()).await.unwrap();
    assert_eq!(cloud.buckets().keys("other", "").unwrap(), ["b/key"]);
    assert!(cloud.buckets().keys("bucket", "").unwrap().is_empty());
    assert!(store(&cloud, "a").with_bucket("other/bucket", "").is_err());
}
