//! The two suites on the stores of this crate, and what a fetch does when things go wrong.

#![allow(clippy::unwrap_used, reason = "tests")]
mod cache;
mod fetch;
mod suites;
