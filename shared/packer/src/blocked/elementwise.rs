//! What is done element by element: a part of the convolution before it where nobody else reads that one's output,
//! else an operator of its own.

use super::conv::{f32_constant, scalar};
use super::{Blocked, Blocker};
use crate::encode::ops::{binary_op, unary_op};
use glowplug_pack::plan::{BinaryOp, CHANNEL_BLOCK, ConvStep, UnaryOp};
use tract_core::internal::*;
use tract_core::ops::binary::TypedBinOp;
use tract_core::ops::element_wise::ElementWiseOp;

/// An operand beside an image in blocks.
enum Other {
    Scalar(f32),
    /// One value for each channel, in blocks `[1, C / 8, 1, 1, 8]`.
    PerChannel(Tensor),
    /// Of the same extents, or with one value for each channel.
    Blocked(Blocked),
}

pub(super) fn binary(b: &mut Blocker<'_>, node: &TypedNode) -> TractResult<Option<Blocked>> {
    let Some(TypedBinOp(mini, None)) = node.op_as::<TypedBinOp>() else { return Ok(None) };
    let (Ok(op), &[left, right]) = (binary_op(&**mini), node.inputs.as_slice()) else { return Ok(None) };
    if op == BinaryOp::Pow {
        return Ok(None);
    }
    let out = b.from.outlet_fact(OutletId::new(node.id, 0))?.shape.as_concrete().map(TVec::<usize>::from);
    let Some(out) = out else { return Ok(None) };
    // The image whose extents the result has: the one computed last, so that the other is there by then.
    let mut sides: TVec<_> = tvec![(left, right, Some(op)), (right, left, turned(op))];
    let age = |o: &OutletId| b.blocked(*o).map_or(0, |v| v.outlet.node);
    sides.sort_by_key(|(image, ..)| std::cmp::Reverse(age(image)));
    for (image, other, op) in sides {
        let (Some(op), Some(blocked)) = (op, b.blocked(image)) else { continue };
        let same = b.from.outlet_fact(image)?.shape.as_concrete() == Some(&*out);
        if same && let Some(other) = b.other(other, &blocked)? {
            return apply(b, node, op, (image, blocked), other).map(Some);
        }
    }
    Ok(None)
}

/// `op` with its operands the other way round.
fn turned(op: BinaryOp) -> Option<BinaryOp> {
    match op {
        BinaryOp::Min | BinaryOp::Max | BinaryOp::Add | BinaryOp::Mul => Some(op),
        BinaryOp::Sub => Some(BinaryOp::SubF),
        BinaryOp::SubF => Some(BinaryOp::Sub),
        BinaryOp::Div | BinaryOp::Pow => None,
    }
}

impl Blocker<'_> {
    /// What stands beside an image whose extents the result has, if it can be used there.
    fn other(&mut self, outlet: OutletId, image: &Blocked) -> TractResult<Option<Other>> {
        let fact = self.from.outlet_fact(outlet)?;
        let (Some(shape), DatumType::F32) = (fact.shape.as_concrete(), fact.datum_type) else {
            return Ok(None);
        };
        let constant = f32_constant(self.from, outlet);
        if let Some(value) = constant.as_ref().filter(|c| c.len() == 1) {
            return Ok(scalar(value).map(Other::Scalar));
        }
        let per_channel = shape.len() == image.plain.len()
            && shape.iter().enumerate().all(|(axis, n)| match axis.cmp(&image.axis) {
                std::cmp::Ordering::Equal => *n == image.channels(),
                std::cmp::Ordering::Less => *n == image.plain[axis] || *n == 1,
                std::cmp::Ordering::Greater => *n == 1,
            });
        if let Some(constant) = constant.filter(|c| per_channel && c.len() == image.channels()) {
            let blocks = image.channels().div_ceil(CHANNEL_BLOCK);
            let mut values = constant.try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
            values.resize(blocks * CHANNEL_BLOCK, 0.0);
            let values = Tensor::from_shape(&[1, blocks, 1, 1, CHANNEL_BLOCK], &values)?;
            return Ok(Some(Other::PerChannel(values)));
        }
        if *shape != *image.plain && !per_channel {
            return Ok(None);
        }
        let other = self.in_blocks(outlet, image.axis)?;
        Ok((other.axis == image.axis).then_some(Other::Blocked(other)))
    }
}

impl Blocker<'_> {
    /// Adds one value for each channel to the bias of the convolution behind `outlet`.
    fn add_to_bias(&mut self, outlet: OutletId, values: &Tensor) -> TractResult<()> {
        let bias = self.to.node(outlet.node).inputs[1];
        let Some(old) = f32_constant(&self.to, bias) else { bail!("a bias that is computed") };
        let (old, values) = (old.try_as_plain_ram()?, values.try_as_plain_ram()?);
        let sums = old.as_slice::<f32>()?.iter().zip(values.as_slice::<f32>()?).map(|(a, b)| a + b);
        let sums: Vec<f32> = sums.collect();
        let name = format!("{}.bias.{}", self.to.node(outlet.node).name, self.to.nodes.len());
        let sum = self.to.add_const(name, Tensor::from_shape(&[sums.len()], &sums)?)?;
        self.to.add_edge(sum, InletId::new(outlet.node, 1))
    }
}

/// Products with one value become one, or none where it is 1.
fn push_scalar(steps: &mut Vec<ConvStep>, op: BinaryOp, value: f32) {
    let (BinaryOp::Mul, Some(ConvStep::Scalar { op: BinaryOp::Mul, value: before })) = (op, steps.last_mut())
    else {
        steps.push(ConvStep::Scalar { op, value });
        return;
    };
    *before *= value;
    if (*before - 1.0).abs() <= f32::EPSILON {
        steps.pop();
    }
}

fn apply(
    b: &mut Blocker<'_>,
    node: &TypedNode,
    op: BinaryOp,
    (old, image): (OutletId, Blocked),
    other: Other,
) -> TractResult<Blocked> {
    let shape = b.shape(image.outlet)?;
    let same = match &other {
        Other::Blocked(o) => b.shape(o.outlet)? == shape,
        Other::Scalar(_) | Other::PerChannel(_) => false,
    };
    if let Some((outlet, steps)) = b.steps_of(old) {
        match &other {
            Other::PerChannel(values) if steps.is_empty() && op == BinaryOp::Add => {
                b.add_to_bias(outlet, values)?;
                return Ok(image);
            }
            Other::Scalar(value) => {
                push_scalar(steps, op, *value);
                return Ok(image);
            }
            Other::Blocked(o) if same && o.outlet != outlet => {
                let input = b.add_operand(outlet, o.outlet)?;
                if let Some((_, steps)) = b.steps_of(old) {
                    steps.push(ConvStep::Tensor { op, input });
                }
                return Ok(image);
            }
            Other::PerChannel(values) => {
                let name = format!("{}.values", node.name);
                let values = b.to.add_const(name, values.clone())?;
                let input = b.add_operand(outlet, values)?;
                if let Some((_, steps)) = b.steps_of(old) {
                    steps.push(ConvStep::Channel { op, input });
                }
                return Ok(image);
            }
            Other::Blocked(_) => {}
        }
    }
    let other = match other {
        Other::Blocked(o) => o.outlet,
        Other::Scalar(value) => {
            b.to.add_const(format!("{}.value", node.name), tensor0(value).broadcast_into_rank(5)?)?
        }
        Other::PerChannel(values) => b.to.add_const(format!("{}.values", node.name), values)?,
    };
    let outlet = b.to.wire_node(&node.name, TypedBinOp(mini(op), None), &[image.outlet, other])?[0];
    Ok(Blocked { outlet, ..image })
}

/// tract's operation.
fn mini(op: BinaryOp) -> Box<dyn tract_core::ops::binary::BinMiniOp> {
    use tract_core::ops::math;
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

pub(super) fn unary(b: &mut Blocker<'_>, node: &TypedNode) -> TractResult<Option<Blocked>> {
    let (Some(op), &[x]) = (node.op_as::<ElementWiseOp>(), node.inputs.as_slice()) else { return Ok(None) };
    let (Some(image), Ok(found), None) = (b.blocked(x), unary_op(op), &op.1) else { return Ok(None) };
    if matches!(found, UnaryOp::HardSwish | UnaryOp::Sigmoid | UnaryOp::Silu)
        && let Some((_, steps)) = b.steps_of(x)
    {
        steps.push(ConvStep::Unary { op: found });
        return Ok(Some(image));
    }
    let outlet = b.to.wire_node(&node.name, op.clone(), &[image.outlet])?[0];
    Ok(Some(Blocked { outlet, ..image }))
}
