//! Where packs and objects live. Two ports and what implements them without a vendor.
//!
//! * [`ObjectStore`]: bytes under keys, as S3 has them. [`MemoryStore`], [`DirectoryStore`]; S3 is a crate of its own.
//! * [`ModelStore`]: models by name, version and alias. [`PackStore`] implements it over any `ObjectStore`.
//!
//! Reading order: the words ([`ModelName`], [`StoreError`], [`StoreUri`]), the ports, the stores, then how a pack
//! is opened (mapped, or fetched in parallel ranges and kept in a cache), and last the suite that every store must pass.
//!
//! ```
//! use glowplug_store::{MemoryStore, ObjectStore, PutOutcome};
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let store = MemoryStore::new();
//! assert_eq!(store.put_if_absent("a/b", "hello".into()).await?, PutOutcome::Created);
//! assert_eq!(store.get("a/b", Some(1..3), None).await?.bytes, "el");
//! # Ok::<(), glowplug_store::StoreError>(()) }).unwrap();
//! ```
#![deny(missing_docs)]

mod error;
mod names;
mod uri;

mod model;
pub mod object;

mod directory;
mod memory;

mod cache;
mod fetch;
mod first;
mod map;
mod open;
mod packs;
mod parts;
mod retry;
mod transfer;

pub mod conformance;

pub use cache::PackCache;
pub use directory::DirectoryStore;
pub use error::{StoreError, StoreErrorKind};
pub use fetch::{Admit, FetchGuard, FetchOptions, FetchStats, admit_all};
pub use memory::MemoryStore;
pub use model::{ModelEntry, ModelStore, OpenedPack, Published, Resolved};
pub use names::{AliasName, Digest, ModelName, Version, check_key};
pub use object::{ETag, Object, ObjectInfo, ObjectStore, PutOutcome, Sink};
pub use open::{open_bytes, open_file};
pub use packs::PackStore;
pub use retry::{Retry, with_retries};
pub use uri::StoreUri;
