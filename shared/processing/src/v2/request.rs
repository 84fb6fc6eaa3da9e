//! The infer request.

use super::response::InferResponse;
use super::wire::{Encoded, NamedTensor, WireTensor, WireTensorOut, parse_json, read_tensors, split, write};
use crate::error::{ProcessingError, Result, quote, quote_all};
use glowplug_pack::{Manifest, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// The body of `POST /v2/models/{model}/infer`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InferRequest {
    /// The caller's own name for the request, given back in the response.
    pub id: Option<String>,
    /// Tensors in the order they were sent, names unique.
    pub inputs: Vec<NamedTensor>,
    /// The outputs that are asked for, names unique; empty: all of them.
    pub outputs: Vec<RequestedOutput>,
    /// Whether an output that says nothing else comes as binary tensor data.
    pub binary_outputs: bool,
}

/// One output that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedOutput {
    /// The ONNX name.
    pub name: String,
    /// Whether it comes as binary tensor data; `None`: as the request's `binary_data_output` says.
    pub binary: Option<bool>,
}

#[derive(Deserialize)]
struct WireRequest<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(borrow)]
    inputs: Option<Vec<WireTensor<'a>>>,
    #[serde(default)]
    outputs: Option<Vec<WireOutput>>,
    #[serde(default)]
    parameters: Option<WireRequestParameters>,
}

#[derive(Deserialize)]
struct WireOutput {
    name: String,
    #[serde(default)]
    parameters: Option<WireOutputParameters>,
}

#[derive(Default, Deserialize)]
struct WireOutputParameters {
    binary_data: Option<bool>,
    classification: Option<serde::de::IgnoredAny>,
    shared_memory_region: Option<serde::de::IgnoredAny>,
}

#[derive(Default, Deserialize)]
struct WireRequestParameters {
    binary_data_output: Option<bool>,
}

impl InferRequest {
    /// The request in `body`; `header_len` is the value of `Inference-Header-Content-Length`, if it came.
    ///
    /// Element data is flat or nested as the shape. Fields and parameters that we do not know are ignored.
    /// Errors (`InvalidInput`): not JSON, a datatype outside `Dtype`, counts against shape, an element its
    /// datatype cannot hold, NaN, names twice, binary sizes that do not add up. No model is consulted:
    /// that is [`check_inputs`](super::check_inputs). Cost: reads `body` about twice, holds each element
    /// once; memory is bounded by a small multiple of `body`, whatever shapes it claims.
    ///
    /// ```
    /// use glowplug_processing::v2::InferRequest;
    /// let body = br#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[0.5,2]}]}"#;
    /// let request = InferRequest::parse(body, None)?;
    /// assert_eq!(request.inputs[0].tensor.as_f32().unwrap(), [0.5, 2.0]);
    ///
    /// let wrong = String::from_utf8_lossy(body).replace("FP32", "UINT8");
    /// let error = InferRequest::parse(wrong.as_bytes(), None).unwrap_err();
    /// assert_eq!(error.to_string(), r#"input "x": element 0 is 0.5, expected a whole number for UINT8"#);
    /// # Ok::<(), glowplug_processing::ProcessingError>(())
    /// ```
    pub fn parse(body: &[u8], header_len: Option<usize>) -> Result<InferRequest> {
        let (json, binary) = split(body, header_len)?;
        let binary = header_len.map(|_| binary);
        parse_json(json, "a V2 infer request", |text| {
            serde_json::from_str::<WireRequest<'_>>(text).map(|wire| wire.read(binary))
        })
    }

    /// The request as bytes, elements in JSON or, with `binary`, behind it.
    /// Errors (`NotRepresentable`): NaN or infinity in JSON. Copies every element.
    pub fn encode(&self, binary: bool) -> Result<Encoded> {
        let inputs = self.inputs.iter().map(|i| WireTensorOut::new("input", i, binary));
        let document = WireRequestOut {
            id: self.id.as_deref(),
            inputs: inputs.collect::<Result<_>>()?,
            outputs: self.outputs.iter().map(RequestedOutput::to_wire).collect(),
            parameters: self.binary_outputs.then_some(BinaryDataOutput { binary_data_output: true }),
        };
        write(&document, self.inputs.iter().filter(|_| binary).map(|i| &i.tensor))
    }

    /// Whether the output `name` comes as binary tensor data.
    #[must_use]
    pub fn wants_binary(&self, name: &str) -> bool {
        let own = self.outputs.iter().find(|o| o.name == name).and_then(|o| o.binary);
        own.unwrap_or(self.binary_outputs)
    }

    /// That the model has the outputs asked for, before it is run for them.
    /// Errors (`InvalidInput`): another name, with the names there are.
    pub fn check_outputs(&self, manifest: &Manifest) -> Result<()> {
        match self.outputs.iter().find(|o| !manifest.outputs.iter().any(|m| m.name == o.name)) {
            None => Ok(()),
            Some(unknown) => Err(ProcessingError::invalid(format!(
                "output {} is not the model's, expected one of {}",
                quote(&unknown.name),
                quote_all(manifest.outputs.iter().map(|o| o.name.as_str()))
            ))),
        }
    }

    /// The response to this request: `outputs` are the plan's results in the manifest's order, and those
    /// asked for are taken from them, without a copy. Errors: as [`InferRequest::check_outputs`]; another
    /// number of outputs than the manifest's (`BadManifest`).
    pub fn respond(
        &self,
        manifest: &Manifest,
        version: Option<&str>,
        outputs: Vec<Tensor>,
    ) -> Result<InferResponse> {
        self.check_outputs(manifest)?;
        if outputs.len() != manifest.outputs.len() {
            let (found, wanted) = (outputs.len(), manifest.outputs.len());
            return Err(ProcessingError::manifest(format!(
                "the plan gave {found} outputs, expected {wanted}"
            )));
        }
        let names = manifest.outputs.iter().map(|o| o.name.clone());
        let mut outputs: Vec<NamedTensor> =
            names.zip(outputs).map(|(name, tensor)| NamedTensor { name, tensor }).collect();
        if !self.outputs.is_empty() {
            let place = |name: &str| self.outputs.iter().position(|o| o.name == name);
            outputs.retain(|o| place(&o.name).is_some());
            outputs.sort_by_key(|o| place(&o.name));
        }
        Ok(InferResponse {
            model_name: manifest.model.name.clone(),
            model_version: version.map(str::to_owned),
            id: self.id.clone(),
            outputs,
        })
    }
}

impl WireRequest<'_> {
    fn read(self, binary: Option<&[u8]>) -> Result<InferRequest> {
        let inputs = self.inputs.ok_or_else(|| ProcessingError::invalid("the request has no inputs"))?;
        let outputs = self.outputs.unwrap_or_default();
        Ok(InferRequest {
            id: self.id,
            inputs: read_tensors("input", inputs, binary)?,
            outputs: read_outputs(outputs)?,
            binary_outputs: self.parameters.and_then(|p| p.binary_data_output).unwrap_or(false),
        })
    }
}

fn read_outputs(list: Vec<WireOutput>) -> Result<Vec<RequestedOutput>> {
    let mut seen = HashSet::with_capacity(list.len());
    let mut outputs = Vec::with_capacity(list.len());
    for WireOutput { name, parameters } in list {
        let refuse = |why: &str| Err(ProcessingError::invalid(format!("output {}: {why}", quote(&name))));
        let parameters = parameters.unwrap_or_default();
        if parameters.classification.is_some() {
            return refuse("classification is not supported: a pack's topk step answers predict");
        }
        if parameters.shared_memory_region.is_some() {
            return refuse("shared memory is not supported");
        }
        if !seen.insert(name.clone()) {
            return refuse("asked for twice, expected once");
        }
        outputs.push(RequestedOutput { name, binary: parameters.binary_data });
    }
    Ok(outputs)
}

#[derive(Serialize)]
struct WireRequestOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    inputs: Vec<WireTensorOut<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    outputs: Vec<WireOutputOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<BinaryDataOutput>,
}

#[derive(Serialize)]
struct WireOutputOut<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<BinaryData>,
}

#[derive(Serialize)]
struct BinaryData {
    binary_data: bool,
}

#[derive(Serialize)]
struct BinaryDataOutput {
    binary_data_output: bool,
}

impl RequestedOutput {
    fn to_wire(&self) -> WireOutputOut<'_> {
        WireOutputOut {
            name: &self.name,
            parameters: self.binary.map(|binary_data| BinaryData { binary_data }),
        }
    }
}
