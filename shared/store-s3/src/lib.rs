//! The store's ports on Amazon S3, and on whatever speaks its protocol.
//!
//! [`S3Store`] is an [`ObjectStore`](glowplug_store::ObjectStore) over one bucket and prefix; models come with
//! `PackStore::new(Arc::new(s3_store))`. This crate is the only one that
//! names the AWS SDK, and none of the SDK's types are public.
//!
//! Made for a cold start: building a store does no IO, reads no file and makes no TLS configuration; what a
//! request needs is made by the first request. Credentials come from the environment or the container endpoint,
//! the two that Lambda has; the developer's chain is asked for by name.
#![deny(missing_docs)]

mod credentials;
mod options;

mod client;
mod error;
mod http;
mod store;

pub use credentials::S3Credentials;
pub use options::{Roots, S3Options};
pub use store::S3Store;
