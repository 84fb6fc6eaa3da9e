//! How many of each channels go: over the whole network, those that are missed least for the multiply-adds that they take.

use super::BLOCK;
use super::graph::{Channels, Graph};
use super::runs::probe;
use super::solve::count;
use crate::error::{ErrorKind, PackerError};
use crate::import::Source;
use crate::pin::InputPin;

/// A node with a weight, and what it computes.
pub(super) struct Work {
    node: usize,
    macs: f64,
    /// The channels it computes, takes or passes on.
    of: Vec<usize>,
}

/// Every node with a weight, and its multiply-adds.
pub(super) fn work(
    source: &mut Source,
    pins: &[InputPin],
    channels: &[Channels],
) -> Result<Vec<Work>, PackerError> {
    let graph = Graph::of(source.graph()?);
    let nodes = graph.proto.node.iter().enumerate();
    let found: Vec<(usize, usize)> = nodes.filter_map(|(i, node)| Some((i, graph.depth(node)?))).collect();
    let names: Vec<String> = found.iter().map(|(i, _)| graph.proto.node[*i].output[0].clone()).collect();
    let imported = probe(source, pins, &names)?;
    let mut work = Vec::new();
    for (at, (node, depth)) in found.into_iter().enumerate() {
        let fact = imported.typed.output_fact(at).map_err(|e| PackerError::model("prune", &e))?;
        let shape = fact.shape.as_concrete().ok_or_else(|| {
            PackerError::new(ErrorKind::Unsupported, format!("output {:?} has an open shape", names[at]))
        })?;
        let touches = |c: &Channels| c.producer == node || c.consumer == node || c.depthwise.contains(&node);
        let of = (0..channels.len()).filter(|c| touches(&channels[*c])).collect();
        work.push(Work { node, macs: count(shape.iter().product::<usize>() * depth), of });
    }
    debug_assert!(channels.iter().all(|c| work.iter().any(|w| w.node == c.consumer)));
    Ok(work)
}

/// All multiply-adds with `left` of each of `channels`.
pub(super) fn macs(work: &[Work], channels: &[Channels], left: &[usize]) -> f64 {
    let part = |of: &usize| count(left[*of]) / count(channels[*of].width);
    work.iter().map(|work| work.macs * work.of.iter().map(part).product::<f64>()).sum()
}

/// How many of each of `channels` are left, so that the part `wanted` of all multiply-adds goes. `curves` are the order in which
/// they go and what is lost when so many are gone.
pub(super) fn choose(
    channels: &[Channels],
    curves: &[(Vec<usize>, Vec<f64>)],
    work: &[Work],
    wanted: f64,
) -> Result<Vec<usize>, PackerError> {
    let mut left: Vec<usize> = channels.iter().map(|c| c.width).collect();
    let before = macs(work, channels, &left);
    let most = before * (1.0 - wanted);
    loop {
        let now = macs(work, channels, &left);
        if now <= most {
            give_back(channels, curves, work, most, &mut left);
            return Ok(left);
        }
        let mut best: Option<(f64, usize)> = None;
        for (index, (_, curve)) in curves.iter().enumerate() {
            let (width, had) = (channels[index].width, left[index]);
            // Further ahead too: a step may cost more than those behind it.
            let mut fewer = next(had);
            while let Some(to) = fewer {
                left[index] = to;
                let saved = now - macs(work, channels, &left);
                let ratio = (curve[width - to] - curve[width - had]) / saved.max(f64::MIN_POSITIVE);
                if best.is_none_or(|(than, _)| ratio < than) {
                    best = Some((ratio, index));
                }
                fewer = next(to);
            }
            left[index] = had;
        }
        let Some((_, index)) = best else {
            let text = format!(
                "{:.1} % of this model's multiply-adds cannot be pruned: with {BLOCK} channels left of each layer that \
                 may lose some, {:.1} % are gone",
                wanted * 100.0,
                (1.0 - now / before) * 100.0
            );
            return Err(PackerError::new(ErrorKind::Unsupported, text));
        };
        left[index] = next(left[index]).unwrap_or(left[index]);
    }
}

/// Gives back what a last large step took too much: those blocks that are missed most, as long as `most` multiply-adds are not
/// exceeded.
fn give_back(
    channels: &[Channels],
    curves: &[(Vec<usize>, Vec<f64>)],
    work: &[Work],
    most: f64,
    left: &mut [usize],
) {
    loop {
        let mut best: Option<(f64, usize, usize)> = None;
        for (index, (_, curve)) in curves.iter().enumerate() {
            let (width, had) = (channels[index].width, left[index]);
            left[index] = width.min(had + BLOCK);
            let regained = curve[width - had] - curve[width - left[index]];
            let fits = had < width && macs(work, channels, left) <= most;
            if fits && best.is_none_or(|(than, ..)| regained > than) {
                best = Some((regained, index, left[index]));
            }
            left[index] = had;
        }
        let Some((_, index, more)) = best else { return };
        left[index] = more;
    }
}

/// The next smaller number of channels that is worth it.
fn next(left: usize) -> Option<usize> {
    (left.saturating_sub(1) / BLOCK).checked_mul(BLOCK).filter(|next| *next > 0)
}

#[cfg(test)]
mod tests {
    use super::next;

    #[test]
    fn counts_left_are_whole_blocks() {
        let all = [100, 96, 17, 16, 9].map(next);
        assert_eq!(all, [Some(96), Some(88), Some(16), Some(8), Some(8)]);
        assert_eq!([8, 1].map(next), [None, None]);
    }
}
