//! What a plan names and tract has: kernels, elementwise operations, reductions.

use crate::error::{EngineError, ErrorKind};
use crate::values::packed_format;
use glowplug_pack::plan::{
    BinaryOp, Comparison, Function, Kernel, Logic, PadMode, PanelFormat, Reducer, UnaryOp,
};
use std::sync::Arc;
use tract_core::internal::{DatumType, TractResult, bail, tensor0};
use tract_core::ops::binary::BinMiniOp;
use tract_core::ops::element_wise::ElementWiseMiniOp;
use tract_core::ops::{logic, math, nn};
use tract_linalg::mmm::{MMMInputFormat, MatMatMul};
use tract_linalg::pack::PackedFormat;
use tract_linalg::{BinOp, MmmDispatch};

/// A kernel by name, with the panel layouts that the plan was validated for.
pub(super) fn find_kernel(kernel: &Kernel) -> Result<Box<dyn MatMatMul>, EngineError> {
    let unsupported = |why: &str| {
        let text = format!("kernel {:?}: {why} (this CPU has {})", kernel.name, crate::target::host());
        EngineError::new(ErrorKind::UnsupportedCpu, text)
    };
    let found = MmmDispatch::native().runnable().iter().find(|k| k.name() == kernel.name);
    let found = found.ok_or_else(|| unsupported("not on this CPU"))?;
    let packing =
        found.packings().get(kernel.packing).ok_or_else(|| unsupported("it has no such packing"))?;
    let is = |format: &dyn MMMInputFormat, wanted: &PanelFormat| {
        format.downcast_ref::<PackedFormat>().is_some_and(|f| *f == packed_format(wanted))
    };
    let tile = (kernel.a.r, kernel.b.r) == (found.mr(), found.nr());
    if !is(&*packing.0, &kernel.a) || !is(&*packing.1, &kernel.b) || !tile {
        return Err(unsupported("its panel layout is another than the plan's"));
    }
    if found.internal_type() != DatumType::F32 || !found.stores().contains(&DatumType::F32) {
        return Err(unsupported("it does not compute in f32"));
    }
    Ok(found.clone())
}

/// Kernels and fused operations know six of the operations.
pub(super) fn kernel_op(op: BinaryOp) -> TractResult<BinOp> {
    Ok(match op {
        BinaryOp::Min => BinOp::Min,
        BinaryOp::Max => BinOp::Max,
        BinaryOp::Add => BinOp::Add,
        BinaryOp::Mul => BinOp::Mul,
        BinaryOp::Sub => BinOp::Sub,
        BinaryOp::SubF => BinOp::SubF,
        BinaryOp::Div | BinaryOp::Pow => bail!("kernels do not know {op:?}"),
    })
}

pub(crate) fn binary(op: BinaryOp) -> Box<dyn BinMiniOp> {
    match op {
        BinaryOp::Min => Box::new(math::Min),
        BinaryOp::Max => Box::new(math::Max),
        BinaryOp::Add => Box::new(math::Add),
        BinaryOp::Mul => Box::new(math::Mul),
        BinaryOp::Sub => Box::new(math::Sub),
        BinaryOp::SubF => Box::new(math::SubF),
        BinaryOp::Div => Box::new(math::Div),
        BinaryOp::Pow => Box::new(math::Pow),
    }
}

pub(crate) fn unary(op: UnaryOp) -> Box<dyn ElementWiseMiniOp> {
    match op {
        UnaryOp::Abs => Box::new(math::Abs {}),
        UnaryOp::Exp => Box::new(math::Exp {}),
        UnaryOp::Ln => Box::new(math::Ln {}),
        UnaryOp::Sqrt => Box::new(math::Sqrt {}),
        UnaryOp::Rsqrt => Box::new(math::Rsqrt {}),
        UnaryOp::Recip => Box::new(math::Recip {}),
        UnaryOp::Square => Box::new(math::Square {}),
        UnaryOp::Neg => Box::new(math::Neg {}),
        UnaryOp::Tanh => Box::new(math::Tanh {}),
        UnaryOp::Erf => Box::new(math::Erf {}),
        UnaryOp::Sigmoid => Box::new(nn::Sigmoid {}),
        UnaryOp::HardSwish => Box::new(nn::HardSwish {}),
        UnaryOp::Silu => Box::new(nn::silu::Silu {}),
        UnaryOp::Gelu => Box::new(nn::gelu_exact::GeluExact {}),
    }
}

pub(crate) fn reducer(reducer: Reducer) -> nn::Reducer {
    match reducer {
        Reducer::Sum => nn::Reducer::Sum,
        Reducer::Max => nn::Reducer::Max,
        Reducer::Min => nn::Reducer::Min,
        Reducer::Prod => nn::Reducer::Prod,
        Reducer::MeanOfSquares => nn::Reducer::MeanOfSquares,
        Reducer::ArgMax => nn::Reducer::ArgMax(false),
        Reducer::ArgMin => nn::Reducer::ArgMin(false),
    }
}

pub(crate) fn comparison(op: Comparison) -> Box<dyn BinMiniOp> {
    match op {
        Comparison::Equal => Box::new(logic::CompEq),
        Comparison::NotEqual => Box::new(logic::CompNE),
        Comparison::Less => Box::new(logic::CompLT),
        Comparison::LessOrEqual => Box::new(logic::CompLTE),
        Comparison::Greater => Box::new(logic::CompGT),
        Comparison::GreaterOrEqual => Box::new(logic::CompGTE),
    }
}

pub(crate) fn pad_mode(mode: PadMode) -> tract_core::ops::array::PadMode {
    use tract_core::ops::array::PadMode as Tract;
    match mode {
        PadMode::Constant { value } => Tract::Constant(Arc::new(tensor0(value))),
        PadMode::Reflect => Tract::Reflect,
        PadMode::Edge => Tract::Edge,
    }
}

/// tract's operation.
pub(crate) fn logic(op: Logic) -> Box<dyn BinMiniOp> {
    match op {
        Logic::And => Box::new(logic::And),
        Logic::Or => Box::new(logic::Or),
        Logic::Xor => Box::new(logic::Xor),
    }
}

/// tract's operation.
pub(crate) fn function(op: Function) -> Box<dyn ElementWiseMiniOp> {
    match op {
        Function::Not => Box::new(logic::Not {}),
        Function::Ceil => Box::new(math::Ceil {}),
        Function::Floor => Box::new(math::Floor {}),
        Function::Round => Box::new(math::RoundHalfToEven {}),
        Function::RoundHalfUp => Box::new(math::Round {}),
        Function::Sign => Box::new(math::Sign {}),
        Function::Cos => Box::new(math::Cos {}),
        Function::Sin => Box::new(math::Sin {}),
    }
}
