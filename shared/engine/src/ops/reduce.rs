//! Reductions along an axis that is not the last: whole rows at a time, which tract walks value by value.

use super::plan_op;
use crate::kernels::columns::{Reduction, reduce};
use tract_core::internal::{
    EvalContext, EvalOp, IntoTValue, TValue, TVec, Tensor, TractResult, args_1, ensure, not_out_of_plan, tvec,
};

/// Over one axis, which becomes 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReduceColumns {
    pub(crate) axis: usize,
    pub(crate) reduction: Reduction,
}
plan_op!(ReduceColumns);

impl EvalOp for ReduceColumns {
    not_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        ensure!(self.axis < input.rank(), "axis {} of {:?}", self.axis, input.shape());
        let mut shape: TVec<usize> = input.shape().into();
        let rows = std::mem::replace(&mut shape[self.axis], 1);
        let columns: usize = shape[self.axis..].iter().product();
        let mut output = Tensor::zero::<f32>(&shape)?;
        let values = input.try_as_plain_ram()?;
        let mut plain = output.try_as_plain_ram_mut()?;
        let groups = values.as_slice::<f32>()?.chunks_exact((rows * columns).max(1));
        for (group, out) in groups.zip(plain.as_slice_mut::<f32>()?.chunks_exact_mut(columns.max(1))) {
            reduce(self.reduction, group, out);
        }
        Ok(tvec!(output.into_tvalue()))
    }
}
