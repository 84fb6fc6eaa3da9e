//! `bench`: cold starts beside the rivals', archived, and the tables made from the archive.
//!
//! Read in this order: `cases` and `engines` (what is measured, two tables), `setup` (what has to be there),
//! `process` (one measured process), `cold`, `stream` and `lambda` (the three parts), `summary`, `archive`, `plots`,
//! `tables` (what becomes of the samples).

mod archive;
mod cases;
mod cloud;
mod cold;
mod engines;
mod lambda;
mod machine;
mod plots;
mod process;
mod setup;
mod stream;
mod summary;
mod tables;

use anyhow::{Context, Result, bail};
use archive::Samples;
use cases::{CASES, Case};
use clap::{Args, Subcommand};
use engines::{ENGINES, Engine};
use setup::Setup;
use std::fs;
use summary::{CaseSummary, Summary};

#[derive(Subcommand)]
pub(crate) enum Bench {
    /// Measures cold starts of this engine and its rivals in turn, and archives the run
    Cold(ColdArgs),
    /// Makes the tables of docs/benchmarks.md and README.md from the newest archived run
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

/// Runs the chore.
pub(crate) fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Cold(args) => cold(args),
        Bench::Tables { check: true } => tables::check(),
        Bench::Tables { check: false } => tables::write(),
    }
}

fn cold(args: &ColdArgs) -> Result<()> {
    let cases: Vec<&Case> = chosen(&args.models, CASES, |c| c.name)?;
    let engines: Vec<&Engine> = chosen(&args.engines, ENGINES, |e| e.id)?;
    let setup = Setup::ensure(&cases, !args.no_build)?;
    let mut summary = described(&setup, args);
    if !process::pin_to(process::MEASURED_CORE) {
        eprintln!("taskset is missing: nothing is pinned, so expect more noise");
    }
    let mut samples = Samples::default();
    for case in cases {
        eprintln!("{}", case.name);
        summary.cases.push(measured(&setup, case, &engines, args, &mut samples)?);
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&summary)?);
        return Ok(());
    }
    let dir = archive::write(&summary, &samples)?;
    println!("{}", dir.display());
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

fn described(setup: &Setup, args: &ColdArgs) -> Summary {
    let words: Vec<String> = std::env::args().skip(1).collect();
    Summary {
        date: machine::date(),
        command: format!("cargo xtask {}", words.join(" ")),
        commit: format!(
            "{}{}",
            machine::commit(),
            if args.no_build { ", binaries of an earlier build" } else { "" }
        ),
        machine: machine::describe(),
        versions: machine::versions(&mut setup.python_itself()),
        runs: args.runs,
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
