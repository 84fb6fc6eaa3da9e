//! The vendored models, digits and lines, with the answers that ONNX Runtime gave.

use crate::commands::pack::{How, pack_file};
use anyhow::{Context, Result};
use glowplug_packer::{Compute, Target, Weights};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The model of the digits.
pub(crate) const DIGITS: &str = "mnist-cnn";
/// The model of the text lines.
pub(crate) const LINES: &str = "ppocr-cls";

/// The folder, read.
pub(crate) struct Data {
    dir: PathBuf,
    /// Digits, in file order.
    pub digits: Vec<Digit>,
    /// Text lines.
    pub lines: Vec<Line>,
}

/// A picture of a digit.
#[derive(Deserialize)]
pub(crate) struct Digit {
    /// Its file below `digits/`.
    pub file: String,
    /// ONNX Runtime's answer.
    pub top1: u8,
}

/// A picture of a text line.
#[derive(Deserialize)]
pub(crate) struct Line {
    /// Its file below `lines/`.
    pub file: String,
    /// ONNX Runtime's answer.
    pub top1: String,
}

#[derive(Deserialize)]
struct Digits {
    digits: Vec<Digit>,
}

#[derive(Deserialize)]
struct Lines {
    lines: Vec<Line>,
}

impl Data {
    /// The data in `dir`.
    pub(crate) fn read(dir: &Path) -> Result<Data> {
        let digits: Digits = json(&dir.join("digits/digits.json"))?;
        let lines: Lines = json(&dir.join("lines/lines.json"))?;
        Ok(Data { dir: dir.to_path_buf(), digits: digits.digits, lines: lines.lines })
    }

    /// The bytes of a file.
    pub(crate) fn file(&self, path: &str) -> Result<Vec<u8>> {
        let path = self.dir.join(path);
        std::fs::read(&path).map_err(|e| crate::commands::cannot_read(&path, &e))
    }

    /// A vendored model as a pack.
    pub(crate) fn pack(&self, model: &str) -> Result<Vec<u8>> {
        let onnx = self.dir.join(format!("models/{model}.onnx"));
        let manifest = self.dir.join(format!("models/{model}.toml"));
        // ppocr-cls leaves height and width open; its manifest's resize step says which it wants.
        let pins = if model == LINES { vec!["x=f32[1,3,48,192]".parse()?] } else { vec![] };
        let how = How {
            target: Target::Common,
            weights: Weights::F32,
            entropy: false,
            compute: Compute::F32,
            data: &crate::compression::Data::NONE,
        };
        let packed = pack_file(&onnx, Some(&manifest), pins, &how, &|_, _| ());
        Ok(packed.with_context(|| format!("packing {model}"))?.bytes)
    }
}

fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = std::fs::read(path).map_err(|e| crate::commands::cannot_read(path, &e))?;
    serde_json::from_slice(&bytes).with_context(|| path.display().to_string())
}
