//! Operators of our own, where tract's are private, copy what can be read in place, or are slower than need be.
//!
//! All of them are made by `decode` from a validated plan, with every extent known. tract's graph passes
//! never see them, so they have no analysis of their own.

mod attention;
mod blocked;
mod chain;
mod col2im;
mod dense;
mod depthwise;
mod direct_conv;
mod gather;
mod im2col;
pub(crate) mod int8;
mod layer_norm;
mod one_hot;
mod pad;
mod pool;
mod prepack;
mod reduce;
mod scan;
mod upsample;
pub(crate) mod window;

pub(crate) use attention::Attention;
pub(crate) use blocked::{
    BlockChannels, BlockedConv, BlockedDepthwiseConv, PerChannel, PlaneReduce, PlaneReducer, UnblockChannels,
};
pub(crate) use chain::{Chain, ChainStep};
pub(crate) use col2im::Col2Im;
pub(crate) use dense::Dense;
pub(crate) use depthwise::DepthwiseConv;
pub(crate) use direct_conv::DirectConv;
pub(crate) use gather::{GatherAxis, GatherRows};
pub(crate) use im2col::Im2col;
pub(crate) use int8::{DequantizeImage, Int8Conv, Int8DepthwiseConv, Int8MaxPool, QuantizeImage};
pub(crate) use layer_norm::LayerNorm;
pub(crate) use one_hot::OneHotRows;
pub(crate) use pad::Pad;
pub(crate) use pool::{Pool, PoolKind};
pub(crate) use prepack::Prepack;
pub(crate) use reduce::ReduceColumns;
pub(crate) use scan::Scan;
pub(crate) use upsample::Upsample;

use tract_core::internal::{
    Datum, IntoTValue, TValue, TVec, Tensor, TractError, TractResult, format_err, tvec,
};
use tract_core::num_traits::Zero;

/// What tract asks of every operator and a plan has no use for.
macro_rules! plan_op {
    ($name:ident) => {
        impl tract_core::internal::Op for $name {
            fn name(&self) -> tract_core::internal::StaticName {
                stringify!($name).into()
            }
            fn as_typed(&self) -> Option<&dyn tract_core::internal::TypedOp> {
                Some(self)
            }
        }

        impl tract_core::internal::TypedOp for $name {
            fn as_op(&self) -> &dyn tract_core::internal::Op {
                self
            }
            fn as_op_mut(&mut self) -> &mut dyn tract_core::internal::Op {
                self
            }
            fn output_facts(
                &self,
                _inputs: &[&tract_core::internal::TypedFact],
            ) -> tract_core::internal::TractResult<
                tract_core::internal::TVec<tract_core::internal::TypedFact>,
            > {
                tract_core::internal::bail!("{} is made by a plan and never analysed", stringify!($name))
            }
        }
    };
}
pub(crate) use plan_op;

/// What a node with fewer operands than its rule asks for is answered with.
fn too_few(inputs: &[TValue]) -> TractError {
    format_err!("{} operands", inputs.len())
}

/// The output of an operator with one operand: zeros of `shape`, to which `fill` is given the operand's values.
fn filled<X: Datum, Y: Datum + Zero>(
    inputs: &[TValue],
    shape: &[usize],
    fill: impl FnOnce(&[X], &mut [Y]) -> TractResult<()>,
) -> TractResult<TVec<TValue>> {
    let [x] = inputs else { return Err(too_few(inputs)) };
    let mut output = Tensor::zero::<Y>(shape)?;
    fill(x.try_as_plain_ram()?.as_slice()?, output.try_as_plain_ram_mut()?.as_slice_mut()?)?;
    Ok(tvec!(output.into_tvalue()))
}

/// What a shape that the plan's rules exclude is answered with.
fn not_an_image(shape: &[usize]) -> TractError {
    format_err!("a tensor of shape {shape:?}, expected an image")
}
