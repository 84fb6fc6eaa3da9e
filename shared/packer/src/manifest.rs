//! M.toml, the manifest file that a user writes, and what it becomes in the pack.

use crate::error::{ErrorKind, PackerError};
use crate::import::Port;
use glowplug_pack::Dtype;
use glowplug_pack::manifest::{Axis, InputSpec, Manifest, ModelInfo, OutputSpec, PostStep, Provenance, Step};
use serde::Deserialize;
use std::collections::BTreeMap;

/// The file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    model: Option<ModelInfo>,
    #[serde(default, rename = "input")]
    inputs: Vec<Input>,
    #[serde(default, rename = "output")]
    outputs: Vec<Output>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    name: String,
    dtype: Option<Dtype>,
    axes: Option<Vec<String>>,
    #[serde(default)]
    pipeline: Vec<Step>,
    pad: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Output {
    name: String,
    axes: Option<Vec<String>>,
    #[serde(default)]
    post: Vec<PostStep>,
    labels: Option<String>,
}

/// A manifest, and the files it refers to by name.
pub(crate) struct Parsed {
    pub(crate) manifest: Manifest,
    pub(crate) assets: BTreeMap<String, Vec<u8>>,
}

/// What brings the files that a manifest names.
pub(crate) type ReadAsset<'a> = dyn FnMut(&str) -> std::io::Result<Vec<u8>> + 'a;

/// The manifest of a model called `name` with these ends, extended by the `text` of an M.toml.
///
/// Errors: not TOML of the known fields; an input or output that the model has not; another dtype or number
/// of axes than the model's; a file that cannot be read; labels of another count than the output's last axis.
pub(crate) fn manifest(
    text: Option<&str>,
    name: &str,
    inputs: &[Port],
    outputs: &[Port],
    read_asset: &mut ReadAsset<'_>,
) -> Result<Parsed, PackerError> {
    let file = text.map_or_else(|| Ok(File::default()), parse)?;
    let mut manifest = bare(
        file.model.unwrap_or_else(|| ModelInfo { name: name.to_owned(), licence: None }),
        inputs,
        outputs,
    );
    for input in file.inputs {
        let names: Vec<_> = manifest.inputs.iter().map(|i| i.name.clone()).collect();
        let spec = manifest.inputs.iter_mut().find(|i| i.name == input.name);
        let spec = spec.ok_or_else(|| unknown("input", &input.name, &names))?;
        if input.dtype.is_some_and(|d| d != spec.dtype) {
            let found = input.dtype.map_or_else(String::new, |d| d.to_string());
            return Err(bad(format!(
                "input {:?} is {found} in the manifest, {} in the model",
                spec.name, spec.dtype
            )));
        }
        name_axes("input", &spec.name, &mut spec.axes, input.axes)?;
        (spec.pipeline, spec.pad) = (input.pipeline, input.pad);
    }
    for output in file.outputs {
        let names: Vec<_> = manifest.outputs.iter().map(|o| o.name.clone()).collect();
        let spec = manifest.outputs.iter_mut().find(|o| o.name == output.name);
        let spec = spec.ok_or_else(|| unknown("output", &output.name, &names))?;
        name_axes("output", &spec.name, &mut spec.axes, output.axes)?;
        (spec.post, spec.labels) = (output.post, output.labels);
    }
    let assets = assets(&manifest, read_asset)?;
    Ok(Parsed { manifest, assets })
}

fn bad(text: impl Into<String>) -> PackerError {
    PackerError::new(ErrorKind::Manifest, format!("manifest: {}", text.into()))
}

fn unknown(side: &str, name: &str, names: &[String]) -> PackerError {
    bad(format!("the model has no {side} {name:?}, it has {}", names.join(", ")))
}

fn parse(text: &str) -> Result<File, PackerError> {
    toml::from_str(text).map_err(|e| bad(e.to_string().trim_end().replace('\n', " ")))
}

fn bare(model: ModelInfo, inputs: &[Port], outputs: &[Port]) -> Manifest {
    let input = |p: &Port| InputSpec {
        name: p.name.clone(),
        dtype: p.dtype,
        axes: p.axes.clone(),
        pipeline: vec![],
        pad: None,
    };
    let output = |p: &Port| OutputSpec {
        name: p.name.clone(),
        dtype: p.dtype,
        axes: p.axes.clone(),
        post: vec![],
        labels: None,
    };
    Manifest {
        model,
        inputs: inputs.iter().map(input).collect(),
        outputs: outputs.iter().map(output).collect(),
        buckets: vec![],
        assets: BTreeMap::new(),
        provenance: Provenance::default(),
    }
}

fn name_axes(
    side: &str,
    name: &str,
    axes: &mut [Axis],
    given: Option<Vec<String>>,
) -> Result<(), PackerError> {
    let Some(given) = given else { return Ok(()) };
    if given.len() != axes.len() {
        return Err(bad(format!(
            "{side} {name:?} has {} axes, the manifest names {}",
            axes.len(),
            given.len()
        )));
    }
    axes.iter_mut().zip(given).for_each(|(axis, name)| axis.name = name);
    Ok(())
}

/// Every file that the manifest names, read.
fn assets(manifest: &Manifest, read: &mut ReadAsset<'_>) -> Result<BTreeMap<String, Vec<u8>>, PackerError> {
    let mut assets = BTreeMap::new();
    let mut bring = |name: &str| -> Result<Vec<u8>, PackerError> {
        if let Some(bytes) = assets.get(name) {
            return Ok(Vec::clone(bytes));
        }
        let bytes = read(name).map_err(|e| bad(format!("asset {name:?}: {e}")))?;
        assets.insert(name.to_owned(), bytes.clone());
        Ok(bytes)
    };
    for step in manifest.inputs.iter().flat_map(|i| &i.pipeline) {
        if let Step::Tokenize { tokenizer, .. } = step {
            bring(tokenizer)?;
        }
    }
    for output in &manifest.outputs {
        if let Some(labels) = &output.labels {
            check_labels(labels, &bring(labels)?, output)?;
        }
    }
    Ok(assets)
}

fn check_labels(name: &str, bytes: &[u8], output: &OutputSpec) -> Result<(), PackerError> {
    let text = std::str::from_utf8(bytes).map_err(|_| bad(format!("labels {name:?} are not UTF-8")))?;
    let (lines, wanted) = (text.lines().count(), output.axes.last().map_or(1, |a| a.size));
    if lines != wanted {
        return Err(bad(format!(
            "labels {name:?} have {lines} lines, output {:?} has {wanted} classes",
            output.name
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A port whose axes are named by position.
    fn port(name: &str, shape: &[usize]) -> Port {
        let axis = |(i, n): (usize, &usize)| Axis { name: format!("d{i}"), size: *n, symbolic: false };
        Port { name: name.into(), dtype: Dtype::F32, axes: shape.iter().enumerate().map(axis).collect() }
    }

    fn check(text: &str) -> Result<Parsed, PackerError> {
        let inputs = [port("image", &[1, 1, 28, 28])];
        let outputs = [port("logits", &[1, 2])];
        let mut read = |name: &str| match name {
            "two" => Ok(b"a\nb\n".to_vec()),
            "three" => Ok(b"a\nb\nc".to_vec()),
            _ => Err(std::io::Error::other("no such file")),
        };
        manifest(Some(text), "m", &inputs, &outputs, &mut read)
    }

    #[test]
    fn a_manifest_extends_what_the_model_says() {
        let text = r#"
            [model]
            name = "digits"
            licence = "MIT"
            [[input]]
            name = "image"
            dtype = "f32"
            axes = ["batch", "channel", "row", "column"]
            pipeline = [{op = "decode", channels = "gray"}, {op = "scale", factor = 0.5}]
            [[output]]
            name = "logits"
            post = ["softmax", "topk:2"]
            labels = "two"
        "#;
        let parsed = check(text).unwrap();
        let m = &parsed.manifest;
        assert_eq!((&*m.model.name, m.inputs[0].pipeline.len(), m.outputs[0].post.len()), ("digits", 2, 2));
        assert_eq!((&*m.inputs[0].axes[2].name, m.inputs[0].axes[2].size), ("row", 28));
        assert_eq!(parsed.assets["two"], b"a\nb\n");
    }

    #[test]
    fn what_contradicts_the_model_is_told() {
        let cases = [
            ("x", "manifest: "),
            ("[model]\nname = \"a\"\ncolour = 1", "colour"),
            ("[[input]]\nname = \"img\"", "no input \"img\", it has image"),
            ("[[input]]\nname = \"image\"\ndtype = \"u8\"", "is u8 in the manifest, f32 in the model"),
            ("[[input]]\nname = \"image\"\naxes = [\"a\"]", "has 4 axes, the manifest names 1"),
            ("[[input]]\nname = \"image\"\npipeline = [{op = \"spin\"}]", "spin"),
            ("[[output]]\nname = \"y\"", "no output \"y\", it has logits"),
            ("[[output]]\nname = \"logits\"\npost = [\"topk:0\"]", "topk"),
            ("[[output]]\nname = \"logits\"\nlabels = \"none\"", "asset \"none\": no such file"),
            ("[[output]]\nname = \"logits\"\nlabels = \"three\"", "3 lines, output \"logits\" has 2 classes"),
        ];
        for (text, wanted) in cases {
            let e = check(text).err().unwrap();
            assert!(e.to_string().contains(wanted) && e.kind() == ErrorKind::Manifest, "{text}: {e}");
        }
    }
}
