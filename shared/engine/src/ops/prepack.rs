//! Prepack: an activation into the panels of a matrix kernel.

use super::plan_op;
use tract_core::internal::{
    EvalContext, EvalOp, IntoTValue, TValue, TVec, TensorView, TractResult, args_1, ensure, not_out_of_plan,
    tvec,
};
use tract_linalg::mmm::{MMMInputFormat, PackedMatrixStorage};
use tract_linalg::pack::PackedFormat;

/// Stands in for tract's `OptMatMulPack`, whose fields are private.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prepack {
    pub(crate) format: PackedFormat,
    pub(crate) k_axis: usize,
    pub(crate) mn_axis: usize,
}
plan_op!(Prepack);

impl EvalOp for Prepack {
    not_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        let (k_axis, mn_axis) = (self.k_axis, self.mn_axis);
        ensure!(k_axis != mn_axis && k_axis.max(mn_axis) < input.rank(), "axes of {input:?}");
        let mut batch: TVec<(usize, isize)> =
            (input.shape().iter().copied().zip(input.strides().iter().copied())).collect();
        batch.remove(k_axis.max(mn_axis));
        batch.remove(k_axis.min(mn_axis));
        let mut offsets = vec![0isize];
        for (extent, stride) in &batch {
            let step = |base: isize| (0..*extent).map(move |i| base + i.cast_signed() * stride);
            offsets = offsets.into_iter().flat_map(step).collect();
        }
        let shape: TVec<usize> = batch.iter().map(|(extent, _)| *extent).collect();
        let values = offsets.into_iter().map(|offset| {
            let bytes = offset * input.datum_type().size_of().cast_signed();
            let view = matrix(&input, bytes);
            self.format.prepare_one_view(&view, k_axis, mn_axis)
        });
        let values = values.collect::<TractResult<TVec<_>>>()?;
        Ok(tvec!(
            PackedMatrixStorage::new_batched(&shape, values).into_tensor(input.datum_type()).into_tvalue()
        ))
    }
}

/// One matrix of the batch: the whole tensor, moved by `offset` bytes. Packing walks only the two matrix
/// axes of the view, whose extents and strides are the tensor's own.
#[allow(unsafe_code, reason = "tract has no safe view at an offset")]
fn matrix<'a>(input: &'a TValue, offset: isize) -> TensorView<'a> {
    // SAFETY: `offset` is a sum of `index * stride` over the batch axes with every index below its extent, so
    // with any coordinates below the extents of the two matrix axes the address lies inside of the tensor.
    unsafe { TensorView::from_bytes(input, offset, input.shape(), input.strides()) }
}
