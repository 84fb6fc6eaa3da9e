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
use std::time::Instant;

/// Warm runs that are not timed: enough to settle, few where one takes long.
const WARM_UPS: std::ops::RangeInclusive<usize> = 3..=10;

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
    let warm_peak_rss_bytes = run_ms.and_then(|_| self::peak_rss_bytes());
    report(&Report { load_ms, first_run_ms, run_ms, peak_rss_bytes, warm_peak_rss_bytes })
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

    struct Counting(usize);

    impl Engine for Counting {
        fn run(&mut self, _: &[Named]) -> Result<Vec<Named>> {
            self.0 += 1;
            Ok(Vec::new())
        }
    }

    #[test]
    fn warm_runs_are_the_timed_ones_after_a_few_that_are_not() {
        for (runs, all) in [(0, 0), (2, 5), (5, 10), (20, 30)] {
            let mut engine = Counting(0);
            assert_eq!(warm(&mut engine, &[], runs).unwrap().is_some(), runs > 0);
            assert_eq!(engine.0, all, "{runs} runs");
        }
        assert!(answered(&[]).is_err(), "no output is no answer");
    }
}
