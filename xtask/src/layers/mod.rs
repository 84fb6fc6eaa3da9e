//! `layers`: the workspace's imports against the table, from `cargo metadata`.
//!
//! Three questions, each over normal and build dependencies (tests may import what they like): does a crate of
//! ours import only what its row allows, does only the owner name a fenced dependency, and does nothing that a
//! function links stand on the list of what must never get there.

mod graph;
mod table;

use crate::workspace::FUNCTIONS;
use anyhow::{Result, bail};
use graph::Graph;
use table::{FENCES, LAYERS, NEVER_IN_A_FUNCTION, UNFENCED};

/// Checks this workspace; prints what it found.
pub(crate) fn check() -> Result<()> {
    let graph = Graph::of_this_workspace()?;
    let violations = violations(&graph);
    for violation in &violations {
        println!("{violation}");
    }
    match violations.len() {
        0 => println!("layers: {} crates, every import allowed", graph.ours().count()),
        n => bail!("layers: {n} forbidden imports (the table is xtask/src/layers/table.rs)"),
    }
    Ok(())
}

/// One line for each forbidden edge.
fn violations(graph: &Graph) -> Vec<String> {
    let mut found = Vec::new();
    for krate in graph.ours() {
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == krate) else {
            found.push(format!("{krate} has no row in the table of allowed imports"));
            continue;
        };
        found.extend(forbidden_imports(graph, krate, allowed));
        found.extend(fenced_imports(graph, krate));
    }
    found.extend(FUNCTIONS.into_iter().flat_map(|function| linked_by(graph, function)));
    found
}

fn forbidden_imports(graph: &Graph, krate: &str, allowed: &[&str]) -> Vec<String> {
    let forbidden = graph.imports(krate).filter(|d| graph.is_ours(d) && !allowed.contains(d));
    forbidden
        .map(|d| format!("{krate} imports {d}, allowed: {}", list(allowed, "no crate of ours")))
        .collect()
}

fn fenced_imports(graph: &Graph, krate: &str) -> Vec<String> {
    if UNFENCED.contains(&krate) {
        return Vec::new();
    }
    let breaches = graph.imports(krate).filter_map(|dependency| {
        let fence = FENCES.iter().find(|f| f.covers(dependency))?;
        let allowed = list(fence.owners, "no crate");
        let line = format!("{krate} imports {dependency}, which only these may: {allowed}");
        (!fence.owners.contains(&krate)).then_some(line)
    });
    breaches.collect()
}

/// What a function links and must not, each with the way it gets there.
fn linked_by(graph: &Graph, function: &str) -> Vec<String> {
    let paths = graph.linked_paths(function);
    let banned = paths.iter().filter(|(name, _)| NEVER_IN_A_FUNCTION.contains(&name.as_str()));
    banned.map(|(name, path)| format!("{function} links {name}: {}", path.join(" -> "))).collect()
}

fn list(names: &[&str], nothing: &str) -> String {
    if names.is_empty() { nothing.to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const API: &str = "glowplug-api";

    fn found(edges: &[(&str, &[&str])]) -> Vec<String> {
        violations(&Graph::artificial(edges))
    }

    #[test]
    fn the_intended_imports_are_allowed() {
        let edges: &[(&str, &[&str])] = &[
            ("glowplug-pack", &["blake3"]),
            ("glowplug-store", &["glowplug-pack", "tokio"]),
            ("glowplug-engine", &["glowplug-pack", "tract-core", "tract-linalg"]),
            ("glowplug-packer", &["glowplug-engine", "tract-onnx"]),
            ("glowplug-store-s3", &["glowplug-store", "aws-sdk-s3", "aws-config"]),
            (API, &["glowplug-function"]),
            ("glowplug-cli", &["glowplug-packer", "clap", "indicatif"]),
            ("glowplug-tests", &["glowplug-cli", "aws-sdk-s3", "image"]),
            ("xtask", &["clap"]),
        ];
        assert_eq!(found(edges), Vec::<String>::new());
    }

    #[test]
    fn a_forbidden_edge_is_reported_with_both_crates_and_the_allowed_list() {
        let cases: &[(&str, &str, &str)] = &[
            ("glowplug-pack", "glowplug-store", "allowed: no crate of ours"),
            ("glowplug-store", "glowplug-engine", "allowed: glowplug-pack"),
            ("glowplug-lambda", "glowplug-predict", "allowed: no crate of ours"),
            ("xtask", "glowplug-pack", "allowed: no crate of ours"),
            ("glowplug-cli", "glowplug-lambda", "allowed: glowplug-pack, "),
            ("glowplug-processing", "tract-core", "only these may: glowplug-engine, glowplug-packer"),
            ("glowplug-engine", "tract-onnx", "only these may: glowplug-packer"),
            ("glowplug-local", "aws-sdk-sqs", "only these may: glowplug-store-s3"),
            ("glowplug-predict", "http", "only these may: glowplug-store-s3, glowplug-lambda, "),
            ("glowplug-engine", "tokio", "only these may: glowplug-store"),
            ("glowplug-cli", "image", "only these may: glowplug-processing"),
        ];
        for (krate, dependency, rule) in cases {
            let lines = found(&[(krate, &[dependency]), (dependency, &[])]);
            let wanted = format!("{krate} imports {dependency}, ");
            assert!(
                lines.iter().any(|l| l.starts_with(&wanted) && l.contains(rule)),
                "{wanted}{rule}: {lines:?}"
            );
        }
    }

    #[test]
    fn what_a_function_links_far_below_is_found_with_its_path() {
        let lines = found(&[(API, &["glowplug-predict"]), ("glowplug-predict", &["x"]), ("x", &["prost"])]);
        assert_eq!(lines, ["glowplug-api links prost: glowplug-api -> glowplug-predict -> x -> prost"]);
    }

    #[test]
    fn every_banned_crate_is_found() {
        for banned in NEVER_IN_A_FUNCTION {
            let lines = found(&[(API, &["x"]), ("x", &[banned])]);
            assert!(
                lines.iter().any(|l| l.contains(&format!("{API} links {banned}"))),
                "{banned}: {lines:?}"
            );
        }
    }

    #[test]
    fn a_crate_without_a_row_is_an_error() {
        assert_eq!(
            found(&[("glowplug-new", &[])]),
            ["glowplug-new has no row in the table of allowed imports"]
        );
    }

    #[test]
    fn every_row_names_crates_that_have_a_row() {
        let known: Vec<_> = LAYERS.iter().map(|(name, _)| *name).collect();
        let named =
            LAYERS.iter().flat_map(|(_, allowed)| *allowed).chain(FENCES.iter().flat_map(|f| f.owners));
        for name in named.chain(&UNFENCED) {
            assert!(known.contains(name), "{name}");
        }
    }

    #[test]
    fn the_table_has_no_cycle() {
        // Each row may only name rows above it.
        for (i, (name, allowed)) in LAYERS.iter().enumerate() {
            for import in *allowed {
                assert!(LAYERS[..i].iter().any(|(above, _)| above == import), "{name} -> {import}");
            }
        }
    }
}
