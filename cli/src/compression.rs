//! What `pack` is told of accuracy: data, metric, bounds; and the report of what compression cost.

use crate::commands::pack::write;
use crate::folder::{self, Described};
use crate::report::bytes;
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueHint};
use glowplug_packer::{
    Accuracy, CompressionReport, Contract, Dataset, Int8Report, Metric, Prune, PruneReport, Report,
};
use std::fmt::{self, Write};
use std::path::{Path, PathBuf};

/// Calibration, and the contract that a pack has to keep.
#[derive(Args)]
#[command(next_help_heading = "Accuracy")]
pub(crate) struct CompressionArgs {
    /// Round weights so that outputs change least on these samples: an npz file with the model's inputs, of each of which
    /// the first axis numbers the samples; or a folder of raw files, for the pipeline in --manifest. Not those of --eval.
    #[arg(long, value_name = "DATA", value_hint = ValueHint::AnyPath, env = "GLOWPLUG_CALIBRATE")]
    pub(crate) calibrate: Option<PathBuf>,
    /// Remove whole channels, until this part of all multiply-adds is gone: 25%, or 0.25. Those go that outputs miss least on the
    /// samples of --calibrate, and all weights behind them are re-solved on these.
    #[arg(long, value_name = "PART", requires = "calibrate", value_parser = part_of)]
    prune: Option<f64>,
    /// Leave the weights behind removed channels as they are: nothing is re-solved.
    #[arg(long, requires = "prune")]
    no_restore: bool,
    /// Measure the pack's accuracy on these samples: as for --calibrate, and what is right for each as `label` (i64),
    /// `target` (f32) or `text`, as the metric wants it. Of a folder, the folders in it are the labels.
    #[arg(long, value_name = "DATA", value_hint = ValueHint::AnyPath, requires = "metric", env = "GLOWPLUG_EVAL")]
    eval: Option<PathBuf>,
    /// top1, cer, auc or r2 against what is right; cosine, agreement or max-abs against the f32 model. Of the
    /// first output, or of another as NAME:OUTPUT.
    #[arg(long, value_name = "METRIC", requires = "eval", env = "GLOWPLUG_METRIC")]
    metric: Option<Metric>,
    /// Write no pack that loses more of the metric than this: in points as 0.5pt, which is 0.005, or as it is.
    #[arg(long, value_name = "DROP", requires = "eval", value_parser = drop_of)]
    max_drop: Option<f64>,
    /// Write no pack larger than this: bytes, or as 8MB or 8MiB.
    #[arg(long, value_name = "BYTES", value_parser = bytes_of)]
    max_bytes: Option<u64>,
    /// Write what compression cost, weight by weight, to this Markdown file, and beside it as .json and, where packs were
    /// searched, their front as .svg.
    #[arg(long, value_name = "FILE.md", value_hint = ValueHint::FilePath)]
    report: Option<PathBuf>,
}

/// The data that the arguments name.
pub(crate) struct Data {
    pub(crate) calibration: Option<Dataset>,
    pub(crate) prune: Option<Prune>,
    evaluation: Option<(Dataset, Metric)>,
    max_drop: Option<f64>,
    max_bytes: Option<u64>,
}

impl Data {
    /// No data, no contract.
    pub(crate) const NONE: Data =
        Data { calibration: None, prune: None, evaluation: None, max_drop: None, max_bytes: None };

    pub(crate) fn contract(&self) -> Contract<'_> {
        let accuracy = self.evaluation.as_ref().map(|(data, metric)| Accuracy {
            metric: metric.clone(),
            data,
            max_drop: self.max_drop,
        });
        Contract { accuracy, max_bytes: self.max_bytes }
    }

    /// Whether there is a bound on what may be lost.
    pub(crate) fn is_bounded(&self) -> bool {
        self.max_drop.is_some()
    }
}

impl CompressionArgs {
    /// `model` describes the model, for folders of raw files. Errors: what is no dataset, with its path; those of `model`.
    pub(crate) fn read(&self, model: impl Fn() -> Result<Described>) -> Result<Data> {
        let read = |path: &PathBuf| folder::dataset(path, &model);
        let calibration = self.calibrate.as_ref().map(read).transpose().context("--calibrate")?;
        let evaluation = self.eval.as_ref().map(read).transpose().context("--eval")?;
        let evaluation = evaluation.zip(self.metric.clone());
        let prune = self.prune.map(|macs| Prune { macs, restore: !self.no_restore });
        Ok(Data { calibration, prune, evaluation, max_drop: self.max_drop, max_bytes: self.max_bytes })
    }

    /// Whether a report can be written where it is wanted, before anything is measured; `others` are the other files of the command.
    /// Errors: another name than FILE.md, no such folder, a file that is read or written as well.
    pub(crate) fn check_report(&self, others: &[Option<&PathBuf>]) -> Result<()> {
        let Some(path) = &self.report else { return Ok(()) };
        let told = || format!("--report {}", path.display());
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        ensure!(path.extension().is_some_and(|e| e == "md"), "{}: expected FILE.md", told());
        ensure!(folder.is_none_or(Path::is_dir), "{}: there is no such folder", told());
        let others = others.iter().copied().chain([self.calibrate.as_ref(), self.eval.as_ref()]).flatten();
        let place = |path: &Path| std::fs::canonicalize(path).or_else(|_| std::path::absolute(path));
        let others =
            others.map(|other| place(other)).collect::<std::io::Result<Vec<_>>>().with_context(told)?;
        for file in report_files(path) {
            let clear = !others.contains(&place(&file).with_context(told)?);
            ensure!(clear, "{}: {} is another file of this command", told(), file.display());
        }
        Ok(())
    }

    /// Writes the report, where one is wanted.
    pub(crate) fn write_report(&self, report: &Report) -> Result<()> {
        let Some(path) = &self.report else { return Ok(()) };
        let nothing = CompressionReport::default();
        let compression = report.compression.as_ref().unwrap_or(&nothing);
        let [page, json, drawing] = report_files(path);
        let scored = compression.front.iter().filter(|point| point.score.is_some()).count();
        let drawing = (scored > 1 && scored == compression.front.len()).then_some(drawing);
        write(&page, markdown(report, compression, drawing.as_deref())?.as_bytes())?;
        write(&json, (serde_json::to_string_pretty(report)? + "\n").as_bytes())?;
        drawing.map_or(Ok(()), |path| write(&path, svg(compression)?.as_bytes()))
    }
}

/// The page, and what is written beside it.
fn report_files(page: &Path) -> [PathBuf; 3] {
    [page.to_path_buf(), page.with_extension("json"), page.with_extension("svg")]
}

/// `0.5pt` as 0.005, `0.005` as itself.
fn drop_of(text: &str) -> Result<f64, String> {
    let (number, unit) = text.strip_suffix("pt").map_or((text, 1.0), |number| (number, 0.01));
    let found = number.trim().parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0);
    found.map(|n| n * unit).ok_or_else(|| format!("{text:?}: expected points as 0.5pt, or a number as 0.005"))
}

/// `25%` as 0.25, `0.25` as itself.
fn part_of(text: &str) -> Result<f64, String> {
    let (number, unit) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 0.01));
    let found = number.trim().parse::<f64>().ok().map(|n| n * unit).filter(|n| *n > 0.0 && *n < 1.0);
    found.ok_or_else(|| format!("{text:?}: expected a part as 25% or 0.25, above 0 and below 1"))
}

/// `8MB` as 8,000,000.
fn bytes_of(text: &str) -> Result<u64, String> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("kB", 1000), ("KB", 1000)];
    let units = units.into_iter().chain([("MB", 1_000_000), ("GB", 1_000_000_000), ("B", 1), ("", 1)]);
    let split = |(unit, size): (&str, u64)| Some((text.strip_suffix(unit)?.trim(), size));
    let wrong = || format!("{text:?}: expected bytes, as 8000000, 8MB or 8MiB");
    let (number, size) = units.into_iter().find_map(split).ok_or_else(wrong)?;
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked"
    )]
    match number.parse::<f64>() {
        Ok(n) if n > 0.0 && n * (size as f64) < 2f64.powi(53) => Ok((n * size as f64) as u64),
        _ => Err(wrong()),
    }
}

/// The lines of a report that people read first.
pub(crate) fn told(f: &mut fmt::Formatter<'_>, compression: &CompressionReport) -> fmt::Result {
    if let Some(data) = &compression.calibration {
        writeln!(f, "  calibrated on {} samples", data.samples)?;
    }
    if let Some(p) = &compression.pruning {
        writeln!(f, "  {} by pruning {} layers{}", saved(p), p.layers.len(), scores(p))?;
    }
    if let Some(a) = &compression.accuracy {
        let bound = a.max_drop.map(|most| format!(", of at most {most}")).unwrap_or_default();
        let samples = a.data.samples;
        writeln!(
            f,
            "  {} {} -> {} on {samples} samples: {:.5} lost{bound}",
            a.metric, a.before, a.after, a.drop
        )?;
    }
    if compression.front.len() > 1 {
        writeln!(f, "  chosen among {} packs that were tried", compression.front.len())?;
    }
    Ok(())
}

/// Multiply-adds before and after.
fn saved(p: &PruneReport) -> String {
    #[allow(clippy::cast_precision_loss, reason = "per cent to a digit")]
    let part = 100.0 * (1.0 - p.macs_after as f64 / p.macs_before.max(1) as f64);
    let short = |n: u64| if n < 10_000_000 { format!("{n}") } else { format!("{} million", n / 1_000_000) };
    format!("{part:.1} % fewer multiply-adds ({} -> {})", short(p.macs_before), short(p.macs_after))
}

/// What the metric says of it.
fn scores(p: &PruneReport) -> String {
    let without = p.score_without_restoring.map(|score| format!(", {score} without restoring"));
    let score = p.score.map(|score| format!(": {score} in f32{}", without.unwrap_or_default()));
    score.unwrap_or_default()
}

fn markdown(report: &Report, compression: &CompressionReport, drawing: Option<&Path>) -> Result<String> {
    let mut text = String::new();
    let (from, to) = (report.onnx_bytes, report.pack_bytes);
    #[allow(clippy::cast_precision_loss, reason = "a ratio to three digits")]
    let ratio = to as f64 / from.max(1) as f64;
    writeln!(text, "# Compression report\n")?;
    writeln!(text, "Pack `{}`: {to} bytes, {ratio:.3} of the ONNX file's {from}.\n", report.digest)?;
    if let Some(data) = &compression.calibration {
        writeln!(text, "Calibrated on {} samples, `{}`.\n", data.samples, data.digest)?;
    }
    if let Some(a) = &compression.accuracy {
        writeln!(text, "| metric | f32 | this pack | lost | may be lost | samples | data |")?;
        writeln!(text, "|---|--:|--:|--:|--:|--:|---|")?;
        let most = a.max_drop.map_or("-".to_owned(), |most| most.to_string());
        let (before, after, drop, data) = (a.before, a.after, a.drop, &a.data);
        writeln!(
            text,
            "| {} | {before} | {after} | {drop:.5} | {most} | {} | `{}` |\n",
            a.metric, data.samples, data.digest
        )?;
    }
    if let Some(p) = &compression.pruning {
        let how = if p.restored { "Weights behind them were re-solved" } else { "No weights were re-solved" };
        writeln!(text, "## Pruned channels\n\n{}{}. {how}.\n", saved(p), scores(p))?;
        writeln!(text, "| layer | channels | left |\n|---|--:|--:|")?;
        for layer in &p.layers {
            writeln!(text, "| {} | {} | {} |", layer.name, layer.before, layer.after)?;
        }
        writeln!(text)?;
    }
    if !compression.front.is_empty() {
        writeln!(text, "## Packs that were tried\n")?;
        if let Some(name) = drawing.and_then(Path::file_name) {
            writeln!(text, "![size and accuracy]({})\n", name.to_string_lossy())?;
        }
        writeln!(text, "| bytes | metric | keeps the contract |\n|--:|--:|---|")?;
        for point in &compression.front {
            let score = point.score.map_or("-".to_owned(), |score| score.to_string());
            writeln!(text, "| {} | {score} | {} |", point.bytes, if point.keeps { "yes" } else { "no" })?;
        }
        writeln!(text)?;
    }
    if let Some(int8) = &report.int8 {
        convolutions(&mut text, int8)?;
    }
    writeln!(
        text,
        "## Weights\n\n| weight | values | rounding | entropy, bits a value | sensitivity |\n|---|--:|---|--:|--:|"
    )?;
    for layer in &compression.layers {
        let sensitivity = layer.sensitivity.map_or("-".to_owned(), |s| format!("{s:.2e}"));
        writeln!(
            text,
            "| {} | {} | {} | {:.2} | {sensitivity} |",
            layer.name, layer.values, layer.rounding, layer.entropy_bits
        )?;
    }
    Ok(text)
}

/// What is done in int8, and the choices that were measured.
fn convolutions(text: &mut String, int8: &Int8Report) -> Result<()> {
    writeln!(
        text,
        "## Convolutions in int8\n\n{} of {}, {:.4} of their multiply-adds.\n",
        int8.convolutions,
        int8.convolutions + int8.kept,
        int8.share
    )?;
    if !int8.tried.is_empty() {
        writeln!(text, "| multiply-adds in int8 | metric | keeps the contract |\n|--:|--:|---|")?;
        for point in &int8.tried {
            let keeps = if point.keeps { "yes" } else { "no" };
            writeln!(text, "| {:.4} | {} | {keeps} |", point.share, point.score)?;
        }
        writeln!(text)?;
    }
    writeln!(text, "| convolution | multiply-adds | computed in | sensitivity |\n|---|--:|---|--:|")?;
    for layer in &int8.layers {
        let sensitivity = layer.sensitivity.map_or("-".to_owned(), |s| format!("{s:.2e}"));
        let arithmetic = if layer.in_bytes { "int8" } else { "f32" };
        writeln!(text, "| {} | {} | {arithmetic} | {sensitivity} |", layer.name, layer.multiply_adds)?;
    }
    Ok(writeln!(text)?)
}

/// Bytes to the right, the metric upwards; packs that keep the contract filled.
fn svg(compression: &CompressionReport) -> Result<String> {
    const WIDTH: f64 = 640.0;
    const HEIGHT: f64 = 400.0;
    const MARGIN: f64 = 60.0;
    #[allow(clippy::cast_precision_loss, reason = "a place on a drawing")]
    let points: Vec<(f64, f64, bool)> =
        compression.front.iter().map(|p| (p.bytes as f64, p.score.map_or(0.0, |s| s.0), p.keeps)).collect();
    let range = |of: &dyn Fn(&(f64, f64, bool)) -> f64| {
        let (low, high) =
            points.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), p| (l.min(of(p)), h.max(of(p))));
        (low, (high - low).max(f64::MIN_POSITIVE))
    };
    let ((x0, dx), (y0, dy)) = (range(&|p| p.0), range(&|p| p.1));
    let at = |p: &(f64, f64, bool)| {
        let (x, y) = ((p.0 - x0) / dx, (p.1 - y0) / dy);
        (MARGIN + x * (WIDTH - 2.0 * MARGIN), HEIGHT - MARGIN - y * (HEIGHT - 2.0 * MARGIN))
    };
    let mut text = String::new();
    writeln!(
        text,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">"##
    )?;
    writeln!(text, r##"<rect width="100%" height="100%" fill="#fff"/>"##)?;
    let line: Vec<String> = points
        .iter()
        .map(|p| {
            let (x, y) = at(p);
            format!("{x:.1},{y:.1}")
        })
        .collect();
    writeln!(text, r##"<polyline points="{}" fill="none" stroke="#999"/>"##, line.join(" "))?;
    for point in &points {
        let ((x, y), fill) = (at(point), if point.2 { "#06c" } else { "#fff" });
        writeln!(
            text,
            r##"<circle cx="{x:.1}" cy="{y:.1}" r="4" fill="{fill}" stroke="#06c"><title>{} bytes, {:.5}</title></circle>"##,
            point.0, point.1
        )?;
    }
    let metric = compression.accuracy.as_ref().map_or("", |a| a.metric.as_str());
    let bottom = HEIGHT - MARGIN / 3.0;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes of a file")]
    let (least, most) = (bytes(x0 as u64), bytes((x0 + dx) as u64));
    writeln!(text, r##"<text x="{MARGIN}" y="{bottom:.0}">{least}</text>"##)?;
    writeln!(text, r##"<text x="{:.0}" y="{bottom:.0}" text-anchor="end">{most}</text>"##, WIDTH - MARGIN)?;
    writeln!(text, r##"<text x="8" y="{:.0}">{:.4}</text>"##, HEIGHT - MARGIN, y0)?;
    writeln!(text, r##"<text x="8" y="{MARGIN:.0}">{:.4}</text>"##, y0 + dy)?;
    writeln!(
        text,
        r##"<text x="{MARGIN}" y="24">{} by size; filled: keeps the contract</text>"##,
        escaped(metric)
    )?;
    writeln!(text, "</svg>")?;
    Ok(text)
}

/// Text for XML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use glowplug_packer::{Point, Score};

    #[test]
    fn bounds_have_units() {
        for (text, wanted) in [("0.5pt", 0.005), ("1pt", 0.01), ("0.001", 0.001), ("0", 0.0)] {
            assert!((drop_of(text).unwrap() - wanted).abs() < 1e-12, "{text}");
        }
        for (text, wanted) in [("8MB", 8_000_000), ("1.5 MiB", 1_572_864), ("123", 123), ("2kB", 2000)] {
            assert_eq!(bytes_of(text), Ok(wanted), "{text}");
        }
        for text in ["", "-1", "pt", "NaN", "1%"] {
            assert!(drop_of(text).is_err() && bytes_of(text).is_err(), "{text}");
        }
    }

    #[test]
    fn parts_are_per_cent_or_below_1() {
        assert_eq!((part_of("25%"), part_of("0.4")), (Ok(0.25), Ok(0.4)));
        for text in ["0", "1", "100%", "-5%", "NaN", "25", "x"] {
            assert!(part_of(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_front_is_drawn_where_its_points_lie() {
        let point = |bytes, score, keeps| Point { bytes, score: Some(Score(score)), keeps };
        let front = vec![point(1000, 0.5, false), point(2000, 0.9, true), point(3000, 1.0, true)];
        let text = svg(&CompressionReport { front, ..CompressionReport::default() }).unwrap();
        assert!(text.contains(r#"points="60.0,340.0 320.0,116.0 580.0,60.0""#), "{text}");
        assert_eq!(text.matches("<circle").count(), 3);
        assert_eq!(text.matches(r##"fill="#06c""##).count(), 2);
    }
}
