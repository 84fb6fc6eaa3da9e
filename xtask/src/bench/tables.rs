//! The tables of the documents, made from the newest archived run of each kind.
//!
//! A table stands between `<!-- bench NAME -->` and `<!-- /bench -->`; those of warm runs are named `warm: ..`, of compressed
//! packs `compress: ..`. `cargo xtask bench tables` writes them, and a test fails where they say something else than the archive.

use super::engines::{ENGINES, ORT, OURS, RTEN};
use super::plots::figure;
use super::summary::{CaseSummary, CompressedCase, Figures, Summary, WarmCase};
use super::{archive, compress, warm_tables};
use crate::workspace;
use anyhow::{Context, Result, ensure};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

const DOCUMENTS: [&str; 3] = ["docs/benchmarks.md", "docs/quantization.md", "README.md"];
const END: &str = "<!-- /bench -->";
/// What a cell without a figure says.
pub(crate) const NOTHING: &str = "-";
/// How the names of warm tables begin.
const WARM: &str = "warm: ";
/// And those of compressed packs.
const COMPRESS: &str = "compress: ";
/// What stands in place of a table whose run is still to be made.
const NO_RUN: &str = "No run is archived yet.\n";

/// The newest runs, with their folders.
struct Runs {
    cold: Newest<CaseSummary>,
    warm: Newest<WarmCase>,
    compress: Newest<CompressedCase>,
}

type Newest<C> = Option<(PathBuf, Summary<C>)>;

impl Runs {
    /// The table of that name, if there is one.
    fn table(&self, name: &str) -> Option<String> {
        if let Some(name) = name.strip_prefix(WARM) {
            return made(&self.warm, name, |summary| warm_tables::table(name, summary));
        }
        if let Some(name) = name.strip_prefix(COMPRESS) {
            let table = |summary: &Summary<_>| (name == "packs").then(|| compress::table(&summary.cases));
            return made(&self.compress, name, table);
        }
        made(&self.cold, name, |summary| table(name, summary))
    }
}

/// A table of a kind of run: `run`, which says which run it is, or what `other` makes.
fn made<C>(newest: &Newest<C>, name: &str, other: impl Fn(&Summary<C>) -> Option<String>) -> Option<String> {
    match newest {
        Some((folder, summary)) if name == "run" => Some(run(folder, summary)),
        Some((_, summary)) => other(summary),
        None => Some(NO_RUN.to_owned()),
    }
}

/// Rewrites the tables of all documents.
pub(crate) fn write() -> Result<()> {
    for (name, text) in documents()? {
        fs::write(workspace::root().join(name), text).with_context(|| format!("writing {name}"))?;
    }
    Ok(())
}

/// Whether all documents say what the newest run found. Errors: one does not.
pub(crate) fn check() -> Result<()> {
    for (name, text) in documents()? {
        let found = fs::read_to_string(workspace::root().join(name))?;
        ensure!(
            found == text,
            "the tables of {name} are not those of the newest run: `cargo xtask bench tables`"
        );
    }
    Ok(())
}

/// The documents as they should be.
fn documents() -> Result<Vec<(&'static str, String)>> {
    let runs = Runs { cold: archive::newest()?, warm: archive::newest()?, compress: archive::newest()? };
    let fill = |name: &'static str| {
        let path = workspace::root().join(name);
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok((name, filled(&text, |table| runs.table(table)).with_context(|| name.to_owned())?))
    };
    DOCUMENTS.into_iter().map(fill).collect()
}

/// `text` with every table made anew.
fn filled(text: &str, table: impl Fn(&str) -> Option<String>) -> Result<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("<!-- bench ") {
        let (before, marked) = rest.split_at(at);
        let (marker, old) = marked.split_once("-->").context("a marker does not end")?;
        let name = marker.trim_start_matches("<!-- bench ").trim();
        let (_, after) = old.split_once(END).with_context(|| format!("table {name:?} has no end"))?;
        let table = table(name).with_context(|| format!("no table is named {name:?}"))?;
        let _ = write!(out, "{before}{marker}-->\n{table}{END}");
        rest = after;
    }
    Ok(out + rest)
}

fn table(name: &str, summary: &Summary) -> Option<String> {
    Some(match name {
        "short" => short(summary),
        "exec" => by_engine(summary, |f| Some(figure(f.exec_ms))),
        "ratio" => by_engine(summary, |f| f.ours_over_this.map(|r| format!("{r:.2}"))),
        "load" => by_engine(summary, |f| Some(figure(f.load_ms))),
        "warm" => by_engine(summary, |f| Some(figure(f.run_ms))),
        "first-over-warm" => by_engine(summary, |f| Some(format!("{:.2}", f.first_over_warm))),
        "memory" => by_engine(summary, |f| f.peak_rss_bytes.map(megabytes)),
        "warm-memory" => by_engine(summary, |f| f.warm_peak_rss_bytes.map(megabytes)),
        "size" => by_engine(summary, |f| Some(megabytes(f.file_bytes))),
        "answers" => {
            by_engine(summary, |f| Some(f.output_error.map_or("differs".into(), |e| format!("{e:.0e}"))))
        }
        "stream" => stream(summary),
        "lambda" => lambda(summary),
        "refused" => refused(summary),
        _ => return None,
    })
}

fn run<C>(folder: &Path, summary: &Summary<C>) -> String {
    let get = |map: &std::collections::BTreeMap<String, String>, key: &str| {
        map.get(key).cloned().unwrap_or_default()
    };
    let machine = |key| get(&summary.machine, key);
    format!(
        "Run `{}`: `{}` at commit {}, {} rounds; {}, {} cores, {}, {}, load average {} at the start; {}, {}.\n",
        folder.display(),
        summary.command,
        summary.commit,
        summary.runs,
        machine("cpu"),
        machine("cores"),
        machine("instruction_sets"),
        machine("kernel"),
        machine("load_average"),
        get(&summary.versions, "rustc"),
        get(&summary.versions, "python"),
    )
}

/// One row per model, one column per engine that has a figure somewhere.
fn by_engine(summary: &Summary, cell: impl Fn(&Figures) -> Option<String>) -> String {
    let at = |case: &CaseSummary, id: &str| case.figures(id).and_then(&cell);
    let shown = |id: &str| summary.cases.iter().any(|case| at(case, id).is_some());
    let heads: Vec<&str> = ENGINES.iter().map(|e| e.id).filter(|id| shown(id)).collect();
    let rows = summary.cases.iter().map(|case| {
        let cells = heads.iter().map(|id| at(case, id).unwrap_or_else(|| NOTHING.into()));
        (case.name.clone(), cells.collect())
    });
    grid("model", &heads, rows)
}

pub(crate) fn grid(
    corner: &str,
    heads: &[&str],
    rows: impl Iterator<Item = (String, Vec<String>)>,
) -> String {
    let mut out = format!("| {corner} | {} |\n|---|{}\n", heads.join(" | "), "--:|".repeat(heads.len()));
    for (name, cells) in rows {
        let _ = writeln!(out, "| {name} | {} |", cells.join(" | "));
    }
    out
}

/// README's: what a reader wants first. Only models with a pack.
fn short(summary: &Summary) -> String {
    let exec = |case: &CaseSummary, id: &str| case.figures(id).map_or(NOTHING.into(), |f| figure(f.exec_ms));
    let rows = summary.cases.iter().filter_map(|case| {
        let ours = case.figures(OURS)?;
        let cells = vec![
            megabytes(ours.file_bytes),
            figure(ours.load_ms),
            figure(ours.exec_ms),
            exec(case, RTEN),
            exec(case, ORT),
            exec(case, "ort-python"),
            ours.peak_rss_bytes.map_or(NOTHING.into(), megabytes),
        ];
        Some((case.name.clone(), cells))
    });
    let heads = [
        "pack MB",
        "bytes to plan",
        "Glowplug",
        "RTen mapped",
        "ONNX Runtime",
        "Python + ONNX Runtime",
        "peak MB",
    ];
    grid("model", &heads, rows)
}

fn stream(summary: &Summary) -> String {
    let rows = summary.cases.iter().flat_map(|case| {
        case.stream.iter().map(|s| {
            let cells = vec![
                format!("{:.0}", s.mb_per_s),
                megabytes(s.fetched_bytes),
                figure(s.bound_ms),
                figure(s.first_output_ms),
                format!("{:.2}", s.first_output_ms / s.bound_ms),
                format!("{:+.1}", s.first_output_ms - s.bound_ms),
                figure(s.exec_ms),
            ];
            (case.name.clone(), cells)
        })
    });
    let heads =
        ["MB/s", "pack MB", "bound ms", "first output ms", "of the bound", "over it, ms", "from exec ms"];
    grid("model", &heads, rows)
}

fn lambda(summary: &Summary) -> String {
    let rows = summary.cases.iter().flat_map(|case| {
        case.lambda.iter().map(|l| {
            let ms = |v: Option<f64>| v.map_or(NOTHING.into(), figure);
            let error = match (&l.refused, l.output_error) {
                (Some(_), _) => NOTHING.into(),
                (None, error) => error.map_or("differs".into(), |e| format!("{e:.0e}")),
            };
            (
                case.name.clone(),
                vec![l.engine.clone(), format!("{:.0}", l.mb_per_s), ms(l.cold_ms), ms(l.warm_ms), error],
            )
        })
    });
    grid("model", &["function", "MB/s", "cold ms", "warm ms", "largest error"], rows)
}

fn refused(summary: &Summary) -> String {
    let rows = summary.cases.iter().flat_map(|case| {
        let said = case.engines.iter().filter_map(|e| Some((e.id.clone(), e.refused.clone()?)));
        let lambda =
            case.lambda.iter().filter_map(|l| Some((format!("{} function", l.engine), l.refused.clone()?)));
        said.chain(lambda).map(|(id, why)| (case.name.clone(), vec![id, quoted(&why)]))
    });
    grid("model", &["engine", "says"], rows)
}

/// An engine's words in a cell.
pub(crate) fn quoted(words: &str) -> String {
    words.replace('|', "\\|").replace('\n', " ")
}

#[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
fn megabytes(bytes: u64) -> String {
    figure(bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_say_what_the_newest_run_found() {
        check().unwrap();
    }

    #[test]
    fn only_what_is_between_markers_is_replaced() {
        let case = CaseSummary {
            name: "m".into(),
            onnx_bytes: 1,
            random_weights: false,
            engines: Vec::new(),
            stream: Vec::new(),
            lambda: Vec::new(),
        };
        let summary = Summary { cases: vec![case], ..described() };
        let fill = |text: &str| filled(text, |name| table(name, &summary));
        let text = format!("before\n<!-- bench size -->\nold\n{END}\nafter\n");
        let found = fill(&text).unwrap();
        assert!(
            found.starts_with("before\n<!-- bench size -->\n| model |")
                && found.ends_with(&format!("{END}\nafter\n")),
            "{found}"
        );
        assert_eq!(fill(&found).unwrap(), found, "a second time changes nothing");
        assert!(fill("<!-- bench what -->\n<!-- /bench -->").is_err());
        assert!(fill("<!-- bench size -->\n").is_err());
    }

    #[test]
    fn each_table_is_made_from_the_run_of_its_kind() {
        let cold = Summary { command: "bench cold".into(), ..described() };
        let warm = Summary { command: "bench warm".into(), ..described() };
        let mut runs = Runs { cold: Some(("c".into(), cold)), warm: None, compress: None };
        assert!(runs.table("run").unwrap().contains("bench cold"));
        assert_eq!(runs.table("warm: run").unwrap(), NO_RUN);
        runs.warm = Some(("w".into(), warm));
        assert!(runs.table("warm: run").unwrap().contains("bench warm"));
        assert!(runs.table("warm: means").is_some() && runs.table("means").is_none());
        assert_eq!(runs.table("compress: packs").unwrap(), NO_RUN);
    }

    fn described<C>() -> Summary<C> {
        let (machine, versions) = (std::collections::BTreeMap::new(), std::collections::BTreeMap::new());
        let (kind, date, command, commit) = Default::default();
        Summary { kind, date, command, commit, machine, versions, runs: 1, cases: Vec::new() }
    }
}
