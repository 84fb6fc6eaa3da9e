//! Folders of samples: raw files, of which the pipeline in the model's manifest makes tensors. Where they lie in folders, those are
//! the classes.

use crate::npz;
use anyhow::{Context, Result, bail, ensure};
use glowplug_pack::{Manifest, Tensor};
use glowplug_packer::{Dataset, Texts};
use glowplug_processing::pipeline::{Limits, Pipeline};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The class of a file, by number, and where it is.
type File = (Option<i64>, PathBuf);

/// What [`dataset`] has to know of a model: its manifest, and the files that this names.
pub(crate) type Described = (Manifest, BTreeMap<String, Vec<u8>>);

/// Samples from an npz file or a folder. Errors: as [`npz::read_dataset`]; as [`read`].
pub(crate) fn dataset(path: &Path, model: impl FnOnce() -> Result<Described>) -> Result<Dataset> {
    if path.is_dir() { read(path, &model()?) } else { npz::read_dataset(path) }
}

/// The files of a folder as tensors, in the order of their names; in folders of it, with `label`: the number of the folder's
/// name among the labels of the model's output, or among the folders where it has none.
///
/// Errors: no file; files beside folders; a folder that is no label; a file that the pipeline does not take, or that gives
/// other extents than the first.
fn read(folder: &Path, (manifest, assets): &Described) -> Result<Dataset> {
    let asset = |name: &str| assets.get(name).map(Vec::as_slice);
    let pipeline = Pipeline::compile(manifest, asset)?;
    if manifest.inputs.iter().all(|input| input.pipeline.is_empty()) {
        bail!(
            "{}: a folder of raw files needs a pipeline in the model's manifest (--manifest)",
            folder.display()
        );
    }
    let output = manifest.outputs.iter().find_map(|o| o.labels.as_deref()).and_then(asset);
    let labels = output.map(|bytes| String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect());
    let files = files(folder, labels)?;
    let mut digest = blake3::Hasher::new();
    let mut inputs: Vec<Vec<Tensor>> = vec![Vec::new(); manifest.inputs.len()];
    for (_, path) in &files {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        digest.update(path.strip_prefix(folder)?.to_string_lossy().as_bytes()).update(&[0]);
        digest.update(blake3::hash(&bytes).as_bytes());
        let tensors = pipeline.run(None, &bytes, &Limits::default());
        let tensors = tensors.with_context(|| path.display().to_string())?;
        for (all, tensor) in inputs.iter_mut().zip(tensors) {
            let first = all.first().unwrap_or(&tensor).shape();
            ensure!(
                first == tensor.shape(),
                "{} gives {:?}, the first file gave {first:?}",
                path.display(),
                tensor.shape()
            );
            all.push(tensor);
        }
    }
    let mut members = Vec::new();
    for (input, tensors) in manifest.inputs.iter().zip(&inputs) {
        members.push((input.name.clone(), stacked(tensors)?));
    }
    let classes: Option<Vec<i64>> = files.iter().map(|(class, _)| *class).collect();
    if let Some(classes) = classes {
        members.push(("label".to_owned(), Tensor::from_i64([classes.len()], classes)?));
    }
    let digest = format!("blake3:{}", digest.finalize().to_hex());
    Dataset::new(members, Texts::default(), digest).with_context(|| folder.display().to_string())
}

/// Every file, those of one class after those of another.
fn files(folder: &Path, labels: Option<Vec<String>>) -> Result<Vec<File>> {
    let (folders, files): (Vec<PathBuf>, Vec<PathBuf>) =
        entries(folder)?.into_iter().partition(|path| path.is_dir());
    if folders.is_empty() && !files.is_empty() {
        return Ok(files.into_iter().map(|path| (None, path)).collect());
    }
    if let Some(file) = files.first() {
        bail!("{} lies beside folders of classes: files belong into one of them", file.display());
    }
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let labels = labels.unwrap_or_else(|| folders.iter().map(|path| name(path)).collect());
    let mut found = Vec::new();
    for path in &folders {
        let class = labels.iter().position(|label| *label == name(path));
        let class = class.with_context(|| {
            let known = labels.iter().take(10).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = if labels.len() > 10 { ", .." } else { "" };
            format!("folder {} is no label of the model, which has {known}{more}", path.display())
        })?;
        let class = i64::try_from(class)?;
        found.extend(entries(path)?.into_iter().map(|path| (Some(class), path)));
    }
    ensure!(!found.is_empty(), "{} holds no files", folder.display());
    Ok(found)
}

/// What a folder holds, in the order of names; not what begins with a dot.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let all = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths = all.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let hidden =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    paths.retain(|path| !hidden(path));
    paths.sort();
    Ok(paths)
}

/// One after the other along the first axis: that of the batch of one that each is, or a new one.
fn stacked(tensors: &[Tensor]) -> Result<Tensor> {
    let first = tensors.first().context("no samples")?;
    let of_one = first.shape().strip_prefix(&[1]).unwrap_or(first.shape());
    let shape = [&[tensors.len()], of_one].concat();
    let bytes: Vec<u8> = tensors.iter().flat_map(Tensor::to_le_bytes).collect();
    Ok(Tensor::from_le_bytes(first.dtype(), shape, &bytes)?)
}
