//! `bench`: cold starts and warm runs beside the rivals', archived, and the tables made from the archive.
//!
//! Read in this order: `cases` and `engines` (what is measured, two tables), `setup` (what has to be there),
//! `process` (one measured process), `cold`, `stream` and `lambda` (the three parts of a cold run), `warm`, `summary`,
//! `archive`, `plots`, `tables` and `warm_tables` (what becomes of the samples).

mod archive;
mod cases;
mod cloud;
mod cold;
mod compress;
mod engines;
mod int8;
mod lambda;
mod machine;
mod plots;
mod process;
mod setup;
mod stream;
mod summary;
mod tables;
mod warm;
mod warm_tables;

use crate::{eval_data, models, workspace};
use anyhow::{Context, Result, bail, ensure};
use archive::Samples;
use cases::{CASES, Case};
use clap::{Args, Subcommand};
use engines::{ENGINES, Engine, INT8, ORT, OURS, WARM};
use setup::Setup;
use std::fs;
use std::thread::available_parallelism;
use summary::{CaseSummary, CompressedCase, Kind, Summary, WarmCase};
use warm::{Effort, Place};

#[derive(Subcommand)]
pub(crate) enum Bench {
    /// Measures cold starts of this engine and its rivals in turn, and archives the run
    Cold(ColdArgs),
    /// Measures warm runs of this engine and its rivals in turn, by batch and threads, and archives the run
    Warm(WarmArgs),
    /// Packs the trained models in fewer bits, measures what that costs on real data, and archives the run
    Compress(CompressArgs),
    /// Measures warm runs of convolutional networks in f32 and in int8, this engine's and ONNX Runtime's in turn, and archives the run
    Int8(Int8Args),
    /// Makes the tables of docs/benchmarks.md and README.md from the newest archived run of each kind
    Tables {
        /// Fails where they differ, and writes nothing
        #[arg(long)]
        check: bool,
    },
}

#[derive(Args)]
pub(crate) struct ColdArgs {
    /// Rounds of fresh processes; every engine runs once in each
    #[arg(long, default_value_t = 30)]
    runs: usize,
    /// Rounds of the stream and lambda parts
    #[arg(long, default_value_t = 10)]
    cloud_runs: usize,
    /// Only these models
    #[arg(long, value_delimiter = ',', value_name = "NAME,..")]
    models: Vec<String>,
    /// Only these engines
    #[arg(long, value_delimiter = ',', value_name = "ID,..")]
    engines: Vec<String>,
    /// Only local files: neither S3 nor Lambda
    #[arg(long)]
    local_only: bool,
    /// Measures the binaries that are there already
    #[arg(long)]
    no_build: bool,
    /// Prints the summary as JSON, and archives nothing
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(crate) struct WarmArgs {
    /// Only these models
    #[arg(long, value_delimiter = ',', value_name = "NAME,..")]
    models: Vec<String>,
    /// These engines
    #[arg(long, value_delimiter = ',', value_name = "ID,..", default_values = WARM)]
    engines: Vec<String>,
    /// Rows per inference; models that take one at a time are measured at 1 only
    #[arg(long, value_delimiter = ',', value_name = "N,..", default_values_t = [1, 8, 32],
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    batches: Vec<u32>,
    /// Compute threads, each on a core of its own
    #[arg(long, value_delimiter = ',', value_name = "N,..", default_values_t = [1, 2],
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Vec<u32>,
    /// Rounds of one process per engine; three where those of a model take long
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each process times runs
    #[arg(long, value_name = "MS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    budget_ms: u32,
    /// Measures the binaries that are there already
    #[arg(long)]
    no_build: bool,
    /// Prints the summary as JSON, and archives nothing
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(crate) struct CompressArgs {
    /// Only these models
    #[arg(long, value_delimiter = ',', value_name = "NAME,..")]
    models: Vec<String>,
    /// Fresh processes and warm runs of each pack
    #[arg(long, default_value_t = 20)]
    runs: usize,
    /// Fresh processes that fetch each pack from S3, for each link; none where 0
    #[arg(long, default_value_t = 7)]
    cloud_runs: usize,
    /// Measures the binaries that are there already
    #[arg(long)]
    no_build: bool,
    /// Prints the summary as JSON, and archives nothing
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(crate) struct Int8Args {
    /// These models
    #[arg(long, value_delimiter = ',', value_name = "NAME,..", default_values = int8::MODELS)]
    models: Vec<String>,
    /// Rounds of one process per engine; three where those of a model take long
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// How long each process times runs
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    budget_ms: u32,
    /// Measures the binaries that are there already
    #[arg(long)]
    no_build: bool,
    /// Prints the summary as JSON, and archives nothing
    #[arg(long)]
    json: bool,
}

/// Runs the chore.
pub(crate) fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Cold(args) => cold(args),
        Bench::Warm(args) => warm(args),
        Bench::Compress(args) => compress(args),
        Bench::Int8(args) => int8(args),
        Bench::Tables { check: true } => tables::check(),
        Bench::Tables { check: false } => tables::write(),
    }
}

fn cold(args: &ColdArgs) -> Result<()> {
    let cases: Vec<&Case> = chosen(&args.models, CASES, |c| c.name)?;
    let engines: Vec<&Engine> = chosen(&args.engines, ENGINES, |e| e.id)?;
    // Functions are measured too, so every engine's files are needed.
    let all: Vec<&Engine> = ENGINES.iter().collect();
    let setup = Setup::ensure(&cases, &all, !args.no_build)?;
    let mut summary = described(&setup, args.runs, args.no_build);
    process::pin(1);
    let mut samples = Samples::default();
    for case in cases {
        eprintln!("{}", case.name);
        summary.cases.push(measured(&setup, case, &engines, args, &mut samples)?);
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&summary)?);
        return Ok(());
    }
    let dir = archive::write(&summary, samples.files().into_iter().chain(plots::cold(&summary)))?;
    println!("{}", dir.display());
    Ok(())
}

fn warm(args: &WarmArgs) -> Result<()> {
    let models: Vec<&Case> = chosen(&args.models, CASES, |c| c.name)?;
    let engines: Vec<&Engine> = chosen(&args.engines, ENGINES, |e| e.id)?;
    let cores = available_parallelism()?.get();
    for threads in &args.threads {
        ensure!(
            *threads as usize <= cores,
            "found {cores} cores, wanted at most as many --threads, not {threads}"
        );
    }
    let cases: Vec<Case> =
        models.iter().flat_map(|m| args.batches.iter().filter_map(|b| m.at(*b).ok())).collect();
    let setup = Setup::ensure(&cases.iter().collect::<Vec<_>>(), &engines, !args.no_build)?;
    let mut summary: Summary<WarmCase> = described(&setup, args.rounds, args.no_build);
    let effort = Effort { rounds: args.rounds, budget_ms: args.budget_ms };
    let mut csv = warm::HEADER.to_owned();
    for model in models {
        for batch in &args.batches {
            for threads in &args.threads {
                eprintln!("{}, batch {batch}, threads {threads}", model.name);
                summary.cases.push(match model.at(*batch) {
                    Err(why) => warm::gap(model, *batch, *threads, why),
                    Ok(case) => {
                        process::pin(*threads);
                        let place = Place { case: &case, batch: *batch, threads: *threads };
                        warm::measure(&setup, place, &engines, effort, &mut csv)?
                    }
                });
            }
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&summary)?);
    } else {
        let samples = ("runs.csv".to_owned(), csv);
        let dir = archive::write(&summary, plots::warm(&summary).into_iter().chain([samples]))?;
        println!("{}", dir.display());
    }
    right(&summary)
}

fn compress(args: &CompressArgs) -> Result<()> {
    let rows = chosen(&args.models, compress::ROWS, |row| row.name)?;
    eval_data::make(None, false)?;
    // Of the rivals nothing is needed; inputs, what is built and how versions are told are the same.
    let cases = rows.iter().map(|row| row.case()).collect::<Result<Vec<_>>>()?;
    let ours = chosen(&[OURS.to_owned()], ENGINES, |e| e.id)?;
    let setup = Setup::ensure(&cases, &ours, !args.no_build)?;
    let mut summary: Summary<CompressedCase> = described(&setup, args.runs, args.no_build);
    let packs = workspace::cache("GLOWPLUG_BENCH_DIR", "bench")?.join("compressed");
    fs::create_dir_all(&packs).with_context(|| format!("making {}", packs.display()))?;
    let models = models::dir_or_default(None)?;
    for row in rows {
        let effort = compress::Effort { runs: args.runs, cloud_runs: args.cloud_runs };
        let found = compress::measure(&setup, row, &models, &packs, effort)?;
        summary.cases.push(found);
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&summary)?);
        return Ok(());
    }
    let table = compress::table(&summary.cases);
    print!("{table}");
    println!("{}", archive::write(&summary, [("table.md".to_owned(), table)])?.display());
    Ok(())
}

/// On one thread, one image at a time.
fn int8(args: &Int8Args) -> Result<()> {
    let cases: Vec<&Case> = chosen(&args.models, CASES, |c| c.name)?;
    let f32 = ENGINES.iter().filter(|e| [OURS, ORT].contains(&e.id));
    let engines: Vec<&Engine> = f32.chain(INT8).collect();
    let setup = Setup::ensure(&cases, &engines, !args.no_build)?;
    let mut summary: Summary<WarmCase> = described(&setup, args.rounds, args.no_build);
    summary.kind = int8::KIND.to_owned();
    let effort = Effort { rounds: args.rounds, budget_ms: args.budget_ms };
    let mut csv = warm::HEADER.to_owned();
    process::pin(1);
    for case in cases {
        eprintln!("{}", case.name);
        let place = Place { case, batch: 1, threads: 1 };
        summary.cases.push(warm::measure(&setup, place, &engines, effort, &mut csv)?);
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&summary)?);
    } else {
        let table = int8::table(&summary.cases);
        print!("{table}");
        let files = [("runs.csv".to_owned(), csv), ("table.md".to_owned(), table)];
        println!("{}", archive::write(&summary, files)?.display());
    }
    right(&summary)
}

/// Errors: this engine answered wrongly somewhere. What rivals answer is told in the summary.
fn right(summary: &Summary<WarmCase>) -> Result<()> {
    let wrong = |c: &&WarmCase| c.engines.iter().any(|e| e.id == OURS && e.wrong);
    let wrong: Vec<String> = (summary.cases.iter().filter(wrong))
        .map(|c| format!("{} (batch {}, threads {})", c.model, c.batch, c.threads))
        .collect();
    ensure!(wrong.is_empty(), "{OURS} answers wrongly: {}", wrong.join(", "));
    Ok(())
}

fn measured(
    setup: &Setup,
    case: &Case,
    engines: &[&Engine],
    args: &ColdArgs,
    samples: &mut Samples,
) -> Result<CaseSummary> {
    let onnx = setup.folder(case).join("model.onnx");
    let onnx_bytes = fs::metadata(&onnx).with_context(|| format!("reading {}", onnx.display()))?.len();
    let mut summary = CaseSummary {
        name: case.name.to_owned(),
        onnx_bytes,
        random_weights: case.random_weights,
        engines: cold::measure(setup, case, engines, args.runs, &mut samples.cold)?,
        stream: Vec::new(),
        lambda: Vec::new(),
    };
    if !args.local_only {
        summary.stream = stream::measure(setup, case, &summary, args.cloud_runs, &mut samples.stream)?;
        summary.lambda = lambda::measure(setup, case, &summary, args.cloud_runs, &mut samples.lambda)?;
    }
    Ok(summary)
}

fn described<C: Kind>(setup: &Setup, runs: usize, no_build: bool) -> Summary<C> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    Summary {
        kind: C::KIND.to_owned(),
        date: machine::date(),
        command: format!("cargo xtask {}", words.join(" ")),
        commit: format!(
            "{}{}",
            machine::commit(),
            if no_build { ", binaries of an earlier build" } else { "" }
        ),
        machine: machine::describe(),
        versions: machine::versions(&mut setup.python_itself()),
        runs,
        cases: Vec::new(),
    }
}

/// The rows of a table that were named, in the table's order; all where none was. Errors: an unknown name.
fn chosen<'a, T>(names: &[String], table: &'a [T], name: impl Fn(&T) -> &str) -> Result<Vec<&'a T>> {
    if let Some(unknown) = names.iter().find(|n| !table.iter().any(|row| name(row) == n.as_str())) {
        let known: Vec<&str> = table.iter().map(&name).collect();
        bail!("found {unknown:?}, wanted one of {}", known.join(", "));
    }
    Ok(table.iter().filter(|row| names.is_empty() || names.iter().any(|n| n == name(row))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_choose_rows_and_unknown_ones_are_told() {
        assert_eq!(chosen(&[], CASES, |c| c.name).unwrap().len(), CASES.len());
        let found = chosen(&["mnist-cnn".to_owned()], CASES, |c| c.name).unwrap();
        assert_eq!(found.iter().map(|c| c.name).collect::<Vec<_>>(), ["mnist-cnn"]);
        let error = chosen(&["x".to_owned()], CASES, |c| c.name).err().unwrap().to_string();
        assert!(error.contains("found \"x\"") && error.contains("mnist-cnn"), "{error}");
    }
}
