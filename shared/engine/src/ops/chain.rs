//! Chain: elementwise operations in one pass over the data.

use super::plan_op;
use std::fmt;
use std::sync::Arc;
use tract_core::internal::{
    EvalContext, EvalOp, IntoTValue, IntoTensor, TValue, TVec, TractResult, ensure, not_out_of_plan, tvec,
};
use tract_core::ops::binary::BinMiniOp;
use tract_linalg::BinFn;
use tract_linalg::multithread::{BShare, BinChainStep, par_bin_chain};

/// One step: `acc = op(acc, operand)`.
#[derive(Clone)]
pub(crate) struct ChainStep {
    /// The operation in general.
    pub(crate) op: Box<dyn BinMiniOp>,
    /// The operation over slices, as this CPU does it best; absent where it has none.
    pub(crate) kernel: Option<Arc<BinFn>>,
    pub(crate) share: BShare,
}

/// Stands in for tract's `OptBinByScalar`, `OptBinUnicast` and `OptBinChain`, whose kernels are private.
#[derive(Clone)]
pub(crate) struct Chain {
    pub(crate) steps: Vec<ChainStep>,
}
plan_op!(Chain);

/// Kernels assert that repeated operands keep the accumulator's alignment; the widest vectors have 64 bytes.
const ALIGNED_PERIOD: usize = 16;
/// Blocks shorter than this cost more in calls than in arithmetic.
const SHORT_BLOCK: usize = 16;

impl ChainStep {
    /// How many values of the accumulator one call of the kernel covers, where the kernel can be used.
    fn period(&self, len: usize, operand: usize) -> Option<usize> {
        match self.share {
            BShare::Lockstep if operand == len || operand.is_multiple_of(ALIGNED_PERIOD) => Some(operand),
            BShare::PerBlock => Some(len / operand.max(1)).filter(|p| *p == 1 || *p >= SHORT_BLOCK),
            BShare::Lockstep => None,
        }
    }
}

impl EvalOp for Chain {
    not_out_of_plan!();

    fn eval(&self, _context: &EvalContext, mut inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        ensure!(
            inputs.len() == self.steps.len() + 1,
            "{} operands for {} steps",
            inputs.len(),
            self.steps.len()
        );
        let accumulator = inputs.remove(0);
        let len = accumulator.len();
        let kernels: Option<Vec<BinChainStep<'_>>> = (self.steps.iter().zip(&inputs))
            .map(|(step, b)| {
                let period = step.period(len, b.len())?;
                Some(BinChainStep { eval_fn: &**step.kernel.as_ref()?, b, period, share: step.share })
            })
            .collect();
        if let Some(kernels) = kernels {
            let mut accumulator = accumulator.into_tensor();
            par_bin_chain(&kernels, &mut accumulator)?;
            return Ok(tvec!(accumulator.into_tvalue()));
        }
        let step = |acc: TValue, (step, b): (&ChainStep, TValue)| {
            let dtype = acc.datum_type();
            TractResult::Ok(step.op.eval(acc, b, dtype)?.into_tvalue())
        };
        Ok(tvec!(self.steps.iter().zip(inputs).try_fold(accumulator, step)?))
    }
}

impl PartialEq for Chain {
    fn eq(&self, other: &Chain) -> bool {
        let key = |s: &ChainStep| (s.op.name(), s.share);
        self.steps.iter().map(key).eq(other.steps.iter().map(key))
    }
}

impl Eq for Chain {}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.steps.iter().map(|s| (s.op.name(), s.share))).finish()
    }
}
