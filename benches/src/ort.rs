//! ONNX Runtime through the `ort` crate: for the measured program and for the rival function.

use crate::Named;
use anyhow::{Result, bail};
use glowplug_pack::{Tensor, TensorData};
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, TensorElementType, TensorRef};
use std::path::Path;

/// A builder with all optimizations, or with none for a file that is optimized already; `save_optimized` is where the
/// optimized graph is written. The library is the one that `ORT_DYLIB_PATH` names.
pub fn builder(
    threads: usize,
    optimized_already: bool,
    save_optimized: Option<&Path>,
) -> Result<SessionBuilder> {
    let level = match optimized_already {
        true => GraphOptimizationLevel::Disable,
        false => GraphOptimizationLevel::All,
    };
    let environment = ort::init().build()?;
    let builder = Session::builder(&environment)?;
    let mut builder = builder.with_intra_threads(threads).map_err(plain)?;
    if let Some(path) = save_optimized {
        builder = builder.with_optimized_model_path(path).map_err(plain)?;
    }
    Ok(builder.with_optimization_level(level).map_err(plain)?)
}

/// The error without the builder that it would hand back.
fn plain(error: ort::Error<SessionBuilder>) -> ort::Error {
    error.into()
}

/// One inference; inputs are borrowed, outputs copied.
pub fn run(session: &mut Session, inputs: &[Named]) -> Result<Vec<Named>> {
    let mut values = Vec::with_capacity(inputs.len());
    for (name, tensor) in inputs {
        values.push((name.as_str(), value(tensor)?));
    }
    let names: Vec<String> = session.outputs().iter().map(|o| o.name().to_owned()).collect();
    let outputs = session.run(values)?;
    names.into_iter().map(|name| Ok((name.clone(), tensor(&outputs[name.as_str()])?))).collect()
}

fn value(tensor: &Tensor) -> Result<SessionInputValue<'_>> {
    let shape = tensor.shape();
    Ok(match tensor.data() {
        TensorData::F32(v) => TensorRef::from_array_view((shape, v.as_slice()))?.into(),
        TensorData::I64(v) => TensorRef::from_array_view((shape, v.as_slice()))?.into(),
        TensorData::I32(v) => TensorRef::from_array_view((shape, v.as_slice()))?.into(),
        other => bail!("an input is {}, which no measured model takes", other.dtype()),
    })
}

fn tensor(value: &DynValue) -> Result<Tensor> {
    let Some(dtype) = value.dtype().tensor_type() else { bail!("an output is no tensor") };
    let sizes = |shape: &ort::value::Shape| {
        shape.iter().map(|d| Ok(usize::try_from(*d)?)).collect::<Result<Vec<_>>>()
    };
    Ok(match dtype {
        TensorElementType::Float32 => {
            let (shape, data) = value.try_extract_tensor::<f32>()?;
            Tensor::new(sizes(shape)?, TensorData::F32(data.to_vec()))?
        }
        TensorElementType::Int64 => {
            let (shape, data) = value.try_extract_tensor::<i64>()?;
            Tensor::new(sizes(shape)?, TensorData::I64(data.to_vec()))?
        }
        TensorElementType::Int32 => {
            let (shape, data) = value.try_extract_tensor::<i32>()?;
            Tensor::new(sizes(shape)?, TensorData::I32(data.to_vec()))?
        }
        other => bail!("an output is {other:?}, which no measured model has"),
    })
}
