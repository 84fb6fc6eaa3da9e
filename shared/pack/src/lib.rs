//! The vocabulary that every layer shares, and the pack: one file that holds one model, ready to run.
//!
//! Reading order: [`Dtype`] and [`Tensor`] are what models take and give; [`manifest`] is what a pack says
//! about itself; [`header`], [`weights`], [`encoding`], [`plan`] and [`portable`] are its structure; [`Pack`] reads and checks all of
//! it, [`PackBuilder`] writes it; a [`Region`] holds its bytes while they arrive. [`wire`] is the byte codec, [`entropy`] that
//! of chunks in fewer bits.
//!
//! This crate knows no tract, no AWS, no async and no files. Everything it reads is hostile until checked:
//! a bad pack gets a [`PackError`], never a panic, an out-of-bounds read or an allocation that its own
//! bytes do not justify. The byte-level specification is docs/format.md.
#![deny(missing_docs)]

mod dtype;
mod error;
mod tensor;

pub mod manifest;
pub mod wire;

mod build;
pub mod encoding;
pub mod entropy;
mod file;
pub mod header;
pub mod int8;
pub mod plan;
pub mod portable;
mod region;
pub mod weights;

pub use build::PackBuilder;
pub use dtype::{Dtype, UnknownDtype};
pub use encoding::{EncodedPanel, Encoding};
pub use error::{ErrorKind, PackError};
pub use file::Pack;
pub use header::{Header, Section, SectionKind};
pub use manifest::Manifest;
pub use region::{Buffer, Memory, Region};
pub use tensor::{DisplayShape, Tensor, TensorData, TensorError, element_count};
pub use weights::{Form, Place, Weight, WeightId};
