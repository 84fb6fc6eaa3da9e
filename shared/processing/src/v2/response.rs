//! The infer response.

use super::wire::{Encoded, NamedTensor, WireTensor, WireTensorOut, parse_json, read_tensors, split, write};
use crate::error::{ProcessingError, Result};
use serde::{Deserialize, Serialize};

/// The answer to an infer request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InferResponse {
    /// The model's name.
    pub model_name: String,
    /// Its version in the store, where it came from one.
    pub model_version: Option<String>,
    /// The request's `id`.
    pub id: Option<String>,
    /// The outputs asked for, in the order they were asked for.
    pub outputs: Vec<NamedTensor>,
}

#[derive(Deserialize)]
struct WireResponse<'a> {
    model_name: String,
    #[serde(default)]
    model_version: Option<String>,
    #[serde(default)]
    id: Option<String>,
    #[serde(borrow)]
    outputs: Option<Vec<WireTensor<'a>>>,
}

#[derive(Serialize)]
struct WireResponseOut<'a> {
    model_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    outputs: Vec<WireTensorOut<'a>>,
}

impl InferResponse {
    /// The response as bytes; an output goes behind the JSON where `is_binary(name)` says so
    /// ([`InferRequest::wants_binary`](super::InferRequest::wants_binary)), else into it: floats as the
    /// shortest decimal that reads back as the same value. Copies every element.
    /// Errors (`NotRepresentable`): NaN or infinity in an output that goes into the JSON.
    pub fn encode(&self, is_binary: impl Fn(&str) -> bool) -> Result<Encoded> {
        let outputs = self.outputs.iter().map(|o| WireTensorOut::new("output", o, is_binary(&o.name)));
        let document = WireResponseOut {
            model_name: &self.model_name,
            model_version: self.model_version.as_deref(),
            id: self.id.as_deref(),
            outputs: outputs.collect::<Result<_>>()?,
        };
        write(&document, self.outputs.iter().filter(|o| is_binary(&o.name)).map(|o| &o.tensor))
    }

    /// The response in `body`, for clients; `header_len` is the value of `Inference-Header-Content-Length`,
    /// if it came. As strict as [`InferRequest::parse`](super::InferRequest::parse), with its errors.
    pub fn parse(body: &[u8], header_len: Option<usize>) -> Result<InferResponse> {
        let (json, binary) = split(body, header_len)?;
        let binary = header_len.map(|_| binary);
        parse_json(json, "a V2 infer response", |text| {
            serde_json::from_str::<WireResponse<'_>>(text).map(|wire| wire.read(binary))
        })
    }
}

impl WireResponse<'_> {
    fn read(self, binary: Option<&[u8]>) -> Result<InferResponse> {
        let outputs = self.outputs.ok_or_else(|| ProcessingError::invalid("the response has no outputs"))?;
        Ok(InferResponse {
            model_name: self.model_name,
            model_version: self.model_version,
            id: self.id,
            outputs: read_tensors("output", outputs, binary)?,
        })
    }
}
