//! A request's tensors against the model's inputs.

use super::NamedTensor;
use crate::error::{ProcessingError, Result, quote, quote_all};
use glowplug_pack::manifest::{Axis, InputSpec, Manifest};
use glowplug_pack::{DisplayShape, Tensor};

/// `tensors` in the order of the manifest's inputs, which is the order that `Plan::run` takes. No copy.
///
/// Shapes are those of the manifest; a leading axis that the ONNX file leaves open takes any number of rows, and where
/// `open` every axis that it leaves open any extent.
/// Errors (`InvalidInput`): a name that is not an input (the error lists those that are), a name twice,
/// an input that is missing, another dtype, rank or extent (name, found, wanted).
pub fn check_inputs(manifest: &Manifest, open: bool, tensors: Vec<NamedTensor>) -> Result<Vec<Tensor>> {
    let mut slots: Vec<Option<Tensor>> = manifest.inputs.iter().map(|_| None).collect();
    for NamedTensor { name, tensor } in tensors {
        let Some(index) = manifest.inputs.iter().position(|i| i.name == name) else {
            return Err(unknown(manifest, &name));
        };
        check(&manifest.inputs[index], open, &tensor)
            .map_err(|e| e.within(format_args!("input {}", quote(&name))))?;
        if slots[index].replace(tensor).is_some() {
            return Err(ProcessingError::invalid(format!(
                "input {} is there twice, expected once",
                quote(&name)
            )));
        }
    }
    let missing = |i: usize| {
        let wanted = &manifest.inputs[i];
        let shape = wanted.shape();
        let (name, dtype, shape) = (quote(&wanted.name), wanted.dtype.v2_name(), DisplayShape(&shape));
        ProcessingError::invalid(format!("input {name} is missing, expected {dtype}{shape}"))
    };
    slots.into_iter().enumerate().map(|(i, slot)| slot.ok_or_else(|| missing(i))).collect()
}

fn unknown(manifest: &Manifest, name: &str) -> ProcessingError {
    let known = quote_all(manifest.inputs.iter().map(|i| i.name.as_str()));
    ProcessingError::invalid(format!("input {} is not the model's, expected {known}", quote(name)))
}

/// Errors have no name yet.
/// The leading axis, where the ONNX file leaves it open: any number of rows can be run, piece by piece.
pub(super) fn is_batch(index: usize, axis: &Axis) -> bool {
    index == 0 && axis.symbolic
}

fn check(wanted: &InputSpec, open: bool, found: &Tensor) -> Result<()> {
    if found.dtype() != wanted.dtype {
        let (found, wanted) = (found.dtype().v2_name(), wanted.dtype.v2_name());
        return Err(ProcessingError::invalid(format!("datatype is {found}, expected {wanted}")));
    }
    if found.shape().len() != wanted.axes.len() {
        let (found, wanted) = (DisplayShape(found.shape()), wanted.shape());
        return Err(ProcessingError::invalid(format!(
            "rank is {} ({found}), expected {} ({})",
            found.0.len(),
            wanted.len(),
            DisplayShape(&wanted)
        )));
    }
    let fits = |i: usize, d: usize, axis: &Axis| {
        d == axis.size || ((is_batch(i, axis) || (open && axis.symbolic)) && d > 0)
    };
    match found.shape().iter().zip(&wanted.axes).enumerate().find(|(i, (d, axis))| !fits(*i, **d, axis)) {
        None => Ok(()),
        Some((i, (d, axis))) => Err(ProcessingError::invalid(format!(
            "axis {i} ({}) is {d}, expected {}: shape is {}, expected {}",
            quote(&axis.name),
            axis.size,
            DisplayShape(found.shape()),
            DisplayShape(&wanted.shape())
        ))),
    }
}
