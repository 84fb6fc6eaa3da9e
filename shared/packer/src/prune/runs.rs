//! Runs of a network on calibration data: what its layers have for inputs, and what it gives.

use super::graph::{self, Layer};
use super::lost;
use crate::calibrate;
use crate::error::{PackerError, guard};
use crate::evaluate::{Dataset, Feed};
use crate::import::{Imported, Source};
use crate::pin::InputPin;
use tract_core::internal::tract_ndarray::{Array2, Axis};
use tract_core::internal::*;
use tract_core::ops::cnn::Conv;

/// Rows of inputs for each consumer, at least, where calibration data have as many; and as a multiple of its depth.
const ROWS: usize = 8192;
const ROWS_FOR_DEPTH: usize = 4;

/// Runs whose outputs tell what channels are worth.
const SENSITIVITY_RUNS: usize = 24;

/// `source` with the values `names` as its outputs.
pub(super) fn probe(
    source: &mut Source,
    pins: &[InputPin],
    names: &[String],
) -> Result<Imported, PackerError> {
    let outputs = source.graph()?.output.clone();
    graph::set_outputs(source.graph_mut()?, names);
    let imported = guard("prune", || source.import(pins));
    source.graph_mut()?.output = outputs;
    imported
}

/// What a layer has in one run, row by row.
pub(super) struct Rows {
    /// `[rows, depth]`
    pub(super) inputs: Array2<f32>,
    /// What a residual connection adds to the outputs before a norm, `[rows, outputs]`.
    pub(super) added: Option<Array2<f32>>,
}

/// Runs `source` on `data` and gives what each of `layers` has to `each`, with its place in `layers` and the run. `depth` of a
/// layer tells how many rows are taken.
pub(super) fn run(
    source: &mut Source,
    (pins, data): (&[InputPin], &Dataset),
    layers: &[Layer],
    each: &mut dyn FnMut(usize, usize, Rows),
) -> Result<(), PackerError> {
    let graph = source.graph()?;
    let mut wanted: Vec<String> = Vec::new();
    for layer in layers {
        let node = &graph.node[layer.node];
        // The layers themselves are outputs too, so that they are there.
        for name in
            [&node.input[0], &node.output[0]].into_iter().chain(layer.residual.as_ref().map(|r| &r.value))
        {
            if !wanted.contains(name) {
                wanted.push(name.clone());
            }
        }
    }
    let imported = probe(source, pins, &wanted)?;
    let graph = source.graph()?;
    let of = |name: &String| wanted.iter().position(|w| w == name).map(|at| imported.typed.outputs[at]);
    let place = |layer: &Layer| {
        let node = &graph.node[layer.node];
        Some(Place {
            inputs: of(&node.input[0])?,
            conv: imported.typed.node(of(&node.output[0])?.node).op_as::<Conv>().cloned(),
            added: layer.residual.as_ref().and_then(|residual| of(&residual.value)),
        })
    };
    let places = layers.iter().map(place).collect::<Option<Vec<_>>>().ok_or_else(lost)?;
    let feed = data.feed(imported.ports())?;
    guard("prune", || {
        rows(&imported.typed, &feed, (layers, &places), each).map_err(|e| PackerError::model("prune", &e))
    })
}

/// Where a layer is in tract's graph.
struct Place {
    inputs: OutletId,
    /// It, where it is no product.
    conv: Option<Conv>,
    added: Option<OutletId>,
}

fn rows(
    model: &TypedModel,
    feed: &Feed<'_>,
    (layers, places): (&[Layer], &[Place]),
    each: &mut dyn FnMut(usize, usize, Rows),
) -> TractResult<()> {
    let mut model = model.clone();
    let mut outlets: Vec<OutletId> =
        places.iter().flat_map(|p| [p.inputs].into_iter().chain(p.added)).collect();
    outlets.sort_unstable();
    outlets.dedup();
    model.select_output_outlets(&outlets)?;
    let model = model.into_optimized()?.into_runnable()?;
    let runs = feed.runs();
    for run in 0..runs {
        let values = model.run(feed.values(run)?)?;
        let of = |outlet: OutletId| outlets.binary_search(&outlet).ok().and_then(|at| values.get(at));
        for (index, (layer, place)) in layers.iter().zip(places).enumerate() {
            let input = of(place.inputs).context("an input that was not computed")?;
            let wanted = ROWS.max(layer.depth * ROWS_FOR_DEPTH).div_ceil(runs).max(1);
            let step = |rows: usize| (rows / wanted).max(1);
            let inputs = match &place.conv {
                Some(conv) => calibrate::windows(conv, input, run, &step)?,
                None => positions(input, false, run, &step)?,
            };
            let added = place.added.and_then(of).map(|v| positions(v, place.conv.is_some(), run, &step));
            let mut added = added.transpose()?.filter(|added| added.nrows() == inputs.nrows());
            let norm = layer.residual.as_ref().and_then(|residual| residual.norm.as_ref());
            if let (Some(all), Some(norm)) = (&mut added, norm) {
                for (mut of_channel, scale) in all.columns_mut().into_iter().zip(norm) {
                    of_channel.mapv_inplace(|v| if scale.abs() > 1e-6 { v / scale } else { 0.0 });
                }
            }
            each(index, run, Rows { inputs, added });
        }
    }
    Ok(())
}

/// The channels at each position, `[rows, channels]`: these lie on the second axis of images, on the last of others.
fn positions(
    value: &TValue,
    image: bool,
    run: usize,
    step: &dyn Fn(usize) -> usize,
) -> TractResult<Array2<f32>> {
    let plain = value.try_as_plain_ram()?;
    let view = plain.to_array_view::<f32>()?;
    let last = view.ndim().checked_sub(1).context("an operand without axes")?;
    let axis = if image { 1 } else { last };
    let order: Vec<usize> = (0..=last).filter(|a| *a != axis).chain([axis]).collect();
    let channels = view.shape()[axis];
    let rows = view.len() / channels.max(1);
    let turned = view.permuted_axes(order).as_standard_layout().into_owned();
    let all = turned.into_shape_with_order((rows, channels))?;
    let step = step(rows);
    Ok(all.select(Axis(0), &(run % step..rows).step_by(step).collect::<Vec<_>>()))
}

/// The outputs of `source` that are f32, of some evenly spread runs.
pub(super) fn outputs(
    source: &Source,
    (pins, data): (&[InputPin], &Dataset),
) -> Result<Vec<Vec<f32>>, PackerError> {
    let imported = guard("prune", || source.import(pins))?;
    let feed = data.feed(imported.ports())?;
    let run = |model: TypedModel| {
        let model = model.into_optimized()?.into_runnable()?;
        let mut all = Vec::new();
        let step = feed.runs().div_ceil(SENSITIVITY_RUNS);
        for run in (0..feed.runs()).step_by(step) {
            let values = model.run(feed.values(run)?)?;
            all.resize(values.len(), Vec::new());
            for (all, value) in
                all.iter_mut().zip(&values).filter(|(_, v)| v.datum_type() == f32::datum_type())
            {
                all.extend_from_slice(value.try_as_plain_ram()?.as_slice::<f32>()?);
            }
        }
        Ok(all)
    };
    guard("prune", || run(imported.typed).map_err(|e: TractError| PackerError::model("prune", &e)))
}
