//! Server and model metadata.

use super::check::is_batch;
use glowplug_pack::Dtype;
use glowplug_pack::manifest::{Axis, Manifest};
use serde::{Deserialize, Serialize};

/// The answer to `GET /v2`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerMetadata {
    /// `glowplug`.
    pub name: String,
    /// This build's version.
    pub version: String,
    /// The protocol extensions that are spoken.
    pub extensions: Vec<String>,
}

impl ServerMetadata {
    /// This build's.
    #[must_use]
    pub fn of_this_build() -> ServerMetadata {
        ServerMetadata {
            name: "glowplug".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            extensions: vec!["binary_tensor_data".into()],
        }
    }
}

/// The answer to `GET /v2/models/{model}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelMetadata {
    /// The model's name.
    pub name: String,
    /// The versions that can be asked for; empty where the store keeps none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<String>,
    /// `glowplug_pack`: what kind of file serves it.
    pub platform: String,
    /// In the order of the graph's inputs.
    pub inputs: Vec<TensorMetadata>,
    /// In the order of the graph's outputs.
    pub outputs: Vec<TensorMetadata>,
}

/// Name, type and shape of one input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorMetadata {
    /// The ONNX name.
    pub name: String,
    /// V2's name of the dtype: `FP32`, `INT64`, ...
    pub datatype: String,
    /// The extents that are served; -1 for a batch axis, of which any number of rows can be sent.
    pub shape: Vec<i64>,
}

impl ModelMetadata {
    /// The metadata of `manifest`'s model, of which the store holds `versions`.
    #[must_use]
    pub fn new(manifest: &Manifest, versions: Vec<String>) -> ModelMetadata {
        ModelMetadata {
            name: manifest.model.name.clone(),
            versions,
            platform: "glowplug_pack".into(),
            inputs: manifest.inputs.iter().map(|i| tensor(&i.name, i.dtype, &i.axes)).collect(),
            outputs: manifest.outputs.iter().map(|o| tensor(&o.name, o.dtype, &o.axes)).collect(),
        }
    }
}

fn tensor(name: &str, dtype: Dtype, axes: &[Axis]) -> TensorMetadata {
    let extent = |(i, axis): (usize, &Axis)| match is_batch(i, axis) {
        true => -1,
        false => i64::try_from(axis.size).unwrap_or(i64::MAX),
    };
    let shape = axes.iter().enumerate().map(extent).collect();
    TensorMetadata { name: name.to_owned(), datatype: dtype.v2_name().to_owned(), shape }
}
