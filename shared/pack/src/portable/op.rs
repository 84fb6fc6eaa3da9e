//! The operators of a portable graph. Names and attributes are ONNX's where ONNX has the operator; what
//! differs is said. Axes are never negative, and nothing broadcasts between tensors of different rank.

use super::dim::DimId;
use super::pool::Pool;
use super::stored::Stored;
use crate::dtype::Dtype;
use crate::plan::{BinaryOp, Comparison, PadMode, Reducer, UnaryOp};
pub use crate::plan::{Function, Logic};
use crate::{wire_enum, wire_struct};

/// What a node does.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// An input. No operands.
    Source,
    /// A tensor that the pack holds. No operands.
    Constant {
        /// Where.
        value: Stored,
    },
    /// `x, kernel, bias`; `bias` is one value, or one per output channel.
    Conv {
        /// The window and the channels.
        pool: Pool,
        /// The axes of the kernel.
        kernel: KernelLayout,
        /// Groups of channels.
        group: usize,
    },
    /// `x, kernel, bias` as Conv; the kernel is `[O, I / group, ..]` after the transposition.
    ConvTranspose {
        /// The window and the channels, the padding being cut off.
        pool: Pool,
        /// The axes of the kernel.
        kernel: KernelLayout,
        /// Positions added at the end of each spatial axis (ONNX `output_padding`).
        adjustments: Vec<usize>,
        /// Groups of channels.
        group: usize,
    },
    /// Without indices.
    MaxPool {
        /// The window.
        pool: Pool,
    },
    /// ONNX AveragePool; the sum instead where `normalize` is false.
    AveragePool {
        /// The window.
        pool: Pool,
        /// Whether padding counts in the divisor.
        count_include_pad: bool,
        /// Whether the sum is divided.
        normalize: bool,
    },
    /// ONNX Einsum without ellipsis. A letter that is only in the output has extent 1, and no operand has
    /// one twice.
    Einsum {
        /// `mk,kn->mn`.
        equation: String,
    },
    /// An arithmetic operation.
    Binary {
        /// Which.
        op: BinaryOp,
    },
    /// A comparison, giving bool.
    Compare {
        /// Which.
        op: Comparison,
    },
    /// A logical operation on bool.
    Logic {
        /// Which.
        op: Logic,
    },
    /// An elementwise operation.
    Unary {
        /// Which.
        op: UnaryOp,
    },
    /// Another one.
    Function {
        /// Which.
        op: Function,
    },
    /// ONNX Reduce* with keepdims=1, ArgMax and ArgMin among them.
    Reduce {
        /// Ascending.
        axes: Vec<usize>,
        /// How.
        reducer: Reducer,
    },
    /// Numbers known from the inputs' shapes, as i64. No operands.
    Extents {
        /// The shape it gives.
        shape: Vec<usize>,
        /// The numbers, row-major.
        values: Vec<DimId>,
    },
    /// ONNX Softmax or LogSoftmax over several axes at once.
    Softmax {
        /// Ascending.
        axes: Vec<usize>,
        /// Whether it is LogSoftmax.
        log: bool,
    },
    /// `x / sqrt(mean(x * x, axis) + epsilon)`.
    RmsNorm {
        /// The axis.
        axis: usize,
        /// The constant that keeps the root from 0.
        epsilon: f32,
    },
    /// `data, indices`; the indices are i64, negative ones count from the end.
    Gather {
        /// The axis.
        axis: usize,
    },
    /// One axis, in steps of one.
    Slice {
        /// The axis.
        axis: usize,
        /// The first position.
        start: DimId,
        /// One past the last.
        end: DimId,
    },
    /// One operand or more.
    Concat {
        /// The axis.
        axis: usize,
    },
    /// Pads every axis.
    Pad {
        /// Before and after, by axis.
        pads: Vec<(usize, usize)>,
        /// With what.
        mode: PadMode,
    },
    /// Replaces neighbouring axes by others that hold as many values.
    Reshape {
        /// The first of them.
        axis: usize,
        /// What they are.
        from: Vec<DimId>,
        /// What they become.
        to: Vec<DimId>,
    },
    /// One axis.
    Unsqueeze {
        /// Where it will be.
        axis: usize,
    },
    /// One axis of extent 1.
    Squeeze {
        /// Where it is.
        axis: usize,
    },
    /// ONNX Transpose that takes one axis out and puts it in elsewhere.
    MoveAxis {
        /// Where it is.
        from: usize,
        /// Where it goes.
        to: usize,
    },
    /// ONNX Cast.
    Cast {
        /// The type it gives.
        to: Dtype,
    },
    /// ONNX Expand.
    Expand {
        /// The shape it gives; the operand's axes are its last ones.
        shape: Vec<DimId>,
    },
    /// `condition, x, y`, all of one rank.
    Where,
    /// ONNX Resize, nearest, by whole numbers: position `i` is that of `i / scale`.
    Upsample {
        /// By axis, none of them 0.
        scales: Vec<usize>,
    },
    /// Every `stride`-th position from `offset` on.
    Downsample {
        /// The axis.
        axis: usize,
        /// Not 0.
        stride: usize,
        /// The first position that is kept.
        offset: usize,
    },
    /// `gates[.., 4 * hidden], cell[.., hidden]` to the next `hidden, cell`: sigmoids of the gates i, o, f,
    /// the hyperbolic tangent of c, as in ONNX LSTM.
    LstmCell {
        /// Values per row of the state.
        hidden: usize,
    },
    /// ONNX Scan: the body runs once per slice. States start anew in each run.
    Loop {
        /// Index of the body among the graphs.
        body: usize,
        /// How each operand reaches the body.
        inputs: Vec<LoopInput>,
        /// Where each output of the body goes.
        outputs: Vec<LoopOutput>,
    },
}
wire_enum!(Op {
    0 => Source {},
    1 => Constant { value },
    2 => Conv { pool, kernel, group },
    3 => ConvTranspose { pool, kernel, adjustments, group },
    4 => MaxPool { pool },
    5 => AveragePool { pool, count_include_pad, normalize },
    6 => Einsum { equation },
    7 => Binary { op },
    8 => Compare { op },
    9 => Logic { op },
    10 => Unary { op },
    11 => Function { op },
    12 => Reduce { axes, reducer },
    13 => Extents { shape, values },
    14 => Softmax { axes, log },
    15 => RmsNorm { axis, epsilon },
    16 => Gather { axis },
    17 => Slice { axis, start, end },
    18 => Concat { axis },
    19 => Pad { pads, mode },
    20 => Reshape { axis, from, to },
    21 => Unsqueeze { axis },
    22 => Squeeze { axis },
    23 => MoveAxis { from, to },
    24 => Cast { to },
    25 => Expand { shape },
    26 => Where {},
    27 => Upsample { scales },
    28 => Downsample { axis, stride, offset },
    29 => LstmCell { hidden },
    30 => Loop { body, inputs, outputs },
});

impl Op {
    /// Its name, as error messages and `inspect` print it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Op::Source => "Source",
            Op::Constant { .. } => "Constant",
            Op::Conv { .. } => "Conv",
            Op::ConvTranspose { .. } => "ConvTranspose",
            Op::MaxPool { .. } => "MaxPool",
            Op::AveragePool { .. } => "AveragePool",
            Op::Einsum { .. } => "Einsum",
            Op::Binary { .. } => "Binary",
            Op::Compare { .. } => "Compare",
            Op::Logic { .. } => "Logic",
            Op::Unary { .. } => "Unary",
            Op::Function { .. } => "Function",
            Op::Reduce { .. } => "Reduce",
            Op::Extents { .. } => "Extents",
            Op::Softmax { .. } => "Softmax",
            Op::RmsNorm { .. } => "RmsNorm",
            Op::Gather { .. } => "Gather",
            Op::Slice { .. } => "Slice",
            Op::Concat { .. } => "Concat",
            Op::Pad { .. } => "Pad",
            Op::Reshape { .. } => "Reshape",
            Op::Unsqueeze { .. } => "Unsqueeze",
            Op::Squeeze { .. } => "Squeeze",
            Op::MoveAxis { .. } => "MoveAxis",
            Op::Cast { .. } => "Cast",
            Op::Expand { .. } => "Expand",
            Op::Where => "Where",
            Op::Upsample { .. } => "Upsample",
            Op::Downsample { .. } => "Downsample",
            Op::LstmCell { .. } => "LstmCell",
            Op::Loop { .. } => "Loop",
        }
    }
}

/// Where the channels of an image are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the letters are batch, channels, and any number of spatial axes")]
pub enum Layout {
    Nchw,
    Nhwc,
    Chw,
    Hwc,
}
wire_enum!(Layout { 0 => Nchw {}, 1 => Nhwc {}, 2 => Chw {}, 3 => Hwc {} });

/// The axes of a kernel: output channels, input channels, and any number of spatial axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the letters are told by the type's own line")]
pub enum KernelLayout {
    Oihw,
    Hwio,
    Ohwi,
}
wire_enum!(KernelLayout { 0 => Oihw {}, 1 => Hwio {}, 2 => Ohwi {} });

/// How an operand reaches the body of a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoopInput {
    /// Whole, the same in each turn.
    Full,
    /// In the first turn; later ones take what the turn before gave.
    State,
    /// Slice by slice.
    Scan {
        /// How it is cut.
        scan: LoopScan,
    },
}
wire_enum!(LoopInput { 0 => Full {}, 1 => State {}, 2 => Scan { scan } });

/// How a tensor is cut into slices, one for each turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LoopScan {
    /// The axis.
    pub axis: usize,
    /// Positions per slice; not 0.
    pub chunk: usize,
    /// Whether the last slice comes first.
    pub backward: bool,
}
wire_struct!(LoopScan { axis, chunk, backward });

/// Where an output of a loop's body goes. States are given to the body's state inputs, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LoopOutput {
    /// Whether the next turn takes it.
    pub state: bool,
    /// The node's output that is all turns' values, one after the other.
    pub scan: Option<(usize, LoopScan)>,
    /// The node's output that is the last turn's value.
    pub last: Option<usize>,
}
wire_struct!(LoopOutput { state, scan, last });
