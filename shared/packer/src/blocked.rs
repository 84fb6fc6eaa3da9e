//! Convolutional networks with their channels in blocks of eight.
//!
//! A pass over the simplified graph, before tract chooses kernels: convolutions become operators of our own that keep
//! the channels of an image in blocks (docs/adr/0012), and what lies between them works on blocks too, so that an
//! image is blocked once and taken apart once. What follows a convolution element by element becomes a part of it.
//!
//! Whatever the pass does not know takes its operands unblocked, as tract has them.

mod conv;
mod elementwise;
mod hard_swish;
mod images;
mod one_axis;

use crate::planned::Planned;
use conv::Convolution;
pub(crate) use conv::{f32_constant, scalar};
use glowplug_pack::plan::{CHANNEL_BLOCK, Op as PlanOp};
use std::collections::HashMap;
use tract_core::internal::*;

/// Whether the graph has convolutions that are done in blocks.
pub(crate) fn is_convolutional(model: &TypedModel) -> bool {
    model.nodes.iter().any(|node| Convolution::windowed(model, node).is_some())
}

/// The graph with its convolutions in blocks; as it was where it has none.
pub(crate) fn block(model: &TypedModel) -> TractResult<TypedModel> {
    Ok(block_named(model)?.0)
}

/// As [`block`], and for each value that is in blocks, which node of `model` gives it: of those that became one
/// operator, the last.
pub(crate) fn block_named(model: &TypedModel) -> TractResult<(TypedModel, HashMap<OutletId, String>)> {
    let mut model = model.clone();
    one_axis::widen(&mut model)?;
    if !is_convolutional(&model) {
        return Ok((model, HashMap::new()));
    }
    hard_swish::recognise(&mut model)?;
    let order = model.eval_order()?;
    let mut blocker = Blocker { from: &model, to: TypedModel::default(), values: HashMap::new() };
    blocker.to.symbols = model.symbols.clone();
    let mut names = HashMap::new();
    for id in order.into_iter().chain(model.inputs.iter().map(|o| o.node)) {
        if !blocker.values.contains_key(&OutletId::new(id, 0)) {
            let node = model.node(id);
            blocker.node(node).with_context(|| format!("node {:?} ({})", node.name, node.op.name()))?;
            if let Some(blocked) = blocker.blocked(id.into()) {
                names.insert(blocked.outlet, node.name.clone());
            }
        }
    }
    Ok((blocker.finish()?, names))
}

/// A value of the old graph in the new one.
#[derive(Clone, Default)]
struct Value {
    plain: Option<OutletId>,
    blocked: Option<Blocked>,
}

/// An image in blocks.
#[derive(Clone)]
struct Blocked {
    outlet: OutletId,
    /// The plain value's extents: `[N, C, H, W]`, where extents of 1 may be missing.
    plain: TVec<usize>,
    /// Which of them is C.
    axis: usize,
}

impl Blocked {
    /// Channels, without those that fill the last block.
    fn channels(&self) -> usize {
        self.plain[self.axis]
    }
}

struct Blocker<'a> {
    from: &'a TypedModel,
    to: TypedModel,
    values: HashMap<OutletId, Value>,
}

/// How a node is done in blocks; `None` where it is another's.
type Row = fn(&mut Blocker<'_>, &TypedNode) -> TractResult<Option<Blocked>>;

const ROWS: &[Row] = &[
    conv::convolution,
    elementwise::binary,
    elementwise::unary,
    images::pool,
    images::reduce,
    images::ones,
    images::concat,
    images::upsample,
];

impl Blocker<'_> {
    fn node(&mut self, node: &TypedNode) -> TractResult<()> {
        for row in ROWS {
            if let Some(blocked) = row(self, node)? {
                let value = Value { plain: None, blocked: Some(blocked) };
                self.values.insert(OutletId::new(node.id, 0), value);
                return Ok(());
            }
        }
        let inputs = node.inputs.iter().map(|o| self.plain(*o)).collect::<TractResult<TVec<_>>>()?;
        let outputs = if self.from.inputs.iter().any(|o| o.node == node.id) {
            tvec![self.to.add_source(&node.name, node.outputs[0].fact.clone())?]
        } else if let Some(constant) = node.op_as::<tract_core::ops::konst::Const>() {
            tvec![self.to.wire_node(&node.name, constant.clone(), &[])?[0]]
        } else {
            self.to.wire_node(&node.name, node.op.clone(), &inputs)?
        };
        for (slot, outlet) in outputs.into_iter().enumerate() {
            let value = Value { plain: Some(outlet), blocked: None };
            self.values.insert(OutletId::new(node.id, slot), value);
        }
        Ok(())
    }

    fn value(&self, outlet: OutletId) -> TractResult<&Value> {
        self.values.get(&outlet).with_context(|| format!("{outlet:?} comes later"))
    }

    /// A value as tract has it.
    fn plain(&mut self, outlet: OutletId) -> TractResult<OutletId> {
        let value = self.value(outlet)?.clone();
        if let Some(plain) = value.plain {
            return Ok(plain);
        }
        let Some(blocked) = value.blocked else { bail!("{outlet:?} is nowhere") };
        let [n, _, h, w, _] = self.shape(blocked.outlet)?[..] else { bail!("not in blocks") };
        let shape: TVec<usize> = tvec![n, blocked.channels(), h, w];
        let name = format!("{}.unblocked", self.from.node(outlet.node).name);
        let mut plain =
            self.planned(&name, PlanOp::UnblockChannels, None, &[blocked.outlet], shape.clone())?;
        if shape != blocked.plain {
            plain = self.reshape(&format!("{name}.image"), plain, &blocked.plain)?;
        }
        self.entry(outlet).plain = Some(plain);
        Ok(plain)
    }

    /// A value in blocks, if it is there already.
    fn blocked(&self, outlet: OutletId) -> Option<Blocked> {
        self.values.get(&outlet)?.blocked.clone()
    }

    /// A value in blocks, `axis` being its channels. What comes before is images, what comes after rows and columns.
    fn in_blocks(&mut self, outlet: OutletId, axis: usize) -> TractResult<Blocked> {
        if let Some(blocked) = self.blocked(outlet) {
            return Ok(blocked);
        }
        let image = self.image(outlet, axis)?;
        let [n, channels, h, w] = self.shape(image)?[..] else { bail!("no image") };
        let shape = tvec![n, channels.div_ceil(CHANNEL_BLOCK), h, w, CHANNEL_BLOCK];
        let name = format!("{}.blocked", self.from.node(outlet.node).name);
        let blocked = self.planned(&name, PlanOp::BlockChannels, None, &[image], shape)?;
        let plain = self.plain(outlet)?;
        let blocked = Blocked { outlet: blocked, plain: self.shape(plain)?, axis };
        self.entry(outlet).blocked = Some(blocked.clone());
        Ok(blocked)
    }

    /// A plain value as `[N, C, H, W]`.
    fn image(&mut self, outlet: OutletId, axis: usize) -> TractResult<OutletId> {
        let plain = self.plain(outlet)?;
        let shape = self.shape(plain)?;
        let (before, after) = (&shape[..axis], &shape[axis + 1..]);
        let (h, w) = match *after {
            [] => (1, 1),
            [w] => (1, w),
            [h, w] => (h, w),
            _ => bail!("{} axes behind the channels", after.len()),
        };
        let image = [before.iter().product(), shape[axis], h, w];
        if *shape == image {
            return Ok(plain);
        }
        let name = format!("{}.images.{}", self.from.node(outlet.node).name, self.to.nodes.len());
        self.reshape(&name, plain, &image)
    }

    fn reshape(&mut self, name: &str, x: OutletId, to: &[usize]) -> TractResult<OutletId> {
        let dims = |shape: &[usize]| shape.iter().map(|d| d.to_dim()).collect::<TVec<TDim>>();
        let op = AxisOp::Reshape(0, dims(&self.shape(x)?), dims(to));
        Ok(self.to.wire_node(name, op, &[x])?[0])
    }

    fn entry(&mut self, outlet: OutletId) -> &mut Value {
        self.values.entry(outlet).or_default()
    }

    /// The extents of a value of the new graph.
    fn shape(&self, outlet: OutletId) -> TractResult<TVec<usize>> {
        let fact = self.to.outlet_fact(outlet)?;
        let shape = fact.shape.as_concrete().with_context(|| format!("an open shape {:?}", fact.shape))?;
        Ok(shape.into())
    }

    fn planned(
        &mut self,
        name: &str,
        op: PlanOp,
        kernel: Option<Arc<Tensor>>,
        inputs: &[OutletId],
        shape: TVec<usize>,
    ) -> TractResult<OutletId> {
        let weight = kernel.map(|kernel| (name.to_owned(), kernel));
        Ok(self.to.wire_node(name, Planned { op, weight, shape }, inputs)?[0])
    }

    /// Whether the node behind `outlet` of the old graph has one reader, and is no output.
    fn is_read_once(&self, outlet: OutletId) -> bool {
        let one = self.from.outlet_successors(outlet).len() == 1;
        one && !self.from.outputs.contains(&outlet)
    }

    fn finish(mut self) -> TractResult<TypedModel> {
        let outputs = self.from.outputs.iter().map(|o| self.plain(*o)).collect::<TractResult<Vec<_>>>()?;
        let inputs = self.from.inputs.iter().map(|o| self.plain(*o)).collect::<TractResult<Vec<_>>>()?;
        with_ends(self.from, self.to, &inputs, &outputs)
    }
}

/// `to`, made of `from`, with its inputs and outputs and what `from` says of them.
pub(crate) fn with_ends(
    from: &TypedModel,
    mut to: TypedModel,
    inputs: &[OutletId],
    outputs: &[OutletId],
) -> TractResult<TypedModel> {
    for (old, new) in from.outputs.iter().zip(outputs) {
        if let Some(label) = from.outlet_label(*old) {
            to.set_outlet_label(*new, label.to_owned())?;
        }
    }
    to.set_input_outlets(inputs)?;
    to.select_output_outlets(outputs)?;
    to.properties = from.properties.clone();
    Ok(to)
}
