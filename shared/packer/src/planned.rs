//! `Planned`: an operator of plans in tract's graph, for passes that go before tract's own.

use glowplug_pack::WeightId;
use glowplug_pack::plan::Op as PlanOp;
use std::sync::Arc;
use tract_core::internal::*;

/// An operator that tract knows nothing of but what it gives. Its passes leave it alone, and the encoder writes it
/// as it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Planned {
    /// The operator. Where it reads a weight in place, which one is said once the weight is stored.
    pub(crate) op: PlanOp,
    /// That weight, and under which name it is stored: filters `[O, I, kh, kw]`, a matrix `[depth, columns]`, a table.
    pub(crate) weight: Option<(String, Arc<Tensor>)>,
    /// What it gives.
    pub(crate) shape: TVec<usize>,
}

/// Stands in for a weight that is not stored yet.
pub(crate) const NOT_YET: WeightId = WeightId(0);

impl Eq for Planned {}

impl Planned {
    /// Images of bytes have four axes; all else is f32.
    fn datum_type(&self) -> DatumType {
        let bytes = match self.op {
            PlanOp::QuantizeImage { .. } | PlanOp::Int8DepthwiseConv { .. } | PlanOp::Int8MaxPool { .. } => {
                true
            }
            PlanOp::Int8Conv { .. } => self.shape.len() == 4,
            _ => false,
        };
        if bytes { DatumType::U8 } else { DatumType::F32 }
    }
}

impl Op for Planned {
    fn name(&self) -> StaticName {
        self.op.name().into()
    }
    fn as_typed(&self) -> Option<&dyn TypedOp> {
        Some(self)
    }
}

impl EvalOp for Planned {
    not_out_of_plan!();
}

impl TypedOp for Planned {
    fn as_op(&self) -> &dyn Op {
        self
    }
    fn as_op_mut(&mut self) -> &mut dyn Op {
        self
    }
    fn output_facts(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(self.datum_type().fact(&self.shape)))
    }
}
