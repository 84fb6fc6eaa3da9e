//! Open Inference Protocol V2 documents: bytes <-> tensors and metadata.
//!
//! Only bodies are known here; paths, status codes and the header `Inference-Header-Content-Length`
//! belong to whoever speaks HTTP, and its value is a plain argument (`header_len`).
//! Source: <https://github.com/kserve/open-inference-protocol> and Triton's binary tensor data extension.
//!
//! Bytes are untrusted: nothing is allocated because a document claims a size, and whatever is
//! wrong is told with the tensor's name, what was found and what was wanted.

mod check;
mod elements;
mod metadata;
mod request;
mod response;
mod wire;

pub use check::check_inputs;
pub use metadata::{ModelMetadata, ServerMetadata, TensorMetadata};
pub use request::{InferRequest, RequestedOutput};
pub use response::InferResponse;
pub use wire::{Encoded, NamedTensor};

pub(crate) use elements::{Elements, first_not_finite, parse as parse_elements};
pub(crate) use wire::parse_json;
