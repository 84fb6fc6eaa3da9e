//! This crate through its public door. One binary; the heavy dependencies are linked once.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod images;
mod post;
mod raw;
mod v2;

use glowplug_pack::Dtype;
use glowplug_pack::manifest::{Axis, InputSpec, Manifest, ModelInfo, Step};
use std::path::{Path, PathBuf};

/// The repository's root.
fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// An input of positional axes.
fn input(name: &str, dtype: Dtype, shape: &[usize], pipeline: Vec<Step>) -> InputSpec {
    let axis = |(i, size): (usize, &usize)| Axis { name: format!("d{i}"), size: *size, symbolic: false };
    InputSpec {
        name: name.into(),
        dtype,
        axes: shape.iter().enumerate().map(axis).collect(),
        pipeline,
        pad: None,
    }
}

/// A manifest of `inputs` alone.
fn manifest(inputs: Vec<InputSpec>) -> Manifest {
    let model = ModelInfo { name: "m".into(), licence: None };
    Manifest { model, inputs, ..Manifest::default() }
}
