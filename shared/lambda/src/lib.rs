//! The Lambda adapter: everything that is true of AWS Lambda and of nothing else in Glowplug.
//!
//! A function binary brings the models, the stores and the pipelines; this crate brings the world around them:
//! configuration, events, routes, status codes, headers, deadlines, panics, metrics and logs. It imports no other
//! crate of the workspace and never sees a model.
//!
//! | module | what it owns |
//! |---|---|
//! | [`config`] | the environment, read once into plain data |
//! | [`telemetry`] | JSON logs and CloudWatch metrics (EMF) |
//! | [`http`] | API Gateway v1 and v2, function URLs and load balancers; the Open Inference Protocol's paths |
//! | [`objects`] | S3 notifications, EventBridge, and both inside SQS or SNS |
//! | [`queue`] | SQS batches with partial responses, FIFO order kept |
//!
//! Each of the last three has one port (a trait), one `serve`, and a `Server` that tests drive with an event and no AWS.
//!
//! ```no_run
//! use glowplug_lambda::{Error, Invocation, config::Role, http::{Answer, Inference, Request}};
//!
//! struct App;
//!
//! #[async_trait::async_trait]
//! impl Inference for App {
//!     async fn call(&self, request: Request, _: &Invocation) -> Result<Answer, Error> {
//!         match request {
//!             Request::ServerLive => Ok(Answer::json(r#"{"live":true}"#)),
//!             other => Err(Error::not_found(format!("nothing here for {other:?}"))),
//!         }
//!     }
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     glowplug_lambda::run(Role::Api, |config| async move {
//!         glowplug_lambda::http::serve(&config, App).await
//!     })
//! }
//! ```

pub mod config;
pub mod http;
pub mod objects;
pub mod queue;
pub mod telemetry;

mod error;
mod event;
mod guard;
mod host;
mod invocation;
mod name;
mod outcome;
mod sqs;

pub use error::{Error, ErrorKind};
pub use host::{BoxError, run};
pub use invocation::Invocation;
pub use outcome::{Outcome, Timings};
pub use sqs::BatchResponse;
