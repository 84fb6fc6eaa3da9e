//! The table of operators, and the rows that are one line each in the plan too.

use super::matmul::binary;
use super::{Encoded, Encoder, conv, is_row_gather, matmul, moves, planned, scan};
use glowplug_pack::plan::{BinaryOp, Comparison, Function, Logic, Op, Reducer, Share, Step, UnaryOp};
use tract_core::internal::*;
use tract_core::ops::array::Gather;
use tract_core::ops::binary::{BinMiniOp, OptBinByScalar, OptBinChain, OptBinUnicast, TypedBinOp};
use tract_core::ops::cast::Cast;
use tract_core::ops::change_axes::{AxisOp, IntoShape};
use tract_core::ops::element_wise::ElementWiseOp;
use tract_core::ops::konst::Const;
use tract_core::ops::logic;
use tract_core::ops::math;
use tract_core::ops::nn::{self, Reduce, RmsNorm, Softmax, SoftmaxKind};
use tract_core::ops::source::TypedSource;
use tract_linalg::mmm::PackedMatrixStorage;
use tract_linalg::multithread::BShare;

/// `None` where the node is another row's; an error where it is this row's and not covered.
type Row = for<'a> fn(&mut Encoder<'a>, &'a TypedNode) -> Option<TractResult<Encoded>>;

/// One row per operator of tract's.
pub(super) const ROWS: &[Row] = &[
    source,
    constant,
    matmul::product,
    matmul::prepack,
    conv::im2col,
    conv::in_place,
    conv::col2im,
    conv::max_pool,
    conv::average_pool,
    by_scalar,
    unicast,
    chain,
    typed_binary,
    element_wise,
    chosen,
    reduce,
    softmax,
    rms_norm,
    into_shape,
    axis_op,
    cast,
    gather,
    moves::slice,
    moves::downsample,
    moves::concat,
    moves::pad,
    moves::upsample,
    moves::expand,
    scan::lstm_cell,
    scan::scan,
    planned::planned,
];

/// The same operands as tract's node.
pub(super) fn same(node: &TypedNode, op: Op) -> Encoded {
    Encoded { op, inputs: node.inputs.iter().copied().collect() }
}

fn source<'a>(_: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    node.op_is::<TypedSource>().then(|| Ok(same(node, Op::Source)))
}

fn constant<'a>(e: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    node.op_as::<Const>().map(|constant| {
        let value = constant.val();
        if value.is_plain() && value.datum_type() == DatumType::Bool {
            let bytes = e.bytes_of_bools(&node.name, value)?;
            return Ok(Encoded { op: Op::Cast, inputs: tvec![bytes] });
        }
        let op = match value.storage_as::<PackedMatrixStorage>() {
            Some(panels) => e.panels(&node.name, panels)?,
            None => e.constant(&node.name, value)?,
        };
        Ok(same(node, op))
    })
}

fn share(share: BShare) -> Share {
    match share {
        BShare::Lockstep => Share::Lockstep,
        BShare::PerBlock => Share::PerBlock,
    }
}

fn one_step(node: &TypedNode, op: BinaryOp, share: Share) -> Encoded {
    same(node, Op::Chain { steps: vec![Step { op, share }] })
}

fn by_scalar<'a>(_: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    node.op_as::<OptBinByScalar>().map(|o| Ok(one_step(node, binary(o.linalg_op), Share::PerBlock)))
}

fn unicast<'a>(_: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    node.op_as::<OptBinUnicast>().map(|o| Ok(one_step(node, binary_op(&*o.binop)?, Share::Lockstep)))
}

fn chain<'a>(_: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    node.op_as::<OptBinChain>().map(|o| {
        let steps = o.steps.iter().map(|s| Step { op: binary(s.linalg_op), share: share(s.share) }).collect();
        Ok(same(node, Op::Chain { steps }))
    })
}

fn typed_binary<'a>(_: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    node.op_as::<TypedBinOp>().map(|o| {
        ensure!(o.1.is_none(), "a binary operation with a type of its own");
        if let Some(op) = comparison(&*o.0) {
            return Ok(same(node, Op::Compare { op }));
        }
        if let Some(op) = logical(&*o.0) {
            return Ok(same(node, Op::Logic { op }));
        }
        Ok(same(node, Op::Binary { op: binary_op(&*o.0)? }))
    })
}

pub(crate) fn comparison(op: &dyn BinMiniOp) -> Option<Comparison> {
    Some(match op.name() {
        "Eq" => Comparison::Equal,
        "NE" => Comparison::NotEqual,
        "LT" => Comparison::Less,
        "LTE" => Comparison::LessOrEqual,
        "GT" => Comparison::Greater,
        "GTE" => Comparison::GreaterOrEqual,
        _ => return None,
    })
}

pub(crate) fn logical(op: &dyn BinMiniOp) -> Option<Logic> {
    Some(match op {
        op if op.is::<logic::And>() => Logic::And,
        op if op.is::<logic::Or>() => Logic::Or,
        op if op.is::<logic::Xor>() => Logic::Xor,
        _ => return None,
    })
}

pub(crate) fn function(op: &ElementWiseOp) -> Option<Function> {
    Some(match &op.0 {
        op if op.is::<logic::Not>() => Function::Not,
        op if op.is::<math::Ceil>() => Function::Ceil,
        op if op.is::<math::Floor>() => Function::Floor,
        op if op.is::<math::RoundHalfToEven>() => Function::Round,
        op if op.is::<math::Round>() => Function::RoundHalfUp,
        op if op.is::<math::Sign>() => Function::Sign,
        op if op.is::<math::Cos>() => Function::Cos,
        op if op.is::<math::Sin>() => Function::Sin,
        _ => return None,
    })
}

pub(crate) fn binary_op(op: &dyn BinMiniOp) -> TractResult<BinaryOp> {
    Ok(match op.name() {
        "Min" => BinaryOp::Min,
        "Max" => BinaryOp::Max,
        "Add" => BinaryOp::Add,
        "Mul" => BinaryOp::Mul,
        "Sub" => BinaryOp::Sub,
        "SubF" => BinaryOp::SubF,
        "Div" => BinaryOp::Div,
        "Pow" => BinaryOp::Pow,
        other => bail!("the binary operation {other}"),
    })
}

fn element_wise<'a>(_: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    node.op_as::<ElementWiseOp>().map(|o| {
        ensure!(o.1.is_none(), "an elementwise operation with a type of its own");
        if let Some(op) = function(o) {
            return Ok(same(node, Op::Function { op }));
        }
        Ok(same(node, Op::Unary { op: unary_op(o)? }))
    })
}

fn chosen<'a>(_: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    node.op_is::<logic::Iff>().then(|| Ok(same(node, Op::Where)))
}

pub(crate) fn unary_op(op: &ElementWiseOp) -> TractResult<UnaryOp> {
    macro_rules! find {
        ($($tract:ty => $ours:ident),* $(,)?) => {
            $( if op.0.is::<$tract>() { return Ok(UnaryOp::$ours {}); } )*
        };
    }
    find! {
        math::Abs => Abs, math::Exp => Exp, math::Ln => Ln, math::Sqrt => Sqrt, math::Rsqrt => Rsqrt,
        math::Recip => Recip, math::Square => Square, math::Neg => Neg, math::Tanh => Tanh, math::Erf => Erf,
        nn::Sigmoid => Sigmoid, nn::HardSwish => HardSwish, nn::silu::Silu => Silu, nn::gelu_exact::GeluExact => Gelu,
    }
    bail!("the elementwise operation {}", op.0.name())
}

fn reduce<'a>(_: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    node.op_as::<Reduce>().map(|o| {
        let reducer = reducer(o.reducer)?;
        Ok(same(node, Op::Reduce { axes: o.axes.to_vec(), reducer }))
    })
}

pub(crate) fn reducer(reducer: nn::Reducer) -> TractResult<Reducer> {
    Ok(match reducer {
        nn::Reducer::Sum => Reducer::Sum,
        nn::Reducer::Max => Reducer::Max,
        nn::Reducer::Min => Reducer::Min,
        nn::Reducer::Prod => Reducer::Prod,
        nn::Reducer::MeanOfSquares => Reducer::MeanOfSquares,
        nn::Reducer::ArgMax(false) => Reducer::ArgMax,
        nn::Reducer::ArgMin(false) => Reducer::ArgMin,
        other => bail!("the reduction {other:?}"),
    })
}

fn softmax<'a>(_: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    node.op_as::<Softmax>().map(|o| {
        ensure!(o.kind == SoftmaxKind::Softmax && o.quant_output_dt.is_none(), "{:?}", o.kind);
        Ok(same(node, Op::Softmax { axes: o.axes.to_vec() }))
    })
}

fn rms_norm<'a>(_: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    node.op_as::<RmsNorm>().map(|o| {
        let epsilon = o.eps.cast_to_scalar::<f32>()?;
        Ok(same(node, Op::RmsNorm { axis: o.axis, epsilon }))
    })
}

fn into_shape<'a>(_: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    node.op_as::<IntoShape>().map(|o| {
        ensure!(*o.strides == *Tensor::natural_strides(&o.dims), "strides {:?} of {:?}", o.strides, o.dims);
        Ok(same(node, Op::Reshape))
    })
}

fn axis_op<'a>(_: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    node.op_as::<AxisOp>().map(|o| {
        Ok(same(
            node,
            match o {
                AxisOp::Move(from, to) => Op::MoveAxis { from: *from, to: *to },
                AxisOp::Add(_) | AxisOp::Rm(_) | AxisOp::Reshape(..) => Op::Reshape,
            },
        ))
    })
}

fn cast<'a>(_: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    node.op_is::<Cast>().then(|| Ok(same(node, Op::Cast)))
}

fn gather<'a>(e: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    node.op_is::<Gather>().then(|| {
        let [table, indices] = node.inputs.as_slice() else { bail!("{} operands", node.inputs.len()) };
        if !is_row_gather(node) || !e.model.node(table.node).op_is::<Const>() {
            let axis = node.op_as::<Gather>().map_or(0, |g| g.axis);
            return Ok(same(node, Op::Gather { axis }));
        }
        Ok(Encoded { op: Op::GatherRows { table: e.weight_in_place(*table)? }, inputs: tvec![*indices] })
    })
}
