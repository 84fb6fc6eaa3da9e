//! A raw request (an image, a text, rows of numbers) to the model's tensors, as the manifest's steps say.
//!
//! A pipeline is compiled once per model, which finds every contradiction in the manifest, and then run
//! per request, which finds every fault in the request. Three kinds, told by each input's first step:
//! `decode` (images), `tokenize` (text), `csv` (rows of numbers).

mod affine;
mod decode;
mod image;
mod media;
mod resample;
mod table;
mod text;

use crate::error::{ErrorKind, ProcessingError, Result, quote};
use glowplug_pack::manifest::{InputSpec, Manifest, Step};
use glowplug_pack::{DisplayShape, Tensor};
use image::ImagePipeline;
use table::TablePipeline;
use text::TextPipeline;

/// What one request may cost, whatever it says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Pixels of an image as it was sent, and after each resize. Read from the image's header before
    /// anything is decoded; 3 to 8 bytes of memory each.
    pub max_pixels: u64,
    /// Bytes of a text, or of a table's rows.
    pub max_text_bytes: usize,
}

impl Default for Limits {
    /// 50 million pixels, 1 MiB of text.
    fn default() -> Limits {
        Limits { max_pixels: 50_000_000, max_text_bytes: 1 << 20 }
    }
}

/// How raw requests become the inputs of one model. `Send + Sync`; runs need no lock.
#[derive(Debug)]
pub struct Pipeline {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// The manifest has no steps: only tensors are accepted.
    TensorsOnly {
        model: String,
    },
    Image(ImagePipeline),
    Text(Box<TextPipeline>),
    Table(TablePipeline),
}

impl Pipeline {
    /// The pipeline of `manifest`, whose assets `assets` gives by name.
    ///
    /// A manifest without steps compiles too, and refuses every raw request. Cost: a tokenizer is parsed
    /// here (30,000 tokens: some 20 ms), once.
    /// Errors (`BadManifest`): steps that do not fit each other, the input's shape or its dtype; `mean`
    /// and `std` that are not one per channel; an asset that is missing or does not parse; some inputs
    /// with steps and others without.
    pub fn compile<'a>(manifest: &Manifest, assets: impl Fn(&str) -> Option<&'a [u8]>) -> Result<Pipeline> {
        let inputs = &manifest.inputs;
        if inputs.iter().all(|i| i.pipeline.is_empty()) {
            return Ok(Pipeline { kind: Kind::TensorsOnly { model: manifest.model.name.clone() } });
        }
        let first = inputs.first().and_then(|i| i.pipeline.first());
        let kind = match (first, inputs.as_slice()) {
            (Some(Step::Tokenize { .. }), _) => {
                Kind::Text(Box::new(TextPipeline::compile(inputs, &manifest.buckets, assets)?))
            }
            (Some(Step::Decode { .. }), [input]) => {
                Kind::Image(ImagePipeline::compile(input).map_err(|e| e.within(place(input)))?)
            }
            (Some(Step::Csv {}), [input]) => {
                Kind::Table(TablePipeline::compile(input).map_err(|e| e.within(place(input)))?)
            }
            (Some(Step::Decode { .. } | Step::Csv {}), _) => {
                let found = inputs.len();
                let text = format!("an image or a csv row can feed 1 input, the model has {found}");
                return Err(ProcessingError::manifest(text));
            }
            _ => {
                let text = "the first input's first step must be decode, tokenize or csv";
                return Err(ProcessingError::manifest(text));
            }
        };
        Ok(Pipeline { kind })
    }

    /// The tensors of the raw request `body`, in the order of the manifest's inputs.
    ///
    /// `content_type` is the header's value; where it is absent or says `octet-stream`, the bytes speak for
    /// themselves. Images: PNG and JPEG. Text: `text/plain` in UTF-8, or JSON `{"text": ".."}`. Rows:
    /// `text/csv` without a header, or a JSON array. Blocks for the time of a decode, so it belongs on
    /// a compute thread.
    /// Errors: `UnsupportedMedia` for another content type or image format, `TooLarge` past `limits`,
    /// `InvalidInput` for what does not decode or is not what the model takes.
    ///
    /// ```
    /// use glowplug_pack::Manifest;
    /// use glowplug_processing::pipeline::{Limits, Pipeline};
    /// let manifest = Manifest::from_json(br#"{"model": {"name": "iris"}, "outputs": [], "inputs": [{
    ///     "name": "x", "dtype": "f32", "axes": [{"name": "n", "size": 1}, {"name": "f", "size": 2}],
    ///     "pipeline": [{"op": "csv"}, {"op": "scale", "factor": 0.5}]}]}"#)?;
    /// let pipeline = Pipeline::compile(&manifest, |_asset| None)?;
    /// let tensors = pipeline.run(Some("text/csv"), b"3, 4", &Limits::default())?;
    /// assert_eq!(tensors[0].as_f32()?, [1.5, 2.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn run(&self, content_type: Option<&str>, body: &[u8], limits: &Limits) -> Result<Vec<Tensor>> {
        if body.is_empty() {
            return Err(ProcessingError::invalid("the body is empty, expected what the model predicts from"));
        }
        match &self.kind {
            Kind::TensorsOnly { model } => Err(ProcessingError::new(
                ErrorKind::UnsupportedMedia,
                format!("model {} has no pipeline for raw requests: send tensors to infer", quote(model)),
            )),
            Kind::Image(image) => Ok(vec![image.run(content_type, body, limits)?]),
            Kind::Text(text) => text.run(content_type, body, limits),
            Kind::Table(table) => Ok(vec![table.run(content_type, body, limits)?]),
        }
    }
}

fn place(input: &InputSpec) -> String {
    format!("pipeline of input {}", quote(&input.name))
}

/// That a raw request, which is one example, can fill `shape`: `item`, or `[1] + item`.
fn check_shape(input: &InputSpec, item: &[usize]) -> Result<()> {
    let shape = input.shape();
    let is_item =
        shape == item || shape.split_first().is_some_and(|(batch, rest)| *batch == 1 && rest == item);
    if is_item {
        return Ok(());
    }
    let batched: Vec<usize> = std::iter::once(1).chain(item.iter().copied()).collect();
    Err(ProcessingError::manifest(format!(
        "the steps give {}, the input's axes are {}",
        DisplayShape(&batched),
        DisplayShape(&shape)
    )))
}

/// How errors name a step.
fn step_name(step: &Step) -> &'static str {
    match step {
        Step::Decode { .. } => "decode",
        Step::Resize { .. } => "resize",
        Step::CenterCrop { .. } => "center_crop",
        Step::Scale { .. } => "scale",
        Step::Normalize { .. } => "normalize",
        Step::Layout { .. } => "layout",
        Step::Tokenize { .. } => "tokenize",
        Step::Csv {} => "csv",
    }
}

/// The error of a step that cannot come where it does.
fn misplaced(index: usize, step: &Step, why: &str) -> ProcessingError {
    ProcessingError::manifest(format!("step {index} ({}): {why}", step_name(step)))
}
