//! The operators of a plan. Names and attributes are ONNX's where ONNX has the operator.

use super::fact::PanelFormat;
use crate::weights::WeightId;
use crate::wire_enum;
use crate::wire_struct;

/// Channels that lie side by side where a plan keeps them in blocks: what a vector of 256 bits holds.
pub const CHANNEL_BLOCK: usize = 8;

/// Output channels of a panel of [`Op::BlockedConv`] and [`Op::Dense`]: two blocks.
pub const FILTER_PANEL: usize = 2 * CHANNEL_BLOCK;

/// `(axis of the product, axis of the operand)`: the operand moves with the product along these axes and
/// stays where it is along all others.
pub type AxisMap = Vec<(usize, usize)>;

/// What a node does. Each rule says what its operands and its one output have to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// An input of the plan. No operands.
    Source,
    /// A small weight, copied when the plan is built. No operands.
    Constant {
        /// A plain weight.
        weight: WeightId,
    },
    /// Prepacked weights, read in place. No operands; one weight for each matrix of the batch.
    Panels {
        /// Weights in panels.
        weights: Vec<WeightId>,
    },
    /// Cuts `x[.., k, .., mn, ..]` into panels; the axes that are left are the batch.
    Prepack {
        /// The layout.
        format: PanelFormat,
        /// The axis of depth.
        k_axis: usize,
        /// The axis of rows (or columns).
        mn_axis: usize,
    },
    /// The patches of `x[N, C, H, W]` (or `[C, H, W]`) under a convolution's window, as panels `[N, group]`
    /// of depth `C / group * kh * kw` and `oh * ow` columns. Nothing is written out: the matrix product asks
    /// for one panel at a time.
    Im2col {
        /// The layout.
        format: PanelFormat,
        /// The window.
        window: Window,
        /// Groups of channels.
        group: usize,
    },
    /// `C = A B`, then `fused` element by element. Axes of C other than `m_axis` and `n_axis` are the batch.
    MatMul {
        /// Index into the plan's kernels.
        kernel: usize,
        /// The left operand.
        a: Operand,
        /// The right operand.
        b: Operand,
        /// The axis of C along the rows of A; one row where absent.
        m_axis: Option<usize>,
        /// The axis of C along the columns of B; one column where absent.
        n_axis: Option<usize>,
        /// What follows the product, in order.
        fused: Vec<Fused>,
    },
    /// ONNX Conv with one channel per group: `x[N, C, H, W]` (or `[C, H, W]`), `bias` of C values.
    DepthwiseConv {
        /// The window.
        window: Window,
        /// A plain weight of `C * kh * kw` values, read in place.
        kernel: WeightId,
    },
    /// ONNX Conv with one group, window by window without a matrix product: `x[N, C, H, W]` (or `[C, H, W]`),
    /// `bias` of O values; gives `[N, O, OH, OW]`.
    DirectConv {
        /// The window.
        window: Window,
        /// A plain weight of `O * C * kh * kw` values, read in place.
        kernel: WeightId,
    },
    /// ONNX Col2Im, the second half of a ConvTranspose: `x` of `N * C * kh * kw * L` values, where `L` is the
    /// number of window positions (`window.output`), is summed up into the output `[N, C, H, W]` (or
    /// `[C, H, W]`); `bias` of C values, or of the output's shape, is added.
    Col2Im {
        /// The window that slides over the output.
        window: Window,
    },
    /// ONNX AveragePool over `x[N, C, H, W]` (or `[C, H, W]`).
    AveragePool {
        /// The window.
        window: Window,
        /// Whether padding counts as zeros, or not at all.
        count_include_pad: bool,
    },
    /// ONNX MaxPool over `x[N, C, H, W]` (or `[C, H, W]`); padding never wins.
    MaxPool {
        /// The window.
        window: Window,
    },
    /// `x`, then one operand per step, element by element in one pass.
    Chain {
        /// The steps, in order.
        steps: Vec<Step>,
    },
    /// `op(x, y)` with ONNX broadcasting between tensors of one rank.
    Binary {
        /// The operation.
        op: BinaryOp,
    },
    /// `op(x, y)` with ONNX broadcasting between tensors of one rank and one dtype; gives bool.
    Compare {
        /// The comparison.
        op: Comparison,
    },
    /// `op(x)`, element by element.
    Unary {
        /// The operation.
        op: UnaryOp,
    },
    /// ONNX Reduce* with keepdims=1.
    Reduce {
        /// The axes in order, each of which becomes 1.
        axes: Vec<usize>,
        /// How.
        reducer: Reducer,
    },
    /// ONNX Softmax over several axes at once.
    Softmax {
        /// The axes.
        axes: Vec<usize>,
    },
    /// `x / sqrt(mean(x * x, axis) + epsilon)`.
    RmsNorm {
        /// The axis.
        axis: usize,
        /// The constant that keeps the root from 0.
        epsilon: f32,
    },
    /// ONNX Reshape to the output's shape.
    Reshape,
    /// ONNX Transpose that takes one axis out and puts it in elsewhere.
    MoveAxis {
        /// Where it is.
        from: usize,
        /// Where it goes.
        to: usize,
    },
    /// ONNX Slice along one axis: every `step`-th position from `start` on, as many as the output has.
    Slice {
        /// The axis.
        axis: usize,
        /// The first position.
        start: usize,
        /// From one position to the next; above 1 it runs to the axis' end.
        step: usize,
    },
    /// ONNX Concat.
    Concat {
        /// The axis.
        axis: usize,
    },
    /// ONNX Pad.
    Pad {
        /// Positions before and after, for each axis.
        pads: Vec<(usize, usize)>,
        /// What they are filled with.
        mode: PadMode,
    },
    /// ONNX Resize, nearest, by whole numbers: every value becomes a block.
    Upsample {
        /// Extents of the block, one for each axis.
        scales: Vec<usize>,
    },
    /// ONNX Expand to the output's shape: axes of 1 repeat.
    Expand,
    /// ONNX Gather of a computed tensor along `axis`. `indices` is i64; negative ones count from the end.
    Gather {
        /// The axis.
        axis: usize,
    },
    /// The element-wise half of an ONNX LSTM step with its default activations: from `x[.., 4 * hidden]` (input,
    /// output, forget and cell gate) and `c[.., hidden]` to `h[.., hidden]` and the new `c`.
    LstmCell,
    /// ONNX Scan: a body runs once for each position of the axes that it scans.
    Scan {
        /// Index into the plan's bodies.
        body: usize,
        /// Where each input of the body comes from; one for each operand.
        inputs: Vec<ScanInput>,
        /// Where each output of the body goes.
        outputs: Vec<ScanOutput>,
    },
    /// The channels of `x[N, C, H, W]` in blocks of [`CHANNEL_BLOCK`]: `[N, ceil(C / 8), H, W, 8]`. Those beyond C
    /// are 0.
    BlockChannels,
    /// The other way: `x[N, ceil(C / 8), H, W, 8]` as `[N, C, H, W]`.
    UnblockChannels,
    /// ONNX Conv with one group, a block of channels at a time: `x[N, ceil(C / 8), H, W, 8]`, or `x[N, C, H, W]`
    /// where C is small; `bias` of O values; then what the steps read. Gives `[N, ceil(O / 8), OH, OW, 8]`.
    BlockedConv {
        /// The window.
        window: Window,
        /// A weight of `C * kh * kw` deep panels, [`FILTER_PANEL`] of the O rows in each, read in place; it may be
        /// encoded.
        kernel: WeightId,
        /// What follows the sum, in order.
        steps: Vec<ConvStep>,
    },
    /// ONNX Conv with one channel per group, a block of channels at a time: `x[N, ceil(C / 8), H, W, 8]`, `bias`
    /// of C values; then what the steps read. Gives `[N, ceil(C / 8), OH, OW, 8]`.
    BlockedDepthwiseConv {
        /// The window.
        window: Window,
        /// A plain weight of `C * kh * kw` values, read in place.
        kernel: WeightId,
        /// What follows the sum, in order.
        steps: Vec<ConvStep>,
    },
    /// ONNX Cast to the output's dtype.
    Cast,
    /// ONNX Gather along axis 0 of a weight, its rows read in place. `indices` is i64; negative ones count
    /// from the end.
    GatherRows {
        /// A plain weight `[rows, ..]`, or encoded rows of f32.
        table: WeightId,
    },
    /// `activation(x W + bias + residual)`: rows of an f32 tensor, wherever they lie in it, times a weight. Operands
    /// are `x`, then `bias` (a value per column of W) and `residual` (of the output's shape) where the flags say
    /// so. The output holds the rows one after the other, whatever its shape.
    Dense {
        /// A weight in panels of 16, encoded or not: its depth is the length of a row.
        weight: WeightId,
        /// Where the rows begin.
        rows: RowStrides,
        /// Whether there is a bias.
        bias: bool,
        /// Whether there is a residual.
        residual: bool,
        /// What is done to each sum.
        activation: Activation,
    },
    /// `softmax(scale * Q K^T + mask) V` for each head, heads side by side: whatever their shapes, `q` holds the values
    /// of `[batch, queries, heads, d]`, `k` of `[batch, keys, heads, d]`, `v` of `[batch, keys, heads, e]` and the output
    /// of `[batch, queries, heads, e]`, e being a multiple of 16. The fourth operand, if there is one, is a mask
    /// of rank 4 whose extents are those of `[batch, heads, queries, keys]` or 1, the last one being keys.
    Attention {
        /// How many items.
        batch: usize,
        /// How many heads.
        heads: usize,
        /// How many rows of queries an item has.
        queries: usize,
        /// How many rows of keys and values.
        keys: usize,
        /// The factor of the scores.
        scale: f32,
    },
    /// Rows of a weight by their numbers, for those that have one: `activation(table[i] + bias)`, and of a number that
    /// is no row's, `activation(bias)`. That is a product of one-hot rows. Operands are `indices`, i64 or i32, and `bias`.
    OneHotRows {
        /// A plain weight `[rows, columns]`, or encoded rows of f32.
        table: WeightId,
        /// What is done to each sum.
        activation: Activation,
    },
    /// `op(x, y)` of bools with ONNX broadcasting between tensors of one rank.
    Logic {
        /// The operation.
        op: Logic,
    },
    /// `op(x)`, element by element: Not of bools, the others of f32.
    Function {
        /// The operation.
        op: Function,
    },
    /// ONNX Where of `condition`, `x` and `y`: bools and two tensors of one dtype, all of one rank.
    Where,
    /// ONNX LayerNormalization over the last axis: `x`, `scale` and `bias`.
    LayerNorm {
        /// The constant that keeps the root from 0.
        epsilon: f32,
    },
    /// `x[N, C, H, W]` or `x[N, ceil(C / 8), H, W, 8]` of f32 as an image of bytes ([`crate::int8`]): `x * inverse + zero`,
    /// the nearest whole number, ties to even, held within 0 and 127.
    QuantizeImage {
        /// What `x` is multiplied by.
        inverse: f32,
        /// The byte that stands for 0.
        zero: u8,
    },
    /// The other way, into blocks: `(x - zero) * scale` of an image of bytes as `[N, ceil(C / 8), H, W, 8]`.
    DequantizeImage {
        /// What a step of one is worth.
        scale: f32,
        /// The byte that stands for 0.
        zero: u8,
    },
    /// ONNX Conv with one group over an image of bytes ([`crate::int8`]). Operands are `x`, then `multiplier` and `bias`, a
    /// value for each of the output's S bytes, and `residual`, an image of the output's shape, where there is one. The
    /// sum of bytes times weights becomes `x = sum * multiplier + bias`, then `x + residual * scale`, then the function's
    /// value, held within limits. Gives bytes `[N, OH, OW, S]`, rounded to nearest, ties to even, or f32 in blocks.
    Int8Conv {
        /// The window.
        window: Window,
        /// Panels of 16 filters in int8, `C * kh * kw` deep. Their scales are not read.
        kernel: WeightId,
        /// The byte of `x` that stands for 0, which padding is.
        zero: u8,
        /// What a residual is multiplied by.
        residual: Option<f32>,
        /// What is done to each sum.
        tail: Int8Tail,
    },
    /// ONNX Conv with one channel per group over an image of bytes, as [`Op::Int8Conv`], without a residual. Gives bytes.
    Int8DepthwiseConv {
        /// The window.
        window: Window,
        /// Rows in int8, `[C, ..]` of `kh * kw` values each. Their scales are not read.
        kernel: WeightId,
        /// The byte of `x` that stands for 0, which padding is.
        zero: u8,
        /// What is done to each sum.
        tail: Int8Tail,
    },
    /// ONNX MaxPool over an image of bytes; padding never wins.
    Int8MaxPool {
        /// The window.
        window: Window,
    },
}
wire_enum!(Op {
    0 => Source {},
    1 => Constant { weight },
    2 => Panels { weights },
    3 => Prepack { format, k_axis, mn_axis },
    4 => Im2col { format, window, group },
    5 => MatMul { kernel, a, b, m_axis, n_axis, fused },
    6 => DepthwiseConv { window, kernel },
    7 => MaxPool { window },
    8 => Chain { steps },
    9 => Binary { op },
    10 => Unary { op },
    11 => Reduce { axes, reducer },
    12 => Softmax { axes },
    13 => RmsNorm { axis, epsilon },
    14 => Reshape {},
    15 => MoveAxis { from, to },
    16 => Cast {},
    17 => GatherRows { table },
    18 => DirectConv { window, kernel },
    19 => Col2Im { window },
    20 => AveragePool { window, count_include_pad },
    21 => Compare { op },
    22 => Slice { axis, start, step },
    23 => Concat { axis },
    24 => Pad { pads, mode },
    25 => Upsample { scales },
    26 => Expand {},
    27 => Gather { axis },
    28 => LstmCell {},
    29 => Scan { body, inputs, outputs },
    30 => BlockChannels {},
    31 => UnblockChannels {},
    32 => BlockedConv { window, kernel, steps },
    33 => BlockedDepthwiseConv { window, kernel, steps },
    40 => Dense { weight, rows, bias, residual, activation },
    41 => Attention { batch, heads, queries, keys, scale },
    42 => LayerNorm { epsilon },
    43 => OneHotRows { table, activation },
    44 => Logic { op },
    45 => Function { op },
    46 => Where {},
    50 => QuantizeImage { inverse, zero },
    51 => DequantizeImage { scale, zero },
    52 => Int8Conv { window, kernel, zero, residual, tail },
    53 => Int8DepthwiseConv { window, kernel, zero, tail },
    54 => Int8MaxPool { window },
});

impl Op {
    /// The weights that it reads.
    pub fn weights_mut(&mut self) -> Vec<&mut WeightId> {
        match self {
            Op::Constant { weight: id }
            | Op::DepthwiseConv { kernel: id, .. }
            | Op::DirectConv { kernel: id, .. }
            | Op::BlockedConv { kernel: id, .. }
            | Op::BlockedDepthwiseConv { kernel: id, .. }
            | Op::Int8Conv { kernel: id, .. }
            | Op::Int8DepthwiseConv { kernel: id, .. }
            | Op::GatherRows { table: id }
            | Op::OneHotRows { table: id, .. }
            | Op::Dense { weight: id, .. } => vec![id],
            Op::Panels { weights } => weights.iter_mut().collect(),
            Op::MatMul { a, b, .. } => [a, b].into_iter().filter_map(Operand::weight_mut).collect(),
            _ => vec![],
        }
    }

    /// Its name, as `inspect` prints it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Op::Source => "Source",
            Op::Constant { .. } => "Constant",
            Op::Panels { .. } => "Panels",
            Op::Prepack { .. } => "Prepack",
            Op::Im2col { .. } => "Im2col",
            Op::MatMul { .. } => "MatMul",
            Op::DepthwiseConv { .. } => "DepthwiseConv",
            Op::MaxPool { .. } => "MaxPool",
            Op::Chain { .. } => "Chain",
            Op::Binary { .. } => "Binary",
            Op::Unary { .. } => "Unary",
            Op::Reduce { .. } => "Reduce",
            Op::Softmax { .. } => "Softmax",
            Op::RmsNorm { .. } => "RmsNorm",
            Op::Reshape => "Reshape",
            Op::MoveAxis { .. } => "MoveAxis",
            Op::Cast => "Cast",
            Op::GatherRows { .. } => "GatherRows",
            Op::DirectConv { .. } => "DirectConv",
            Op::Col2Im { .. } => "Col2Im",
            Op::AveragePool { .. } => "AveragePool",
            Op::Compare { .. } => "Compare",
            Op::Slice { .. } => "Slice",
            Op::Concat { .. } => "Concat",
            Op::Pad { .. } => "Pad",
            Op::Upsample { .. } => "Upsample",
            Op::Expand => "Expand",
            Op::Gather { .. } => "Gather",
            Op::LstmCell => "LstmCell",
            Op::Scan { .. } => "Scan",
            Op::BlockChannels => "BlockChannels",
            Op::UnblockChannels => "UnblockChannels",
            Op::BlockedConv { .. } => "BlockedConv",
            Op::BlockedDepthwiseConv { .. } => "BlockedDepthwiseConv",
            Op::Dense { .. } => "Dense",
            Op::Attention { .. } => "Attention",
            Op::LayerNorm { .. } => "LayerNorm",
            Op::OneHotRows { .. } => "OneHotRows",
            Op::Logic { .. } => "Logic",
            Op::Function { .. } => "Function",
            Op::Where => "Where",
            Op::QuantizeImage { .. } => "QuantizeImage",
            Op::DequantizeImage { .. } => "DequantizeImage",
            Op::Int8Conv { .. } => "Int8Conv",
            Op::Int8DepthwiseConv { .. } => "Int8DepthwiseConv",
            Op::Int8MaxPool { .. } => "Int8MaxPool",
        }
    }
}

/// Rows of a tensor: row `(o, i)` begins at value `o * outer_stride + i * inner_stride`. Rows may overlap, as the
/// windows of a convolution along one axis do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RowStrides {
    /// How many groups of rows.
    pub outer: usize,
    /// Values from one group to the next.
    pub outer_stride: usize,
    /// How many rows in a group.
    pub inner: usize,
    /// Values from one row to the next.
    pub inner_stride: usize,
}
wire_struct!(RowStrides { outer, outer_stride, inner, inner_stride });

/// What follows a [`Op::Dense`]'s sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "ONNX names; Gelu is the exact one, GeluTanh its approximation by tanh")]
pub enum Activation {
    Identity,
    Relu,
    Gelu,
    GeluTanh,
    Silu,
}
wire_enum!(Activation { 0 => Identity {}, 1 => Relu {}, 2 => Gelu {}, 3 => GeluTanh {}, 4 => Silu {} });

/// A two-dimensional sliding window, `(vertical, horizontal)` throughout. Positions outside of the input are
/// padding, however far outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Extents of the kernel.
    pub kernel: (usize, usize),
    /// Steps between outputs.
    pub strides: (usize, usize),
    /// Steps between taps.
    pub dilations: (usize, usize),
    /// Padding before the first row and the first column.
    pub pads: (usize, usize),
    /// Extents of the output.
    pub output: (usize, usize),
}
wire_struct!(Window { kernel, strides, dilations, pads, output });

/// An operand of a matrix product.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// An operand of the node, panels with a batch.
    Input {
        /// Which.
        index: usize,
        /// How its batch follows the product's axes.
        axes: AxisMap,
    },
    /// One prepacked matrix, read in place and shared by the whole batch.
    Weight {
        /// The weight.
        weight: WeightId,
    },
}
impl Operand {
    fn weight_mut(&mut self) -> Option<&mut WeightId> {
        match self {
            Operand::Weight { weight } => Some(weight),
            Operand::Input { .. } => None,
        }
    }
}
wire_enum!(Operand { 0 => Input { index, axes }, 1 => Weight { weight } });

/// Something applied to the tiles of a product before they are stored. `input` is an operand of the node.
#[derive(Clone, Debug, PartialEq)]
pub enum Fused {
    /// `c = op(s, c)` with one value for all.
    Scalar {
        /// The operation.
        op: BinaryOp,
        /// One value.
        input: usize,
    },
    /// `c[i, j] = op(v[i], c[i, j])`.
    PerRow {
        /// The operation.
        op: BinaryOp,
        /// At least one value per row, contiguous.
        input: usize,
        /// How it follows the product's axes.
        axes: AxisMap,
    },
    /// `c[i, j] = op(v[j], c[i, j])`.
    PerColumn {
        /// The operation.
        op: BinaryOp,
        /// At least one value per column, contiguous.
        input: usize,
        /// How it follows the product's axes.
        axes: AxisMap,
    },
    /// `c[i, j] += t[i, j]`.
    AddTensor {
        /// The tensor.
        input: usize,
        /// Its axis along the rows; the same for all rows where absent.
        m_axis: Option<usize>,
        /// Its axis along the columns; the same for all columns where absent.
        n_axis: Option<usize>,
        /// How it follows the product's other axes.
        axes: AxisMap,
    },
    /// `c = c < 0 ? alpha * c : c` with one value for all.
    LeakyRelu {
        /// Alpha.
        input: usize,
    },
}
wire_enum!(Fused {
    0 => Scalar { op, input },
    1 => PerRow { op, input, axes },
    2 => PerColumn { op, input, axes },
    3 => AddTensor { input, m_axis, n_axis, axes },
    4 => LeakyRelu { input },
});

/// Something applied to the sums of a convolution before they are stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ConvStep {
    /// `c = op(c, value)`.
    Scalar {
        /// The operation; not `Pow`.
        op: BinaryOp,
        /// The value.
        value: f32,
    },
    /// `c = op(c, t)`, element by element.
    Tensor {
        /// The operation; not `Pow`.
        op: BinaryOp,
        /// An operand of the node, of the output's shape.
        input: usize,
    },
    /// `c = op(c, t)`, with one value of `t` for each output channel.
    Channel {
        /// The operation; not `Pow`.
        op: BinaryOp,
        /// An operand of the node, `[1, ceil(O / 8), 1, 1, 8]`.
        input: usize,
    },
    /// `c = op(c)`.
    Unary {
        /// The operation: `HardSwish`, `Sigmoid` or `Silu`.
        op: UnaryOp,
    },
}
wire_enum!(ConvStep {
    0 => Scalar { op, value }, 1 => Tensor { op, input }, 2 => Channel { op, input }, 3 => Unary { op },
});

/// What follows the sum of [`Op::Int8Conv`]: a function, then `x * scale + zero` unless that is the identity, then limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Int8Tail {
    /// What is done to what the sum stands for.
    pub function: Int8Function,
    /// After a function other than the identity.
    pub scale: f32,
    /// As the scale.
    pub zero: f32,
    /// The least value; of bytes from 0 on.
    pub low: f32,
    /// The largest value; of bytes up to 127.
    pub high: f32,
}
wire_struct!(Int8Tail { function, scale, zero, low, high });

/// A function of what a sum stands for, in f32, each operation rounded by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Int8Function {
    /// `x`, multiplier and bias being those of the output already.
    Identity,
    /// `x * min(max(x * (1 / 6) + 0.5, 0), 1)`.
    HardSwish,
}
wire_enum!(Int8Function { 0 => Identity {}, 1 => HardSwish {} });

/// One step of a [`Op::Chain`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The operation: `acc = op(acc, operand)`.
    pub op: BinaryOp,
    /// How the operand is shared out.
    pub share: Share,
}
wire_struct!(Step { op, share });

/// How a smaller operand covers a larger one of the same rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Leading extents 1, the others equal: the operand repeats.
    Lockstep,
    /// Trailing extents 1, the others equal: each value covers a block.
    PerBlock,
}
wire_enum!(Share { 0 => Lockstep {}, 1 => PerBlock {} });

/// A binary operation on f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "ONNX names; SubF is y - x")]
pub enum BinaryOp {
    Min,
    Max,
    Add,
    Mul,
    Sub,
    SubF,
    Div,
    Pow,
}
wire_enum!(BinaryOp {
    0 => Min {}, 1 => Max {}, 2 => Add {}, 3 => Mul {}, 4 => Sub {}, 5 => SubF {}, 6 => Div {}, 7 => Pow {},
});

/// A comparison of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "ONNX names")]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}
wire_enum!(Comparison {
    0 => Equal {}, 1 => NotEqual {}, 2 => Less {}, 3 => LessOrEqual {}, 4 => Greater {}, 5 => GreaterOrEqual {},
});

/// A logical operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "ONNX names")]
pub enum Logic {
    And,
    Or,
    Xor,
}
wire_enum!(Logic { 0 => And {}, 1 => Or {}, 2 => Xor {} });

/// An elementwise operation beside [`UnaryOp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "ONNX names; RoundHalfUp rounds halves away from zero, Round to even")]
pub enum Function {
    Not,
    Ceil,
    Floor,
    Round,
    RoundHalfUp,
    Sign,
    Cos,
    Sin,
}
wire_enum!(Function {
    0 => Not {}, 1 => Ceil {}, 2 => Floor {}, 3 => Round {}, 4 => RoundHalfUp {}, 5 => Sign {}, 6 => Cos {}, 7 => Sin {},
});

/// What padding is filled with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PadMode {
    /// One value.
    Constant {
        /// The value.
        value: f32,
    },
    /// The values beyond the edge, mirrored; the edge itself is not repeated.
    Reflect,
    /// The edge's value.
    Edge,
}
wire_enum!(PadMode { 0 => Constant { value }, 1 => Reflect {}, 2 => Edge {} });

/// Where an input of a scan's body comes from: the operand of the same index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanInput {
    /// All of the operand, every time.
    Full,
    /// The operand the first time, then what the body gave last time.
    State,
    /// One position of the operand.
    Position {
        /// Along which axis.
        axis: usize,
        /// Whether from the last to the first.
        reverse: bool,
    },
}
wire_enum!(ScanInput { 0 => Full {}, 1 => State {}, 2 => Position { axis, reverse } });

/// Where an output of a scan's body goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanOutput {
    /// To the next run of the body: the n-th such output is the n-th input that is a state.
    pub state: bool,
    /// All runs' values, concatenated into an output of the node.
    pub positions: Option<ScanSlot>,
    /// The last run's value is this output of the node.
    pub last: Option<usize>,
}
wire_struct!(ScanOutput { state, positions, last });

/// An output of a scan that collects one position per run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanSlot {
    /// Which output of the node.
    pub slot: usize,
    /// Along which axis.
    pub axis: usize,
    /// Whether from the last to the first.
    pub reverse: bool,
}
wire_struct!(ScanSlot { slot, axis, reverse });

/// A unary operation on f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "ONNX names; Gelu is the exact one, Rsqrt is 1 / sqrt(x)")]
pub enum UnaryOp {
    Abs,
    Exp,
    Ln,
    Sqrt,
    Rsqrt,
    Recip,
    Square,
    Neg,
    Tanh,
    Erf,
    Sigmoid,
    HardSwish,
    Silu,
    Gelu,
}
wire_enum!(UnaryOp {
    0 => Abs {}, 1 => Exp {}, 2 => Ln {}, 3 => Sqrt {}, 4 => Rsqrt {}, 5 => Recip {}, 6 => Square {},
    7 => Neg {}, 8 => Tanh {}, 9 => Erf {}, 10 => Sigmoid {}, 11 => HardSwish {}, 12 => Silu {}, 13 => Gelu {},
});

/// A reduction of f32. ArgMax and ArgMin give i64, of several equal values the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "ONNX names")]
pub enum Reducer {
    Sum,
    Max,
    Min,
    Prod,
    MeanOfSquares,
    ArgMax,
    ArgMin,
}
wire_enum!(Reducer {
    0 => Sum {}, 1 => Max {}, 2 => Min {}, 3 => Prod {}, 4 => MeanOfSquares {}, 5 => ArgMax {}, 6 => ArgMin {},
});
