//! What an engine is, and what its process does: load, answer, say so, measure, report.
//!
//! The first line on stdout, `answer ..`, ends the time from exec to first answer: whoever started the process
//! stops its clock there. The second line is a JSON report with what only the process itself can know.

use crate::args::Args;
use crate::{Named, npz};
use anyhow::{Context, Result};
use glowplug_pack::TensorData;
use serde::Serialize;
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Warm runs that are not timed: enough to settle, few where one takes long.
const WARM_UPS: std::ops::RangeInclusive<usize> = 3..=10;
/// Where the first run took longer, it was all the warm-up that a budget has time for.
const LONG_RUN: Duration = Duration::from_secs(1);

/// A loaded model.
pub trait Engine {
    /// One inference: all outputs by name. What it costs to hand tensors in and out is part of a run.
    fn run(&mut self, inputs: &[Named]) -> Result<Vec<Named>>;
}

/// The report of one process.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Bytes or path to something that can run.
    pub load_ms: f64,
    /// The first inference.
    pub first_run_ms: f64,
    /// Median of the timed warm inferences.
    pub run_ms: Option<f64>,
    /// All of them, where a budget of time was given for them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runs_ns: Vec<u64>,
    /// Most memory ever held when the first answer was there.
    pub peak_rss_bytes: Option<u64>,
    /// The same after the warm runs.
    pub warm_peak_rss_bytes: Option<u64>,
}

/// The whole program of an engine.
pub fn main<E: Engine>(load: impl FnOnce(&Args, &[Named]) -> Result<E>) -> ExitCode {
    match process(load) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn process<E: Engine>(load: impl FnOnce(&Args, &[Named]) -> Result<E>) -> Result<()> {
    let args = Args::parse(std::env::args().skip(1))?;
    let inputs = npz::read(&args.input)?;
    let started = Instant::now();
    let mut engine = load(&args, &inputs)?;
    let load_ms = ms_since(started);
    let started = Instant::now();
    let outputs = engine.run(&inputs)?;
    let first_run_ms = ms_since(started);
    answered(&outputs)?;
    let peak_rss_bytes = peak_rss_bytes();
    if let Some(path) = &args.output {
        npz::write(path, &outputs)?;
    }
    let run_ms = warm(&mut engine, &inputs, args.warm)?;
    let budget = Duration::from_millis(args.budget_ms);
    let runs_ns = within(&mut engine, &inputs, budget, Duration::from_secs_f64(first_run_ms / 1e3))?;
    let ran = run_ms.is_some() || !runs_ns.is_empty();
    let warm_peak_rss_bytes = ran.then(self::peak_rss_bytes).flatten();
    report(&Report { load_ms, first_run_ms, run_ms, runs_ns, peak_rss_bytes, warm_peak_rss_bytes })
}

/// Says that the answer is there, with its first value as a proof. Errors: stdout is closed; no output.
pub fn answered(outputs: &[Named]) -> Result<()> {
    let (name, tensor) = outputs.first().context("the model has no output")?;
    let first = match tensor.data() {
        TensorData::F32(v) => v.first().map(ToString::to_string),
        TensorData::I64(v) => v.first().map(ToString::to_string),
        TensorData::I32(v) => v.first().map(ToString::to_string),
        _ => None,
    };
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "answer {name} {}", first.unwrap_or_default())?;
    Ok(stdout.flush()?)
}

/// Prints the report as one line of JSON.
pub fn report(report: &impl Serialize) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", serde_json::to_string(report)?)?;
    Ok(stdout.flush()?)
}

fn warm(engine: &mut impl Engine, inputs: &[Named], runs: usize) -> Result<Option<f64>> {
    if runs == 0 {
        return Ok(None);
    }
    for _ in 0..runs.clamp(*WARM_UPS.start(), *WARM_UPS.end()) {
        engine.run(inputs)?;
    }
    let mut times = Vec::with_capacity(runs);
    for _ in 0..runs {
        let started = Instant::now();
        engine.run(inputs)?;
        times.push(ms_since(started));
    }
    times.sort_by(f64::total_cmp);
    Ok(times.get(runs / 2).copied())
}

/// Nanoseconds of every run until `budget` is spent, at least of one; before them, untimed ones for a third of it.
fn within(
    engine: &mut impl Engine,
    inputs: &[Named],
    budget: Duration,
    first_run: Duration,
) -> Result<Vec<u64>> {
    let mut times = Vec::new();
    if budget.is_zero() {
        return Ok(times);
    }
    let started = Instant::now();
    while first_run < LONG_RUN && started.elapsed() < budget / 3 {
        engine.run(inputs)?;
    }
    let mut last = Instant::now();
    let end = last + budget;
    while last < end {
        let started = Instant::now();
        engine.run(inputs)?;
        last = Instant::now();
        times.push(u64::try_from((last - started).as_nanos())?);
    }
    Ok(times)
}

/// Milliseconds since `start`.
#[must_use]
pub fn ms_since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// The most memory this process ever held: `VmHWM` on Linux; unknown elsewhere.
#[must_use]
pub fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts its runs, and takes some milliseconds for each.
    struct Counting(usize, u64);

    impl Engine for Counting {
        fn run(&mut self, _: &[Named]) -> Result<Vec<Named>> {
            self.0 += 1;
            std::thread::sleep(Duration::from_millis(self.1));
            Ok(Vec::new())
        }
    }

    #[test]
    fn warm_runs_are_the_timed_ones_after_a_few_that_are_not() {
        for (runs, all) in [(0, 0), (2, 5), (5, 10), (20, 30)] {
            let mut engine = Counting(0, 0);
            assert_eq!(warm(&mut engine, &[], runs).unwrap().is_some(), runs > 0);
            assert_eq!(engine.0, all, "{runs} runs");
        }
        assert!(answered(&[]).is_err(), "no output is no answer");
    }

    #[test]
    fn a_budget_is_spent_on_timed_runs_after_a_third_of_it_on_others() {
        let timed = |run_ms, budget_ms, first_ms| {
            let mut engine = Counting(0, run_ms);
            let (budget, first) = (Duration::from_millis(budget_ms), Duration::from_millis(first_ms));
            let times = within(&mut engine, &[], budget, first).unwrap();
            assert!(times.iter().all(|ns| *ns >= run_ms * 1_000_000), "{times:?}");
            (times.len(), engine.0 - times.len())
        };
        assert_eq!(timed(1, 0, 1), (0, 0), "no budget, no runs");
        assert_eq!(timed(50, 30, 50), (1, 1), "one run at least, after one that is not timed");
        assert_eq!(timed(50, 30, 2000), (1, 0), "a long first run was the warm-up");
        let (runs, others) = timed(1, 60, 1);
        assert!((2..=60).contains(&runs) && (2..=20).contains(&others), "{runs} runs, {others} others");
    }
}
