//! The model as it came, which the accuracy of a pruned one is measured against.

use super::{Prune, PruneReport, prune};
use crate::error::{PackerError, guard};
use crate::evaluate::bad;
use crate::import::{Imported, Source};
use crate::pack::{PackOptions, Stage};
use crate::pin::InputPin;
use crate::simplify::simplify;
use tract_core::internal::TypedModel;

/// What a pruned model is compared with, at the default shapes.
pub(crate) struct Unpruned {
    pub(crate) float: Variant,
    /// The same channels gone, and no weight re-solved.
    pub(crate) unrestored: Option<Variant>,
    pub(crate) report: PruneReport,
}

/// Another model of the same inputs and outputs: imported, and simplified.
pub(crate) struct Variant {
    pub(crate) imported: Imported,
    pub(crate) simplified: TypedModel,
}

impl Variant {
    fn of(source: &Source, pins: &[InputPin]) -> Result<Variant, PackerError> {
        let imported = guard("import", || source.import(pins))?;
        let simplified = simplify(&imported.typed)?;
        Ok(Variant { imported, simplified })
    }
}

impl Unpruned {
    /// The pruned model, and what it is compared with.
    pub(crate) fn of(
        source: &Source,
        pins: &[InputPin],
        how: Prune,
        options: &mut PackOptions<'_>,
    ) -> Result<(Source, Unpruned), PackerError> {
        let data = options.calibration.ok_or_else(|| bad("pruning needs calibration data"))?;
        let progress = &mut *options.progress;
        let pruned = prune(source, pins, data, how, &mut |detail| progress(Stage::Import, detail))?;
        let float = Variant::of(source, pins)?;
        // It is for measuring only.
        let unrestored = pruned.unrestored.filter(|_| options.contract.accuracy.is_some());
        let unrestored = unrestored.map(|source| Variant::of(&source, pins)).transpose()?;
        Ok((pruned.source, Unpruned { float, unrestored, report: pruned.report }))
    }
}
