//! Batches of convolutional networks, image by image.
//!
//! Operator by operator, a batch of eight makes every activation eight times as large, and it falls out of the caches
//! between two operators. So the convolutional part of a network is planned for one image and made the body of a loop
//! over the batch (docs/adr/0013 says when). What reads a weight for few positions of an image, as the last layer of a
//! classifier does, stays behind the loop: there all images share one reading of the weight.
//!
//! That a network treats its images one by one is not assumed: what the loop gives is compared with the whole batch
//! when the pack is verified, and where it differs the whole batch is planned.

mod cut;
mod join;

use crate::blocked::is_convolutional;
use crate::encode::encode;
use crate::error::{PackerError, guard};
use crate::graphs::Graphs;
use crate::import::{Imported, Port};
use crate::quantize::Quantizer;
use crate::simplify::simplify;
use cut::Cut;
use glowplug_pack::plan::PlanGraph;
use glowplug_pack::{Encoding, PackBuilder};
use tract_core::internal::*;
use tract_core::ops::konst::Const;

/// Batches whose largest value takes no more than this stay whole: an operator's next one finds it in some cache, and
/// calling every operator once for each image costs more (docs/adr/0013 has the figures).
const CACHED_BYTES: usize = 6 << 20;

/// A batch planned image by image.
pub(crate) struct Batch {
    images: usize,
    /// What is done for one image.
    body: Graphs,
    /// What is done for all images at once, if anything is.
    tail: Option<Graphs>,
    /// Where the tail's inputs and the model's outputs come from.
    wires: Wires,
}

/// How the two parts of a batch hang together.
struct Wires {
    /// Where each input of the tail comes from.
    tail: Vec<Wire>,
    /// Where each output of the model comes from.
    outputs: Vec<Wire>,
}

/// Where a value of the batch comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    /// This input of the model.
    Input(usize),
    /// This output of the loop.
    Loop(usize),
    /// This output of the tail.
    Tail(usize),
}

impl Batch {
    /// The model image by image, if it is a batch of images for a convolutional network. `simplified` is the model
    /// without any cut. Errors: why it has to be done as a whole.
    pub(crate) fn of(
        imported: &Imported,
        simplified: &TypedModel,
        quantizer: &Quantizer,
    ) -> Result<Option<Batch>, PackerError> {
        let Some(images) = images(imported) else { return Ok(None) };
        if !is_convolutional(simplified) || !is_large(simplified) {
            return Ok(None);
        }
        let mut inputs: Vec<Port> = imported.inputs.clone();
        for axis in inputs.iter_mut().filter_map(|port| port.axes.first_mut()) {
            axis.size = 1;
        }
        let failed = |e: TractError| PackerError::model("image by image", &e);
        let cut = guard("image by image", || {
            let one = imported.typed_at(&inputs).map_err(failed)?;
            Cut::of(&imported.typed, one, images).map_err(failed)
        })?;
        let graphs =
            |typed: &TypedModel| quantizer.apply(simplify(typed)?).and_then(|model| Graphs::of(model, None));
        let tail = cut.tail.as_ref().map(graphs).transpose()?;
        Ok(Some(Batch { images, body: graphs(&cut.body)?, tail, wires: cut.wires }))
    }

    /// The plan, its weights added to `builder` in execution order. Errors: as [`encode`].
    pub(crate) fn encode(
        &self,
        encodings: &[Encoding],
        builder: &mut PackBuilder,
    ) -> Result<PlanGraph, PackerError> {
        let mut plan = |graphs: &Graphs| encode(&graphs.decluttered, &graphs.optimized, encodings, builder);
        let body = plan(&self.body)?;
        let tail = self.tail.as_ref().map(plan);
        join::join(self.images, body, tail.transpose()?, &self.wires)
            .map_err(|e| PackerError::model("image by image", &e))
    }
}

/// Whether the largest value of the graph takes so much that it leaves the caches.
fn is_large(model: &TypedModel) -> bool {
    let computed = model.nodes.iter().filter(|node| !node.op_is::<Const>()).flat_map(|node| &node.outputs);
    let bytes = |fact: &TypedFact| {
        let values = fact.shape.as_concrete()?.iter().product::<usize>();
        Some(values * fact.datum_type.size_of())
    };
    computed.filter_map(|outlet| bytes(&outlet.fact)).any(|bytes| bytes > CACHED_BYTES)
}

/// How many images the model takes and gives at once, where that is more than one.
fn images(imported: &Imported) -> Option<usize> {
    let first = |port: &Port| port.axes.first().map(|axis| axis.size);
    let images = imported.inputs.first().and_then(first).filter(|n| *n > 1)?;
    let typed = &imported.typed;
    let given = |o: &OutletId| typed.outlet_fact(*o).ok()?.shape.as_concrete()?.first().copied();
    let all = imported.inputs.iter().map(first).chain(typed.outputs.iter().map(given));
    all.into_iter().all(|n| n == Some(images)).then_some(images)
}
