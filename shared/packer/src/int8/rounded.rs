//! The weights of convolutions in bytes, rounded where the simplified graph has them: one set of values for all that a
//! pack holds.

use super::{Pass, Ranges};
use crate::blocked::block_named;
use crate::quantize::replace_constant;
use tract_core::internal::*;
use tract_core::ops::cnn::Conv;
use tract_core::ops::einsum::EinSum;
use tract_core::ops::konst::Const;

/// What constants become.
#[derive(Clone, Default)]
pub(crate) struct RoundedFilters(Vec<(Arc<Tensor>, Arc<Tensor>)>);

impl RoundedFilters {
    /// The weights of all convolutions of `model`, simplified, that can be done in bytes.
    pub(crate) fn of(model: &TypedModel, ranges: &Ranges) -> TractResult<RoundedFilters> {
        let (blocked, names) = block_named(model)?;
        let pass = Pass::new(&blocked, names, ranges);
        let mut rounded = RoundedFilters::default();
        for (id, found) in pass.all()? {
            let name = &blocked.node(id).name;
            let Some(node) = model.nodes.iter().find(|n| n.name == *name) else { continue };
            let Some((constant, turned)) = weight(model, node) else { continue };
            let count = found.filters.count();
            let new = (*found.filters.rounded).clone();
            let shape = constant.shape();
            let new = match turned {
                // `[depth, filters]`.
                true => {
                    let depth = new.len() / count.max(1);
                    new.into_shape(&[count, depth])?.permute_axes(&[1, 0])?.into_shape(shape)?
                }
                false => new.into_shape(shape)?,
            };
            if new != **constant {
                rounded.0.push((constant.clone(), new.into_arc_tensor()));
            }
        }
        Ok(rounded)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `model` with its constants rounded.
    pub(crate) fn apply(&self, mut model: TypedModel) -> TractResult<TypedModel> {
        if self.is_empty() {
            return Ok(model);
        }
        for id in 0..model.nodes.len() {
            let Some(constant) = model.node(id).op_as::<Const>() else { continue };
            let Some((_, new)) = self.0.iter().find(|(old, _)| old == constant.val()) else { continue };
            replace_constant(&mut model, id, new.clone())?;
        }
        Ok(model)
    }
}

/// A convolution's weight, and whether its filters are the columns of a matrix.
fn weight<'a>(model: &'a TypedModel, node: &'a TypedNode) -> Option<(&'a Arc<Tensor>, bool)> {
    let constant = model.node(node.inputs.get(1)?.node).op_as::<Const>()?.val();
    if node.op_is::<Conv>() {
        return Some((constant, false));
    }
    let product = node.op_as::<EinSum>()?;
    let rows = (0..constant.rank()).filter(|axis| constant.shape()[*axis] > 1).find(|axis| {
        let axis = product.axes.axis((InOut::In(1), *axis));
        axis.is_ok_and(|axis| !axis.outputs[0].is_empty())
    })?;
    let depth = (0..constant.rank()).find(|axis| *axis != rows && constant.shape()[*axis] > 1)?;
    Some((constant, depth < rows))
}
