//! tract from the ONNX file, as one would use it: import, pin the inputs, optimize, run.
//!
//! The file's own `value_info` is ignored, because tract refuses some models over it.

use anyhow::{Context, Result, bail};
use glowplug_benches::Named;
use glowplug_benches::args::Args;
use glowplug_benches::engine::{self, Engine};
use glowplug_pack::{Dtype, Tensor, TensorData};
use std::process::ExitCode;
use std::sync::Arc;
use tract_onnx::prelude::*;

struct Tract {
    plan: Arc<TypedRunnableModel>,
    inputs: Vec<String>,
    outputs: Vec<String>,
}

fn load(args: &Args, given: &[Named]) -> Result<Tract> {
    if args.threads > 1 {
        multithread::set_default_executor(multithread::Executor::multithread(args.threads));
    }
    let onnx = tract_onnx::onnx().with_ignore_value_info(true).with_ignore_output_shapes(true);
    let proto = onnx.proto_model_for_path(&args.model)?;
    let graph = proto.graph.as_ref().context("the file holds no graph")?;
    let outputs = graph.output.iter().map(|o| o.name.clone()).collect();
    let mut model = onnx.model_for_proto_model(&proto)?;
    let inputs: Vec<String> =
        model.input_outlets()?.iter().map(|o| model.node(o.node).name.clone()).collect();
    for (i, name) in inputs.iter().enumerate() {
        let (_, tensor) = find(given, name)?;
        model
            .set_input_fact(i, InferenceFact::dt_shape(datum_type(tensor.data().dtype())?, tensor.shape()))?;
    }
    let plan = model.into_optimized()?.into_runnable()?;
    Ok(Tract { plan, inputs, outputs })
}

fn find<'a>(given: &'a [Named], name: &str) -> Result<&'a Named> {
    given.iter().find(|(n, _)| n == name).with_context(|| format!("no input {name:?} was given"))
}

fn datum_type(dtype: Dtype) -> Result<DatumType> {
    Ok(match dtype {
        Dtype::F32 => DatumType::F32,
        Dtype::I64 => DatumType::I64,
        Dtype::I32 => DatumType::I32,
        other => bail!("an input is {other}, which no measured model takes"),
    })
}

impl Engine for Tract {
    fn run(&mut self, inputs: &[Named]) -> Result<Vec<Named>> {
        let mut values = TVec::new();
        for name in &self.inputs {
            let (_, tensor) = find(inputs, name)?;
            let shape = tensor.shape();
            let value = match tensor.data() {
                TensorData::F32(v) => tract_onnx::prelude::Tensor::from_shape(shape, v)?,
                TensorData::I64(v) => tract_onnx::prelude::Tensor::from_shape(shape, v)?,
                TensorData::I32(v) => tract_onnx::prelude::Tensor::from_shape(shape, v)?,
                other => bail!("input {name:?} is {}", other.dtype()),
            };
            values.push(value.into_tvalue());
        }
        let outputs = self.plan.run(values)?;
        self.outputs.iter().zip(outputs).map(|(name, v)| Ok((name.clone(), tensor(&v)?))).collect()
    }
}

fn tensor(value: &TValue) -> Result<Tensor> {
    let plain = value.try_as_plain_ram()?;
    let data = match value.datum_type() {
        DatumType::F32 => TensorData::F32(plain.as_slice::<f32>()?.to_vec()),
        DatumType::I64 => TensorData::I64(plain.as_slice::<i64>()?.to_vec()),
        DatumType::I32 => TensorData::I32(plain.as_slice::<i32>()?.to_vec()),
        other => bail!("an output is {other:?}, which no measured model has"),
    };
    Ok(Tensor::new(value.shape(), data)?)
}

fn main() -> ExitCode {
    engine::main(load)
}
