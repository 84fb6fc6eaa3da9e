//! What every store must do, as functions over the ports: each implementation's tests call them with their own store.
//!
//! A suite panics, with the key and the values, where a store breaks the contract. [`FaultyStore`] injects failures
//! in front of any store; [`sample_pack`] and [`coded_pack`] make packs to store.
#![allow(clippy::unwrap_used, reason = "a test suite: a panic is how it reports")]

mod faults;
mod models;
mod objects;
mod samples;

pub use faults::{Call, Fault, FaultyStore, Operation};
pub use models::models;
pub use objects::objects;
pub use samples::{coded_pack, sample_pack};
