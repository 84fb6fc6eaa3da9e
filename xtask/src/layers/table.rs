//! The table itself: who may import whom, who owns which heavy dependency, what a function never links.
//!
//! ARCHITECTURE.md tells the reasons; this is where they are enforced.

use crate::workspace::FUNCTIONS;

const PACK: &str = "glowplug-pack";
const STORE: &str = "glowplug-store";
const STORE_S3: &str = "glowplug-store-s3";
const ENGINE: &str = "glowplug-engine";
const PROCESSING: &str = "glowplug-processing";
const PREDICT: &str = "glowplug-predict";
const LAMBDA: &str = "glowplug-lambda";
const FUNCTION: &str = "glowplug-function";
const PACKER: &str = "glowplug-packer";
const LOCAL: &str = "glowplug-local";
const CLI: &str = "glowplug-cli";
const TESTS: &str = "glowplug-tests";
const BENCHES: &str = "glowplug-benches";
const XTASK: &str = "xtask";
const API: &str = FUNCTIONS[0];
const UPLOAD: &str = FUNCTIONS[1];
const QUEUE: &str = FUNCTIONS[2];

/// What the three functions wire together, and what they share for it.
const WIRING: &[&str] = &[LAMBDA, PREDICT, FUNCTION];
const EVERYTHING: &[&str] = &[
    PACK, STORE, ENGINE, PROCESSING, STORE_S3, LAMBDA, PREDICT, FUNCTION, PACKER, LOCAL, API, UPLOAD, QUEUE,
    CLI,
];

/// Every crate of ours and the crates of ours that it may import, lowest layer first.
pub(super) const LAYERS: &[(&str, &[&str])] = &[
    (PACK, &[]),
    (STORE, &[PACK]),
    (ENGINE, &[PACK]),
    (PROCESSING, &[PACK]),
    (STORE_S3, &[STORE]),
    (LAMBDA, &[]),
    (PREDICT, &[PACK, STORE, ENGINE, PROCESSING]),
    (FUNCTION, &[LAMBDA, PREDICT, STORE, STORE_S3]),
    (PACKER, &[PACK, ENGINE]),
    (LOCAL, &[]),
    (API, WIRING),
    (UPLOAD, WIRING),
    (QUEUE, WIRING),
    (CLI, &[PACK, STORE, PROCESSING, STORE_S3, PREDICT, PACKER, LOCAL]),
    (TESTS, EVERYTHING),
    (BENCHES, &[PACK, STORE, STORE_S3, PREDICT, LOCAL]),
    (XTASK, &[]),
];

/// A dependency that only its owners may name.
pub(super) struct Fence {
    /// A crate name, or a prefix that ends in `*`.
    pub(super) dependency: &'static str,
    /// Who may import it directly.
    pub(super) owners: &'static [&'static str],
}

impl Fence {
    /// Whether this fence is about that crate.
    pub(super) fn covers(&self, name: &str) -> bool {
        match self.dependency.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == self.dependency,
        }
    }
}

const fn fence(dependency: &'static str, owners: &'static [&'static str]) -> Fence {
    Fence { dependency, owners }
}

/// Who does async work at all: everything else is plain functions.
const ASYNC: &[&str] = &[STORE, STORE_S3, PREDICT, LAMBDA, FUNCTION, LOCAL, API, UPLOAD, QUEUE, CLI];
/// Who may know HTTP.
const HTTP: &[&str] = &[STORE_S3, LAMBDA, FUNCTION, LOCAL, API, UPLOAD, QUEUE];

/// The heavy dependencies and their owners; the first that covers a name decides.
pub(super) const FENCES: &[Fence] = &[
    fence("tract-onnx", &[PACKER]),
    fence("tract-hir", &[PACKER]),
    fence("tract-*", &[ENGINE, PACKER]),
    fence("prost*", &[PACKER]),
    fence("aws-*", &[STORE_S3]),
    fence("lambda_*", &[LAMBDA]),
    fence("aws_lambda_events", &[LAMBDA]),
    fence("image", &[PROCESSING]),
    fence("tokenizers", &[PROCESSING]),
    fence("hyper*", &[LOCAL]),
    fence("s3s", &[LOCAL]),
    fence("clap", &[CLI, XTASK]),
    fence("indicatif", &[CLI]),
    fence("tokio", ASYNC),
    fence("http", HTTP),
];

/// Testing and measuring may name anything.
pub(super) const UNFENCED: [&str; 2] = [TESTS, BENCHES];

/// What is in no function, however deep: the importer, the build ring, the terminal.
pub(super) const NEVER_IN_A_FUNCTION: &[&str] =
    &["tract-onnx", "tract-hir", "prost", "clap", "indicatif", PACKER, LOCAL, CLI];
