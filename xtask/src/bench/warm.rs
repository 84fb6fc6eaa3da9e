//! Warm runs: a model at a batch on so many threads, by all engines in turn. Every round is a process per engine that
//! loads, warms up and then times runs until its budget is spent, and each round begins with another engine. Ratios
//! to ONNX Runtime are taken within a round; the answers of the first are compared with the reference.

use super::cases::Case;
use super::cold::{kib, output_path, told};
use super::engines::{Engine, ORT};
use super::process::{Report, sample};
use super::setup::Setup;
use super::summary::{WarmCase, WarmEngine, WarmFigures, median, median_bytes, quantile};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

pub(crate) const HEADER: &str = "model,batch,threads,engine,round,load_ms,first_run_ms,runs,min_ms,p50_ms,p90_ms,p99_ms,max_ms,mean_ms,peak_kib\n";

/// Rounds that are run however long they take, and the time after which no other begins.
const LEAST_ROUNDS: usize = 3;
const LONG: Duration = Duration::from_secs(20);
/// A difference from the reference, over the largest output, that no rounding explains.
const WRONG: f64 = 1e-2;

/// How much is measured.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    /// Timed runs of one process take about as long.
    pub(crate) budget_ms: u32,
}

/// What is measured: a case at its batch, on so many threads.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) case: &'a Case,
    pub(crate) batch: u32,
    pub(crate) threads: u32,
}

/// An engine that takes part, with what each of its processes reported.
struct Contender<'a> {
    engine: &'a Engine,
    reports: Vec<Report>,
}

/// Why an engine takes no part.
struct Refusal {
    why: String,
    wrong: bool,
}

/// A case at a batch that its model does not take.
pub(crate) fn gap(case: &Case, batch: u32, threads: u32, why: &str) -> WarmCase {
    WarmCase {
        model: case.name.to_owned(),
        batch,
        threads,
        random_weights: case.random_weights,
        rounds: 0,
        refused: Some(why.to_owned()),
        engines: Vec::new(),
    }
}

/// Measures one place with the given engines; those that refuse it, or answer wrongly, are listed with the reason.
pub(crate) fn measure(
    setup: &Setup,
    place: Place<'_>,
    engines: &[&Engine],
    effort: Effort,
    csv: &mut String,
) -> Result<WarmCase> {
    let case = place.case;
    let started = Instant::now();
    let mut refused = BTreeMap::new();
    let mut contenders = Vec::new();
    for engine in engines {
        match first(setup, place, engine, effort) {
            Ok(report) => contenders.push(Contender { engine, reports: vec![report] }),
            Err(error) => {
                refused.insert(engine.id, Refusal { why: format!("{error:#}"), wrong: false });
            }
        }
    }
    let outputs = contenders.iter().map(|c| (c.engine.id, output_path(setup, case, c.engine)));
    let errors = setup.compare(case, outputs)?;
    contenders.retain(|c| match wrong(c.engine, errors.get(c.engine.id).copied().flatten()) {
        None => true,
        Some(why) => {
            refused.insert(c.engine.id, Refusal { why, wrong: true });
            false
        }
    });
    let mut rounds = 1;
    while rounds < effort.rounds && (rounds < LEAST_ROUNDS || started.elapsed() < LONG) {
        for turn in 0..contenders.len() {
            let index = (rounds + turn) % contenders.len();
            let engine = contenders[index].engine;
            let report = once(setup, place, engine, effort, false).with_context(|| told(case, engine))?;
            contenders[index].reports.push(report);
        }
        rounds += 1;
    }
    contenders.iter().try_for_each(|c| write_rows(place, c, csv))?;
    let ort: Option<Vec<f64>> = (contenders.iter().find(|c| c.engine.id == ORT)).map(Contender::medians);
    let summary = |engine: &&Engine| {
        let contender = contenders.iter().find(|c| c.engine.id == engine.id);
        let error = errors.get(engine.id).copied().flatten();
        let refusal = refused.remove(engine.id);
        WarmEngine {
            id: engine.id.to_owned(),
            wrong: refusal.as_ref().is_some_and(|r| r.wrong),
            refused: refusal.map(|r| r.why),
            figures: contender.zip(error).map(|(c, error)| c.figures(place.batch, ort.as_deref(), error)),
        }
    };
    Ok(WarmCase {
        model: case.name.to_owned(),
        batch: place.batch,
        threads: place.threads,
        random_weights: case.random_weights,
        rounds,
        refused: None,
        engines: engines.iter().map(summary).collect(),
    })
}

/// The first process: it shows whether the engine takes the model at all, and leaves the answer to compare.
fn first(setup: &Setup, place: Place<'_>, engine: &Engine, effort: Effort) -> Result<Report> {
    match setup.refusal(place.case, engine) {
        Some(why) => bail!("{why}"),
        None => once(setup, place, engine, effort, true),
    }
}

fn once(setup: &Setup, place: Place<'_>, engine: &Engine, effort: Effort, keep: bool) -> Result<Report> {
    let mut command = setup.command(place.case, engine, place.threads);
    command.args(["--budget-ms", &effort.budget_ms.to_string()]);
    if keep {
        command.arg("--output").arg(output_path(setup, place.case, engine));
    }
    let report = sample(&mut command)?.report;
    match report.runs_ns.is_empty() {
        true => bail!("no timed run was reported"),
        false => Ok(report),
    }
}

/// Why an answer with that largest difference is none, if so; `None` is one of other names, shapes or kinds.
fn wrong(engine: &Engine, error: Option<f64>) -> Option<String> {
    match error {
        Some(error) if error <= WRONG || (engine.is_rounded() && error.is_finite()) => None,
        Some(error) => {
            Some(format!("answers wrongly: the largest difference from the reference is {error:.0e}"))
        }
        None => Some("answers wrongly: the outputs cannot be compared with the reference".to_owned()),
    }
}

/// Milliseconds of every timed run.
#[allow(clippy::cast_precision_loss, reason = "runs take far less than 2^52 ns")]
fn runs_ms(report: &Report) -> impl Iterator<Item = f64> + Clone {
    report.runs_ns.iter().map(|ns| *ns as f64 / 1e6)
}

fn mean_ms(report: &Report) -> f64 {
    runs_ms(report).sum::<f64>() / report.runs_ns.len() as f64
}

fn write_rows(place: Place<'_>, contender: &Contender<'_>, csv: &mut String) -> Result<()> {
    for (round, r) in contender.reports.iter().enumerate() {
        let at = |part| quantile(runs_ms(r), part);
        writeln!(
            csv,
            "{},{},{},{},{round},{:.3},{:.3},{},{:.4},{:.4},{:.4},{:.4},{:.4},{:.4},{}",
            place.case.name,
            place.batch,
            place.threads,
            contender.engine.id,
            r.load_ms,
            r.first_run_ms,
            r.runs_ns.len(),
            at(0.0),
            median(runs_ms(r)),
            at(0.9),
            at(0.99),
            at(1.0),
            mean_ms(r),
            kib(r.warm_peak_rss_bytes)
        )?;
    }
    Ok(())
}

impl Contender<'_> {
    /// The median run of each round.
    fn medians(&self) -> Vec<f64> {
        self.reports.iter().map(|r| median(runs_ms(r))).collect()
    }

    fn figures(&self, batch: u32, ort: Option<&[f64]>, output_error: f64) -> WarmFigures {
        let all = || self.reports.iter().flat_map(runs_ms);
        let over = |ort: &[f64]| median(self.medians().iter().zip(ort).map(|(this, ort)| this / ort));
        WarmFigures {
            runs: all().count(),
            p50_ms: median(all()),
            p99_ms: quantile(all(), 0.99),
            rows_per_second: median(self.reports.iter().map(|r| f64::from(batch) * 1e3 / mean_ms(r))),
            over_ort: ort.map(over),
            output_error,
            peak_rss_bytes: median_bytes(self.reports.iter().filter_map(|r| r.warm_peak_rss_bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::engines::{ENGINES, INT8};
    use super::*;

    fn report(runs_ms: &[u64]) -> Report {
        let runs: Vec<String> = runs_ms.iter().map(|ms| (ms * 1_000_000).to_string()).collect();
        let json = format!(r#"{{"load_ms":1,"first_run_ms":9,"runs_ns":[{}]}}"#, runs.join(","));
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn percentiles_are_over_all_runs_and_ratios_within_a_round() {
        // The machine is twice as slow in the second round, for everybody.
        let reports = vec![report(&[4, 4, 10]), report(&[8, 8]), report(&[4])];
        let contender = Contender { engine: &ENGINES[0], reports };
        let found = contender.figures(8, Some(&[2.0, 4.0, 1.0]), 1e-6);
        assert_eq!((found.runs, found.p50_ms, found.p99_ms), (6, 6.0, 10.0));
        assert_eq!(found.over_ort, Some(2.0), "2, 2 and 4");
        assert_eq!(found.rows_per_second, 8.0 * 1e3 / 6.0, "the rounds' means are 6, 8 and 4 ms");
        assert_eq!(contender.figures(1, None, 0.0).over_ort, None);
    }

    #[test]
    fn a_row_tells_a_process() {
        let case = super::super::cases::CASES[0].at(8).unwrap();
        let contender = Contender { engine: &ENGINES[0], reports: vec![report(&[1, 2, 6])] };
        let mut csv = String::new();
        write_rows(Place { case: &case, batch: 8, threads: 2 }, &contender, &mut csv).unwrap();
        let expected = "resnet50,8,2,glowplug,0,1.000,9.000,3,1.0000,2.0000,6.0000,6.0000,6.0000,3.0000,\n";
        assert_eq!(csv, expected);
        assert_eq!(HEADER.matches(',').count(), expected.matches(',').count());
    }

    #[test]
    fn rounding_is_no_wrong_answer() {
        let ours = &ENGINES[0];
        assert_eq!((wrong(ours, Some(0.0)), wrong(ours, Some(1e-3))), (None, None));
        assert!(wrong(ours, Some(0.5)).unwrap().contains("5e-1"));
        assert_eq!(wrong(&INT8[0], Some(0.5)), None);
        for engine in [ours, &INT8[0]] {
            assert!(wrong(engine, Some(f64::NAN)).is_some() && wrong(engine, None).is_some());
        }
    }
}
