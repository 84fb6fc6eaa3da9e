//! The rule of MatMul: the kernels it ends in check nothing themselves.
//!
//! A kernel of `mr x nr` reads whole panels of A and B, reads fused operands by raw pointer and stores whole
//! tiles where they fit. It stays inside if A has m rows in panels of mr and B has n columns in panels of
//! nr at one depth, if every batch index and every fused read lies inside its operand, and if the store
//! walks the output's own axes, which it does by construction.

use super::rules::f32;
use super::validate::Context;
use super::{AxisMap, BinaryOp, Fact, Fused, Operand, PanelFormat};
use crate::tensor::element_count;

/// The attributes of a MatMul.
pub(super) struct Product<'a> {
    pub(super) a: &'a Operand,
    pub(super) b: &'a Operand,
    pub(super) m_axis: Option<usize>,
    pub(super) n_axis: Option<usize>,
    pub(super) fused: &'a [Fused],
}

/// The product's geometry, as far as it is known to be sound.
struct Geometry<'a> {
    c: &'a [usize],
    m_axis: Option<usize>,
    n_axis: Option<usize>,
}

type Checked = Result<(), String>;

/// Whether `product` over `inputs` may write to an output of shape `c`.
pub(super) fn check(
    context: &Context<'_>,
    kernel: usize,
    product: &Product<'_>,
    inputs: &[&Fact],
    c: &[usize],
) -> Checked {
    let kernels = context.kernels;
    let kernel =
        kernels.get(kernel).ok_or_else(|| format!("kernel {kernel} of a table of {}", kernels.len()))?;
    let Product { m_axis, n_axis, .. } = *product;
    let out_of_range = [m_axis, n_axis].into_iter().flatten().any(|a| a >= c.len());
    if out_of_range || (m_axis.is_some() && m_axis == n_axis) {
        return Err(format!(
            "rows along axis {m_axis:?}, columns along {n_axis:?}, expected two below {}",
            c.len()
        ));
    }
    let g = Geometry { c, m_axis, n_axis };
    let k = operand(context, &g, product.a, inputs, &kernel.a, g.m()).map_err(|e| format!("A: {e}"))?;
    let b_k = operand(context, &g, product.b, inputs, &kernel.b, g.n()).map_err(|e| format!("B: {e}"))?;
    if k != b_k {
        return Err(format!("A has depth {k}, B has {b_k}"));
    }
    for (i, step) in product.fused.iter().enumerate() {
        fused(&g, step, inputs).map_err(|e| format!("fused {i}: {e}"))?;
    }
    Ok(())
}

impl Geometry<'_> {
    fn extent(&self, axis: Option<usize>) -> usize {
        axis.map_or(1, |a| self.c[a])
    }

    fn m(&self) -> usize {
        self.extent(self.m_axis)
    }

    fn n(&self) -> usize {
        self.extent(self.n_axis)
    }

    /// How many positions an operand may be moved to along an axis of the product: 1 for rows and columns,
    /// which the kernel itself walks.
    fn positions(&self, axis: usize) -> usize {
        if Some(axis) == self.m_axis || Some(axis) == self.n_axis { 1 } else { self.c[axis] }
    }

    /// Every mapped axis exists, is mapped once, and is as long as the product's wherever it is moved along.
    fn check_map(&self, map: &AxisMap, shape: &[usize]) -> Checked {
        for (i, (from, to)) in map.iter().enumerate() {
            let repeated = map[..i].iter().any(|(_, t)| t == to);
            let fits = *from < self.c.len() && *to < shape.len() && !repeated && {
                let positions = self.positions(*from);
                positions == 1 || positions == shape[*to]
            };
            if !fits {
                return Err(format!("axes {map:?} of {:?} over {shape:?}", self.c));
            }
        }
        Ok(())
    }

    /// No matrix of an operand's batch is left out: each axis of several is moved along.
    fn check_batch(&self, map: &AxisMap, batch: &[usize]) -> Checked {
        let moved = |axis: usize| map.iter().any(|(from, to)| *to == axis && self.positions(*from) > 1);
        match (0..batch.len()).find(|axis| batch[*axis] > 1 && !moved(*axis)) {
            None => Ok(()),
            Some(axis) => Err(format!("axes {map:?} never move along axis {axis} of the batch {batch:?}")),
        }
    }

    /// The furthest element that `map` moves a dense operand's start to.
    fn furthest(&self, map: &AxisMap, shape: &[usize]) -> Result<usize, String> {
        self.check_map(map, shape)?;
        let stride = |axis: usize| element_count(&shape[axis + 1..]);
        let steps = map.iter().map(|(from, to)| stride(*to)?.checked_mul(self.positions(*from) - 1));
        steps.sum::<Option<usize>>().ok_or_else(|| "offset overflows".into())
    }
}

/// One side of the product: panels the kernel can read, `mn` rows or columns, a batch that follows C.
/// Gives its depth.
fn operand(
    context: &Context<'_>,
    g: &Geometry<'_>,
    operand: &Operand,
    inputs: &[&Fact],
    wanted: &PanelFormat,
    mn: usize,
) -> Result<usize, String> {
    match operand {
        Operand::Weight { weight } => {
            let (k, _) = context.panel_extents(*weight)?;
            context.panels(*weight, wanted, k, mn)?;
            Ok(k)
        }
        Operand::Input { index, axes } => {
            let fact = input(inputs, *index)?;
            let Fact::Panels { format, batch, k, mn: found } = fact else {
                return Err(format!("found {fact:?}, expected panels"));
            };
            if !format.serves(wanted) || *found != mn {
                return Err(format!("found {fact:?}, expected mn={mn} in {wanted:?}"));
            }
            g.check_map(axes, batch)?;
            g.check_batch(axes, batch)?;
            Ok(*k)
        }
    }
}

fn input<'a>(inputs: &[&'a Fact], index: usize) -> Result<&'a Fact, String> {
    inputs.get(index).copied().ok_or_else(|| format!("operand {index} of {}", inputs.len()))
}

fn fused(g: &Geometry<'_>, step: &Fused, inputs: &[&Fact]) -> Checked {
    let shape = |index: usize| f32(input(inputs, index)?);
    match step {
        Fused::LeakyRelu { input } => one_value(shape(*input)?),
        Fused::Scalar { op, input } => kernel_op(*op).and_then(|()| one_value(shape(*input)?)),
        Fused::PerRow { op, input, axes } => {
            kernel_op(*op).and_then(|()| vector(g, axes, shape(*input)?, g.m()))
        }
        Fused::PerColumn { op, input, axes } => {
            kernel_op(*op).and_then(|()| vector(g, axes, shape(*input)?, g.n()))
        }
        Fused::AddTensor { input, m_axis, n_axis, axes } => {
            let shape = shape(*input)?;
            let along =
                |axis: &Option<usize>, extent: usize| axis.is_none_or(|a| shape.get(a) == Some(&extent));
            let moved = |axis: &Option<usize>| {
                axes.iter().any(|(from, to)| {
                    Some(*to) == *axis && g.c.get(*from).is_some() && g.positions(*from) > 1
                })
            };
            // Kernels gather it by 32-bit byte offsets within a tile.
            let bytes = element_count(shape).and_then(|n| n.checked_mul(size_of::<f32>()));
            if bytes.is_none_or(|bytes| i32::try_from(bytes).is_err()) {
                return Err(format!("tensor of {shape:?}, expected at most {} bytes", i32::MAX));
            }
            g.check_map(axes, shape)?;
            let apart = m_axis.is_none() || m_axis != n_axis;
            if !along(m_axis, g.m()) || !along(n_axis, g.n()) || moved(m_axis) || moved(n_axis) || !apart {
                return Err(format!(
                    "tensor of {shape:?} with rows along {m_axis:?} and columns along {n_axis:?}, expected {} and {}",
                    g.m(),
                    g.n()
                ));
            }
            Ok(())
        }
    }
}

/// Kernels know six of the operations.
fn kernel_op(op: BinaryOp) -> Checked {
    match op {
        BinaryOp::Div | BinaryOp::Pow => Err(format!("{op:?}, expected an operation that kernels know")),
        _ => Ok(()),
    }
}

fn one_value(shape: &[usize]) -> Checked {
    if element_count(shape) == Some(1) { Ok(()) } else { Err(format!("shape {shape:?}, expected one value")) }
}

/// `wanted` contiguous values, wherever `map` moves their start to.
fn vector(g: &Geometry<'_>, map: &AxisMap, shape: &[usize], wanted: usize) -> Checked {
    let end = g.furthest(map, shape)?.checked_add(wanted);
    match end.zip(element_count(shape)) {
        Some((end, len)) if end <= len => Ok(()),
        _ => Err(format!("shape {shape:?}, expected {wanted} values from wherever {map:?} points to")),
    }
}
