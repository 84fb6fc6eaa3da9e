//! `glowplug compare`: packs side by side: size, accuracy, load, warm runs, memory.

use super::InferenceArgs;
use super::bench::{self, Measured};
use crate::folder;
use crate::report::{Table, bytes, print};
use anyhow::{Context, Result};
use clap::{Args, ValueHint};
use glowplug_packer::{Answers, Dataset, Feed, InputPort, Metric, PackerError, Score};
use glowplug_predict::{Model, Timings};
use glowplug_processing::v2::NamedTensor;
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Compare packs side by side: size, load, first and warm runs, memory, and with --eval accuracy.
#[derive(Args)]
#[command(
    after_help = "Example:\n  glowplug compare minilm.glow minilm-int8.glow --eval texts.npz --metric cosine:sentence_embedding"
)]
pub(crate) struct CompareArgs {
    /// The packs. What cosine, agreement and max-abs compare with is the first.
    #[arg(value_name = "PACK", required = true, num_args = 1.., value_hint = ValueHint::FilePath)]
    packs: Vec<PathBuf>,
    /// Samples with the model's inputs, and what is right for each, as `glowplug pack --eval` takes them.
    #[arg(long, value_name = "DATA", value_hint = ValueHint::AnyPath, requires = "metric", env = "GLOWPLUG_EVAL")]
    eval: Option<PathBuf>,
    /// top1, cer, auc, r2, cosine, agreement or max-abs, of the first output or of another as NAME:OUTPUT.
    #[arg(long, value_name = "METRIC", requires = "eval", env = "GLOWPLUG_METRIC")]
    metric: Option<Metric>,
    /// Fresh processes and warm runs of each pack, in turn.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: u32,
    #[command(flatten)]
    inference: InferenceArgs,
    /// JSON on stdout.
    #[arg(long)]
    json: bool,
}

/// The answer.
#[derive(Serialize)]
struct Comparison {
    #[serde(skip_serializing_if = "Option::is_none")]
    metric: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    samples: Option<usize>,
    packs: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    file: String,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<Score>,
    #[serde(flatten)]
    measured: Measured,
}

/// Runs the command.
pub(crate) fn run(args: &CompareArgs) -> Result<ExitCode> {
    let models = args.packs.iter().map(|path| super::open_model(path, args.inference));
    let models = models.collect::<Result<Vec<_>>>()?;
    let data = args.eval.as_ref().map(|path| read(path, &models)).transpose().context("--eval")?;
    let scores = match data.as_ref().zip(args.metric.as_ref()) {
        Some((data, metric)) => Some(scores(args, &models, data, metric)?),
        None => None,
    };
    let measured = bench::in_turn(&args.packs, &models, args.inference, args.runs)?;
    let packs =
        models.iter().zip(&args.packs).zip(measured).enumerate().map(|(i, ((model, path), measured))| Row {
            file: path.display().to_string(),
            bytes: model.pack_bytes(),
            score: scores.as_ref().map(|scores| scores[i]),
            measured,
        });
    let packs = packs.collect();
    let metric = args.metric.as_ref().map(ToString::to_string);
    print(&Comparison { metric, samples: data.as_ref().map(Dataset::samples), packs }, args.json)?;
    Ok(ExitCode::SUCCESS)
}

/// The samples at `path`; raw files as the first model takes them.
fn read(path: &Path, models: &[Model]) -> Result<Dataset> {
    folder::dataset(path, || {
        let model = models.first().context("no pack")?;
        let names = model.manifest().assets.keys();
        let asset = |name: &String| Ok((name.clone(), model.asset(name)?.unwrap_or_default().to_vec()));
        Ok((model.manifest().clone(), names.map(asset).collect::<Result<_>>()?))
    })
}

/// The metric of each model.
fn scores(args: &CompareArgs, models: &[Model], data: &Dataset, metric: &Metric) -> Result<Vec<Score>> {
    let bar = crate::progress::bar(models.len() as u64 * data.samples() as u64);
    let mut first: Option<Answers> = None;
    let mut scores = Vec::with_capacity(models.len());
    for (model, path) in models.iter().zip(&args.packs) {
        bar.set_message(format!("{metric} of {}", path.display()));
        let manifest = model.manifest();
        let ports = manifest.inputs.iter().map(|input| InputPort {
            name: input.name.clone(),
            dtype: input.dtype,
            shape: input.axes.iter().map(|axis| axis.size).collect(),
        });
        let feed = data.feed(ports.collect()).with_context(|| path.display().to_string())?;
        let names: Vec<&str> = manifest.outputs.iter().map(|o| o.name.as_str()).collect();
        let output = metric.output(&names)?;
        let labels = manifest.outputs[output].labels.as_deref();
        let labels = labels.map(|name| model.asset(name)).transpose()?.flatten();
        let answers = answers(&feed, metric, model, output, &bar)?;
        let float = first.get_or_insert_with(|| answers.clone());
        scores.push(feed.score(metric, &answers, float, labels)?);
    }
    bar.finish_and_clear();
    Ok(scores)
}

fn answers(
    feed: &Feed<'_>,
    metric: &Metric,
    model: &Model,
    output: usize,
    bar: &indicatif::ProgressBar,
) -> Result<Answers> {
    let names: Vec<String> = model.manifest().inputs.iter().map(|input| input.name.clone()).collect();
    let run = |inputs: &[glowplug_pack::Tensor]| {
        let named = names.iter().zip(inputs);
        let named = named.map(|(name, tensor)| NamedTensor { name: name.clone(), tensor: tensor.clone() });
        let failed = |e: glowplug_predict::PredictError| {
            PackerError::new(glowplug_packer::ErrorKind::Data, format!("a run on the data: {e}"))
        };
        let mut outputs = model.infer(named.collect(), None, &mut Timings::default()).map_err(failed)?;
        Ok(outputs.swap_remove(output).tensor)
    };
    Ok(feed.answers(metric, run, |_| bar.inc(1))?)
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metric = self.metric.clone().unwrap_or_else(|| "accuracy".to_owned());
        let mut table =
            Table::new(["pack", "size", &metric, "load ms", "first ms", "warm ms", "peak memory"]);
        for row in &self.packs {
            let m = &row.measured;
            table.row([
                row.file.clone(),
                bytes(row.bytes),
                row.score.map_or("-".to_owned(), |score| score.to_string()),
                format!("{:.2}", m.plan_ms),
                format!("{:.2}", m.first_run_ms),
                format!("{:.2}", m.run_ms),
                m.peak_rss_bytes.map_or("-".to_owned(), bytes),
            ]);
        }
        write!(f, "{table}")?;
        if let Some(samples) = self.samples {
            write!(f, "accuracy on {samples} samples; ")?;
        }
        write!(f, "times are medians")
    }
}
