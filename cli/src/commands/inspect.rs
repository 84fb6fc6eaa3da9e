//! `glowplug inspect`: what a pack holds, without running it.

use crate::report::{Table, bytes, print};
use anyhow::{Context, Result};
use clap::{Args, ValueHint};
use glowplug_pack::header::{CODED_VERSION, FORMAT_VERSION};
use glowplug_pack::manifest::Axis;
use glowplug_pack::plan::PlanHead;
use glowplug_pack::portable::PortableGraph;
use glowplug_pack::{DisplayShape, Form, Manifest, Pack, Region};
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

/// Show what a pack holds: inputs, outputs, plans, weights, provenance.
#[derive(Args)]
#[command(after_help = "Example:\n  glowplug inspect mnist-cnn.glow --json | jq .sections")]
pub(crate) struct InspectArgs {
    /// The pack.
    #[arg(value_hint = ValueHint::FilePath)]
    pack: PathBuf,
    /// Every weight by itself, not only their sum.
    #[arg(long)]
    weights: bool,
    /// JSON on stdout.
    #[arg(long)]
    json: bool,
}

/// The answer.
#[derive(Serialize)]
struct Inspection {
    file: String,
    bytes: u64,
    front_bytes: u64,
    format_version: u16,
    digest: String,
    signed: bool,
    manifest: Manifest,
    plans: Vec<PlanRow>,
    /// Serves where no plan does; null where the pack has none.
    portable: Option<PortableRow>,
    sections: Vec<SectionRow>,
    chunks: usize,
    /// Those that are entropy-coded.
    coded_chunks: usize,
    /// Bytes of memory that the pack takes: as many as the file, where no chunk is coded.
    decoded_bytes: u64,
    weight_count: usize,
    /// What weights are stored as, most bytes first.
    encodings: Vec<EncodingRow>,
    /// Memory that encoded weights take beside the pack once a plan ran.
    expanded_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    weights: Option<Vec<WeightRow>>,
}

#[derive(Serialize)]
struct PlanRow {
    target: String,
    inputs: Vec<Vec<usize>>,
    tract: String,
    bytes: usize,
}

#[derive(Serialize)]
struct PortableRow {
    nodes: usize,
    /// The axes it leaves open.
    symbols: Vec<String>,
    bytes: usize,
    /// Bytes of tensors that no plan stores in a form that can be read back.
    second_copy_bytes: usize,
}

#[derive(Serialize)]
struct SectionRow {
    kind: &'static str,
    /// Where it begins in the file.
    offset: u64,
    /// Its bytes in the file.
    bytes: u64,
    /// Its bytes once they are decoded: more where chunks of it are entropy-coded.
    decoded_bytes: u64,
}

/// All weights of one encoding.
#[derive(Serialize)]
struct EncodingRow {
    /// `f16` or `int8`; of those that are stored as they are, their dtype.
    encoding: String,
    weights: usize,
    bytes: u64,
    /// What they would take without the encoding.
    plain_bytes: u64,
}

#[derive(Serialize)]
struct WeightRow {
    name: String,
    section: &'static str,
    offset: u64,
    bytes: u64,
    encoding: String,
    form: String,
}

/// Runs the command.
pub(crate) fn run(args: &InspectArgs) -> Result<ExitCode> {
    let opened = super::open(&args.pack)?;
    let inspection =
        inspect(args, &opened.pack, &opened.region).with_context(|| args.pack.display().to_string())?;
    print(&inspection, args.json)?;
    Ok(ExitCode::SUCCESS)
}

fn portable(pack: &Pack, region: &Region) -> Result<Option<PortableRow>> {
    let Some(range) = pack.portable_range() else { return Ok(None) };
    let section = region.wait(range, None)?;
    let (graph, data) = PortableGraph::decode(section, pack.weights())?;
    Ok(Some(PortableRow {
        nodes: graph.graphs.iter().map(|g| g.nodes.len()).sum(),
        symbols: graph.symbols,
        bytes: section.len(),
        second_copy_bytes: data.len(),
    }))
}

fn inspect(args: &InspectArgs, pack: &Pack, region: &Region) -> Result<Inspection> {
    let header = pack.header();
    let plans = pack.plans().map(|plan| {
        let head = PlanHead::read(plan)?;
        let inputs = head.inputs.into_iter().map(|(_, shape)| shape).collect();
        Ok(PlanRow { target: head.target, inputs, tract: head.tract, bytes: plan.len() })
    });
    let weights = pack.weights().iter().map(|w| {
        let (section, bytes) = (w.place.section().name(), w.form.byte_len()?);
        let (encoding, form) = (encoding(&w.form), form(&w.form));
        Ok(WeightRow { name: w.name.clone(), section, offset: w.offset, bytes, encoding, form })
    });
    Ok(Inspection {
        file: args.pack.display().to_string(),
        bytes: header.file_len,
        front_bytes: header.front_len,
        format_version: if header.is_coded() { CODED_VERSION } else { FORMAT_VERSION },
        digest: pack.digest(),
        signed: header.signature.is_some(),
        manifest: pack.manifest().clone(),
        plans: plans.collect::<Result<_>>()?,
        portable: portable(pack, region)?,
        sections: header
            .sections
            .iter()
            .map(|s| SectionRow {
                kind: s.kind.name(),
                offset: s.stored.start,
                bytes: s.stored.end - s.stored.start,
                decoded_bytes: s.len,
            })
            .collect(),
        chunks: pack.chunks().len(),
        coded_chunks: pack.chunks().iter().filter(|c| c.is_coded()).count(),
        decoded_bytes: header.memory_len,
        weight_count: pack.weights().len(),
        encodings: encodings(pack)?,
        expanded_bytes: pack.expanded_bytes(),
        weights: args.weights.then(|| weights.collect::<Result<_>>()).transpose()?,
    })
}

fn encodings(pack: &Pack) -> Result<Vec<EncodingRow>> {
    let mut rows: Vec<EncodingRow> = Vec::new();
    for form in pack.weights().iter().map(|w| &w.form) {
        let (encoding, bytes, plain) = (encoding(form), form.byte_len()?, form.expanded()?.byte_len()?);
        let index = rows.iter().position(|row| row.encoding == encoding).unwrap_or_else(|| {
            rows.push(EncodingRow { encoding, weights: 0, bytes: 0, plain_bytes: 0 });
            rows.len() - 1
        });
        let row = &mut rows[index];
        (row.weights, row.bytes, row.plain_bytes) =
            (row.weights + 1, row.bytes + bytes, row.plain_bytes + plain);
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.bytes));
    Ok(rows)
}

fn encoding(form: &Form) -> String {
    match form {
        Form::Plain { dtype, .. } | Form::Panels { dtype, .. } => dtype.to_string(),
        Form::EncodedPanels { panel, .. } => panel.encoding.to_string(),
        Form::EncodedRows { encoding, .. } => encoding.to_string(),
    }
}

fn form(form: &Form) -> String {
    match form {
        Form::Plain { dtype, shape } => format!("{dtype}{}", DisplayShape(shape)),
        Form::Panels { dtype, k, mn, r, .. } => format!("{dtype} panels of {r}, k={k}, mn={mn}"),
        Form::EncodedPanels { panel, mn, .. } => {
            format!("{} panels of {}, k={}, mn={mn}", panel.encoding, panel.r, panel.k)
        }
        Form::EncodedRows { encoding, shape } => format!("{encoding} rows{}", DisplayShape(shape)),
    }
}

fn axes(axes: &[Axis]) -> String {
    let axes: Vec<_> = axes.iter().map(|a| format!("{}={}", a.name, a.size)).collect();
    format!("[{}]", axes.join(", "))
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let m = &self.manifest;
        let licence = m.model.licence.as_deref().unwrap_or("licence not told");
        writeln!(f, "{} ({licence})", m.model.name)?;
        writeln!(f, "digest {}, format {}, {}", self.digest, self.format_version, bytes(self.bytes))?;
        writeln!(f, "made by glowplug {} with tract {}", m.provenance.packer, m.provenance.tract)?;
        writeln!(f, "source {}\n", m.provenance.source_digest)?;
        let mut tensors = Table::new(["", "name", "dtype", "axes", "steps"]);
        for i in &m.inputs {
            let steps =
                if i.pipeline.is_empty() { "-".into() } else { format!("{} steps", i.pipeline.len()) };
            tensors.row(["input".into(), i.name.clone(), i.dtype.to_string(), axes(&i.axes), steps]);
        }
        for o in &m.outputs {
            let steps: Vec<String> = o.post.iter().cloned().map(String::from).collect();
            let steps = if steps.is_empty() { "-".into() } else { steps.join(", ") };
            tensors.row(["output".into(), o.name.clone(), o.dtype.to_string(), axes(&o.axes), steps]);
        }
        writeln!(f, "{tensors}")?;
        for plan in &self.plans {
            let shapes: Vec<_> = plan.inputs.iter().map(|s| DisplayShape(s).to_string()).collect();
            let (shapes, size) = (shapes.join(" "), bytes(plan.bytes as u64));
            writeln!(f, "plan for {} at {shapes} (tract {}), {size}", plan.target, plan.tract)?;
        }
        if let Some(how) = m.provenance.options.get("batch") {
            writeln!(f, "batch planned {how}")?;
        }
        if let Some(what) = m.provenance.options.get("came quantized") {
            writeln!(f, "came quantized: {what}")?;
        }
        for target in &m.provenance.unexecuted {
            writeln!(f, "plan for {target} not run where it was made, so not verified")?;
        }
        match &self.portable {
            Some(p) => {
                let open = if p.symbols.is_empty() { "fixed shapes".into() } else { p.symbols.join(", ") };
                let (size, copies) = (bytes(p.bytes as u64), bytes(p.second_copy_bytes as u64));
                writeln!(f, "portable graph over {open}: {} nodes, {size}, second copies {copies}", p.nodes)?;
            }
            None => writeln!(f, "no portable graph")?,
        }
        let coded = self.coded_chunks > 0;
        let mut sections = Table::new(["section", "offset", "bytes", if coded { "decoded" } else { "" }]);
        for s in &self.sections {
            let decoded = if coded { s.decoded_bytes.to_string() } else { String::new() };
            sections.row([s.kind.into(), s.offset.to_string(), s.bytes.to_string(), decoded]);
        }
        writeln!(f, "\n{sections}{} weights, {} chunks", self.weight_count, self.chunks)?;
        if coded {
            let (chunks, size) = (self.coded_chunks, bytes(self.decoded_bytes));
            writeln!(f, "{chunks} chunks entropy-coded: {size} once they are decoded")?;
        }
        for row in &self.encodings {
            let size = bytes(row.bytes);
            write!(f, "{} weights as {}: {size}", row.weights, row.encoding)?;
            if row.bytes < row.plain_bytes {
                write!(f, " instead of {}", bytes(row.plain_bytes))?;
            }
            writeln!(f)?;
        }
        if self.expanded_bytes > 0 {
            writeln!(f, "encoded weights take {} more once a plan ran", bytes(self.expanded_bytes))?;
        }
        for (name, error) in &m.provenance.max_relative_error {
            writeln!(
                f,
                "output {name:?} differed from the unoptimized graph by {error:.1e} of its largest value"
            )?;
        }
        if let Some(weights) = &self.weights {
            let mut table = Table::new(["weight", "section", "offset", "bytes", "form"]);
            for w in weights {
                let (offset, bytes) = (w.offset.to_string(), w.bytes.to_string());
                table.row([w.name.clone(), w.section.into(), offset, bytes, w.form.clone()]);
            }
            write!(f, "\n{table}")?;
        }
        Ok(())
    }
}
