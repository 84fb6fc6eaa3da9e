//! From a simplified graph to what a plan is encoded from.
//!
//! A graph goes one of two ways. *As a whole* it goes through our own passes, in blocks or in bytes, and then tract's optimizer. *By
//! image*, which is for batches of large images (`crate::batch`), it is cut into the body of a loop over single images and what
//! stays behind the loop, and each of these goes through the passes in f32. A batch that cannot be cut, or that gives something
//! else when it is verified, goes as a whole.

use crate::batch::Batch;
use crate::blocked::block;
use crate::encode::encode;
use crate::error::{PackerError, guard};
use crate::import::Imported;
use crate::int8::{self, Ranges};
use crate::quantize::Quantizer;
use glowplug_pack::plan::PlanGraph;
use glowplug_pack::{Encoding, PackBuilder};
use tract_core::internal::TypedModel;

/// What tract's passes make of an imported graph.
pub(crate) struct Graphs {
    pub(crate) decluttered: TypedModel,
    pub(crate) optimized: TypedModel,
}

impl Graphs {
    /// In f32 where `ranges` of activations are not given.
    pub(crate) fn of(decluttered: TypedModel, ranges: Option<&Ranges>) -> Result<Graphs, PackerError> {
        let plan = || {
            let planned = match ranges {
                None => block(&decluttered),
                Some(ranges) => int8::rewrite(&decluttered, ranges),
            };
            let optimized = planned.and_then(|model| crate::fuse::fuse(model)?.into_optimized());
            optimized.map_err(|e| PackerError::model("plan", &e))
        };
        let optimized = guard("plan", plan)?;
        Ok(Graphs { decluttered, optimized })
    }
}

/// The model for one set of shapes, and the way in which it is planned.
pub(crate) struct PlannedModel {
    /// Rounded, where weights are.
    pub(crate) simplified: TypedModel,
    pub(crate) way: Way,
    /// Why a batch is not planned image by image.
    pub(crate) as_a_whole: Option<PackerError>,
}

pub(crate) enum Way {
    Whole(Box<Graphs>),
    ByImage(Box<Batch>),
}

impl PlannedModel {
    pub(crate) fn of(
        imported: &Imported,
        simplified: TypedModel,
        quantizer: &Quantizer,
        by_image: bool,
        ranges: Option<&Ranges>,
    ) -> Result<PlannedModel, PackerError> {
        let batch = if by_image { Batch::of(imported, &simplified, quantizer) } else { Ok(None) };
        match batch {
            Ok(Some(batch)) => {
                Ok(PlannedModel { simplified, way: Way::ByImage(Box::new(batch)), as_a_whole: None })
            }
            Ok(None) => PlannedModel::whole(simplified, None, ranges),
            Err(e) => PlannedModel::whole(simplified, Some(e), ranges),
        }
    }

    pub(crate) fn whole(
        simplified: TypedModel,
        as_a_whole: Option<PackerError>,
        ranges: Option<&Ranges>,
    ) -> Result<PlannedModel, PackerError> {
        let way = Way::Whole(Box::new(Graphs::of(simplified.clone(), ranges)?));
        Ok(PlannedModel { simplified, way, as_a_whole })
    }

    pub(crate) fn encode(
        &self,
        encodings: &[Encoding],
        builder: &mut PackBuilder,
    ) -> Result<PlanGraph, PackerError> {
        match &self.way {
            Way::Whole(graphs) => encode(&graphs.decluttered, &graphs.optimized, encodings, builder),
            Way::ByImage(batch) => batch.encode(encodings, builder),
        }
    }
}
