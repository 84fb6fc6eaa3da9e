//! What was done to a model: the report of a pack.

use crate::compress::{CompressionReport, Int8Report};
use crate::entropy::EntropyReport;
use crate::error::PackerError;
use crate::import::Quantized;
use crate::pack::{Writer, Written};
use crate::portable::PortableReport;
use crate::quantize::{Quantizer, Weights};
use glowplug_pack::plan::PlanGraph;
use glowplug_pack::{Pack, Weight};
use std::collections::BTreeMap;

/// What [`pack`](crate::pack()) did.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Report {
    /// The pack's identity.
    pub digest: String,
    /// The CPUs its default plan is for.
    pub target: String,
    /// How many plans it holds, one for each shape and target.
    pub plans: usize,
    /// How many nodes the default plan has, the bodies of loops included.
    pub nodes: usize,
    /// How many of each operator the default plan has.
    pub operators: BTreeMap<String, usize>,
    /// Bytes of the ONNX file.
    pub onnx_bytes: usize,
    /// Bytes of the pack.
    pub pack_bytes: usize,
    /// How weights are stored.
    pub weights: WeightsReport,
    /// What was quantized in the file, where anything was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantized: Option<Quantized>,
    /// What compression cost, where that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<CompressionReport>,
    /// What entropy coding did, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entropy: Option<EntropyReport>,
    /// The largest error of each output against the reference, relative to its largest value.
    pub max_relative_error: BTreeMap<String, f64>,
    /// Convolutions in bytes, where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub int8: Option<Int8Report>,
    /// The portable graph, which serves where no plan does. Absent where the model has something in it that
    /// such a graph cannot say: `without_portable` tells what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub portable: Option<PortableReport>,
    /// Why there is no portable graph.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without_portable: Option<String>,
    /// How batches of a convolutional network are planned: image by image, or as a whole and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<String>,
}

impl Report {
    /// What changed by merging other plans into the pack. Errors: `bytes` are no pack.
    pub fn refresh(&mut self, bytes: &[u8]) -> Result<(), PackerError> {
        let pack = Pack::parse(bytes)?;
        (self.digest, self.pack_bytes, self.plans) = (pack.digest(), bytes.len(), pack.plans().count());
        self.max_relative_error.clone_from(&pack.manifest().provenance.max_relative_error);
        if self.entropy.is_some() {
            self.entropy = Some(EntropyReport::of(bytes)?);
        }
        Ok(())
    }
}

/// How the weights of a pack are stored.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct WeightsReport {
    /// `f32`, `f16`, `int8` or `auto`.
    pub encoding: String,
    /// How many weights are stored so; others are as the model has them.
    pub encoded: usize,
    /// How many weights there are.
    pub count: usize,
    /// Bytes of those that are encoded.
    pub encoded_bytes: u64,
    /// Bytes that these would take as f32.
    pub f32_bytes: u64,
    /// Weights that the encoding has no place for, each with why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<String>,
}

impl WeightsReport {
    pub(crate) fn of(
        weights: Weights,
        quantizer: &Quantizer,
        table: &[Weight],
    ) -> Result<WeightsReport, PackerError> {
        let mut report =
            WeightsReport { encoding: weights.to_string(), count: table.len(), ..WeightsReport::default() };
        report.kept = quantizer.kept().to_vec();
        for form in table.iter().map(|w| &w.form).filter(|form| form.encoding().is_some()) {
            report.encoded += 1;
            report.encoded_bytes += form.byte_len()?;
            report.f32_bytes += form.expanded()?.byte_len()?;
        }
        Ok(report)
    }
}

/// What [`pack`](crate::pack()) did to write `written`. Errors: it cannot be read back.
pub(crate) fn report(
    written: &Written,
    onnx_bytes: usize,
    max_relative_error: BTreeMap<String, f64>,
    file: &Writer<'_, '_>,
) -> Result<Report, PackerError> {
    let Written { bytes, plans, weights, portable } = written;
    let mut operators = BTreeMap::new();
    let nodes =
        |plan: &PlanGraph| plan.nodes.len() + plan.bodies.iter().map(|b| b.nodes.len()).sum::<usize>();
    let default = plans.first();
    let bodies = default.into_iter().flat_map(|p| &p.bodies).flat_map(|b| &b.nodes);
    for node in default.into_iter().flat_map(|p| &p.nodes).chain(bodies) {
        *operators.entry(node.op.name().to_owned()).or_insert(0) += 1;
    }
    Ok(Report {
        digest: Pack::parse(bytes)?.digest(),
        target: default.map(|p| p.head.target.clone()).unwrap_or_default(),
        plans: plans.len(),
        nodes: default.map(nodes).unwrap_or_default(),
        operators,
        onnx_bytes,
        pack_bytes: bytes.len(),
        weights: weights.clone(),
        quantized: Some(file.came_quantized.quantized).filter(|found| *found != Quantized::default()),
        compression: file.compression.clone(),
        entropy: file.options.entropy.then(|| EntropyReport::of(bytes)).transpose()?,
        max_relative_error,
        int8: file.int8.clone(),
        portable: portable.clone(),
        without_portable: file.portable.as_ref().err().map(ToString::to_string),
        batch: file.batch(),
    })
}
