//! `glowplug bench --nodes`: where a plan's time goes.

use super::{WARM_UPS, median};
use crate::report::Table;
use anyhow::{Result, ensure};
use glowplug_predict::{Model, NodeTime, Timings, record};
use glowplug_processing::v2::NamedTensor;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// Nodes that are shown to people; JSON has all of them.
const SHOWN: usize = 20;

/// The answer. All times are medians over the runs.
#[derive(Serialize)]
pub(super) struct Nodes {
    model: String,
    /// The sum over all nodes.
    nodes_ms: f64,
    /// By time, the longest first.
    operators: Vec<OperatorTime>,
    /// In the order in which they run.
    nodes: Vec<Node>,
}

/// All nodes of one operator.
#[derive(Serialize)]
struct OperatorTime {
    operator: &'static str,
    count: usize,
    run_ms: f64,
}

/// One node.
#[derive(Serialize)]
struct Node {
    node: String,
    operator: &'static str,
    run_ms: f64,
}

/// Runs `model` and times its nodes. Errors: a plan that leaves no times.
pub(super) fn of(model: &Model, inputs: &[NamedTensor], runs: u32) -> Result<Nodes> {
    let once = || {
        let (result, times) = record(|| model.infer(inputs.to_vec(), None, &mut Timings::default()));
        result.map(|_| times)
    };
    for _ in 0..WARM_UPS {
        once()?;
    }
    let samples = (0..runs).map(|_| once()).collect::<Result<Vec<Vec<NodeTime>>, _>>()?;
    let nodes: Vec<Node> = samples
        .first()
        .map_or(&[][..], Vec::as_slice)
        .iter()
        .enumerate()
        .map(|(i, first)| {
            let times = samples.iter().filter_map(|s| s.get(i)).map(|t| t.ms).collect();
            let run_ms = median(times).unwrap_or_default();
            Node { node: first.node.clone(), operator: first.operator, run_ms }
        })
        .collect();
    ensure!(
        !nodes.is_empty(),
        "only tuned plans tell the times of their nodes, this one is made from the portable graph"
    );
    Ok(Nodes {
        model: model.manifest().model.name.clone(),
        nodes_ms: nodes.iter().map(|n| n.run_ms).sum(),
        operators: by_operator(&nodes),
        nodes,
    })
}

fn by_operator(nodes: &[Node]) -> Vec<OperatorTime> {
    let mut sums: BTreeMap<&'static str, (usize, f64)> = BTreeMap::new();
    for node in nodes {
        let (count, ms) = sums.entry(node.operator).or_default();
        (*count, *ms) = (*count + 1, *ms + node.run_ms);
    }
    let row = |(operator, (count, run_ms))| OperatorTime { operator, count, run_ms };
    let mut operators: Vec<_> = sums.into_iter().map(row).collect();
    operators.sort_by(|a, b| b.run_ms.total_cmp(&a.run_ms));
    operators
}

impl fmt::Display for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, {:.3} ms in {} nodes", self.model, self.nodes_ms, self.nodes.len())?;
        let share = |ms: f64| format!("{:.1} %", 100.0 * ms / self.nodes_ms);
        let mut table = Table::new(["operator", "nodes", "ms", "share"]);
        for o in &self.operators {
            table.row([o.operator.into(), o.count.to_string(), format!("{:.3}", o.run_ms), share(o.run_ms)]);
        }
        writeln!(f, "{table}")?;
        let mut longest: Vec<_> = self.nodes.iter().collect();
        longest.sort_by(|a, b| b.run_ms.total_cmp(&a.run_ms));
        let mut table = Table::new(["node", "operator", "ms", "share"]);
        for n in longest.into_iter().take(SHOWN) {
            table.row([n.node.clone(), n.operator.into(), format!("{:.3}", n.run_ms), share(n.run_ms)]);
        }
        write!(f, "{table}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_are_summed_up_the_longest_first() {
        let node = |node: &str, operator, run_ms| Node { node: node.into(), operator, run_ms };
        let nodes = vec![node("a", "Reshape", 0.5), node("b", "MatMul", 1.0), node("c", "MatMul", 2.0)];
        let operators = by_operator(&nodes);
        let found: Vec<_> = operators.iter().map(|o| (o.operator, o.count, o.run_ms)).collect();
        assert_eq!(found, [("MatMul", 2, 3.0), ("Reshape", 1, 0.5)]);
        let text = Nodes { model: "m".into(), nodes_ms: 3.5, operators, nodes }.to_string();
        assert!(text.contains("m, 3.500 ms in 3 nodes") && text.contains("85.7 %"), "{text}");
        assert!(text.find("c   ").zip(text.find("a   ")).is_some_and(|(c, a)| c < a), "{text}");
    }
}
