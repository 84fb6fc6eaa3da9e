//! Portable operators as tract's: one row each.

use crate::decode::names;
use crate::values::datum_type;
use glowplug_pack::portable::{DimId, Extents, KernelLayout, Layout, Op, Padding, Pool};
use std::sync::Arc;
use tract_core::internal::{
    AxisOp, TDim, TVec, Tensor, ToDim, TractResult, TypedOp, bail, format_err, tensor0,
};
use tract_core::ops::array::{Gather, MultiBroadcastTo, Pad, Slice, TypedConcat};
use tract_core::ops::binary::TypedBinOp;
use tract_core::ops::cast::Cast;
use tract_core::ops::cnn::{Conv, Deconv, KernelFormat, MaxPool, PaddingSpec, PoolSpec, SumPool};
use tract_core::ops::downsample::Downsample;
use tract_core::ops::einsum::EinSum;
use tract_core::ops::element_wise::ElementWiseOp;
use tract_core::ops::konst::Const;
use tract_core::ops::logic;
use tract_core::ops::lstm_cell::LstmEpilogue;
use tract_core::ops::nn::resize::NearestUpsample;
use tract_core::ops::nn::{DataFormat, Reduce, RmsNorm, Softmax, SoftmaxKind};

/// tract's operator for one that is neither an end of the graph nor a loop.
pub(super) fn op(op: &Op, extents: &Extents) -> TractResult<Box<dyn TypedOp>> {
    Ok(match op {
        Op::Conv { pool, kernel, group } => Box::new(Conv {
            pool_spec: pool_spec(pool),
            kernel_fmt: kernel_format(*kernel),
            group: *group,
            q_params: None,
        }),
        Op::ConvTranspose { pool, kernel, adjustments, group } => Box::new(Deconv {
            pool_spec: pool_spec(pool),
            kernel_format: kernel_format(*kernel),
            adjustments: list(adjustments),
            group: *group,
        }),
        Op::MaxPool { pool } => Box::new(MaxPool { pool_spec: pool_spec(pool), with_index_outputs: None }),
        Op::AveragePool { pool, count_include_pad, normalize } => Box::new(SumPool {
            pool_spec: pool_spec(pool),
            count_include_pad: *count_include_pad,
            normalize: *normalize,
        }),
        Op::Binary { op } => Box::new(TypedBinOp(names::binary(*op), None)),
        Op::Compare { op } => Box::new(TypedBinOp(names::comparison(*op), None)),
        Op::Logic { op } => Box::new(TypedBinOp(names::logic(*op), None)),
        Op::Unary { op } => Box::new(ElementWiseOp(names::unary(*op), None)),
        Op::Function { op } => Box::new(ElementWiseOp(names::function(*op), None)),
        Op::Reduce { axes, reducer } => {
            Box::new(Reduce { axes: list(axes), reducer: names::reducer(*reducer) })
        }
        Op::Softmax { axes, log: false } => Box::new(softmax(axes, SoftmaxKind::Softmax)),
        Op::Softmax { axes, log: true } => Box::new(softmax(axes, SoftmaxKind::LogSoftmax)),
        Op::RmsNorm { axis, epsilon } => Box::new(RmsNorm { axis: *axis, eps: Arc::new(tensor0(*epsilon)) }),
        Op::Gather { axis } => Box::new(Gather::new(*axis)),
        Op::Cast { to } => Box::new(Cast { to: datum_type(*to) }),
        Op::Extents { shape, values } => {
            let numbers = values.iter().map(|id| extents.value(*id)).collect::<Option<Vec<i64>>>();
            let numbers = numbers.ok_or_else(|| format_err!("a number that is not there"))?;
            Box::new(Const::new(Arc::new(Tensor::from_shape(shape, &numbers)?))?)
        }
        Op::Where => Box::new(logic::Iff),
        Op::LstmCell { hidden } => Box::new(LstmEpilogue { hidden: *hidden }),
        op => return moved(op, extents),
    })
}

/// The operators that only move values.
fn moved(op: &Op, extents: &Extents) -> TractResult<Box<dyn TypedOp>> {
    Ok(match op {
        Op::Slice { axis, start, end } => {
            let [start, end] = [start, end].map(|id| extents.get(*id));
            let (Some(start), Some(end)) = (start, end) else { bail!("a negative position") };
            Box::new(Slice::new(*axis, start, end))
        }
        Op::Concat { axis } => Box::new(TypedConcat { axis: *axis }),
        Op::Pad { pads, mode } => Box::new(Pad { pads: pads.clone(), mode: names::pad_mode(*mode) }),
        Op::Reshape { axis, from, to } => {
            Box::new(AxisOp::Reshape(*axis, dims(from, extents)?, dims(to, extents)?))
        }
        Op::Unsqueeze { axis } => Box::new(AxisOp::Add(*axis)),
        Op::Squeeze { axis } => Box::new(AxisOp::Rm(*axis)),
        Op::MoveAxis { from, to } => Box::new(AxisOp::Move(*from, *to)),
        Op::Expand { shape } => Box::new(MultiBroadcastTo { shape: dims(shape, extents)?.into() }),
        Op::Upsample { scales } => Box::new(NearestUpsample { scales: list(scales) }),
        Op::Downsample { axis, stride, offset } => {
            Box::new(Downsample { axis: *axis, stride: isize::try_from(*stride)?, modulo: *offset })
        }
        other => bail!("{} is not an operator of this kind", other.name()),
    })
}

fn list(values: &[usize]) -> TVec<usize> {
    values.iter().copied().collect()
}

fn dims(ids: &[DimId], extents: &Extents) -> TractResult<TVec<TDim>> {
    let all = extents.all(ids).ok_or_else(|| format_err!("a negative extent"))?;
    Ok(all.iter().map(ToDim::to_dim).collect())
}

/// The operator of an equation over operands of one type.
pub(super) fn einsum(equation: &str, datum_type: tract_core::internal::DatumType) -> TractResult<EinSum> {
    Ok(EinSum::new(equation.parse()?, datum_type))
}

fn softmax(axes: &[usize], kind: SoftmaxKind) -> Softmax {
    Softmax { axes: list(axes), quant_output_dt: None, kind }
}

fn pool_spec(pool: &Pool) -> PoolSpec {
    PoolSpec {
        data_format: match pool.layout {
            Layout::Nchw => DataFormat::NCHW,
            Layout::Nhwc => DataFormat::NHWC,
            Layout::Chw => DataFormat::CHW,
            Layout::Hwc => DataFormat::HWC,
        },
        kernel_shape: list(&pool.kernel),
        padding: match &pool.padding {
            Padding::Valid => PaddingSpec::Valid,
            Padding::Explicit { before, after } => PaddingSpec::Explicit(list(before), list(after)),
            Padding::Pool { before, after, ceil } => {
                PaddingSpec::ExplicitOnnxPool(list(before), list(after), *ceil)
            }
            Padding::SameUpper => PaddingSpec::SameUpper,
            Padding::SameLower => PaddingSpec::SameLower,
        },
        dilations: Some(list(&pool.dilations)),
        strides: Some(list(&pool.strides)),
        input_channels: pool.input_channels,
        output_channels: pool.output_channels,
    }
}

fn kernel_format(layout: KernelLayout) -> KernelFormat {
    match layout {
        KernelLayout::Oihw => KernelFormat::OIHW,
        KernelLayout::Hwio => KernelFormat::HWIO,
        KernelLayout::Ohwi => KernelFormat::OHWI,
    }
}
