//! The local cloud from outside: real processes, real HTTP. The functions are this very binary, started again (child.rs).
#![allow(clippy::unwrap_used, clippy::print_stdout)] // In helpers, too, what cannot go on fails the test.

mod child;
mod gateway;
mod harness;
mod queue;
mod runtime;
mod s3;
