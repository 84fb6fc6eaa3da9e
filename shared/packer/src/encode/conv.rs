//! Convolutions and pools: windows over the last two axes.

use super::{Encoded, Encoder};
use glowplug_pack::plan::{Op, Window};
use tract_core::internal::*;
use tract_core::ops::array::Pad;
use tract_core::ops::cnn::{OptMaxPool, PoolSpec};
use tract_core::ops::nn::DataFormat;

/// tract's private operator for a convolution with one channel per group.
pub(super) fn is_depthwise(node: &TypedNode) -> bool {
    node.op.name() == "DepthWiseConv"
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

pub(super) fn depthwise<'a>(e: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    is_depthwise(node).then(|| {
        let window = e.conv_window(node, &node.name)?.0;
        let [x, kernel, bias] = node.inputs.as_slice() else { bail!("{} operands", node.inputs.len()) };
        let kernel = e.weight_in_place(*kernel)?;
        Ok(Encoded { op: Op::DepthwiseConv { window, kernel }, inputs: tvec![*x, *bias] })
    })
}

pub(super) fn im2col<'a>(e: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    is_im2col(node).then(|| {
        let (window, group) = e.conv_window(node, conv_name(node))?;
        let glowplug_pack::plan::Fact::Panels { format, .. } = e.fact(&node.outputs[0].fact)? else {
            bail!("patches that are not panels")
        };
        let mut x = node.inputs[0];
        let before = e.model.node(x.node);
        if is_padding_of(before, node) {
            x = before.inputs[0];
        }
        Ok(Encoded { op: Op::Im2col { format, window, group }, inputs: tvec![x] })
    })
}

pub(super) fn max_pool<'a>(e: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    node.op_as::<OptMaxPool>().map(|pool| {
        ensure!(pool.with_index_outputs.is_none(), "indices of the largest values");
        let input = e.model.outlet_fact(node.inputs[0])?;
        let Some(shape) = input.shape.as_concrete() else { bail!("an input of {:?}", input.shape) };
        let window = window(&pool.pool_spec, shape)?;
        Ok(Encoded { op: Op::MaxPool { window }, inputs: node.inputs.iter().copied().collect() })
    })
}

impl Encoder<'_> {
    /// Window and groups of the convolution called `name`.
    fn conv_window(&self, node: &TypedNode, name: &str) -> TractResult<(Window, usize)> {
        let Some(source) = self.convs.get(name) else {
            bail!("no convolution called {name:?} in the simplified graph")
        };
        ensure!(source.conv.q_params.is_none(), "a quantized convolution");
        let float = self.model.outlet_fact(node.inputs[0])?.datum_type == DatumType::F32;
        ensure!(float, "a convolution that is not of f32");
        Ok((window(&source.conv.pool_spec, &source.input)?, source.conv.group))
    }
}

fn window(spec: &PoolSpec, input: &[usize]) -> TractResult<Window> {
    let channels_first = matches!(spec.data_format, DataFormat::NCHW | DataFormat::CHW);
    let [kh, kw] = *spec.kernel_shape else {
        bail!("a window over {} axes, expected 2", spec.kernel_shape.len())
    };
    ensure!(channels_first, "channels last ({:?})", spec.data_format);
    let shape = spec.data_format.shape(input)?;
    let padding = spec.computed_padding(shape.hw_dims());
    let [vertical, horizontal] = padding.as_slice() else { bail!("padding of {} axes", padding.len()) };
    Ok(Window {
        kernel: (kh, kw),
        strides: (spec.stride(0), spec.stride(1)),
        dilations: (spec.dilation(0), spec.dilation(1)),
        pads: (vertical.pad_before, horizontal.pad_before),
        output: (vertical.convoluted, horizontal.convoluted),
    })
}
