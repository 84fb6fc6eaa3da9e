//! The Lambda Runtime API and the life cycle behind it: real function binaries as processes, one event at a time each.
//!
//! `Function` (pool.rs) queues events and starts environments while all are busy. One environment (environment.rs)
//! is one process (process.rs) with a Runtime API server of its own (server.rs): since nobody else knows that port,
//! a request on it needs no further proof of who is asking, and when the process dies, everything about it goes.

mod environment;
mod pool;
mod process;
mod server;
mod spec;

pub(crate) use pool::Function;
pub use process::{LogLine, LogSink, LogStream};
pub use spec::FunctionSpec;
pub(crate) use spec::Place;
