//! From the plan in a pack to something that runs: the one place, beside the packer, that knows tract.
//!
//! Reading order: [`Plan`] is what a function uses: [`Plan::build`] picks the plan section that fits this
//! CPU ([`target`]) and turns its nodes into tract operators, [`Plan::run`] runs them; [`Plans`] holds a plan
//! for each shape. The operators are tract's own where those are public, and ours (the `ops` folder) where they are
//! private, where weights are read in place from the pack's [`Region`](glowplug_pack::Region), or where ours are
//! faster; their arithmetic is in `kernels`. `memory` is apart: the process's allocator.
//!
//! Nothing here imports, optimizes or quantizes a model, does IO or is async. A pack is hostile until
//! [`glowplug_pack::plan`] validated it; what remains is checked here: kernels that exist, panels that are
//! aligned, and, at every node, that what it gave is what the plan says.
#![deny(missing_docs)]

mod checked;
mod decode;
mod error;
mod expanded;
mod kernels;
mod laid_out;
mod memory;
mod ops;
mod panels;
mod plan;
mod planned;
mod plans;
mod portable;
mod profile;
mod share;
pub mod target;
mod team;
mod values;

pub use error::{EngineError, ErrorKind};
pub use kernels::int8::in_plain_code;
pub use memory::{Allocator, prepare_process};
pub use plan::{BuildOptions, Plan, Port, Source};
pub use plans::Plans;
pub use profile::{NodeTime, record};
pub use values::{datum_type, from_tract, to_tract};
