//! Every store of this crate passes the suites.

use glowplug_store::conformance::{self, FaultyStore};
use glowplug_store::{DirectoryStore, FetchOptions, MemoryStore, ObjectStore, PackStore};
use std::sync::Arc;

/// Parts of one chunk, so that small packs take many.
fn small_parts() -> FetchOptions {
    FetchOptions { part_bytes: 1, parallel: 3, ..FetchOptions::default() }
}

#[tokio::test]
async fn memory() {
    conformance::objects(&MemoryStore::new()).await;
    let objects: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new());
    conformance::models(&PackStore::new(objects.clone()), objects.as_ref()).await;
    let objects: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new());
    conformance::models(&PackStore::new(objects.clone()).with_options(small_parts()), objects.as_ref()).await;
}

#[tokio::test]
async fn directory() {
    let dir = tempfile::tempdir().unwrap();
    conformance::objects(&DirectoryStore::new(dir.path().join("objects"))).await;
    let objects: Arc<dyn ObjectStore> = Arc::new(DirectoryStore::new(dir.path().join("models")));
    conformance::models(&PackStore::new(objects.clone()), objects.as_ref()).await;
    let names = |dir| std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
    assert_eq!(names(dir.path()).len(), 2, "nothing was written outside of the roots");
}

/// A directory that does not offer its files: the streaming path over real files.
#[tokio::test]
async fn directory_without_maps() {
    let dir = tempfile::tempdir().unwrap();
    let objects: Arc<dyn ObjectStore> = Arc::new(DirectoryStore::new(dir.path()));
    let objects: Arc<dyn ObjectStore> = Arc::new(FaultyStore::new(objects, |_| None));
    conformance::models(&PackStore::new(objects.clone()).with_options(small_parts()), objects.as_ref()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_many_threads() {
    let dir = tempfile::tempdir().unwrap();
    conformance::objects(&DirectoryStore::new(dir.path())).await;
    let objects: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new());
    conformance::models(&PackStore::new(objects.clone()).with_options(small_parts()), objects.as_ref()).await;
}
