//! What compression saves and costs: each trained model packed in f32, in int8 and as small as a point of its metric
//! allows, on the data of `eval-data`; then the packs side by side by `glowplug compare`, and from S3 over shaped links.

use super::cases::{CASES, Case};
use super::cloud::{Cloud, LINKS};
use super::setup::Setup;
use super::stream;
use super::summary::{Compressed, CompressedCase, Streamed, median};
use crate::workspace;
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `auto` may lose.
const MAX_DROP: &str = "1pt";

/// A model, the metric that its data fit, and the model file where it is not the case's own.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    case: &'static str,
    metric: &'static str,
    file: Option<&'static str>,
}

const fn row(name: &'static str, metric: &'static str) -> Row {
    Row { name, case: name, metric, file: None }
}

impl Row {
    /// What it is a model of. Errors: no such case.
    pub(crate) fn case(&self) -> Result<&'static Case> {
        CASES.iter().find(|c| c.name == self.case).context("no such case")
    }
}

/// What is measured.
pub(crate) const ROWS: &[Row] = &[
    row("minilm-128", "cosine:sentence_embedding"),
    Row {
        name: "minilm-128, probe",
        case: "minilm-128",
        metric: "top1:logits",
        file: Some("eval/minilm-l6-v2-f32.probe.onnx"),
    },
    row("efficientnet-lite0", "agreement"),
    row("ppocrv4-rec", "cer"),
    row("magika", "top1"),
    row("silero-openvino", "auc"),
    row("silero-sequence", "auc"),
    row("mnist-cnn", "top1"),
];

/// How each pack is made.
const VARIANTS: &[(&str, &[&str])] = &[
    ("f32", &["--weights", "f32"]),
    ("int8, nearest", &["--weights", "int8"]),
    ("int8", &["--weights", "int8", "--calibrate"]),
    ("int8, coded", &["--weights", "int8", "--entropy", "--calibrate"]),
    ("auto, 1 pt", &["--weights", "auto", "--max-drop", MAX_DROP, "--calibrate"]),
];

/// As much of `glowplug pack --json` as is told.
#[derive(Deserialize)]
struct Packed {
    onnx_bytes: u64,
    pack_bytes: u64,
    compression: Compression,
}

#[derive(Deserialize)]
struct Compression {
    accuracy: Accuracy,
}

#[derive(Deserialize)]
struct Accuracy {
    before: f64,
    after: f64,
    drop: f64,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    samples: usize,
}

/// As much of `glowplug compare --json`.
#[derive(Deserialize)]
struct Comparison {
    packs: Vec<Measured>,
}

#[derive(Deserialize)]
struct Measured {
    plan_ms: f64,
    first_run_ms: f64,
    run_ms: f64,
    peak_rss_bytes: Option<u64>,
}

/// How often something is measured.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    /// Fresh processes and warm runs of each pack.
    pub(crate) runs: usize,
    /// Fresh processes of each pack and link.
    pub(crate) cloud_runs: usize,
}

/// Packs and compares one model; `to` is a folder for the packs.
pub(crate) fn measure(
    setup: &Setup,
    row: &Row,
    models: &Path,
    to: &Path,
    effort: Effort,
) -> Result<CompressedCase> {
    let (case, bin_dir) = (row.case()?, setup.bin_dir());
    let model = models.join(row.file.unwrap_or(case.file));
    let data = models.join("eval");
    let stem = Path::new(case.file).file_stem().context("no name")?.to_string_lossy().into_owned();
    let file = |kind: &str| data.join(format!("{stem}.{kind}.npz"));
    let mut packs: Vec<PathBuf> = Vec::new();
    let (mut found, mut onnx_bytes, mut samples) = (Vec::new(), 0, 0);
    for (name, flags) in VARIANTS {
        eprintln!("{}, {name}", row.name);
        let pack = to.join(format!("{}-{}.glow", row.name, name.replace([' ', ','], "")));
        let mut command = workspace::command(bin_dir.join("glowplug"));
        command.arg("pack").arg(&model).arg("-o").arg(&pack).arg("--json").args(*flags);
        if flags.ends_with(&["--calibrate"]) {
            command.arg(file("calib"));
        }
        command.arg("--eval").arg(file("eval")).args(["--metric", row.metric]);
        command.args(inputs(case));
        let packed: Packed = answer(&mut command)?;
        (onnx_bytes, samples) = (packed.onnx_bytes, packed.compression.accuracy.data.samples);
        let accuracy = packed.compression.accuracy;
        found.push(Compressed {
            variant: (*name).to_owned(),
            bytes: packed.pack_bytes,
            before: accuracy.before,
            after: accuracy.after,
            drop: accuracy.drop,
            load_ms: 0.0,
            first_run_ms: 0.0,
            run_ms: 0.0,
            peak_rss_bytes: None,
            streamed: Vec::new(),
        });
        packs.push(pack);
    }
    eprintln!("{}, side by side", row.name);
    let mut command = workspace::command(bin_dir.join("glowplug"));
    command.arg("compare").args(&packs).args(["--json", "--runs", &effort.runs.to_string()]);
    let comparison: Comparison = answer(&mut command)?;
    ensure!(comparison.packs.len() == found.len(), "{} packs were compared", comparison.packs.len());
    for (to, from) in found.iter_mut().zip(comparison.packs) {
        (to.load_ms, to.first_run_ms, to.run_ms) = (from.plan_ms, from.first_run_ms, from.run_ms);
        to.peak_rss_bytes = from.peak_rss_bytes;
    }
    if effort.cloud_runs > 0 {
        let input = setup.folder(case).join("input.npz");
        stream_all(setup, &packs, &input, effort.cloud_runs, &mut found)?;
    }
    Ok(CompressedCase {
        model: row.name.to_owned(),
        metric: row.metric.to_owned(),
        samples,
        onnx_bytes,
        packs: found,
    })
}

/// Fetches all packs in turn over each link.
fn stream_all(
    setup: &Setup,
    packs: &[PathBuf],
    input: &Path,
    runs: usize,
    found: &mut [Compressed],
) -> Result<()> {
    let name = |index: usize| format!("pack-{index}");
    let objects =
        packs.iter().enumerate().map(|(i, pack)| format!("{}/1/model.glow={}", name(i), pack.display()));
    let objects: Vec<String> = objects.collect();
    for mb_per_s in LINKS {
        eprintln!("from S3 at {mb_per_s} MB/s");
        let cloud = Cloud::start(setup, mb_per_s, &objects)?;
        let mut times = vec![Vec::new(); packs.len()];
        // The first round warms the page cache of the binary.
        for round in 0..=runs {
            for (index, times) in times.iter_mut().enumerate() {
                let sample = stream::once(setup, &name(index), input, &cloud)?;
                if round > 0 {
                    times.push(stream::first_output(&sample));
                }
            }
        }
        for (to, times) in found.iter_mut().zip(times) {
            to.streamed.push(Streamed { mb_per_s, first_output_ms: median(times) });
        }
    }
    Ok(())
}

fn inputs(case: &Case) -> impl Iterator<Item = String> {
    case.pins().into_iter().flat_map(|pin| ["--input".to_owned(), pin])
}

/// What a command prints as JSON.
fn answer<T: DeserializeOwned>(command: &mut Command) -> Result<T> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).with_context(|| format!("the answer of {command:?}"))
}

/// The run as a table.
#[allow(clippy::cast_precision_loss, reason = "ratios to three digits")]
pub(crate) fn table(cases: &[CompressedCase]) -> String {
    use std::fmt::Write;
    let mut text = "| model, metric, samples | pack | bytes | of the ONNX file | metric | lost | load ms | first ms | warm ms | warm, of f32 | peak MB | from S3, ms |\n\
                    |---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
        .to_owned();
    for case in cases {
        let mut name = format!("{}, {}, {}", case.model, case.metric, case.samples);
        let warm = case.packs.first().map_or(f64::NAN, |p| p.run_ms);
        for pack in &case.packs {
            let peak = pack.peak_rss_bytes.map_or("-".to_owned(), |b| format!("{:.0}", b as f64 / 1e6));
            let links: Vec<String> =
                pack.streamed.iter().map(|s| format!("{:.0}", s.first_output_ms)).collect();
            let links = if links.is_empty() { "-".to_owned() } else { links.join(" / ") };
            let _ = writeln!(
                text,
                "| {name} | {} | {} | {:.3} | {:.4} | {:.4} | {:.2} | {:.1} | {:.1} | {:.2} | {peak} | {links} |",
                pack.variant,
                pack.bytes,
                pack.bytes as f64 / case.onnx_bytes as f64,
                pack.after,
                pack.drop,
                pack.load_ms,
                pack.first_run_ms,
                pack.run_ms,
                pack.run_ms / warm,
            );
            name.clear();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_a_case() {
        assert!(ROWS.iter().all(|row| row.case().is_ok()));
    }

    #[test]
    fn the_table_tells_ratios_to_the_onnx_file_and_to_f32() {
        let pack = |variant: &str, bytes, run_ms| Compressed {
            variant: variant.into(),
            bytes,
            before: 0.9,
            after: 0.89,
            drop: 0.01,
            load_ms: 1.0,
            first_run_ms: 9.0,
            run_ms,
            peak_rss_bytes: Some(50_000_000),
            streamed: [(50.0, 99.6), (100.0, 61.2)]
                .map(|(mb_per_s, first_output_ms)| Streamed { mb_per_s, first_output_ms })
                .into(),
        };
        let case = CompressedCase {
            model: "m".into(),
            metric: "top1".into(),
            samples: 7,
            onnx_bytes: 1000,
            packs: vec![pack("f32", 1000, 4.0), pack("int8", 250, 5.0)],
        };
        let text = table(&[case]);
        assert!(text.contains("| m, top1, 7 | f32 | 1000 | 1.000 |"), "{text}");
        assert!(
            text.contains(
                "|  | int8 | 250 | 0.250 | 0.8900 | 0.0100 | 1.00 | 9.0 | 5.0 | 1.25 | 50 | 100 / 61 |"
            ),
            "{text}"
        );
    }
}
