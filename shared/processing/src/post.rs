//! A plan's outputs to an answer for people: softmax, top-k with labels, unit-length embeddings.
//!
//! Compiled once per model, like the [`pipeline`](crate::pipeline) that feeds it, and run per request.

mod answer;
mod rows;

pub use answer::{Answer, OutputAnswer, Scored};

use crate::error::{ErrorKind, ProcessingError, Result, quote};
use crate::v2::first_not_finite;
use glowplug_pack::manifest::{Manifest, OutputSpec, PostStep};
use glowplug_pack::{DisplayShape, Dtype, Tensor, TensorData};
use std::sync::Arc;

/// How the outputs of one model become an [`Answer`]. `Send + Sync`; runs need no lock.
#[derive(Debug)]
pub struct Post {
    outputs: Vec<OutputPlan>,
}

/// The steps of one output.
#[derive(Debug)]
struct OutputPlan {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    /// Element-wise over the last axis, in order.
    maps: Vec<Map>,
    /// How many of the last axis are told; `None`: the tensor itself.
    k: Option<usize>,
    labels: Option<Vec<Arc<str>>>,
}

/// A step that keeps the shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Map {
    Softmax,
    Normalize,
}

impl Post {
    /// The post steps of `manifest`, whose assets `assets` gives by name.
    ///
    /// Errors (`BadManifest`): steps on an output that is not f32 or f16, or that has no last axis; a step
    /// after `topk`; a k above the axis; labels that are missing, not UTF-8, or not one per element of
    /// the last axis.
    pub fn compile<'a>(manifest: &Manifest, assets: impl Fn(&str) -> Option<&'a [u8]>) -> Result<Post> {
        let compile = |output: &OutputSpec| {
            OutputPlan::compile(output, &assets)
                .map_err(|e| e.within(format_args!("post steps of output {}", quote(&output.name))))
        };
        Ok(Post { outputs: manifest.outputs.iter().map(compile).collect::<Result<_>>()? })
    }

    /// The answer of `outputs`, the plan's results in the manifest's order. Moves tensors that have no steps.
    ///
    /// Errors: `NotRepresentable` where an answer would hold NaN or infinity; `BadManifest` where `outputs`
    /// are not what the manifest says (a pack that contradicts itself).
    ///
    /// ```
    /// use glowplug_pack::{Manifest, Tensor};
    /// use glowplug_processing::post::Post;
    /// let manifest = Manifest::from_json(br#"{"model": {"name": "m"}, "inputs": [], "outputs": [{
    ///     "name": "logits", "dtype": "f32", "axes": [{"name": "c", "size": 2}],
    ///     "post": ["softmax", "topk:1"], "labels": "labels.txt"}],
    ///     "assets": {"labels.txt": {"offset": 0, "len": 8}}}"#)?;
    /// let post = Post::compile(&manifest, |_asset| Some(&b"cold\nhot"[..]))?;
    /// let answer = post.answer(vec![Tensor::from_f32([2], vec![-90.0, 90.0])?])?;
    /// let json = serde_json::to_string(&answer)?;
    /// assert_eq!(json, r#"{"outputs":[{"name":"logits","topk":[{"label":"hot","index":1,"score":1.0}]}]}"#);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn answer(&self, outputs: Vec<Tensor>) -> Result<Answer> {
        if outputs.len() != self.outputs.len() {
            let (found, wanted) = (outputs.len(), self.outputs.len());
            return Err(ProcessingError::manifest(format!(
                "the plan gave {found} outputs, expected {wanted}"
            )));
        }
        let answer = |(plan, tensor): (&OutputPlan, Tensor)| {
            plan.answer(tensor).map_err(|e| e.within(format_args!("output {}", quote(&plan.name))))
        };
        Ok(Answer { outputs: self.outputs.iter().zip(outputs).map(answer).collect::<Result<_>>()? })
    }
}

impl OutputPlan {
    /// Errors have no output's name yet.
    fn compile<'a>(output: &OutputSpec, assets: impl Fn(&str) -> Option<&'a [u8]>) -> Result<OutputPlan> {
        let shape = output.shape();
        let (mut maps, mut k) = (Vec::new(), None);
        for step in &output.post {
            match step {
                _ if k.is_some() => {
                    let step = String::from(step.clone());
                    return Err(ProcessingError::manifest(format!(
                        "{step} comes after topk, expected it last"
                    )));
                }
                PostStep::Softmax => maps.push(Map::Softmax),
                PostStep::Normalize => maps.push(Map::Normalize),
                PostStep::TopK(n) => k = Some(*n),
            }
        }
        if !output.post.is_empty() && !matches!(output.dtype, Dtype::F32 | Dtype::F16) {
            let found = output.dtype;
            return Err(ProcessingError::manifest(format!("steps need f32 or f16, the output is {found}")));
        }
        let axis = shape.last().copied();
        if (!output.post.is_empty() || output.labels.is_some()) && axis.is_none() {
            return Err(ProcessingError::manifest(
                "steps and labels need a last axis, the output is a scalar",
            ));
        }
        let axis = axis.unwrap_or(0);
        if let Some(k) = k.filter(|k| *k > axis) {
            return Err(ProcessingError::manifest(format!("topk:{k} of an axis of {axis}")));
        }
        let labels =
            output.labels.as_deref().map(|name| read_labels(name, assets(name), axis)).transpose()?;
        Ok(OutputPlan { name: output.name.clone(), dtype: output.dtype, shape, maps, k, labels })
    }

    /// Errors have no output's name yet.
    fn answer(&self, tensor: Tensor) -> Result<OutputAnswer> {
        if tensor.dtype() != self.dtype || tensor.shape() != self.shape {
            let wanted = format!("{}{}", self.dtype, DisplayShape(&self.shape));
            return Err(ProcessingError::manifest(format!("found {tensor}, expected {wanted}")));
        }
        let (shape, mut data) = tensor.into_parts();
        if !self.maps.is_empty() || self.k.is_some() {
            let mut values = to_f32(data);
            for row in values.chunks_exact_mut(row_len(&shape)) {
                for map in &self.maps {
                    match map {
                        Map::Softmax => rows::softmax(row),
                        Map::Normalize => rows::normalize(row),
                    }
                }
            }
            data = TensorData::F32(values);
        }
        if let Some((index, found)) = first_not_finite(&data) {
            let text = format!(
                "element {index} is {found}, which JSON cannot hold: ask infer for binary tensor data"
            );
            return Err(ProcessingError::new(ErrorKind::NotRepresentable, text));
        }
        Ok(match (self.k, &data) {
            (Some(k), TensorData::F32(values)) => self.top(k, values),
            _ => OutputAnswer::tensor(self.name.clone(), shape, data),
        })
    }

    fn top(&self, k: usize, values: &[f32]) -> OutputAnswer {
        let scored = |(index, score): (usize, f32)| Scored {
            label: self.labels.as_ref().and_then(|labels| labels.get(index)).cloned(),
            index,
            score,
        };
        let top = |row: &[f32]| rows::top(row, k).into_iter().map(scored).collect::<Vec<_>>();
        let mut rows: Vec<_> = values.chunks_exact(row_len(&self.shape)).map(top).collect();
        match (rows.len(), rows.pop()) {
            (1, Some(topk)) => OutputAnswer::TopK { name: self.name.clone(), topk },
            (_, last) => {
                rows.extend(last);
                OutputAnswer::TopKRows { name: self.name.clone(), topk: rows }
            }
        }
    }
}

/// Elements of the last axis; 1 where it is empty, since a row of 0 cannot be stepped by.
fn row_len(shape: &[usize]) -> usize {
    shape.last().copied().unwrap_or(1).max(1)
}

fn to_f32(data: TensorData) -> Vec<f32> {
    match data {
        TensorData::F32(values) => values,
        TensorData::F16(bits) => bits.into_iter().map(|b| half::f16::from_bits(b).to_f32()).collect(),
        // `compile` lets steps follow floats alone, and `answer` holds the tensor to its dtype.
        _ => Vec::new(),
    }
}

/// One label a line; the last line may end without a break.
fn read_labels(name: &str, asset: Option<&[u8]>, wanted: usize) -> Result<Vec<Arc<str>>> {
    let bad = |why: String| ProcessingError::manifest(format!("labels {}: {why}", quote(name)));
    let bytes = asset.ok_or_else(|| bad("not in the pack".into()))?;
    let text = str::from_utf8(bytes).map_err(|e| bad(format!("not UTF-8 at byte {}", e.valid_up_to())))?;
    let found = text.lines().count();
    if found != wanted {
        return Err(bad(format!("{found} lines, expected {wanted} for the last axis")));
    }
    Ok(text.lines().map(Arc::from).collect())
}
