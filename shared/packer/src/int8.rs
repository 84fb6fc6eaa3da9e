//! Convolutions in bytes, where the ranges of what flows between them are known.
//!
//! A pass over the graph in blocks (`crate::blocked`): each convolution whose input's and output's ranges are known,
//! and that is followed by nothing but what its kernel can do, becomes one of u8 activations and i8 weights. Between two of them values
//! stay bytes; at the borders images are quantized and dequantized. Whatever the pass does not know stays f32.
//!
//! An activation has seven bits: `real = (q - zero) * scale`, `zero` being 0 where nothing is negative. Weights are rounded
//! as `Encoding::Int8` does, with a scale for each filter that is as much larger as their sums in 16 bits ask for
//! ([`glowplug_pack::int8`]).

mod gain;
mod ranges;
mod rounded;
mod tail;
mod weights;

use crate::blocked::{block_named, with_ends};
use crate::planned::{NOT_YET, Planned};
pub(crate) use gain::{Convolution, convolutions, worthwhile};
use glowplug_pack::int8::{FEW, MOST, Runs, pixel};
use glowplug_pack::plan::{CHANNEL_BLOCK, Op as PlanOp, Window};
pub(crate) use ranges::{Ranges, limits, observe};
pub(crate) use rounded::RoundedFilters;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;
use tail::{Parts, Steps};
use tract_core::internal::*;
use weights::Filters;

/// What convolutions are computed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compute {
    /// Floats, whatever their weights are stored in.
    #[default]
    F32,
    /// Bytes, with sums in whole numbers: the same answer in vectors and in plain code, and faster.
    Int8,
}

impl fmt::Display for Compute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Compute::F32 => "f32",
            Compute::Int8 => "int8",
        })
    }
}

impl FromStr for Compute {
    type Err = String;

    fn from_str(name: &str) -> Result<Compute, String> {
        let found = [Compute::F32, Compute::Int8].into_iter().find(|compute| compute.to_string() == name);
        found.ok_or_else(|| format!("unknown arithmetic {name:?}: expected f32 or int8"))
    }
}

/// Values of a filter `[O, I, kh, kw]` for each of its channels.
fn taps(filters: &Tensor) -> usize {
    filters.shape().iter().skip(2).product::<usize>().max(1)
}

/// How bytes stand for numbers: `real = (q - zero) * scale`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scale {
    pub(crate) scale: f32,
    pub(crate) zero: u8,
}

impl Scale {
    /// For values from `least` to `most`. `None` where these are no numbers.
    pub(crate) fn of((least, most): (f32, f32)) -> Option<Scale> {
        let (least, most) = (f64::from(least.min(0.0)), f64::from(most.max(0.0)));
        let steps = f64::from(MOST);
        let width = most - least;
        if !width.is_finite() {
            return None;
        }
        // What is always 0 has any scale.
        let scale = if width > 1e-30 { width / steps } else { 1.0 };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 127")]
        let zero = (-least / scale).round_ties_even().clamp(0.0, steps) as u8;
        #[allow(clippy::cast_possible_truncation, reason = "a scale is rounded")]
        let scale = scale as f32;
        (scale.is_normal() && scale.recip().is_normal()).then_some(Scale { scale, zero })
    }
}

/// A value as bytes.
#[derive(Clone, Copy)]
struct Bytes {
    outlet: OutletId,
    scale: Scale,
}

/// A value of the graph in blocks in the new one.
#[derive(Clone, Copy, Default)]
struct Value {
    floats: Option<OutletId>,
    bytes: Option<Bytes>,
}

/// What was found out about a convolution that can be done in bytes.
struct Found {
    filters: Filters,
    steps: Steps,
    depthwise: bool,
    window: Window,
}

/// `model`, simplified, with its convolutions in blocks or, as far as `ranges` reach, in bytes.
pub(crate) fn rewrite(model: &TypedModel, ranges: &Ranges) -> TractResult<TypedModel> {
    let (blocked, names) = block_named(model)?;
    let mut pass = Pass::new(&blocked, names, ranges);
    pass.to.symbols = blocked.symbols.clone();
    let order = blocked.eval_order()?;
    let found = pass.all()?;
    let convs: HashSet<usize> = found.keys().copied().collect();
    let pools = pass.pools(&order, &convs);
    for id in order.iter().copied().chain(blocked.inputs.iter().map(|o| o.node)) {
        if pass.values.contains_key(&OutletId::new(id, 0)) {
            continue;
        }
        let node = blocked.node(id);
        let readers = Readers::of(&blocked, id, &convs, &pools);
        let added = match (found.get(&id), pools.contains(&id)) {
            (Some(conv), _) => pass.convolution(node, conv, &readers),
            (None, true) => pass.pool(node),
            (None, false) => pass.other(node),
        };
        added.with_context(|| format!("node {:?} ({}) in bytes", node.name, node.op.name()))?;
    }
    pass.finish()
}

/// Who reads a value.
struct Readers {
    bytes: bool,
    floats: bool,
}

impl Readers {
    fn of(model: &TypedModel, id: usize, convs: &HashSet<usize>, pools: &HashSet<usize>) -> Readers {
        let successors = model.outlet_successors(id.into());
        let in_bytes = |inlet: &InletId| {
            // Convolutions read images at slot 0 and behind the bias.
            pools.contains(&inlet.node) || (convs.contains(&inlet.node) && inlet.slot != 1)
        };
        let is_output = model.outputs.iter().any(|o| o.node == id);
        Readers {
            bytes: successors.iter().any(in_bytes),
            floats: is_output || !successors.iter().all(in_bytes),
        }
    }
}

struct Pass<'a> {
    from: &'a TypedModel,
    /// Which node of the simplified graph gives what is in blocks.
    names: HashMap<OutletId, String>,
    ranges: &'a Ranges,
    to: TypedModel,
    values: HashMap<OutletId, Value>,
}

impl<'a> Pass<'a> {
    fn new(from: &'a TypedModel, names: HashMap<OutletId, String>, ranges: &'a Ranges) -> Self {
        Pass { from, names, ranges, to: TypedModel::default(), values: HashMap::new() }
    }

    /// The range of a value of the graph in blocks, if it is known. What only moves values has that of its input.
    fn scale(&self, mut outlet: OutletId) -> Option<Scale> {
        loop {
            let node = self.from.node(outlet.node);
            let name = self.names.get(&outlet).unwrap_or(&node.name);
            if let Some(range) = self.ranges.by_node.get(name) {
                return Scale::of(*range);
            }
            let moves = node.op_is::<AxisOp>()
                || node.op_as::<Planned>().is_some_and(|planned| {
                    matches!(
                        planned.op,
                        PlanOp::BlockChannels | PlanOp::UnblockChannels | PlanOp::MaxPool { .. }
                    )
                });
            outlet = *node.inputs.first().filter(|_| moves)?;
        }
    }

    /// The convolutions that can be done in bytes, by node.
    fn all(&self) -> TractResult<HashMap<usize, Found>> {
        let mut all = HashMap::new();
        for node in &self.from.nodes {
            if let Some(found) = self.find(node)? {
                all.insert(node.id, found);
            }
        }
        Ok(all)
    }

    /// A convolution that can be done in bytes.
    fn find(&self, node: &TypedNode) -> TractResult<Option<Found>> {
        let Some(planned) = node.op_as::<Planned>() else { return Ok(None) };
        if self.ranges.kept.contains(&node.name) {
            return Ok(None);
        }
        let (window, steps, depthwise) = match &planned.op {
            PlanOp::BlockedConv { window, steps, .. } => (*window, steps, false),
            PlanOp::BlockedDepthwiseConv { window, steps, .. } => (*window, steps, true),
            _ => return Ok(None),
        };
        let Some((_, kernel)) = &planned.weight else { return Ok(None) };
        let scales = self.scale(node.inputs[0]).zip(self.scale(node.id.into()));
        let (Some(_), Some(steps)) = (scales, Steps::of(self.from, node, steps, &self.ranges.of_file)?)
        else {
            return Ok(None);
        };
        let residual = steps.residual.is_none_or(|(outlet, _)| !depthwise && self.scale(outlet).is_some());
        let channels = if depthwise { 1 } else { kernel.shape()[1] };
        let input = self.from.outlet_fact(node.inputs[0])?.shape.as_concrete().map(<[usize]>::len);
        let few = input == Some(4) && channels <= FEW;
        let Some(bytes) = pixel(channels).filter(|_| residual) else { return Ok(None) };
        let runs = Runs::of(&window, channels, if few { FEW } else { bytes });
        let filters = Filters::of(kernel, (!depthwise).then_some(&runs))?;
        Ok(filters.map(|filters| Found { filters, steps, depthwise, window }))
    }

    /// The pools between convolutions in bytes.
    fn pools(&self, order: &[usize], convs: &HashSet<usize>) -> HashSet<usize> {
        let mut pools = HashSet::new();
        for id in order {
            let node = self.from.node(*id);
            let max = node.op_as::<Planned>().is_some_and(|p| matches!(p.op, PlanOp::MaxPool { .. }));
            let given =
                node.inputs.first().is_some_and(|o| convs.contains(&o.node) || pools.contains(&o.node));
            let blocked = node.op_as::<Planned>().is_some_and(|p| p.shape.len() == 5);
            let wanted = self.from.outlet_successors(node.id.into()).iter().any(|i| convs.contains(&i.node));
            if max && given && blocked && wanted {
                pools.insert(*id);
            }
        }
        pools
    }

    fn planned(
        &mut self,
        name: &str,
        op: PlanOp,
        weight: Option<(String, Arc<Tensor>)>,
        inputs: &[OutletId],
        shape: TVec<usize>,
    ) -> TractResult<OutletId> {
        Ok(self.to.wire_node(name, Planned { op, weight, shape }, inputs)?[0])
    }

    /// What an image's bytes add to each sum of a convolution, on average, in real numbers; `None` where it was not measured.
    fn shift(&self, outlet: OutletId, scale: Scale, conv: &Found) -> TractResult<Option<Vec<f64>>> {
        let name = self.names.get(&outlet).unwrap_or(&self.from.node(outlet.node).name);
        let Some(shifts) = self.ranges.shifts.get(name) else { return Ok(None) };
        // What was pooled has the bytes of what was not, whose range is another.
        if self.ranges.by_node.get(name).and_then(|range| Scale::of(*range)) != Some(scale) {
            return Ok(None);
        }
        let count = conv.filters.count();
        let plain = conv.filters.rounded.try_as_plain_ram()?;
        let weights = plain.as_slice::<f32>()?;
        let channels = if conv.depthwise { count } else { conv.filters.rounded.shape()[1] };
        if shifts.len() != channels {
            return Ok(None);
        }
        let of = |(filter, weights): (usize, &[f32])| {
            let sums = weights
                .chunks_exact(taps(&conv.filters.rounded))
                .map(|taps| taps.iter().copied().map(f64::from).sum::<f64>());
            let own = if conv.depthwise { &shifts[filter..=filter] } else { shifts };
            sums.zip(own).map(|(sum, shift)| sum * shift).sum()
        };
        Ok(Some(weights.chunks_exact((weights.len() / count.max(1)).max(1)).enumerate().map(of).collect()))
    }

    fn value(&self, outlet: OutletId) -> TractResult<Value> {
        self.values.get(&outlet).copied().with_context(|| format!("{outlet:?} comes later"))
    }

    fn shape(&self, outlet: OutletId) -> TractResult<TVec<usize>> {
        let fact = self.to.outlet_fact(outlet)?;
        let shape = fact.shape.as_concrete().with_context(|| format!("an open shape {:?}", fact.shape))?;
        Ok(shape.into())
    }

    /// A value as f32.
    fn floats(&mut self, outlet: OutletId) -> TractResult<OutletId> {
        let value = self.value(outlet)?;
        if let Some(floats) = value.floats {
            return Ok(floats);
        }
        let Some(Bytes { outlet: bytes, scale: Scale { scale, zero } }) = value.bytes else {
            bail!("{outlet:?} is nowhere")
        };
        let shape = self.from.outlet_fact(outlet)?.shape.as_concrete().context("an open shape")?.into();
        let name = format!("{}.dequantized", self.from.node(outlet.node).name);
        let floats = self.planned(&name, PlanOp::DequantizeImage { scale, zero }, None, &[bytes], shape)?;
        self.values.entry(outlet).or_default().floats = Some(floats);
        Ok(floats)
    }

    /// A value as bytes.
    fn bytes(&mut self, outlet: OutletId) -> TractResult<Bytes> {
        let value = self.value(outlet)?;
        if let Some(bytes) = value.bytes {
            return Ok(bytes);
        }
        let scale = self.scale(outlet).context("a value whose range is not known")?;
        let floats = self.floats(outlet)?;
        let shape = match self.shape(floats)?[..] {
            [n, blocks, h, w, CHANNEL_BLOCK] => {
                tvec![n, h, w, pixel(blocks * CHANNEL_BLOCK).context("a size")?]
            }
            [n, c, h, w] => tvec![n, h, w, if c <= FEW { FEW } else { pixel(c).context("a size")? }],
            ref shape => bail!("{shape:?} is no image"),
        };
        let op = PlanOp::QuantizeImage { inverse: scale.scale.recip(), zero: scale.zero };
        let name = format!("{}.quantized", self.from.node(outlet.node).name);
        let bytes = Bytes { outlet: self.planned(&name, op, None, &[floats], shape)?, scale };
        self.values.entry(outlet).or_default().bytes = Some(bytes);
        Ok(bytes)
    }

    fn convolution(&mut self, node: &TypedNode, conv: &Found, readers: &Readers) -> TractResult<()> {
        let x = self.bytes(node.inputs[0])?;
        let residual = match conv.steps.residual {
            Some((outlet, factor)) => Some((self.bytes(outlet)?, factor)),
            None => None,
        };
        let bias = self.from.outlet_fact(node.inputs[1])?.konst.clone().context("a bias that is computed")?;
        let mut bias = bias.try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
        // What the image's rounding adds on average is taken off.
        if let Some(shift) = self.shift(node.inputs[0], x.scale, conv)? {
            #[allow(clippy::cast_possible_truncation, reason = "a small correction")]
            bias.iter_mut().zip(shift).for_each(|(bias, shift)| *bias -= shift as f32);
        }
        // Where everybody wants floats, they are not rounded to bytes first.
        let to = match readers.floats && !readers.bytes && !conv.depthwise {
            true => None,
            false => Some(self.scale(node.id.into()).context("a value whose range is not known")?),
        };
        let parts = Parts {
            x: x.scale,
            filters: &conv.filters,
            bias: &bias,
            steps: &conv.steps,
            residual: residual.map(|(bytes, factor)| (bytes.scale, factor)),
            to,
        };
        let constants = parts.constants()?;
        let shape = self.from.outlet_fact(node.id.into())?.shape.as_concrete().context("an open shape")?;
        let [n, _, h, w, _] = *shape else { bail!("{shape:?} is no image in blocks") };
        let s = pixel(conv.filters.count()).context("too many filters")?;
        let constant = |pass: &mut Pass<'_>, what: &str, mut values: Vec<f32>| {
            values.resize(s, 0.0);
            pass.to.add_const(format!("{}.{what}", node.name), Tensor::from_shape(&[s], &values)?)
        };
        let mut inputs = vec![x.outlet];
        inputs.push(constant(self, "multiplier", constants.multiplier)?);
        inputs.push(constant(self, "int8.bias", constants.bias)?);
        inputs.extend(residual.map(|(bytes, _)| bytes.outlet));
        let (window, kernel, zero, tail) = (conv.window, NOT_YET, x.scale.zero, constants.tail);
        let op = match conv.depthwise {
            true => PlanOp::Int8DepthwiseConv { window, kernel, zero, tail },
            false => PlanOp::Int8Conv { window, kernel, zero, residual: constants.residual, tail },
        };
        let weight = Some((node.name.clone(), conv.filters.rounded.clone()));
        let given = if to.is_some() { tvec![n, h, w, s] } else { shape.into() };
        let outlet = self.planned(&node.name, op, weight, &inputs, given)?;
        let value = match to {
            Some(scale) => Value { floats: None, bytes: Some(Bytes { outlet, scale }) },
            None => Value { floats: Some(outlet), bytes: None },
        };
        self.values.insert(node.id.into(), value);
        Ok(())
    }

    fn pool(&mut self, node: &TypedNode) -> TractResult<()> {
        let Some(Planned { op: PlanOp::MaxPool { window }, .. }) = node.op_as() else { bail!("no pool") };
        let x = self.bytes(node.inputs[0])?;
        let mut shape = self.shape(x.outlet)?;
        (shape[1], shape[2]) = window.output;
        let op = PlanOp::Int8MaxPool { window: *window };
        let outlet = self.planned(&node.name, op, None, &[x.outlet], shape)?;
        let bytes = Some(Bytes { outlet, scale: x.scale });
        self.values.insert(node.id.into(), Value { floats: None, bytes });
        Ok(())
    }

    fn other(&mut self, node: &TypedNode) -> TractResult<()> {
        let inputs = node.inputs.iter().map(|o| self.floats(*o)).collect::<TractResult<TVec<_>>>()?;
        let outputs = if self.from.inputs.iter().any(|o| o.node == node.id) {
            tvec![self.to.add_source(&node.name, node.outputs[0].fact.clone())?]
        } else {
            self.to.wire_node(&node.name, node.op.clone(), &inputs)?
        };
        for (slot, outlet) in outputs.into_iter().enumerate() {
            self.values.insert(OutletId::new(node.id, slot), Value { floats: Some(outlet), bytes: None });
        }
        Ok(())
    }

    fn finish(mut self) -> TractResult<TypedModel> {
        let outputs = self.from.outputs.iter().map(|o| self.floats(*o)).collect::<TractResult<Vec<_>>>()?;
        let inputs = self.from.inputs.iter().map(|o| self.floats(*o)).collect::<TractResult<Vec<_>>>()?;
        with_ends(self.from, self.to, &inputs, &outputs)
    }
}
