//! The manifest: what a pack is and what it takes and gives, as data.
//!
//! Stored as one JSON section, so that `inspect` and other languages can read it. Whoever writes a pack
//! fills it; `processing` interprets the pipelines; `predict` serves the rest as V2 metadata.

mod steps;

use crate::dtype::Dtype;
use crate::error::{ErrorKind, PackError};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

pub use steps::{Channels, Layout, PostStep, ResizeMode, Step, TokenField};

/// Everything a pack says about itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Name and licence.
    pub model: ModelInfo,
    /// The graph's inputs, in the order of `Plan::run`'s arguments.
    pub inputs: Vec<InputSpec>,
    /// The graph's outputs, in the order of `Plan::run`'s results.
    pub outputs: Vec<OutputSpec>,
    /// Shapes of all inputs, in order, for each that there is a plan for; the first is that of `inputs`. Empty
    /// where there is only that one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buckets: Vec<Vec<Vec<usize>>>,
    /// Files that travel with the model (labels, a tokenizer), by name.
    #[serde(default)]
    pub assets: BTreeMap<String, AssetRange>,
    /// Where the pack came from and how it was made.
    #[serde(default)]
    pub provenance: Provenance,
}

/// `[model]` of M.toml.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelInfo {
    /// The model's name; also its default name in a store.
    pub name: String,
    /// SPDX expression of the weights' licence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
}

/// One named axis of an input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Axis {
    /// The axis' name, from M.toml or the ONNX file's symbol; positional (`d0`) where neither names it.
    pub name: String,
    /// Its extent in the tuned plan.
    pub size: usize,
    /// Whether the ONNX file leaves it open (a symbol) and the packer pinned it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub symbolic: bool,
}

/// One input of the graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputSpec {
    /// The ONNX name.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Axes, outermost first.
    pub axes: Vec<Axis>,
    /// How a raw request becomes this tensor; empty where only tensors are accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pipeline: Vec<Step>,
    /// What open axes may be filled up with to reach an extent that there is a plan for, the batch aside. To be
    /// given where it changes no answer, because a mask says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad: Option<i64>,
}

/// One output of the graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutputSpec {
    /// The ONNX name.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Axes, outermost first.
    pub axes: Vec<Axis>,
    /// How this tensor becomes an answer; empty where it is given as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub post: Vec<PostStep>,
    /// The asset with one label a line, for `topk`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
}

impl InputSpec {
    /// The extents in the tuned plan.
    #[must_use]
    pub fn shape(&self) -> Vec<usize> {
        self.axes.iter().map(|a| a.size).collect()
    }
}

impl OutputSpec {
    /// The extents in the tuned plan.
    #[must_use]
    pub fn shape(&self) -> Vec<usize> {
        self.axes.iter().map(|a| a.size).collect()
    }
}

/// Where an asset lies: bytes `offset..offset + len` of the assets section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "told by the type's own line")]
pub struct AssetRange {
    pub offset: u64,
    pub len: u64,
}

/// Where a pack came from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// `blake3:<hex>` of the ONNX file.
    pub source_digest: String,
    /// The tract version whose optimizer made the plans.
    pub tract: String,
    /// The packer's own version.
    pub packer: String,
    /// Options of the packing, as given.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// The packer's own check: largest error relative to the largest output, by output name.
    #[serde(default)]
    pub max_relative_error: BTreeMap<String, f64>,
    /// Plans that this host could not execute, by target.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unexecuted: Vec<String>,
}

/// Under which of [`Provenance::options`] stands how many rows an input of integers chooses from.
#[must_use]
pub fn option_of_rows(input: &str) -> String {
    format!("rows of {input}")
}

impl Manifest {
    /// The manifest of a section's bytes. Errors: not JSON, a missing or unknown field, a repeated name.
    pub fn from_json(bytes: &[u8]) -> Result<Manifest, PackError> {
        let manifest: Manifest = serde_json::from_slice(bytes)
            .map_err(|e| PackError::new(ErrorKind::Corrupt, format!("manifest: {e}")))?;
        manifest.validate()?;
        Ok(manifest)
    }

    /// The section's bytes.
    pub fn to_json(&self) -> Result<Vec<u8>, PackError> {
        self.validate()?;
        serde_json::to_vec(self).map_err(|e| PackError::new(ErrorKind::Invalid, format!("manifest: {e}")))
    }

    /// What serde cannot see: names unique and not empty, assets that exist, shapes that can be held.
    fn validate(&self) -> Result<(), PackError> {
        if self.model.name.is_empty() {
            return Err(PackError::corrupt("manifest: the model has no name"));
        }
        validate_side("input", self.inputs.iter().map(|i| (&i.name, i.dtype, i.shape())))?;
        validate_side("output", self.outputs.iter().map(|o| (&o.name, o.dtype, o.shape())))?;
        self.validate_buckets()?;
        match self.asset_names().find(|name| !self.assets.contains_key(*name)) {
            Some(name) => Err(PackError::corrupt(format!("manifest: {name:?} is not among the assets"))),
            None => Ok(()),
        }
    }

    /// Each bucket is a shape for every input that differs from the input's own along open axes only.
    fn validate_buckets(&self) -> Result<(), PackError> {
        let fits = |(input, shape): (&InputSpec, &Vec<usize>)| {
            input.axes.len() == shape.len()
                && input.axes.iter().zip(shape).all(|(a, n)| a.size == *n || (a.symbolic && *n > 0))
        };
        for (i, bucket) in self.buckets.iter().enumerate() {
            if bucket.len() != self.inputs.len() || !self.inputs.iter().zip(bucket).all(fits) {
                let text = format!("manifest: bucket {i} is {bucket:?}, which the inputs cannot be");
                return Err(PackError::corrupt(text));
            }
        }
        Ok(())
    }

    /// The assets that steps and outputs refer to: tokenizers and labels. With repeats.
    fn asset_names(&self) -> impl Iterator<Item = &str> {
        let steps = self.inputs.iter().flat_map(|i| &i.pipeline);
        let tokenizers = steps.filter_map(|s| match s {
            Step::Tokenize { tokenizer, .. } => Some(tokenizer.as_str()),
            _ => None,
        });
        tokenizers.chain(self.outputs.iter().filter_map(|o| o.labels.as_deref()))
    }
}

/// The tensors of one side: unique names, byte counts that an address space can hold.
fn validate_side<'a>(
    side: &str,
    tensors: impl Iterator<Item = (&'a String, Dtype, Vec<usize>)>,
) -> Result<(), PackError> {
    let mut seen = BTreeSet::new();
    for (i, (name, dtype, shape)) in tensors.enumerate() {
        if name.is_empty() || !seen.insert(name) {
            let text = format!("manifest: {side} {i} has the name {name:?}, expected a unique one");
            return Err(PackError::corrupt(text));
        }
        let bytes = crate::element_count(&shape).and_then(|n| n.checked_mul(dtype.size()));
        if bytes.is_none_or(|b| isize::try_from(b).is_err()) {
            return Err(PackError::corrupt(format!(
                "manifest: {side} {name:?} has the shape {shape:?}, too large"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_that_names_a_tensor_twice_is_refused() {
        let input =
            InputSpec { name: "x".into(), dtype: Dtype::F32, axes: vec![], pipeline: vec![], pad: None };
        let model = ModelInfo { name: "m".into(), licence: None };
        let m = Manifest { model, inputs: vec![input.clone(), input], ..Manifest::default() };
        assert!(m.to_json().unwrap_err().to_string().contains("input 1 has the name \"x\""));
    }
    #[test]
    fn an_asset_that_is_referred_to_must_exist() {
        let tokenize = Step::Tokenize { tokenizer: "t.json".into(), field: TokenField::InputIds };
        let input = InputSpec {
            name: "ids".into(),
            dtype: Dtype::I64,
            axes: vec![],
            pipeline: vec![tokenize],
            pad: None,
        };
        let model = ModelInfo { name: "m".into(), licence: None };
        let mut m = Manifest { model, inputs: vec![input], ..Manifest::default() };
        assert!(m.to_json().unwrap_err().to_string().contains("\"t.json\" is not among the assets"));
        m.assets.insert("t.json".into(), AssetRange { offset: 0, len: 2 });
        assert_eq!(Manifest::from_json(&m.to_json().unwrap()).unwrap(), m);
    }

    #[test]
    fn a_shape_that_no_memory_holds_is_refused() {
        let axis = Axis { name: "n".into(), size: usize::MAX / 2, symbolic: false };
        let output =
            OutputSpec { name: "y".into(), dtype: Dtype::F32, axes: vec![axis], post: vec![], labels: None };
        let model = ModelInfo { name: "m".into(), licence: None };
        let m = Manifest { model, outputs: vec![output], ..Manifest::default() };
        assert!(m.to_json().unwrap_err().to_string().contains("too large"));
    }
}
