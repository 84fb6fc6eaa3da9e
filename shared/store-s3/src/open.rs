//! From an address to a store, as functions are wired.

use crate::options::S3Options;
use crate::store::S3Store;
use glowplug_store::{DirectoryStore, MemoryStore, ObjectStore, StoreError, StoreUri};
use std::sync::Arc;

/// The store at `uri`; S3 by the environment, as [`S3Options::from_env`] says. No IO.
///
/// # Errors
/// `Invalid`: an S3 address without a region in the environment.
pub fn open(uri: &StoreUri) -> Result<Arc<dyn ObjectStore>, StoreError> {
    Ok(match uri {
        StoreUri::Memory => Arc::new(MemoryStore::new()),
        StoreUri::Directory(path) => Arc::new(DirectoryStore::new(path)),
        StoreUri::S3 { bucket, prefix } => Arc::new(S3Store::connect(S3Options::from_env(bucket, prefix)?)?),
    })
}
