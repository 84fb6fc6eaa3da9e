//! The dependency graph, reduced to names: what `cargo metadata` resolved, or what a test made up.

use crate::workspace;
use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Node, Package, PackageId, TargetKind};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Crates by name and the crates each imports (normal and build dependencies) and links (normal, and not a
/// procedural macro, which runs inside the compiler).
#[derive(Default)]
pub(super) struct Graph {
    ours: BTreeSet<String>,
    imports: BTreeMap<String, BTreeSet<String>>,
    links: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    /// This workspace, with the features that building all of it turns on.
    pub(super) fn of_this_workspace() -> Result<Graph> {
        let manifest = workspace::root().join("Cargo.toml");
        let metadata = MetadataCommand::new().manifest_path(manifest).exec().context("cargo metadata")?;
        Graph::from_metadata(&metadata)
    }

    fn from_metadata(metadata: &Metadata) -> Result<Graph> {
        let packages: BTreeMap<&PackageId, &Package> = metadata.packages.iter().map(|p| (&p.id, p)).collect();
        let resolve = metadata.resolve.as_ref().context("cargo metadata gave no resolved graph")?;
        let ours = metadata.workspace_packages().iter().map(|p| p.name.to_string()).collect();
        let mut graph = Graph { ours, ..Graph::default() };
        for node in &resolve.nodes {
            graph.add(node, &packages).with_context(|| format!("the graph's node {}", node.id))?;
        }
        Ok(graph)
    }

    /// Two versions of one crate count as one: the table speaks of names.
    fn add(&mut self, node: &Node, packages: &BTreeMap<&PackageId, &Package>) -> Result<()> {
        let from = packages.get(&node.id).context("is no package")?.name.to_string();
        let imports = self.imports.entry(from.clone()).or_default();
        let links = self.links.entry(from).or_default();
        for dependency in &node.deps {
            let package = packages.get(&dependency.pkg).context("depends on no package")?;
            let has = |kind| dependency.dep_kinds.iter().any(|k| k.kind == kind);
            if has(DependencyKind::Normal) || has(DependencyKind::Build) {
                imports.insert(package.name.to_string());
            }
            if has(DependencyKind::Normal) && !is_macro(package) {
                links.insert(package.name.to_string());
            }
        }
        Ok(())
    }

    /// Names of the workspace's members.
    pub(super) fn ours(&self) -> impl Iterator<Item = &str> {
        self.ours.iter().map(String::as_str)
    }

    /// Whether the crate is a member of the workspace.
    pub(super) fn is_ours(&self, name: &str) -> bool {
        self.ours.contains(name)
    }

    /// What the crate imports directly.
    pub(super) fn imports(&self, name: &str) -> impl Iterator<Item = &str> {
        self.imports.get(name).into_iter().flatten().map(String::as_str)
    }

    /// Everything that `start` links, each with one shortest path to it; empty where there is no such crate.
    pub(super) fn linked_paths(&self, start: &str) -> BTreeMap<String, Vec<String>> {
        let mut paths = BTreeMap::from([(start.to_owned(), vec![start.to_owned()])]);
        let mut queue = VecDeque::from([start.to_owned()]);
        while let Some(name) = queue.pop_front() {
            for next in self.links.get(&name).into_iter().flatten() {
                if !paths.contains_key(next) {
                    let path = [paths[&name].as_slice(), std::slice::from_ref(next)].concat();
                    paths.insert(next.clone(), path);
                    queue.push_back(next.clone());
                }
            }
        }
        paths
    }

    /// A made-up graph of normal dependencies; crates named `glowplug-*` and `xtask` are ours.
    #[cfg(test)]
    pub(super) fn artificial(edges: &[(&str, &[&str])]) -> Graph {
        let names = edges.iter().flat_map(|(from, to)| std::iter::once(from).chain(*to));
        let ours =
            names.filter(|n| n.starts_with("glowplug-") || **n == "xtask").map(|n| (*n).to_owned()).collect();
        let imports: BTreeMap<_, BTreeSet<_>> = edges
            .iter()
            .map(|(from, to)| ((*from).to_owned(), to.iter().map(|t| (*t).to_owned()).collect()))
            .collect();
        Graph { ours, links: imports.clone(), imports }
    }
}

fn is_macro(package: &Package) -> bool {
    package.targets.iter().any(|t| t.kind.contains(&TargetKind::ProcMacro))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_workspace_is_read_with_its_kinds() {
        let graph = Graph::of_this_workspace().unwrap();
        assert!(graph.is_ours("xtask") && !graph.is_ours("clap"));
        assert!(graph.imports("xtask").any(|d| d == "clap"));
        let linked = graph.linked_paths("xtask");
        assert!(linked.contains_key("serde_json"));
        assert!(!linked.contains_key("clap_derive"), "procedural macros are not linked");
    }
}
