//! Convolutions, and matrix products that are convolutions over one position.

use super::{Blocked, Blocker};
use crate::encode::window;
use crate::planned::{NOT_YET, Planned};
use glowplug_pack::plan::{CHANNEL_BLOCK, Op as PlanOp, Window, conv_copies_little};
use tract_core::internal::*;
use tract_core::ops::cnn::{Conv, KernelFormat};
use tract_core::ops::downsample::Downsample;
use tract_core::ops::einsum::EinSum;
use tract_core::ops::nn::DataFormat;

/// Inputs of fewer channels are read where they are: most of each block would be empty.
const FEW_CHANNELS: usize = 4;

/// A convolution that can be done in blocks.
pub(super) struct Convolution {
    window: Window,
    /// `[O, I, kh, kw]`, or `[C, 1, kh, kw]`.
    kernel: Arc<Tensor>,
    depthwise: bool,
    /// One value for each output channel.
    bias: Arc<Tensor>,
    input: OutletId,
    /// Which axis of the input is its channels.
    axis: usize,
    /// What it gives, plain.
    plain: TVec<usize>,
    /// Which axis of that is its channels.
    plain_axis: usize,
}

impl Convolution {
    /// `node` as a convolution, if it is one over two axes that can be done in blocks.
    pub(super) fn windowed(model: &TypedModel, node: &TypedNode) -> Option<Convolution> {
        let conv = node.op_as::<Conv>()?;
        let spec = &conv.pool_spec;
        let input = *node.inputs.first()?;
        let (shape, plain) = (f32_shape(model, input)?, f32_shape(model, node.id.into())?);
        let (channels, axis) = (spec.input_channels, shape.len().checked_sub(3)?);
        let depthwise = conv.group == channels && spec.output_channels == channels && channels > 1;
        let known = conv.q_params.is_none()
            && conv.kernel_fmt == KernelFormat::OIHW
            && spec.kernel_shape.len() == 2
            && matches!(spec.data_format, DataFormat::NCHW | DataFormat::CHW)
            && (conv.group == 1 || depthwise);
        let kernel = known.then(|| f32_constant(model, *node.inputs.get(1)?)).flatten()?;
        let bias = f32_constant(model, *node.inputs.get(2)?)?;
        let count = spec.output_channels;
        let bias = match bias.len() {
            1 => Tensor::from_shape(&[count], &vec![scalar(&bias)?; count]).ok()?,
            n if n == count => (*bias).clone().into_shape(&[n]).ok()?,
            _ => return None,
        };
        let window = window(spec, &shape).ok()?;
        let found = Convolution {
            window,
            kernel,
            depthwise,
            bias: bias.into_arc_tensor(),
            input,
            axis,
            plain_axis: plain.len() - 3,
            plain,
        };
        let (h, w) = (shape[axis + 1], shape[axis + 2]);
        let read = channels.next_multiple_of(found.lanes(channels));
        (depthwise || conv_copies_little(&found.window, read, (h, w))).then_some(found)
    }

    /// A product over the channels alone, every position by itself. Extents of 1 may come and go.
    fn pointwise(b: &Blocker<'_>, node: &TypedNode) -> Option<Convolution> {
        let product = node.op_as::<EinSum>()?;
        let &[sampled, filters] = node.inputs.as_slice() else { return None };
        let filters = f32_constant(b.from, filters)?;
        let (shape, plain) = (f32_shape(b.from, sampled)?, f32_shape(b.from, node.id.into())?);
        if product.q_params.is_some() || product.operating_dt != DatumType::F32 {
            return None;
        }
        let (mut depth, mut rows) = (None, None);
        let mut others = Vec::new();
        for axis in product.axes.iter_all_axes() {
            match (&*axis.inputs[0], &*axis.inputs[1], &*axis.outputs[0]) {
                (&[x], &[w], []) if depth.is_none() => depth = Some((x, w)),
                ([], &[w], &[y]) if rows.is_none() && filters.shape()[w] > 1 => rows = Some((w, y)),
                (&[x], [], &[y]) => others.push((x, y)),
                (x, w, y) => {
                    let one = |shape: &[usize], at: &[usize]| at.iter().all(|i| shape[*i] == 1);
                    if !one(&shape, x) || !one(filters.shape(), w) || !one(&plain, y) {
                        return None;
                    }
                }
            }
        }
        let ((axis, depth), (rows, plain_axis)) = (depth?, rows?);
        // tract takes the strides of a 1x1 convolution out of it, before it becomes a product.
        let (input, strides) = unsampled(b.from, sampled, axis);
        let image = b.blocked(input).is_some_and(|b| b.axis == axis)
            || matches!((shape.len(), axis), (3, 0) | (4, 1));
        // What lies before the channels stays before them, what lies after stays after, in order.
        others.retain(|(x, _)| shape[*x] > 1);
        let ordered = others.is_sorted_by_key(|(x, _)| *x) && others.is_sorted_by_key(|(_, y)| *y);
        if !image || !ordered || others.iter().any(|(x, y)| (*x < axis) != (*y < plain_axis)) {
            return None;
        }
        let count = filters.shape()[rows];
        let mut kernel = (*filters).clone();
        if depth < rows {
            let axes = swapped(kernel.rank(), depth, rows);
            kernel = kernel.permute_axes(&axes).ok()?;
        }
        let kernel = kernel.into_shape(&[count, shape[axis], 1, 1]).ok()?.into_arc_tensor();
        let (h, w) = match b.blocked(input) {
            Some(blocked) => match b.shape(blocked.outlet).ok()?[..] {
                [_, _, h, w, _] => (h.div_ceil(strides.0), w.div_ceil(strides.1)),
                _ => return None,
            },
            None => (shape[axis + 1], shape[axis + 2]),
        };
        let window = Window { kernel: (1, 1), strides, dilations: (1, 1), pads: (0, 0), output: (h, w) };
        let bias = Tensor::zero::<f32>(&[count]).ok()?.into_arc_tensor();
        Some(Convolution { window, kernel, depthwise: false, bias, input, axis, plain, plain_axis })
    }

    /// Channels of the input that lie side by side.
    fn lanes(&self, channels: usize) -> usize {
        if channels < FEW_CHANNELS && !self.depthwise { 1 } else { CHANNEL_BLOCK }
    }
}

/// What an image is sampled from, and every how many rows and columns.
fn unsampled(model: &TypedModel, mut x: OutletId, axis: usize) -> (OutletId, (usize, usize)) {
    let mut strides = (1, 1);
    while let Some(sampling) = model.node(x.node).op_as::<Downsample>() {
        let stride = match sampling.axis.checked_sub(axis) {
            Some(1) => &mut strides.0,
            Some(2) => &mut strides.1,
            _ => break,
        };
        match usize::try_from(sampling.stride) {
            Ok(by @ 1..) if sampling.modulo == 0 => *stride *= by,
            _ => break,
        }
        x = model.node(x.node).inputs[0];
    }
    (x, strides)
}

fn f32_shape(model: &TypedModel, outlet: OutletId) -> Option<TVec<usize>> {
    let fact = model.outlet_fact(outlet).ok()?;
    (fact.datum_type == DatumType::F32).then_some(fact.shape.as_concrete()?.into())
}

fn swapped(rank: usize, a: usize, b: usize) -> Vec<usize> {
    let mut axes: Vec<usize> = (0..rank).collect();
    axes.swap(a, b);
    axes
}

pub(crate) fn f32_constant(model: &TypedModel, outlet: OutletId) -> Option<Arc<Tensor>> {
    let constant = model.outlet_fact(outlet).ok()?.konst.clone()?;
    (constant.datum_type() == DatumType::F32 && constant.is_plain()).then_some(constant)
}

pub(crate) fn scalar(tensor: &Tensor) -> Option<f32> {
    tensor.try_as_plain_ram().ok()?.as_slice::<f32>().ok()?.first().copied()
}

pub(super) fn convolution(b: &mut Blocker<'_>, node: &TypedNode) -> TractResult<Option<Blocked>> {
    let found = Convolution::windowed(b.from, node).or_else(|| Convolution::pointwise(b, node));
    let Some(conv) = found else { return Ok(None) };
    let Some(shape) = f32_shape(b.from, conv.input) else { return Ok(None) };
    let input = match (conv.lanes(shape[conv.axis]), b.blocked(conv.input)) {
        (1, None) => b.image(conv.input, conv.axis)?,
        _ => b.in_blocks(conv.input, conv.axis)?.outlet,
    };
    let bias = b.to.add_const(format!("{}.bias", node.name), conv.bias.clone())?;
    let (images, channels) = (b.shape(input)?[0], conv.kernel.shape()[0]);
    let (oh, ow) = conv.window.output;
    let shape = tvec![images, channels.div_ceil(CHANNEL_BLOCK), oh, ow, CHANNEL_BLOCK];
    let (window, kernel, steps) = (conv.window, NOT_YET, Vec::new());
    let op = match conv.depthwise {
        true => PlanOp::BlockedDepthwiseConv { window, kernel, steps },
        false => PlanOp::BlockedConv { window, kernel, steps },
    };
    let outlet = b.planned(&node.name, op, Some(conv.kernel), &[input, bias], shape)?;
    Ok(Some(Blocked { outlet, plain: conv.plain, axis: conv.plain_axis }))
}

impl Blocker<'_> {
    /// The steps of the convolution behind a value that nobody else reads.
    pub(super) fn steps_of(
        &mut self,
        outlet: OutletId,
    ) -> Option<(OutletId, &mut Vec<glowplug_pack::plan::ConvStep>)> {
        let blocked = self.blocked(outlet).filter(|_| self.is_read_once(outlet))?;
        let planned = self.to.nodes.get_mut(blocked.outlet.node)?.op_as_mut::<Planned>()?;
        match &mut planned.op {
            PlanOp::BlockedConv { steps, .. } | PlanOp::BlockedDepthwiseConv { steps, .. } => {
                Some((blocked.outlet, steps))
            }
            _ => None,
        }
    }

    /// Lets the node behind `outlet` read one more value; gives its place among the operands.
    pub(super) fn add_operand(&mut self, outlet: OutletId, operand: OutletId) -> TractResult<usize> {
        let slot = self.to.node(outlet.node).inputs.len();
        self.to.add_edge(operand, InletId::new(outlet.node, slot))?;
        Ok(slot)
    }
}
