//! The engines: this one and its rivals, each with its program and its favourite form of a model. One table.

/// How an engine is started.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// A binary of benches/.
    Binary(&'static str),
    /// A script of benches/scripts, in the pinned environment.
    Script(&'static str),
}

/// One engine with one form of a model.
pub(crate) struct Engine {
    /// Its name in figures and on the command line.
    pub(crate) id: &'static str,
    /// What it is, for readers.
    pub(crate) title: &'static str,
    pub(crate) program: Program,
    /// The file in a case's folder that it loads.
    pub(crate) file: &'static str,
    /// What else of the case's folder belongs to that file.
    pub(crate) beside: Option<&'static str>,
}

/// This project's id.
pub(crate) const OURS: &str = "glowplug";
/// The rival whose answers are compared with, and whose session is the yardstick of loading.
pub(crate) const ORT: &str = "ort";
/// The best rival in cold starts.
pub(crate) const RTEN: &str = "rten";

/// Whom warm runs are measured beside, unless told otherwise: one form of a model each.
pub(crate) const WARM: [&str; 5] = [OURS, ORT, "openvino", RTEN, "tract"];

/// This project with convolutions in bytes.
pub(crate) const OURS_INT8: &str = "glowplug-int8";

/// This engine and its nearest rival, each with its own form of a model whose convolutions are done in bytes.
pub(crate) const INT8: &[Engine] = &[
    Engine {
        id: OURS_INT8,
        title: "Glowplug, pack of `--weights int8 --compute int8`",
        program: Program::Binary("bench-glowplug"),
        file: "model.int8.glow",
        beside: None,
    },
    Engine {
        id: "ort-int8",
        title: "ONNX Runtime 1.30 native, QDQ by its own static quantization, per channel, 7-bit weights",
        program: Program::Binary("bench-ort"),
        file: "model.int8.onnx",
        beside: None,
    },
];

impl Engine {
    /// Whether its model is rounded, so that its answers are others: how far is told, not judged.
    pub(crate) fn is_rounded(&self) -> bool {
        INT8.iter().any(|engine| engine.id == self.id)
    }
}

/// All engines, this one first.
pub(crate) const ENGINES: &[Engine] = &[
    Engine {
        id: OURS,
        title: "Glowplug, pack mapped",
        program: Program::Binary("bench-glowplug"),
        file: "model.glow",
        beside: None,
    },
    Engine {
        id: RTEN,
        title: "RTen 0.27, `.rten` mapped",
        program: Program::Binary("bench-rten"),
        file: "model.rten",
        beside: None,
    },
    Engine {
        id: "rten-external",
        title: "RTen 0.27, ONNX with external data mapped",
        program: Program::Binary("bench-rten"),
        file: "external.onnx",
        beside: Some("external.data"),
    },
    Engine {
        id: ORT,
        title: "ONNX Runtime 1.30 native, ONNX",
        program: Program::Binary("bench-ort"),
        file: "model.onnx",
        beside: None,
    },
    Engine {
        id: "ort-optimized",
        title: "ONNX Runtime 1.30 native, its own optimized file",
        program: Program::Binary("bench-ort"),
        file: "model.optimized.onnx",
        beside: None,
    },
    Engine {
        id: "openvino",
        title: "OpenVINO 2026.4 through C, imported blob",
        program: Program::Binary("bench-openvino"),
        file: "model.blob",
        beside: None,
    },
    Engine {
        id: "tract",
        title: "tract 0.23.9, ONNX",
        program: Program::Binary("bench-tract"),
        file: "model.onnx",
        beside: None,
    },
    Engine {
        id: "ort-python",
        title: "Python 3 + ONNX Runtime 1.32, ONNX",
        program: Program::Script("bench_ort.py"),
        file: "model.onnx",
        beside: None,
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ids_are_unique_and_the_named_ones_exist() {
        let ids: BTreeSet<_> = ENGINES.iter().chain(INT8).map(|e| e.id).collect();
        assert_eq!(ids.len(), ENGINES.len() + INT8.len());
        assert!([OURS, ORT, RTEN].iter().chain(&WARM).all(|id| ids.contains(id)));
        assert_eq!(ENGINES[0].id, OURS);
    }
}
