//! `glowplug bench`: how long a pack takes to start and to run.
//!
//! `plan_ms`, `first_run_ms` and `peak_rss_bytes` are properties of a fresh process, so each sample is a child
//! of its own; `run_ms` comes from one process after ten warm-ups.

mod nodes;

use crate::npz;
use crate::report::{Table, bytes, print};
use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueHint};
use glowplug_pack::manifest::option_of_rows;
use glowplug_pack::{Dtype, Manifest, Tensor, TensorData};
use glowplug_predict::{Model, Timings};
use glowplug_processing::v2::NamedTensor;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

/// Runs whose time is not counted.
const WARM_UPS: usize = 10;
/// Below this many samples there is no 99th percentile.
const SAMPLES_FOR_P99: usize = 100;

/// Measure a pack: bytes to plan, first run and peak memory in fresh processes, warm runs in one.
#[derive(Args)]
#[command(after_help = "Example:\n  glowplug bench mnist-cnn.glow --runs 100 --json")]
pub(crate) struct BenchArgs {
    /// The pack.
    #[arg(value_hint = ValueHint::FilePath)]
    pack: PathBuf,
    /// Samples: fresh processes, and warm runs. p99 needs 100.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: u32,
    #[command(flatten)]
    inference: super::InferenceArgs,
    /// Rows per inference; more than the pack was made for run one after the other.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: Option<u32>,
    /// Inputs from an npz file instead of seeded ones.
    #[arg(long, value_hint = ValueHint::FilePath, conflicts_with = "batch")]
    input: Option<PathBuf>,
    /// The time of each operator and of each node instead, over the warm runs.
    #[arg(long)]
    nodes: bool,
    /// JSON on stdout.
    #[arg(long)]
    json: bool,
    /// One cold sample, as JSON, for the parent process.
    #[arg(long, hide = true)]
    cold_sample: bool,
}

/// The answer.
#[derive(Serialize)]
struct Bench {
    model: String,
    /// What the plan was made from.
    source: &'static str,
    bytes: u64,
    plan_ms: Spread,
    first_run_ms: Spread,
    run_ms: Spread,
    peak_rss_bytes: Option<u64>,
    /// Median of the pages that a warm run took from the system: 0 where all memory was there already.
    run_page_faults: Option<u64>,
}

/// Milliseconds over all samples. `p99` needs a hundred of them.
#[derive(Serialize)]
struct Spread {
    min: f64,
    p50: f64,
    p99: Option<f64>,
}

/// What one fresh process measured.
#[derive(Clone, Serialize, Deserialize)]
struct ColdSample {
    plan_ms: f64,
    first_run_ms: f64,
    peak_rss_bytes: Option<u64>,
}

/// Runs the command.
pub(crate) fn run(args: &BenchArgs) -> Result<ExitCode> {
    if args.cold_sample {
        print(&Json(cold_sample(args)?), true)?;
        return Ok(ExitCode::SUCCESS);
    }
    let (model, inputs) = load(args)?;
    if args.nodes {
        print(&nodes::of(&model, &inputs, args.runs)?, args.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let bar = crate::progress::bar(u64::from(args.runs) * 2);
    bar.set_message("cold");
    let cold = (0..args.runs).map(|_| {
        bar.inc(1);
        child(args)
    });
    let cold = cold.collect::<Result<Vec<_>>>()?;
    bar.set_message("warm");
    let warm = warm(args, &model, &inputs, &bar)?;
    bar.finish_and_clear();
    let report = Bench {
        model: model.manifest().model.name.clone(),
        source: model.source(),
        bytes: model.pack_bytes(),
        plan_ms: Spread::of(cold.iter().map(|s| s.plan_ms)),
        first_run_ms: Spread::of(cold.iter().map(|s| s.first_run_ms)),
        run_ms: Spread::of(warm.iter().map(|run| run.ms)),
        run_page_faults: median(warm.iter().filter_map(|run| run.page_faults).collect()),
        peak_rss_bytes: median(cold.iter().filter_map(|s| s.peak_rss_bytes).collect()),
    };
    print(&report, args.json)?;
    Ok(ExitCode::SUCCESS)
}

/// What one pack measured, medians in milliseconds.
#[derive(Serialize)]
pub(super) struct Measured {
    pub(super) plan_ms: f64,
    pub(super) first_run_ms: f64,
    pub(super) run_ms: f64,
    pub(super) peak_rss_bytes: Option<u64>,
}

/// Fresh processes and warm runs of each of several packs, in turn, so that what else the machine does falls on all of them.
pub(super) fn in_turn(
    packs: &[PathBuf],
    models: &[Model],
    inference: super::InferenceArgs,
    runs: u32,
) -> Result<Vec<Measured>> {
    let of = |pack: &PathBuf| BenchArgs {
        pack: pack.clone(),
        runs,
        inference,
        batch: None,
        input: None,
        nodes: false,
        json: true,
        cold_sample: false,
    };
    let args: Vec<BenchArgs> = packs.iter().map(of).collect();
    let inputs = models.iter().map(|model| seeded(model.manifest(), None)).collect::<Result<Vec<_>>>()?;
    let bar = crate::progress::bar(u64::from(runs) * 2);
    bar.set_message("cold");
    let (mut cold, mut warm) = (vec![Vec::new(); packs.len()], vec![Vec::new(); packs.len()]);
    for _ in 0..runs {
        bar.inc(1);
        for (args, samples) in args.iter().zip(&mut cold) {
            samples.push(child(args)?);
        }
    }
    bar.set_message("warm");
    for (model, inputs) in models.iter().zip(&inputs) {
        (0..WARM_UPS).try_for_each(|_| warm_run(model, inputs).map(drop))?;
    }
    for _ in 0..runs {
        bar.inc(1);
        for ((model, inputs), samples) in models.iter().zip(&inputs).zip(&mut warm) {
            samples.push(warm_run(model, inputs)?);
        }
    }
    bar.finish_and_clear();
    let measured = cold.iter().zip(&warm).map(|(cold, warm)| Measured {
        plan_ms: Spread::of(cold.iter().map(|s| s.plan_ms)).p50,
        first_run_ms: Spread::of(cold.iter().map(|s| s.first_run_ms)).p50,
        run_ms: Spread::of(warm.iter().map(|run: &WarmRun| run.ms)).p50,
        peak_rss_bytes: median(cold.iter().filter_map(|s: &ColdSample| s.peak_rss_bytes).collect()),
    });
    Ok(measured.collect())
}

fn load(args: &BenchArgs) -> Result<(Model, Vec<NamedTensor>)> {
    let model = super::open_model(&args.pack, args.inference)?;
    let inputs = match &args.input {
        Some(path) => npz::read(path)?,
        None => seeded(model.manifest(), args.batch)?,
    };
    Ok((model, inputs))
}

fn cold_sample(args: &BenchArgs) -> Result<ColdSample> {
    let (model, inputs) = load(args)?;
    let load = model.load_timings();
    let mut first = Timings::default();
    model.infer(inputs, None, &mut first)?;
    Ok(ColdSample {
        plan_ms: load.plan_ms.context("the load was not timed")?,
        first_run_ms: first.run_ms.context("the run was not timed")?,
        peak_rss_bytes: peak_rss_bytes(),
    })
}

/// One sample from a fresh process with the same arguments.
fn child(args: &BenchArgs) -> Result<ColdSample> {
    let mut command = Command::new(std::env::current_exe().context("cannot find this program's own file")?);
    command
        .arg("bench")
        .arg(&args.pack)
        .arg("--cold-sample")
        .args(["--threads", &args.inference.threads.to_string()]);
    if args.inference.portable {
        command.arg("--portable");
    }
    if let Some(batch) = args.batch {
        command.args(["--batch", &batch.to_string()]);
    }
    if let Some(input) = &args.input {
        command.arg("--input").arg(input);
    }
    let output = command.stderr(Stdio::inherit()).output().context("cannot start a fresh process")?;
    ensure!(output.status.success(), "a fresh process ended with {}", output.status);
    serde_json::from_slice(&output.stdout).context("a fresh process did not print its sample")
}

/// What one warm run measured.
#[derive(Clone)]
struct WarmRun {
    ms: f64,
    page_faults: Option<u64>,
}

fn warm(
    args: &BenchArgs,
    model: &Model,
    inputs: &[NamedTensor],
    bar: &indicatif::ProgressBar,
) -> Result<Vec<WarmRun>> {
    let once = || warm_run(model, inputs);
    (0..WARM_UPS).try_for_each(|_| once().map(drop))?;
    (0..args.runs)
        .map(|_| {
            bar.inc(1);
            once()
        })
        .collect()
}

fn warm_run(model: &Model, inputs: &[NamedTensor]) -> Result<WarmRun> {
    let (mut timings, before) = (Timings::default(), page_faults());
    model.infer(inputs.to_vec(), None, &mut timings)?;
    let page_faults = page_faults().zip(before).map(|(after, before)| after - before);
    Ok(WarmRun { ms: timings.run_ms.context("a run was not timed")?, page_faults })
}

/// Inputs that look like data, from a fixed seed: floats in 0..1; integers that choose rows below their number, as far as
/// the pack tells it, others 0 or 1, as masks are.
pub(super) fn seeded(manifest: &Manifest, batch: Option<u32>) -> Result<Vec<NamedTensor>> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut inputs = Vec::with_capacity(manifest.inputs.len());
    for spec in &manifest.inputs {
        let mut shape = spec.shape();
        if let Some(batch) = batch {
            match spec.axes.first() {
                Some(axis) if axis.symbolic => shape[0] = usize::try_from(batch)?,
                _ => bail!("input {:?} has no batch axis: leave out --batch", spec.name),
            }
        }
        let n = glowplug_pack::element_count(&shape).context("the batch is too large")?;
        let rows =
            manifest.provenance.options.get(&option_of_rows(&spec.name)).and_then(|rows| rows.parse().ok());
        // Below 2^31, whatever a pack says; ones and zeros where it says nothing.
        let rows = rows.unwrap_or(2u32).clamp(1, i32::MAX.cast_unsigned());
        let mut number = || u32::try_from((next() >> 32) % u64::from(rows)).unwrap_or_default();
        #[allow(clippy::cast_precision_loss, reason = "24 bits fit an f32")]
        let data = match spec.dtype {
            Dtype::F32 => {
                TensorData::F32((0..n).map(|_| (next() >> 40) as f32 / (1u64 << 24) as f32).collect())
            }
            Dtype::F16 => TensorData::F16((0..n).map(|_| if next() & 1 == 0 { 0 } else { 0x3c00 }).collect()),
            Dtype::I64 => TensorData::I64((0..n).map(|_| i64::from(number())).collect()),
            Dtype::I32 => TensorData::I32((0..n).map(|_| number().cast_signed()).collect()),
            Dtype::I8 => TensorData::I8((0..n).map(|_| i8::from(next() & 1 == 1)).collect()),
            Dtype::U8 => TensorData::U8((0..n).map(|_| u8::from(next() & 1 == 1)).collect()),
            Dtype::Bool => TensorData::Bool((0..n).map(|_| next() & 1 == 1).collect()),
        };
        inputs.push(NamedTensor { name: spec.name.clone(), tensor: Tensor::new(shape, data)? });
    }
    Ok(inputs)
}

/// The most memory this process ever held: `VmHWM` on Linux; unknown elsewhere.
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Pages that the system has handed this process so far, its `minflt` on Linux; unknown elsewhere.
fn page_faults() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the program's name, which may hold anything: state, parent, group, session, terminal, its group, flags.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(7)?.parse().ok()
}

fn median<T: PartialOrd + Copy>(mut values: Vec<T>) -> Option<T> {
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    values.get(values.len() / 2).copied()
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |q: usize| values.get((values.len() * q / 100).min(values.len().saturating_sub(1))).copied();
        let p99 = at(99).filter(|_| values.len() >= SAMPLES_FOR_P99);
        Spread { min: values.first().copied().unwrap_or(f64::NAN), p50: at(50).unwrap_or(f64::NAN), p99 }
    }
}

impl fmt::Display for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, {}, {} plan", self.model, bytes(self.bytes), self.source)?;
        let mut table = Table::new(["stage (ms)", "min", "p50", "p99"]);
        for (name, s) in [("plan", &self.plan_ms), ("first run", &self.first_run_ms), ("run", &self.run_ms)] {
            let ms = |v: f64| format!("{v:.3}");
            table.row([name.into(), ms(s.min), ms(s.p50), s.p99.map_or("-".into(), ms)]);
        }
        write!(f, "{table}peak memory {}", self.peak_rss_bytes.map_or("unknown".into(), bytes))?;
        self.run_page_faults.map_or(Ok(()), |pages| write!(f, ", {pages} new pages in a warm run"))
    }
}

/// A value that is only ever printed as JSON.
#[derive(Serialize)]
struct Json<T>(T);

impl<T> fmt::Display for Json<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_need_a_hundred_samples_for_a_p99() {
        let s = Spread::of([3.0, 1.0, 2.0].into_iter());
        assert_eq!((s.min, s.p50, s.p99), (1.0, 2.0, None));
        let s = Spread::of((0..100).map(f64::from));
        assert_eq!((s.min, s.p50, s.p99), (0.0, 50.0, Some(99.0)));
    }

    #[test]
    fn a_model_without_a_batch_axis_refuses_a_batch() {
        let axis = glowplug_pack::manifest::Axis { name: "d0".into(), size: 1, symbolic: false };
        let input = glowplug_pack::manifest::InputSpec {
            name: "x".into(),
            dtype: Dtype::F32,
            axes: vec![axis],
            pipeline: vec![],
            pad: None,
        };
        let manifest = Manifest { inputs: vec![input], ..Manifest::default() };
        assert!(seeded(&manifest, Some(8)).unwrap_err().to_string().contains("\"x\" has no batch axis"));
        assert_eq!(seeded(&manifest, None).unwrap()[0].tensor.shape(), [1]);
    }
}
