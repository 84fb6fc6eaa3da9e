//! An embedded S3: objects in memory (backend.rs) behind the real protocol (service.rs, on `s3s`), path style only.
//!
//! Signatures are checked against one fixed key pair. The link can be shaped and faults injected (shape.rs), and
//! created objects are announced as S3 announces them (notify.rs).

mod backend;
mod checks;
mod list;
mod multipart;
mod notify;
mod service;
mod shape;

use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};

use crate::net::{self, Listener, Server};

pub(crate) use backend::hex;
pub use backend::{Buckets, Object};
pub(crate) use notify::{Created, event};
pub use notify::{Notification, Target};
pub use shape::{Fault, FaultKind, Shape};

/// Serves buckets with signatures checked against one key pair.
pub(crate) fn serve(
    listener: Listener,
    buckets: Buckets,
    region: String,
    access_key: String,
    secret_key: String,
) -> Server {
    let mut builder = S3ServiceBuilder::new(service::Front { buckets, region });
    builder.set_auth(SimpleAuth::from_single(access_key, secret_key));
    let service: S3Service = builder.build();
    net::serve(listener, move |_| service.clone())
}
