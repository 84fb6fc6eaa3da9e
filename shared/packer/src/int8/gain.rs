//! What convolutions in bytes save, and what the borders between bytes and floats cost.

use super::{Found, Pass, Ranges, Readers};
use crate::blocked::block_named;
use crate::planned::Planned;
use glowplug_pack::plan::Op as PlanOp;
use std::collections::{HashMap, HashSet};
use tract_core::internal::*;

/// What a multiply-add in bytes saves, and one of a depthwise convolution; what it costs to quantize or dequantize a value. In
/// picoseconds, about, on a Zen 3 (the networks of docs/benchmarks.md): only their ratios count.
const SAVED: u64 = 15;
const SAVED_DEPTHWISE: u64 = 28;
const BORDER: u64 = 250;

/// A convolution of the graph in blocks.
#[derive(Clone, Debug)]
pub(crate) struct Convolution {
    /// Its node's name.
    pub(crate) name: String,
    /// Of one run.
    pub(crate) multiply_adds: u64,
    /// What being done in bytes saves, borders aside.
    pub(crate) saved: u64,
    /// Whether it can be done in bytes, and is meant to be.
    pub(crate) in_bytes: bool,
}

impl Convolution {
    fn of(node: &TypedNode, in_bytes: bool) -> Option<Convolution> {
        let planned = node.op_as::<Planned>()?;
        let each = match planned.op {
            PlanOp::BlockedConv { .. } => SAVED,
            PlanOp::BlockedDepthwiseConv { .. } => SAVED_DEPTHWISE,
            _ => return None,
        };
        let (_, kernel) = planned.weight.as_ref()?;
        let [n, _, h, w, _] = planned.shape[..] else { return None };
        let multiply_adds = (n * h * w * kernel.len()) as u64;
        Some(Convolution { name: node.name.clone(), multiply_adds, saved: multiply_adds * each, in_bytes })
    }
}

/// All convolutions of `model`, simplified, that are done in blocks or, where `ranges` say so, in bytes.
pub(crate) fn convolutions(model: &TypedModel, ranges: &Ranges) -> TractResult<Vec<Convolution>> {
    let (blocked, names) = block_named(model)?;
    let found = Pass::new(&blocked, names, ranges).all()?;
    let of = |node| Convolution::of(node, found.contains_key(&node.id));
    Ok(blocked.nodes.iter().filter_map(of).collect())
}

/// Of the convolutions in bytes, those that save more than their borders cost: of any that hand bytes to each other, all or none.
pub(crate) fn worthwhile(model: &TypedModel, ranges: &Ranges) -> TractResult<HashSet<String>> {
    let (blocked, names) = block_named(model)?;
    let pass = Pass::new(&blocked, names, ranges);
    let found = pass.all()?;
    let convs: HashSet<usize> = found.keys().copied().collect();
    let pools = pass.pools(&blocked.eval_order()?, &convs);
    let mut runs = pass.runs(&found, &pools);
    runs.retain(|run| pass.gain(run, &found, &pools, &convs).is_some_and(|gain| gain > 0));
    Ok(runs.into_iter().flatten().map(|id| blocked.node(id).name.clone()).collect())
}

impl Pass<'_> {
    /// What a convolution in bytes reads as bytes.
    fn images(&self, id: usize, conv: &Found) -> impl Iterator<Item = OutletId> {
        [self.from.node(id).inputs[0]].into_iter().chain(conv.steps.residual.map(|(outlet, _)| outlet))
    }

    /// The convolution in bytes whose bytes `outlet` is, through pools.
    fn giver(
        &self,
        mut outlet: OutletId,
        found: &HashMap<usize, Found>,
        pools: &HashSet<usize>,
    ) -> Option<usize> {
        while pools.contains(&outlet.node) {
            outlet = self.from.node(outlet.node).inputs[0];
        }
        found.contains_key(&outlet.node).then_some(outlet.node)
    }

    /// Convolutions that hand bytes to each other, together.
    fn runs(&self, found: &HashMap<usize, Found>, pools: &HashSet<usize>) -> Vec<Vec<usize>> {
        let mut runs: Vec<Vec<usize>> = Vec::new();
        let mut ids: Vec<usize> = found.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let givers: Vec<usize> =
                self.images(id, &found[&id]).filter_map(|o| self.giver(o, found, pools)).collect();
            let (mut joined, others): (Vec<_>, Vec<_>) =
                runs.into_iter().partition(|run| run.iter().any(|other| givers.contains(other)));
            joined.push(vec![id]);
            runs = others;
            runs.push(joined.concat());
        }
        runs
    }

    /// What a run of convolutions saves, its borders taken off.
    fn gain(
        &self,
        run: &[usize],
        found: &HashMap<usize, Found>,
        pools: &HashSet<usize>,
        convs: &HashSet<usize>,
    ) -> Option<i128> {
        let size = |outlet: OutletId| {
            let shape = self.from.outlet_fact(outlet).ok()?.shape.as_concrete()?;
            Some(shape.iter().product::<usize>() as u64)
        };
        let (mut saved, mut borders) = (0, 0);
        let mut quantized = HashSet::new();
        for id in run {
            saved += Convolution::of(self.from.node(*id), true)?.saved;
            quantized.extend(self.images(*id, &found[id]).filter(|o| self.giver(*o, found, pools).is_none()));
            // Where everybody wants floats, the convolution gives them itself.
            let readers = Readers::of(self.from, *id, convs, pools);
            if readers.floats && (readers.bytes || found[id].depthwise) {
                borders += size((*id).into())?;
            }
        }
        for outlet in quantized {
            borders += size(outlet)?;
        }
        Some(i128::from(saved) - i128::from(borders * BORDER))
    }
}
