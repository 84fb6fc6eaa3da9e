//! RTen: for the measured program and for the rival function.

use crate::Named;
use anyhow::{Context, Result, bail};
use glowplug_pack::{Tensor, TensorData};
use rten::{Model, NodeId, RunOptions, ThreadPool, Value, ValueOrView, ValueView};
use rten_tensor::prelude::*;
use std::sync::Arc;

/// A loaded model and the pool that it runs on.
pub struct Rten {
    model: Model,
    outputs: Vec<(NodeId, String)>,
    options: RunOptions,
}

impl Rten {
    /// Around a model that was loaded somehow. Errors: an output without a name.
    pub fn new(model: Model, threads: usize) -> Result<Rten> {
        let name = |id: &NodeId| {
            let info = model.node_info(*id).and_then(|i| i.name().map(str::to_owned));
            Ok((*id, info.context("an output has no name")?))
        };
        let outputs = model.output_ids().iter().map(name).collect::<Result<Vec<_>>>()?;
        let pool = Arc::new(ThreadPool::with_num_threads(threads));
        let options = RunOptions::default().with_thread_pool(Some(pool));
        Ok(Rten { model, outputs, options })
    }

    /// One inference; f32 is borrowed, 64-bit integers become 32-bit ones, because RTen has no others.
    pub fn run(&self, inputs: &[Named]) -> Result<Vec<Named>> {
        let values = inputs.iter().map(|(name, tensor)| Ok((self.model.node_id(name)?, value(tensor)?)));
        let ids: Vec<NodeId> = self.outputs.iter().map(|(id, _)| *id).collect();
        let values = values.collect::<Result<Vec<_>>>()?;
        let outputs = self.model.run(values, &ids, Some(self.options.clone()))?;
        self.outputs.iter().zip(outputs).map(|((_, name), v)| Ok((name.clone(), tensor(v)?))).collect()
    }
}

fn value(tensor: &Tensor) -> Result<ValueOrView<'_>> {
    let shape = tensor.shape();
    Ok(match tensor.data() {
        TensorData::F32(v) => ValueView::from_shape(shape, v.as_slice())?.into(),
        TensorData::I32(v) => ValueView::from_shape(shape, v.as_slice())?.into(),
        TensorData::I64(v) => {
            let narrow = v.iter().map(|x| Ok(i32::try_from(*x)?)).collect::<Result<Vec<_>>>()?;
            Value::from_shape(shape, narrow)?.into()
        }
        other => bail!("an input is {}, which no measured model takes", other.dtype()),
    })
}

fn tensor(value: Value) -> Result<Tensor> {
    let (shape, data) = match value {
        Value::FloatTensor(t) => (t.shape().to_vec(), TensorData::F32(t.into_data())),
        Value::Int32Tensor(t) => (t.shape().to_vec(), TensorData::I32(t.into_data())),
        other => bail!("an output is {:?}, which no measured model has", other.dtype()),
    };
    Ok(Tensor::new(shape, data)?)
}
