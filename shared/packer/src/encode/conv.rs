//! Convolutions and pools: windows over the last two axes.

use super::{ConvSource, DeconvSource, Encoded, Encoder};
use glowplug_pack::plan::{Fact, Op, Window};
use tract_core::internal::*;
use tract_core::ops::array::Pad;
use tract_core::ops::cnn::{OptMaxPool, OptSumPool, PaddingSpec, PoolSpec};
use tract_core::ops::nn::DataFormat;

/// tract's private operator for a convolution with one channel per group.
fn is_depthwise(node: &TypedNode) -> bool {
    node.op.name() == "DepthWiseConv"
}

/// tract's private operator for a convolution of few channels.
fn is_direct(node: &TypedNode) -> bool {
    node.op.name() == "DirectSpatialConv"
}

/// Whether operand 1 of `node` is a kernel that its operator reads in place.
pub(super) fn reads_kernel(node: &TypedNode) -> bool {
    is_depthwise(node) || is_direct(node)
}

/// tract's private operators that lay out patches for a matrix product, lazily or at once.
fn is_im2col(node: &TypedNode) -> bool {
    matches!(&*node.op.name(), "LazyIm2col" | "Im2col")
}

/// The convolution that an im2col node was made for.
fn conv_name(node: &TypedNode) -> &str {
    node.name.strip_suffix(".lazyIm2col").or_else(|| node.name.strip_suffix(".im2col")).unwrap_or(&node.name)
}

/// Whether `node` pads the input of `taker`, which pads for itself here.
pub(super) fn is_padding_of(node: &TypedNode, taker: &TypedNode) -> bool {
    node.op_is::<Pad>() && is_im2col(taker) && node.name.strip_suffix(".pad") == Some(conv_name(taker))
}

pub(super) fn in_place<'a>(e: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    reads_kernel(node).then(|| {
        let (window, group) = e.conv_window(node, &node.name)?;
        let [x, kernel, bias] = node.inputs.as_slice() else { bail!("{} operands", node.inputs.len()) };
        ensure!(group == 1 || is_depthwise(node), "{group} groups");
        let kernel = e.weight_in_place(*kernel)?;
        let op = if is_direct(node) {
            Op::DirectConv { window, kernel }
        } else {
            Op::DepthwiseConv { window, kernel }
        };
        Ok(Encoded { op, inputs: tvec![*x, *bias] })
    })
}

pub(super) fn im2col<'a>(e: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    is_im2col(node).then(|| {
        let (window, group) = e.conv_window(node, conv_name(node))?;
        let Fact::Panels { format, .. } = e.fact(&node.outputs[0].fact)? else {
            bail!("patches that are not panels")
        };
        let mut x = node.inputs[0];
        let before = e.model.node(x.node);
        if is_padding_of(before, node) {
            x = before.inputs[0];
        }
        let x = e.image(node, x)?;
        Ok(Encoded { op: Op::Im2col { format, window, group }, inputs: tvec![x] })
    })
}

pub(super) fn max_pool<'a>(e: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    node.op_as::<OptMaxPool>().map(|pool| {
        ensure!(pool.with_index_outputs.is_none(), "indices of the largest values");
        let window = window(&pool.pool_spec, e.concrete(node.inputs[0])?)?;
        ensure!(pool.pool_spec.kernel_shape.len() == 2, "a pool over one axis");
        Ok(Encoded { op: Op::MaxPool { window }, inputs: node.inputs.iter().copied().collect() })
    })
}

pub(super) fn average_pool<'a>(e: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    node.op_as::<OptSumPool>().map(|pool| {
        let OptSumPool { pool_spec, count_include_pad, normalize, .. } = pool;
        ensure!(*normalize, "a sum over windows");
        ensure!(pool_spec.kernel_shape.len() == 2, "a pool over one axis");
        let overhang = matches!(pool_spec.padding, PaddingSpec::ExplicitOnnxPool(_, _, true));
        ensure!(!overhang || !count_include_pad, "ceil_mode with count_include_pad");
        let window = window(pool_spec, e.concrete(node.inputs[0])?)?;
        let op = Op::AveragePool { window, count_include_pad: *count_include_pad };
        Ok(Encoded { op, inputs: node.inputs.iter().copied().collect() })
    })
}

pub(super) fn col2im<'a>(e: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    (node.op.name() == "DeconvSum").then(|| {
        let name = node.name.strip_suffix(".deconv_sum").unwrap_or(&node.name);
        let Some(DeconvSource { deconv, input }) = e.deconvs.get(name) else {
            bail!("no transposed convolution called {name:?} in the simplified graph")
        };
        let spec = &deconv.pool_spec;
        let [kh, kw] = *spec.kernel_shape else {
            bail!("a window over {} axes, expected 2", spec.kernel_shape.len())
        };
        ensure!(matches!(spec.data_format, DataFormat::NCHW | DataFormat::CHW), "channels last");
        let shape = spec.data_format.shape(input.clone())?;
        let [h, w] = *shape.hw_dims() else { bail!("{} axes", shape.hw_rank()) };
        let padding = spec.padding.compute_for_deconv(
            &[h, w],
            &[kh, kw],
            &spec.dilations(),
            &spec.strides(),
            &deconv.adjustments,
        )?;
        let window = Window {
            kernel: (kh, kw),
            strides: (spec.stride(0), spec.stride(1)),
            dilations: (spec.dilation(0), spec.dilation(1)),
            pads: (padding[0].pad_before, padding[1].pad_before),
            output: (h, w),
        };
        Ok(Encoded { op: Op::Col2Im { window }, inputs: node.inputs.iter().copied().collect() })
    })
}

impl Encoder<'_> {
    pub(super) fn concrete(&self, outlet: OutletId) -> TractResult<&[usize]> {
        let fact = self.model.outlet_fact(outlet)?;
        fact.shape.as_concrete().with_context(|| format!("an input of {:?}", fact.shape))
    }

    /// The input of a convolution as `[N, C, H, W]`, H being 1 for one over a single axis: steps are added
    /// where it is laid out otherwise.
    fn image(&mut self, node: &TypedNode, x: OutletId) -> TractResult<OutletId> {
        let Some(ConvSource { conv, .. }) = self.convs.get(conv_name(node)) else { return Ok(x) };
        let format = conv.pool_spec.data_format;
        let (one_axis, last) = (conv.pool_spec.kernel_shape.len() == 1, format.c_is_last());
        let mut shape = self.concrete(x)?.to_vec();
        let mut x = x;
        if last {
            let to = usize::from(format.has_n());
            let from = shape.len() - 1;
            let channels = shape.remove(from);
            shape.insert(to, channels);
            x = self.step(&node.name, Op::MoveAxis { from, to }, x, &shape)?;
        }
        if one_axis {
            shape.insert(shape.len() - 1, 1);
            if !format.has_n() {
                shape.insert(0, 1);
            }
            x = self.step(&node.name, Op::Reshape, x, &shape)?;
        }
        Ok(x)
    }
    /// Window and groups of the convolution called `name`.
    fn conv_window(&self, node: &TypedNode, name: &str) -> TractResult<(Window, usize)> {
        let Some(source) = self.convs.get(name) else {
            bail!("no convolution called {name:?} in the simplified graph")
        };
        ensure!(source.conv.q_params.is_none(), "a quantized convolution");
        let first = source.conv.pool_spec.data_format;
        let whole = is_im2col(node) || matches!(first, DataFormat::NCHW | DataFormat::CHW);
        ensure!(whole, "a convolution with channels last ({first:?})");
        let over_two = source.conv.pool_spec.kernel_shape.len() == 2;
        ensure!(is_im2col(node) || over_two, "a convolution over one axis with one channel per group");
        let float = self.model.outlet_fact(node.inputs[0])?.datum_type == DatumType::F32;
        ensure!(float, "a convolution that is not of f32");
        Ok((window(&source.conv.pool_spec, &source.input)?, source.conv.group))
    }
}

/// A window over one axis is one over two of which the first has one position.
pub(crate) fn window(spec: &PoolSpec, input: &[usize]) -> TractResult<Window> {
    let shape = spec.data_format.shape(input)?;
    let axes = spec.computed_padding(shape.hw_dims());
    let axis = |i: usize| Window1 {
        kernel: spec.kernel_shape[i],
        stride: spec.stride(i),
        dilation: spec.dilation(i),
        pad: axes[i].pad_before,
        output: axes[i].convoluted,
    };
    let (vertical, horizontal) = match spec.kernel_shape.len() {
        1 => (Window1 { kernel: 1, stride: 1, dilation: 1, pad: 0, output: 1 }, axis(0)),
        2 => (axis(0), axis(1)),
        n => bail!("a window over {n} axes, expected 1 or 2"),
    };
    Ok(Window {
        kernel: (vertical.kernel, horizontal.kernel),
        strides: (vertical.stride, horizontal.stride),
        dilations: (vertical.dilation, horizontal.dilation),
        pads: (vertical.pad, horizontal.pad),
        output: (vertical.output, horizontal.output),
    })
}

/// A window along one axis.
struct Window1 {
    kernel: usize,
    stride: usize,
    dilation: usize,
    pad: usize,
    output: usize,
}
