//! An SQS in memory: the queue itself (store.rs), the event-source mapping that feeds a function from it
//! (mapping.rs, event.rs), and the small JSON protocol for SQS clients (endpoint.rs).

mod endpoint;
mod event;
mod mapping;
mod store;

pub(crate) use endpoint::serve;
pub use mapping::MappingSpec;
pub(crate) use mapping::run;
pub use store::{DeadLetter, Message, Queue, QueueSpec};
