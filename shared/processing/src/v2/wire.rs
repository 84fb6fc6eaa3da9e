//! What requests and responses share: named tensors as JSON objects, and the bytes behind the JSON.

use super::elements::{self, Elements, first_not_finite};
use crate::error::{ErrorKind, ProcessingError, Result, quote};
use glowplug_pack::{Dtype, Tensor, element_count};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashSet;

/// A tensor and the name of the input or output it is.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// The ONNX name.
    pub name: String,
    /// Shape and elements.
    pub tensor: Tensor,
}

/// A document's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The JSON and, behind it, the binary tensors.
    pub body: Vec<u8>,
    /// Bytes of the JSON where binary tensors follow: the value of `Inference-Header-Content-Length`.
    /// `None`: the body is JSON alone.
    pub header_len: Option<usize>,
}

/// One element of `inputs` or `outputs` as it was sent. All fields are optional here, so that what is
/// missing can be told with the tensor's name.
#[derive(Deserialize)]
pub(super) struct WireTensor<'a> {
    name: Option<String>,
    shape: Option<Vec<i64>>,
    #[serde(borrow)]
    datatype: Option<Cow<'a, str>>,
    #[serde(default)]
    parameters: Option<WireParameters>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// The parameters of a tensor that mean something to us; others are ignored, as V2 asks.
#[derive(Default, Deserialize)]
struct WireParameters {
    binary_data_size: Option<u64>,
    shared_memory_region: Option<serde::de::IgnoredAny>,
}

/// The JSON part of `body` and the binary part behind it.
pub(super) fn split(body: &[u8], header_len: Option<usize>) -> Result<(&str, &[u8])> {
    let (json, binary) = match header_len {
        None => (body, &[][..]),
        Some(len) => body.split_at_checked(len).ok_or_else(|| {
            let found = body.len();
            ProcessingError::invalid(format!(
                "Inference-Header-Content-Length is {len}, expected at most the body's {found} bytes"
            ))
        })?,
    };
    if json.is_empty() {
        return Err(ProcessingError::invalid("the JSON part of the body is empty"));
    }
    let json = str::from_utf8(json).map_err(|e| {
        ProcessingError::invalid(format!(
            "the JSON part of the body is not UTF-8 at byte {}",
            e.valid_up_to()
        ))
    })?;
    Ok((json, binary))
}

/// What `read` makes of the document in `json`; `what` says what the text should have been.
///
/// Python writes bare `NaN`: where one made the parser fail, the document is read once more with such
/// words quoted, so that the error names the tensor instead of a column.
pub(crate) fn parse_json<T>(
    json: &str,
    what: &str,
    read: impl Fn(&str) -> serde_json::Result<Result<T>>,
) -> Result<T> {
    let error = match read(json) {
        Ok(result) => return result,
        Err(e) => e,
    };
    match elements::quote_not_finite(json).map(|text| read(&text)) {
        Some(Ok(Err(named))) => Err(named),
        _ => Err(ProcessingError::invalid(format!("the body is not {what}: {error}"))),
    }
}

/// The tensors of `list` in its order. `side` is "input" or "output". `binary` must be used up.
pub(super) fn read_tensors(
    side: &str,
    list: Vec<WireTensor<'_>>,
    mut binary: Option<&[u8]>,
) -> Result<Vec<NamedTensor>> {
    let mut tensors = Vec::with_capacity(list.len());
    let mut seen = HashSet::with_capacity(list.len());
    for (i, wire) in list.into_iter().enumerate() {
        let name = wire.name.clone().filter(|n| !n.is_empty());
        let name = name.ok_or_else(|| ProcessingError::invalid(format!("{side} {i} has no name")))?;
        let place = || format!("{side} {}", quote(&name));
        if !seen.insert(name.clone()) {
            return Err(ProcessingError::invalid(format!("{} is there twice, expected once", place())));
        }
        let tensor = wire.read(&mut binary).map_err(|e| e.within(place()))?;
        tensors.push(NamedTensor { name, tensor });
    }
    match binary {
        Some(rest) if !rest.is_empty() => Err(ProcessingError::invalid(format!(
            "{} bytes follow the last binary tensor, expected none",
            rest.len()
        ))),
        _ => Ok(tensors),
    }
}

impl WireTensor<'_> {
    /// Errors have no name yet.
    fn read(self, binary: &mut Option<&[u8]>) -> Result<Tensor> {
        let dtype = read_datatype(self.datatype.as_deref())?;
        let shape = read_shape(self.shape.as_deref())?;
        let parameters = self.parameters.unwrap_or_default();
        match (self.data, parameters.binary_data_size) {
            (Some(_), Some(_)) => Err(ProcessingError::invalid(
                "both data and binary_data_size are given, expected one of them",
            )),
            (Some(data), None) => {
                let data = elements::parse(data.get(), dtype, &shape)?;
                Tensor::new(shape, data).map_err(|e| ProcessingError::invalid(e.to_string()))
            }
            (None, Some(size)) => read_binary(dtype, shape, size, binary),
            (None, None) if parameters.shared_memory_region.is_some() => Err(ProcessingError::invalid(
                "shared memory is not supported: send data or binary tensor data",
            )),
            (None, None) => Err(ProcessingError::invalid("data is missing, and binary_data_size is too")),
        }
    }
}

fn read_datatype(datatype: Option<&str>) -> Result<Dtype> {
    let name = datatype.ok_or_else(|| ProcessingError::invalid("datatype is missing"))?;
    Dtype::from_v2_name(name).ok_or_else(|| {
        let known = Dtype::ALL.map(Dtype::v2_name).join(", ");
        let hint =
            if name == "BYTES" { " (no model here takes strings; send raw text to predict)" } else { "" };
        ProcessingError::invalid(format!("datatype is {}, expected one of {known}{hint}", quote(name)))
    })
}

/// A tensor of more axes than this is no model's; the bound keeps error texts short.
const MAX_RANK: usize = 16;

fn read_shape(shape: Option<&[i64]>) -> Result<Vec<usize>> {
    let shape = shape.ok_or_else(|| ProcessingError::invalid("shape is missing"))?;
    if shape.len() > MAX_RANK {
        let found = shape.len();
        return Err(ProcessingError::invalid(format!("shape has {found} axes, expected at most {MAX_RANK}")));
    }
    let extent = |d: &i64| {
        usize::try_from(*d)
            .map_err(|_| ProcessingError::invalid(format!("shape {shape:?} holds {d}, expected 0 or more")))
    };
    shape.iter().map(extent).collect()
}

/// Takes `size` bytes off the front of `binary`.
fn read_binary(dtype: Dtype, shape: Vec<usize>, size: u64, binary: &mut Option<&[u8]>) -> Result<Tensor> {
    let Some(rest) = binary else {
        let text = "binary_data_size is given, but no header Inference-Header-Content-Length";
        return Err(ProcessingError::invalid(text));
    };
    let wanted = element_count(&shape).and_then(|n| n.checked_mul(dtype.size()));
    if wanted.map(|n| n as u64) != Some(size) {
        let wanted = wanted.map_or_else(|| "more than this machine holds".into(), |n| n.to_string());
        return Err(ProcessingError::invalid(format!(
            "binary_data_size is {size}, expected {wanted} for {}{shape:?}",
            dtype.v2_name()
        )));
    }
    let taken = usize::try_from(size).ok().and_then(|n| rest.split_at_checked(n)).ok_or_else(|| {
        let found = rest.len();
        ProcessingError::invalid(format!(
            "binary_data_size is {size}, but only {found} bytes are left in the body"
        ))
    })?;
    *rest = taken.1;
    Tensor::from_le_bytes(dtype, shape, taken.0).map_err(|e| ProcessingError::invalid(e.to_string()))
}

/// One element of `inputs` or `outputs` as we send it.
#[derive(Serialize)]
pub(super) struct WireTensorOut<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [usize],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<SizeParameter>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Elements<'a>>,
}

#[derive(Serialize)]
struct SizeParameter {
    binary_data_size: usize,
}

impl<'a> WireTensorOut<'a> {
    /// `named` with its elements in the JSON, or behind it. Errors: NaN or infinity in JSON.
    pub(super) fn new(side: &str, named: &'a NamedTensor, is_binary: bool) -> Result<WireTensorOut<'a>> {
        let tensor = &named.tensor;
        if let (false, Some((index, found))) = (is_binary, first_not_finite(tensor.data())) {
            let name = quote(&named.name);
            let text = format!(
                "{side} {name}: element {index} is {found}, which JSON cannot hold: ask for binary tensor data"
            );
            return Err(ProcessingError::new(ErrorKind::NotRepresentable, text));
        }
        let size = || SizeParameter { binary_data_size: tensor.len() * tensor.dtype().size() };
        Ok(WireTensorOut {
            name: &named.name,
            datatype: tensor.dtype().v2_name(),
            shape: tensor.shape(),
            parameters: is_binary.then(size),
            data: (!is_binary).then_some(Elements(tensor.data())),
        })
    }
}

/// `document` as JSON, then the bytes of `binary` in its order.
pub(super) fn write<'a>(
    document: &impl Serialize,
    binary: impl Iterator<Item = &'a Tensor>,
) -> Result<Encoded> {
    let not_json = |e: serde_json::Error| {
        ProcessingError::new(ErrorKind::NotRepresentable, format!("the document cannot be JSON: {e}"))
    };
    let mut body = serde_json::to_vec(document).map_err(not_json)?;
    let json_len = body.len();
    let mut is_binary = false;
    for tensor in binary {
        is_binary = true;
        body.extend_from_slice(&tensor.to_le_bytes());
    }
    Ok(Encoded { body, header_len: is_binary.then_some(json_len) })
}
