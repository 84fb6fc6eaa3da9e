//! The operators that stand for a group until the plan is written. tract never runs them.

use glowplug_pack::plan::{Activation, RowStrides};
use tract_core::internal::*;

/// What tract asks of every operator and these have no use for.
macro_rules! group {
    ($name:ident) => {
        impl Op for $name {
            fn name(&self) -> StaticName {
                stringify!($name).into()
            }
            op_as_typed_op!();
        }

        impl EvalOp for $name {
            not_out_of_plan!();

            fn eval(&self, _: &EvalContext, _: TVec<TValue>) -> TractResult<TVec<TValue>> {
                bail!("{} is planned, never run", stringify!($name))
            }
        }

        impl TypedOp for $name {
            fn output_facts(&self, _inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
                Ok(tvec!(f32::fact(&self.shape)))
            }
            as_op!();
        }
    };
}

/// See the plan's operator of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dense {
    /// `[depth, columns]`.
    pub(crate) weight: Arc<Tensor>,
    pub(crate) weight_name: String,
    pub(crate) rows: RowStrides,
    pub(crate) bias: bool,
    pub(crate) residual: bool,
    pub(crate) activation: Activation,
    pub(crate) shape: TVec<usize>,
}
group!(Dense);

/// See the plan's operator of the same name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Attention {
    pub(crate) batch: usize,
    pub(crate) heads: usize,
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) scale: f32,
    pub(crate) shape: TVec<usize>,
}
impl Eq for Attention {}
group!(Attention);

/// See the plan's operator of the same name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LayerNorm {
    pub(crate) epsilon: f32,
    pub(crate) shape: TVec<usize>,
}
impl Eq for LayerNorm {}
group!(LayerNorm);

/// See the plan's operator of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OneHotRows {
    /// `[rows, columns]`.
    pub(crate) table: Arc<Tensor>,
    pub(crate) table_name: String,
    pub(crate) activation: Activation,
    pub(crate) shape: TVec<usize>,
}
group!(OneHotRows);
