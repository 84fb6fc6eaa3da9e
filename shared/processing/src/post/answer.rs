//! The answer as a value that serde prints.

use crate::v2::Elements;
use glowplug_pack::TensorData;
use serde::{Serialize, Serializer};
use std::sync::Arc;

/// What a model makes of a raw request.
///
/// ```json
/// {"outputs": [{"name": "logits", "topk": [{"label": "seven", "index": 7, "score": 0.99}]}]}
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// One per output of the model, in its order.
    pub outputs: Vec<OutputAnswer>,
}

/// One output. Which of the forms it takes is fixed per model, by its manifest and shape.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum OutputAnswer {
    /// With `topk`, where the axes before the last are all 1.
    TopK {
        /// The ONNX name.
        name: String,
        /// Best first; equal scores by index.
        topk: Vec<Scored>,
    },
    /// With `topk`, where there are several rows.
    TopKRows {
        /// The ONNX name.
        name: String,
        /// Per row of the last axis, row-major: best first; equal scores by index.
        topk: Vec<Vec<Scored>>,
    },
    /// Without `topk`: the tensor.
    Tensor {
        /// The ONNX name.
        name: String,
        /// V2's name of the dtype.
        datatype: &'static str,
        /// The extents, outermost first.
        shape: Vec<usize>,
        /// The elements, row-major; all finite.
        #[serde(serialize_with = "flat")]
        data: TensorData,
    },
}

/// One of the k largest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scored {
    /// The label of `index`, where the output has labels.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "text")]
    pub label: Option<Arc<str>>,
    /// The place in the last axis.
    pub index: usize,
    /// The value there, after the steps before `topk`.
    pub score: f32,
}

impl OutputAnswer {
    /// The tensor as it is.
    pub(super) fn tensor(name: String, shape: Vec<usize>, data: TensorData) -> OutputAnswer {
        OutputAnswer::Tensor { name, datatype: data.dtype().v2_name(), shape, data }
    }
}

fn flat<S: Serializer>(data: &TensorData, s: S) -> Result<S::Ok, S::Error> {
    Elements(data).serialize(s)
}

fn text<S: Serializer>(label: &Option<Arc<str>>, s: S) -> Result<S::Ok, S::Error> {
    label.as_deref().serialize(s)
}
