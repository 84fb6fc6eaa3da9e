//! LayerNorm: rows to mean 0 and variance 1, then scaled and moved.

use super::plan_op;
use crate::kernels::rows::layer_norm;
use tract_core::internal::{
    EvalContext, EvalOp, IntoTValue, TValue, TVec, Tensor, TractResult, args_3, ensure, not_out_of_plan, tvec,
};

/// Over the last axis.
#[derive(Clone, Debug)]
pub(crate) struct LayerNorm {
    pub(crate) epsilon: f32,
}
plan_op!(LayerNorm);

impl EvalOp for LayerNorm {
    not_out_of_plan!();

    #[allow(unsafe_code, reason = "zeroing what is written anyway takes time")]
    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let (x, scale, bias) = args_3!(inputs);
        // SAFETY: `layer_norm` writes every row below, and the rows are all of it.
        let mut output = unsafe { Tensor::uninitialized::<f32>(x.shape()) }?;
        let (x, scale, bias) = (x.try_as_plain_ram()?, scale.try_as_plain_ram()?, bias.try_as_plain_ram()?);
        let (x, scale, bias) = (x.as_slice::<f32>()?, scale.as_slice::<f32>()?, bias.as_slice::<f32>()?);
        let n = scale.len();
        ensure!(
            n > 0 && n == bias.len() && x.len().is_multiple_of(n),
            "rows of {n} values out of {}",
            x.len()
        );
        let mut plain = output.try_as_plain_ram_mut()?;
        let rows = x.chunks_exact(n).zip(plain.as_slice_mut::<f32>()?.chunks_exact_mut(n));
        rows.for_each(|(x, out)| layer_norm(x, scale, bias, self.epsilon, out));
        Ok(tvec!(output.into_tvalue()))
    }
}

impl PartialEq for LayerNorm {
    fn eq(&self, other: &LayerNorm) -> bool {
        self.epsilon.to_bits() == other.epsilon.to_bits()
    }
}

impl Eq for LayerNorm {}
