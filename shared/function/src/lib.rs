//! What the three functions share, so that each of them is wiring alone.
//!
//! [`open`] picks adapters by the configuration; [`edge`] is the one `match` from a prediction's error to
//! Lambda's; [`score`] turns one raw input or one V2 document into a stored result, idempotently.
//!
//! Level 4, just under `functions/*`: knows Lambda's ports and the predictor, no event and no tract.
#![deny(missing_docs)]

pub mod edge;
pub mod open;
pub mod score;

pub use edge::{lambda_error, outcome, store_error};
pub use glowplug_predict::prepare_process;
pub use open::{Buckets, Threads, model_ref, open_predictor, preload, results_store};
pub use score::{Input, Scored, Scorer};

/// The allocator of every function; `main` begins with [`prepare_process`].
#[global_allocator]
static ALLOCATOR: glowplug_predict::Allocator = glowplug_predict::Allocator;
