//! The cold part: fresh processes of all engines in turn, every round beginning with another one, so that what the
//! machine does beside it hits all alike. Ratios are taken within a round. Warm figures come from a few processes
//! more, in turn too; the answers are compared with ONNX Runtime's.

use super::cases::Case;
use super::engines::{Engine, OURS};
use super::process::{Sample, sample};
use super::setup::Setup;
use super::summary::{EngineSummary, Figures, median, median_bytes, quantile};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

/// Processes per engine whose warm runs are timed.
const WARM_ROUNDS: usize = 5;
/// About how long the timed warm runs of one process take, and how many they are at least and at most.
const WARM_MS: f64 = 300.0;
const WARM_RUNS: (f64, f64) = (5.0, 200.0);

/// Which samples went into a CSV file, and all of them.
#[derive(Default)]
pub(crate) struct Raw {
    pub(crate) cold: String,
    pub(crate) warm: String,
}

pub(crate) const COLD_HEADER: &str = "model,engine,round,exec_ms,load_ms,first_run_ms,peak_kib\n";
pub(crate) const WARM_HEADER: &str = "model,engine,round,first_run_ms,run_ms,peak_kib\n";

/// An engine that takes part in a case, with what it has measured so far.
struct Contender<'a> {
    engine: &'a Engine,
    cold: Vec<Sample>,
    warm: Vec<Sample>,
}

/// Measures one case with the given engines; those that refuse it are listed with their words.
pub(crate) fn measure(
    setup: &Setup,
    case: &Case,
    engines: &[&Engine],
    runs: usize,
    raw: &mut Raw,
) -> Result<Vec<EngineSummary>> {
    let mut refused = BTreeMap::new();
    let mut contenders = Vec::new();
    for engine in engines {
        match admitted(setup, case, engine) {
            Ok(()) => contenders.push(Contender { engine, cold: Vec::new(), warm: Vec::new() }),
            Err(why) => drop(refused.insert(engine.id, format!("{why:#}"))),
        }
    }
    let outputs = contenders.iter().map(|c| (c.engine.id, output_path(setup, case, c.engine)));
    let errors = setup.compare(case, outputs)?;
    cold_rounds(setup, case, &mut contenders, runs, &mut raw.cold)?;
    warm_rounds(setup, case, &mut contenders, &mut raw.warm)?;
    let ours: Option<Vec<f64>> =
        (contenders.iter().find(|c| c.engine.id == OURS)).map(|c| c.cold.iter().map(|s| s.exec_ms).collect());
    let summary = |engine: &&Engine| {
        let figures = match contenders.iter().find(|c| c.engine.id == engine.id) {
            Some(contender) => Some(figures(setup, case, contender, ours.as_deref(), &errors)?),
            None => None,
        };
        Ok(EngineSummary { id: engine.id.to_owned(), refused: refused.remove(engine.id), figures })
    };
    engines.iter().map(summary).collect()
}

/// One run that is not counted: it shows whether the engine takes the model at all, warms the page cache and leaves
/// the answer to compare.
fn admitted(setup: &Setup, case: &Case, engine: &Engine) -> Result<()> {
    if let Some(why) = setup.refusal(case, engine) {
        bail!("{why}");
    }
    let output = output_path(setup, case, engine);
    sample(setup.command(case, engine, 1).arg("--output").arg(output)).map(drop)
}

/// Where the engine's answer to the case's inputs goes.
pub(crate) fn output_path(setup: &Setup, case: &Case, engine: &Engine) -> PathBuf {
    setup.folder(case).join(format!("{}.out.npz", engine.id))
}

fn cold_rounds(
    setup: &Setup,
    case: &Case,
    contenders: &mut [Contender<'_>],
    runs: usize,
    csv: &mut String,
) -> Result<()> {
    for round in 0..runs {
        for turn in 0..contenders.len() {
            let index = (round + turn) % contenders.len();
            let engine = contenders[index].engine;
            let s = sample(&mut setup.command(case, engine, 1)).with_context(|| told(case, engine))?;
            let r = &s.report;
            writeln!(
                csv,
                "{},{},{round},{:.3},{:.3},{:.3},{}",
                case.name,
                engine.id,
                s.exec_ms,
                r.load_ms,
                r.first_run_ms,
                kib(r.peak_rss_bytes)
            )?;
            contenders[index].cold.push(s);
        }
    }
    Ok(())
}

fn warm_rounds(setup: &Setup, case: &Case, contenders: &mut [Contender<'_>], csv: &mut String) -> Result<()> {
    for round in 0..WARM_ROUNDS {
        for turn in 0..contenders.len() {
            let index = (round + turn) % contenders.len();
            let Contender { engine, cold, warm } = &mut contenders[index];
            let first = median(cold.iter().map(|s| s.report.first_run_ms));
            let runs = format!("{:.0}", (WARM_MS / first).clamp(WARM_RUNS.0, WARM_RUNS.1));
            let s = sample(setup.command(case, engine, 1).args(["--warm", &runs]));
            let s = s.with_context(|| told(case, engine))?;
            let r = &s.report;
            let run_ms = r.run_ms.unwrap_or(f64::NAN);
            writeln!(
                csv,
                "{},{},{round},{:.3},{run_ms:.3},{}",
                case.name,
                engine.id,
                r.first_run_ms,
                kib(r.warm_peak_rss_bytes)
            )?;
            warm.push(s);
        }
    }
    Ok(())
}

/// Who failed at what.
pub(crate) fn told(case: &Case, engine: &Engine) -> String {
    format!("{} on {}", engine.id, case.label())
}

pub(crate) fn kib(bytes: Option<u64>) -> String {
    bytes.map_or(String::new(), |b| (b / 1024).to_string())
}

fn figures(
    setup: &Setup,
    case: &Case,
    contender: &Contender<'_>,
    ours: Option<&[f64]>,
    errors: &BTreeMap<String, Option<f64>>,
) -> Result<Figures> {
    let Contender { engine, cold, warm } = contender;
    let exec = || cold.iter().map(|s| s.exec_ms);
    let ratios = ours.map(|ours| median(ours.iter().zip(exec()).map(|(ours, this)| ours / this)));
    let warm_run = |s: &Sample| s.report.run_ms.unwrap_or(f64::NAN);
    Ok(Figures {
        file_bytes: setup.file_bytes(case, engine)?,
        load_ms: median(cold.iter().map(|s| s.report.load_ms)),
        exec_ms: median(exec()),
        exec_ms_p10: quantile(exec(), 0.1),
        exec_ms_p90: quantile(exec(), 0.9),
        first_run_ms: median(cold.iter().map(|s| s.report.first_run_ms)),
        run_ms: median(warm.iter().map(warm_run)),
        first_over_warm: median(warm.iter().map(|s| s.report.first_run_ms / warm_run(s))),
        peak_rss_bytes: median_bytes(cold.iter().filter_map(|s| s.report.peak_rss_bytes)),
        warm_peak_rss_bytes: median_bytes(warm.iter().filter_map(|s| s.report.warm_peak_rss_bytes)),
        ours_over_this: ratios.filter(|_| engine.id != OURS),
        output_error: errors.get(engine.id).copied().flatten(),
    })
}
