//! `glowplug run`: one inference, tensors in and out.

use crate::npz;
use crate::report::print;
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueHint};
use glowplug_predict::Timings;
use glowplug_processing::v2::NamedTensor;
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

/// Run a pack once on the tensors of an npz file.
#[derive(Args)]
#[command(
    after_help = "Example:\n  glowplug run mnist-cnn.glow --input digit.npz --output scores.npz --json"
)]
pub(crate) struct RunArgs {
    /// The pack.
    #[arg(value_hint = ValueHint::FilePath)]
    pack: PathBuf,
    /// Inputs: an npz file whose members are named as the model's inputs.
    #[arg(long, value_name = "IN.npz", value_hint = ValueHint::FilePath)]
    input: PathBuf,
    /// Outputs: the npz file to write, every output under its name.
    #[arg(long, value_name = "OUT.npz", value_hint = ValueHint::FilePath)]
    output: PathBuf,
    #[command(flatten)]
    inference: super::InferenceArgs,
    /// JSON with the stage timings on stdout.
    #[arg(long)]
    json: bool,
}

/// The answer.
#[derive(Serialize)]
struct Run {
    model: String,
    /// What the plan was made from.
    source: &'static str,
    target: String,
    output: String,
    outputs: Vec<String>,
    #[serde(flatten)]
    timings: Timings,
}

/// Runs the command.
pub(crate) fn run(args: &RunArgs) -> Result<ExitCode> {
    let inputs = npz::read(&args.input)?;
    ensure!(
        args.output.canonicalize().ok().is_none_or(|output| args.input.canonicalize().ok() != Some(output)),
        "{}: --output is the file of --input, which would be lost",
        args.output.display()
    );
    let model = super::open_model(&args.pack, args.inference)?;
    let mut timings = model.load_timings();
    let outputs = model.infer(inputs, None, &mut timings).context(args.input.display().to_string())?;
    npz::write(&args.output, &outputs)?;
    let report = Run {
        model: model.manifest().model.name.clone(),
        source: model.source(),
        target: model.target().to_owned(),
        output: args.output.display().to_string(),
        outputs: outputs.iter().map(|NamedTensor { name, tensor }| format!("{name}: {tensor}")).collect(),
        timings,
    };
    print(&report, args.json)?;
    Ok(ExitCode::SUCCESS)
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: wrote {}", self.model, self.output)?;
        for output in &self.outputs {
            writeln!(f, "  {output}")?;
        }
        let t = &self.timings;
        let ms = |stage: Option<f64>| stage.map_or("-".into(), |ms| format!("{ms:.2} ms"));
        write!(f, "{} plan {}, run {}", self.source, ms(t.plan_ms), ms(t.run_ms))
    }
}
