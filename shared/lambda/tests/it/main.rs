//! What the crate promises from outside: events through the servers, and whole processes against a runtime interface.

mod events;
mod process;
mod runtime_api;
mod support;
