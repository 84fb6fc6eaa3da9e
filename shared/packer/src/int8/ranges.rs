//! The ranges of activations: what seven bits round best, found on calibration data, or what a model that came quantized holds
//! them to.

use super::{Convolution, Scale};
use crate::blocked::{f32_constant, scalar};
use crate::encode::ops::binary_op;
use crate::evaluate::Feed;
use glowplug_pack::int8::MOST;
use glowplug_pack::plan::BinaryOp;
use std::collections::{HashMap, HashSet};
use tract_core::internal::*;
use tract_core::ops::array::{Slice, TypedConcat};
use tract_core::ops::binary::TypedBinOp;
use tract_core::ops::cnn::MaxPool;

/// Ranges of activations: what decides which convolutions are done in bytes, and how.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ranges {
    /// The least and the largest value that nodes of a simplified graph give, by their names, as far as they are known.
    pub(super) by_node: HashMap<String, (f32, f32)>,
    /// What a model that came quantized holds values to.
    pub(super) of_file: Vec<(f32, f32)>,
    /// What seven bits add to the mean of each channel of a node, by its name, where it has channels.
    pub(super) shifts: HashMap<String, Vec<f64>>,
    /// Convolutions that stay f32 though they could be done in bytes, by name.
    pub(super) kept: HashSet<String>,
}

impl Ranges {
    /// Whether none is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_node.is_empty()
    }

    /// These, of a model that came with others.
    pub(crate) fn beside(self, of_file: Ranges) -> Ranges {
        Ranges { of_file: of_file.of_file, ..self }
    }

    /// The same ranges; in bytes are at most the convolutions that `names` has.
    pub(crate) fn only(&self, names: &[&str], all: &[Convolution]) -> Ranges {
        let kept = all.iter().map(|conv| &conv.name).filter(|name| !names.contains(&name.as_str()));
        Ranges { kept: kept.cloned().collect(), ..self.clone() }
    }
}

/// How finely values are counted, of the width between the least and the largest.
const BINS: usize = 2048;

/// The ranges of all values of `model`, simplified, over all of `feed`: not from the least to the largest value, but what seven
/// bits round with the least squared error. A few values beyond them are cut off, for the sake of all others.
pub(crate) fn observe(
    model: &TypedModel,
    feed: &Feed<'_>,
    progress: &mut dyn FnMut(usize),
) -> TractResult<Ranges> {
    let mut model = model.clone();
    let watched: Vec<OutletId> = model
        .nodes
        .iter()
        .filter(|n| !n.op_is::<tract_core::ops::konst::Const>())
        .filter(|n| n.outputs.first().is_some_and(|o| o.fact.datum_type == DatumType::F32))
        .map(|n| OutletId::new(n.id, 0))
        .collect();
    let channels = watched.iter().map(|o| model.outlet_fact(*o).map(channels));
    let channels = channels.collect::<TractResult<Vec<_>>>()?;
    let names: Vec<String> = watched.iter().map(|o| model.node(o.node).name.clone()).collect();
    model.select_output_outlets(&watched)?;
    let model = model.into_optimized()?.into_runnable()?;
    let mut each = |see: &mut dyn FnMut(usize, &[f32]) -> TractResult<()>| -> TractResult<()> {
        for run in 0..feed.runs() {
            progress(run);
            let found = model.run(feed.values(run)?)?;
            for (index, value) in found.iter().enumerate() {
                see(index, value.try_as_plain_ram()?.as_slice::<f32>()?)?;
            }
        }
        Ok(())
    };
    let mut ranges = vec![(f32::INFINITY, f32::NEG_INFINITY); names.len()];
    each(&mut |index, values| {
        for value in values {
            let range = &mut ranges[index];
            // What is infinite, as masks are, has no range: no convolution there is done in bytes.
            *range = match value.is_finite() {
                true => (range.0.min(*value), range.1.max(*value)),
                false => (f32::NEG_INFINITY, f32::INFINITY),
            };
        }
        Ok(())
    })?;
    let mut counts = vec![vec![0u32; BINS]; names.len()];
    each(&mut |index, values| {
        let (least, most) = ranges[index];
        if !(most - least).is_finite() {
            return Ok(());
        }
        let scale = BINS as f32 / (most - least).max(f32::MIN_POSITIVE);
        for value in values {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "saturates, and is cut"
            )]
            let bin = ((value - least) * scale) as usize;
            let count = &mut counts[index][bin.min(BINS - 1)];
            *count = count.saturating_add(1);
        }
        Ok(())
    })?;
    let ranges: Vec<_> =
        ranges.into_iter().zip(&counts).map(|(range, counts)| best_range(range, counts)).collect();
    let mut shifts: Vec<Shifts> = channels.into_iter().map(Shifts::of).collect();
    each(&mut |index, values| {
        if let Some(scale) = Scale::of(ranges[index]) {
            shifts[index].add(values, scale);
        }
        Ok(())
    })?;
    let shifts = names.iter().cloned().zip(shifts).filter_map(|(name, shifts)| Some((name, shifts.means()?)));
    Ok(Ranges {
        shifts: shifts.collect(),
        by_node: names.into_iter().zip(ranges).collect(),
        ..Ranges::default()
    })
}

/// The ranges that the nodes `names` of `model`, simplified, hold values to: each is the second of a Max and a Min with constants, or of a
/// Min behind a Relu. What only moves such values keeps them. What rounding adds to each channel is not known.
pub(crate) fn limits(model: &TypedModel, names: &HashSet<String>) -> TractResult<Ranges> {
    let constant = |outlet| f32_constant(model, outlet).filter(|c| c.len() == 1).and_then(|c| scalar(&c));
    // What constants hold values to, and which of that is a range.
    let mut held: HashMap<OutletId, (f32, f32)> = HashMap::new();
    let mut ranges: HashMap<OutletId, (f32, f32)> = HashMap::new();
    for id in model.eval_order()? {
        let node = model.node(id);
        if node.op_is::<AxisOp>()
            || node.op_is::<MaxPool>()
            || node.op_is::<Slice>()
            || node.op_is::<TypedConcat>()
        {
            let all: Option<Vec<_>> = node.inputs.iter().map(|x| ranges.get(x).copied()).collect();
            let all = all.unwrap_or_default();
            if let Some(range) = all.into_iter().reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))) {
                ranges.insert(id.into(), range);
            }
        }
        let Some(TypedBinOp(op, None)) = node.op_as::<TypedBinOp>() else { continue };
        let (Ok(op), &[a, b]) = (binary_op(&**op), node.inputs.as_slice()) else { continue };
        let sides = constant(b).map(|value| (a, value)).or_else(|| Some((b, constant(a)?)));
        let Some((x, value)) = sides.filter(|(_, value)| value.is_finite()) else { continue };
        let (least, most) = held.get(&x).copied().unwrap_or((f32::NEG_INFINITY, f32::INFINITY));
        let range = match op {
            BinaryOp::Max => (least.max(value), most.max(value)),
            BinaryOp::Min => (least.min(value), most.min(value)),
            _ => continue,
        };
        held.insert(id.into(), range);
        if names.contains(&node.name) && range.0.is_finite() && range.1.is_finite() {
            ranges.insert(id.into(), range);
        }
    }
    let of_file = ranges.values().copied().collect();
    let by_node = ranges.into_iter().map(|(outlet, range)| (model.node(outlet.node).name.clone(), range));
    Ok(Ranges { by_node: by_node.collect(), of_file, ..Ranges::default() })
}

/// What rounding and cutting off add to each channel of a value.
struct Shifts {
    sums: Vec<f64>,
    /// Values of a channel that lie side by side.
    plane: usize,
    count: usize,
}

impl Shifts {
    /// Of a value with so many channels, and so many values of each in a row.
    fn of((channels, plane): (usize, usize)) -> Shifts {
        Shifts { sums: vec![0.0; channels], plane, count: 0 }
    }

    fn add(&mut self, values: &[f32], Scale { scale, zero }: Scale) {
        let (scale, zero) = (f64::from(scale), f64::from(zero));
        for image in values.chunks_exact((self.sums.len() * self.plane).max(1)) {
            for (sum, values) in self.sums.iter_mut().zip(image.chunks_exact(self.plane)) {
                let error = |value: &f32| {
                    let q = (f64::from(*value) / scale + zero).round_ties_even().clamp(0.0, f64::from(MOST));
                    (q - zero) * scale - f64::from(*value)
                };
                *sum += values.iter().map(error).sum::<f64>();
            }
            self.count += self.plane;
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
    fn means(self) -> Option<Vec<f64>> {
        let count = self.count as f64;
        (!self.sums.is_empty() && count > 0.0).then(|| self.sums.iter().map(|sum| sum / count).collect())
    }
}

/// Channels of a value of a simplified graph, images being `[N, C, H, W]` or `[C, H, W]`, and how many values of each lie
/// side by side; none of what is no image.
fn channels(fact: &TypedFact) -> (usize, usize) {
    match fact.shape.as_concrete() {
        Some([.., c, h, w]) if fact.rank() <= 4 => (*c, (h * w).max(1)),
        _ => (0, 1),
    }
}

/// The part of a range, 0 staying where it is, in which steps of seven bits make the least squared error over the values that
/// were counted in it.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "an estimate")]
fn best_range((least, most): (f32, f32), counts: &[u32]) -> (f32, f32) {
    if !(most - least).is_finite() {
        return (least, most);
    }
    let (low, width) = (f64::from(least), f64::from(most) - f64::from(least));
    let value = |bin: usize| low + (bin as f64 + 0.5) * width / counts.len() as f64;
    let error = |part: f64| {
        let (from, to) = (low.min(0.0) * part, f64::from(most).max(0.0) * part);
        let rounding = ((to - from) / f64::from(MOST)).powi(2) / 12.0;
        let of_bin = |(bin, count): (usize, &u32)| {
            let beyond = value(bin) - value(bin).clamp(from, to);
            f64::from(*count) * (rounding + beyond * beyond)
        };
        counts.iter().enumerate().filter(|(_, count)| **count > 0).map(of_bin).sum::<f64>()
    };
    let parts = (4..=40).map(|part| f64::from(part) / 40.0);
    let best = parts.map(|part| (part, error(part))).min_by(|a, b| a.1.total_cmp(&b.1));
    let part = best.map_or(1.0, |(part, _)| part) as f32;
    (least * part, most * part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_the_named_nodes_and_of_what_moves_them() {
        use tract_core::ops::math::{max, min};
        let mut model = TypedModel::default();
        let x = model.add_source("x", f32::fact([2, 3])).unwrap();
        let mut clip = |x: OutletId, name: &str, least: f32, most: f32| {
            let bound = |value: f32| rctensor2(&[[value]]);
            let low = model.add_const(format!("{name}.least"), bound(least)).unwrap();
            let high = model.add_const(format!("{name}.most"), bound(most)).unwrap();
            let over = model.wire_node(format!("{name}.over"), max(), &[x, low]).unwrap()[0];
            // The constant may come first.
            model.wire_node(name, min(), &[high, over]).unwrap()[0]
        };
        let (a, b) = (clip(x, "a", -1.5, 4.0), clip(x, "b", -2.0, 3.0));
        let other = clip(a, "other", -65504.0, 65504.0);
        let moved = model.wire_node("moved", AxisOp::Add(0), &[a]).unwrap()[0];
        let both = model.wire_node("both", TypedConcat { axis: 0 }, &[a, b]).unwrap()[0];
        let mixed = model.wire_node("mixed", TypedConcat { axis: 0 }, &[a, other]).unwrap()[0];
        model.select_output_outlets(&[moved, both, mixed]).unwrap();
        let names = ["a", "b"].map(str::to_owned).into_iter().collect();
        let found = limits(&model, &names).unwrap().by_node;
        let mut found: Vec<_> = found.iter().map(|(name, range)| (name.as_str(), *range)).collect();
        found.sort_by_key(|(name, _)| *name);
        let a = (-1.5, 4.0);
        assert_eq!(found, [("a", a), ("b", (-2.0, 3.0)), ("both", (-2.0, 4.0)), ("moved", a)]);
        assert!(limits(&model, &HashSet::new()).unwrap().is_empty());
    }

    #[test]
    fn a_range_leaves_out_what_is_rare_and_far() {
        // Nearly all values below a tenth of the largest, of which there is one.
        let mut counts = vec![0u32; 2048];
        counts[..200].fill(1000);
        counts[2047] = 1;
        let (least, most) = best_range((0.0, 100.0), &counts);
        assert!(least == 0.0 && (9.0..60.0).contains(&most), "{most}");
        // Evenly spread values want all of it.
        assert_eq!(best_range((-50.0, 50.0), &[7; 2048]), (-50.0, 50.0));
    }
}
