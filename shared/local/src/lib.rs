//! The local cloud: everything that the functions need of AWS, on 127.0.0.1, without an account and without containers.
//!
//! It starts the *real* function binaries as processes and speaks to them what Lambda speaks. Read in this order:
//!
//! - `cloud`: [`CloudSpec`], one plain-data plan, and [`LocalCloud`], which runs it.
//! - `runtime_api`: the Lambda Runtime API and the life cycle of execution environments.
//! - `invoke`: what an invocation gives back, errors in Lambda's words.
//! - `gateway`: HTTP to API Gateway events of payload format 2.0, and back.
//! - `s3`: an embedded S3 with signatures, conditional writes, a shaped link, injected faults, and notifications.
//! - `queue`: an in-memory SQS with dead letters, and the event-source mapping with partial batch responses.
//! - `events`: asynchronous delivery with retries; nothing is lost without a trace.
//! - `client`: one request to any of these, for demos and tests.
//! - `net`, `clock`, `error`: the floor.
//!
//! It must never know the models: to it a function is a binary, and an event is bytes.

#![deny(missing_docs)]

mod client;
mod clock;
mod cloud;
mod error;
mod events;
mod gateway;
mod invoke;
mod net;
mod queue;
mod runtime_api;
mod s3;

pub use client::{Reply, get, post};
pub use cloud::{CloudSpec, LocalCloud, Urls};
pub use error::{LocalError, LocalErrorKind};
pub use events::DroppedEvent;
pub use gateway::{MAX_BODY_BYTES, Route};
pub use invoke::{
    FunctionError, FunctionErrorKind, InvokeResult, MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, MAX_STREAM_BYTES,
};
pub use queue::{DeadLetter, MappingSpec, Message, Queue, QueueSpec};
pub use runtime_api::{FunctionSpec, LogLine, LogSink, LogStream};
pub use s3::{Buckets, Fault, FaultKind, Notification, Object, Shape, Target};
