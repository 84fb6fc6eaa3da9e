//! The tables of a warm run. A column `b8 t2` is batch 8 on two threads.

use super::engines::{ENGINES, ORT, OURS};
use super::plots::figure;
use super::summary::{Summary, WarmCase, WarmFigures, geometric_mean};
use super::tables::{NOTHING, grid, quoted};

type WarmSummary = Summary<WarmCase>;

/// The table of that name, if there is one; some say after a space which engine or thread count they are about.
pub(crate) fn table(name: &str, summary: &WarmSummary) -> Option<String> {
    Some(match name.split_once(' ') {
        None => match name {
            "means" => means(summary),
            "answers" => answers(summary),
            "refused" => refused(summary),
            _ => return None,
        },
        Some(("ratio", engine)) if ENGINES.iter().any(|e| e.id == engine) => ratio(summary, engine),
        Some(("latency", threads)) => by_engine(summary, threads.parse().ok()?, |f| {
            format!("{} / {}", figure(f.p50_ms), figure(f.p99_ms))
        }),
        Some(("throughput", threads)) => {
            by_engine(summary, threads.parse().ok()?, |f| figure(f.rows_per_second))
        }
        Some(_) => return None,
    })
}

/// Batch and threads of every column, in the order of the run.
pub(crate) fn columns(summary: &WarmSummary) -> Vec<(u32, u32)> {
    let mut columns: Vec<(u32, u32)> = summary.cases.iter().map(|c| (c.batch, c.threads)).collect();
    columns.sort_unstable();
    columns.dedup();
    columns
}

/// An engine's geometric mean of its time over ONNX Runtime's, and over how many models.
pub(crate) fn mean_over_ort(summary: &WarmSummary, column: (u32, u32), engine: &str) -> Option<(f64, usize)> {
    let ratios: Vec<f64> = ratios(summary, column, engine).map(|(_, ratio)| ratio).collect();
    Some((geometric_mean(&ratios)?, ratios.len()))
}

/// The models of a column with the engine's ratio to ONNX Runtime.
fn ratios<'a>(
    summary: &'a WarmSummary,
    column: (u32, u32),
    engine: &'a str,
) -> impl Iterator<Item = (&'a str, f64)> {
    let cases = summary.cases.iter().filter(move |c| (c.batch, c.threads) == column);
    cases.filter_map(move |c| Some((c.model.as_str(), c.figures(engine)?.over_ort?)))
}

fn heads(columns: &[(u32, u32)]) -> Vec<String> {
    columns.iter().map(|(batch, threads)| format!("b{batch} t{threads}")).collect()
}

/// The engines that have a figure somewhere.
fn shown(summary: &WarmSummary) -> Vec<&'static str> {
    let known = |id: &str| summary.cases.iter().any(|c| c.figures(id).is_some());
    ENGINES.iter().map(|e| e.id).filter(|id| known(id)).collect()
}

/// The models of the run, each once.
fn models(summary: &WarmSummary) -> Vec<&str> {
    let mut models: Vec<&str> = Vec::new();
    for case in &summary.cases {
        if !models.contains(&case.model.as_str()) {
            models.push(&case.model);
        }
    }
    models
}

/// Who compares how to ONNX Runtime, and which model is this project's worst.
fn means(summary: &WarmSummary) -> String {
    let columns = columns(summary);
    let row = |id: &str| {
        let cell = |column: &(u32, u32)| {
            let mean = mean_over_ort(summary, *column, id);
            mean.map_or(NOTHING.into(), |(mean, models)| format!("{mean:.2} ({models})"))
        };
        (id.to_owned(), columns.iter().map(cell).collect())
    };
    let worst = columns.iter().map(|column| {
        let worst = ratios(summary, *column, OURS).max_by(|a, b| a.1.total_cmp(&b.1));
        worst.map_or(NOTHING.into(), |(model, ratio)| format!("{ratio:.2} {model}"))
    });
    let rows = shown(summary).into_iter().filter(|id| *id != ORT).map(row);
    let rows = rows.chain([(format!("{OURS}, worst model"), worst.collect())]);
    table_of("engine", &heads(&columns), rows)
}

/// An engine's time over ONNX Runtime's, model by model.
fn ratio(summary: &WarmSummary, engine: &str) -> String {
    let columns = columns(summary);
    let rows = models(summary).into_iter().map(|model| {
        let cell = |column: &(u32, u32)| {
            let ratio = ratios(summary, *column, engine).find(|(name, _)| *name == model);
            ratio.map_or(NOTHING.into(), |(_, ratio)| format!("{ratio:.2}"))
        };
        (model.to_owned(), columns.iter().map(cell).collect())
    });
    table_of("model", &heads(&columns), rows)
}

/// One row per model and batch, one column per engine.
fn by_engine(summary: &WarmSummary, threads: u32, cell: impl Fn(&WarmFigures) -> String) -> String {
    let engines = shown(summary);
    let cases = summary.cases.iter().filter(|c| c.threads == threads && c.refused.is_none());
    let rows = cases.map(|case| {
        let cells = engines.iter().map(|id| case.figures(id).map_or(NOTHING.into(), &cell));
        (case.model.clone(), std::iter::once(case.batch.to_string()).chain(cells).collect())
    });
    table_of("model", &with_batch(&engines), rows)
}

/// The largest error of any thread count.
fn answers(summary: &WarmSummary) -> String {
    let engines = shown(summary);
    let mut rows: Vec<(&WarmCase, Vec<f64>)> = Vec::new();
    for case in summary.cases.iter().filter(|c| c.refused.is_none()) {
        let errors = engines.iter().map(|id| case.figures(id).map_or(f64::NAN, |f| f.output_error));
        match rows.iter_mut().find(|(c, _)| (&c.model, c.batch) == (&case.model, case.batch)) {
            Some((_, worst)) => worst.iter_mut().zip(errors).for_each(|(worst, e)| *worst = worst.max(e)),
            None => rows.push((case, errors.collect())),
        }
    }
    let told = |e: &f64| if e.is_nan() { NOTHING.into() } else { format!("{e:.0e}") };
    let rows = rows.iter().map(|(case, errors)| {
        let cells = std::iter::once(case.batch.to_string()).chain(errors.iter().map(told));
        (case.model.clone(), cells.collect())
    });
    table_of("model", &with_batch(&engines), rows)
}

/// Why a cell is empty, once for all thread counts that have the same reason.
fn refused(summary: &WarmSummary) -> String {
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    for case in &summary.cases {
        let all = case.refused.as_ref().map(|why| ("all", why));
        let some = case.engines.iter().filter_map(|e| Some((e.id.as_str(), e.refused.as_ref()?)));
        for (engine, why) in all.into_iter().chain(some) {
            let row = (case.model.clone(), vec![case.batch.to_string(), engine.to_owned(), quoted(why)]);
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
    }
    table_of("model", &["batch", "engine", "says"].map(str::to_owned), rows.into_iter())
}

fn with_batch(engines: &[&str]) -> Vec<String> {
    std::iter::once("batch").chain(engines.iter().copied()).map(str::to_owned).collect()
}

fn table_of(corner: &str, heads: &[String], rows: impl Iterator<Item = (String, Vec<String>)>) -> String {
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    grid(corner, &heads, rows)
}

#[cfg(test)]
mod tests {
    use super::super::summary::WarmEngine;
    use super::*;
    use std::collections::BTreeMap;

    fn engine(id: &str, over_ort: f64, output_error: f64) -> WarmEngine {
        let figures = WarmFigures {
            p50_ms: over_ort * 10.0,
            p99_ms: over_ort * 20.0,
            rows_per_second: 100.0 / over_ort,
            over_ort: Some(over_ort),
            output_error,
            ..WarmFigures::default()
        };
        WarmEngine { id: id.into(), figures: Some(figures), ..WarmEngine::default() }
    }

    fn case(model: &str, batch: u32, threads: u32, engines: Vec<WarmEngine>) -> WarmCase {
        let model = model.to_owned();
        WarmCase { model, batch, threads, random_weights: false, rounds: 1, refused: None, engines }
    }

    fn summary() -> WarmSummary {
        let no = WarmEngine { id: "rten".into(), refused: Some("no|op".into()), ..WarmEngine::default() };
        let alone = WarmCase { refused: Some("one stream".into()), ..case("b", 8, 2, Vec::new()) };
        let cases = vec![
            case("a", 1, 1, vec![engine("glowplug", 0.5, 1e-6), engine("ort", 1.0, 1e-7)]),
            case("a", 1, 2, vec![engine("glowplug", 0.5, 1e-5), engine("ort", 1.0, 1e-7)]),
            case("b", 1, 1, vec![engine("glowplug", 2.0, 0.0), engine("ort", 1.0, 0.0), no]),
            alone,
        ];
        let (kind, date, command, commit) = Default::default();
        let (machine, versions) = (BTreeMap::new(), BTreeMap::new());
        Summary { kind, date, command, commit, machine, versions, runs: 1, cases }
    }

    #[test]
    fn every_table_tells_its_part() {
        let summary = summary();
        for (name, wanted) in [
            (
                "means",
                "| engine | b1 t1 | b1 t2 | b8 t2 |\n|---|--:|--:|--:|\n| glowplug | 1.00 (2) | 0.50 (1) | - |\n\
                 | glowplug, worst model | 2.00 b | 0.50 a | - |\n",
            ),
            (
                "ratio glowplug",
                "| model | b1 t1 | b1 t2 | b8 t2 |\n|---|--:|--:|--:|\n| a | 0.50 | 0.50 | - |\n| b | 2.00 | - | - |\n",
            ),
            (
                "latency 1",
                "| model | batch | glowplug | ort |\n|---|--:|--:|--:|\n| a | 1 | 5.00 / 10.0 | 10.0 / 20.0 |\n\
                 | b | 1 | 20.0 / 40.0 | 10.0 / 20.0 |\n",
            ),
            (
                "throughput 2",
                "| model | batch | glowplug | ort |\n|---|--:|--:|--:|\n| a | 1 | 200 | 100 |\n",
            ),
            (
                "answers",
                "| model | batch | glowplug | ort |\n|---|--:|--:|--:|\n| a | 1 | 1e-5 | 1e-7 |\n| b | 1 | 0e0 | 0e0 |\n",
            ),
            (
                "refused",
                "| model | batch | engine | says |\n|---|--:|--:|--:|\n| b | 1 | rten | no\\|op |\n\
                 | b | 8 | all | one stream |\n",
            ),
        ] {
            assert_eq!(table(name, &summary).unwrap(), wanted, "{name}");
        }
        for name in ["what", "latency", "latency x", "ratio what"] {
            assert!(table(name, &summary).is_none(), "{name}");
        }
    }
}
