//! `glowplug pack`: an ONNX model into a verified pack.

use crate::compression::{self, CompressionArgs};
use crate::folder::Described;
use crate::report::{bytes, print};
use anyhow::{Context, Result};
use clap::{Args, ValueHint};
use glowplug_packer::{
    Compute, ErrorKind, InputPins, PackOptions, Packed, PackerError, Report, Stage, Target, Weights,
};
use glowplug_predict::{Model, ModelOptions};
use serde::Serialize;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Make a pack of an ONNX model, and check its answers against the unoptimized graph before it is written.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  glowplug pack mnist-cnn.onnx -o mnist-cnn.glow --manifest mnist-cnn.toml\n  glowplug pack ppocr-cls.onnx -o ppocr-cls.glow --input 'x=f32[1,3,48,192]'\n  glowplug pack minilm.onnx -o minilm.glow --input 'input_ids=i64[1,128]' --weights int8"
)]
pub(crate) struct PackArgs {
    /// The model.
    #[arg(value_name = "MODEL.onnx", value_hint = ValueHint::FilePath)]
    model: PathBuf,
    /// The pack to write; the model's file name with .glow where absent.
    #[arg(short, long, value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,
    /// Name, licence, pipelines and labels; files that it names are looked for beside it.
    #[arg(long, value_name = "M.toml", value_hint = ValueHint::FilePath)]
    manifest: Option<PathBuf>,
    /// Fix an input's shape: NAME=DTYPE[dims], with f32 f16 i64 i32 i8 u8 bool. A leading symbol that is not
    /// fixed becomes 1. Alternatives, as in ids=i64[1,128|16|32], make a plan for each over one set of weights;
    /// the first is the default.
    #[arg(long = "input", value_name = "NAME=DTYPE[dims]")]
    inputs: Vec<InputPins>,
    /// The CPUs to plan for: common (AVX2 and FMA on x86-64) or avx512. Several make one pack whose plans share
    /// weights where their kernels cut them alike; each machine takes the best plan it can run.
    #[arg(long = "target", value_name = "TARGET", value_delimiter = ',', default_value = "common")]
    targets: Vec<Target>,
    /// How weights of convolutions, products and tables are stored: f32 as in the model, f16, int8 with a scale for
    /// each output channel, or auto: for each weight what it can bear, as few bits as --max-drop or --max-bytes allow.
    /// Arithmetic stays in f32 (docs/quantization.md).
    #[arg(long, value_name = "ENCODING", default_value_t = Weights::F32, env = "GLOWPLUG_WEIGHTS")]
    weights: Weights,
    /// Entropy-code weights, chunk by chunk, where that makes them shorter: fewer bytes to fetch, which are decoded as they
    /// come. Builds from before that refuse such packs (docs/quantization.md).
    #[arg(long, env = "GLOWPLUG_ENTROPY")]
    entropy: bool,
    /// JSON on stdout.
    #[arg(long)]
    json: bool,
    /// What convolutions are computed in: f32, or int8 with the ranges of activations that --calibrate shows, or that a model
    /// which came quantized has; with --max-drop, as many of them in int8 as keep it.
    #[arg(long, value_name = "ARITHMETIC", default_value_t = Compute::F32, env = "GLOWPLUG_COMPUTE")]
    compute: Compute,
    #[command(flatten)]
    compression: CompressionArgs,
}

/// The answer.
#[derive(Serialize)]
struct Answer {
    file: String,
    #[serde(flatten)]
    report: Report,
}

/// Runs the command.
pub(crate) fn run(args: &PackArgs) -> Result<ExitCode> {
    let output = args.output.clone().unwrap_or_else(|| args.model.with_extension("glow"));
    args.compression.check_report(&[Some(&output), Some(&args.model), args.manifest.as_ref()])?;
    let bar = crate::progress::bar(Stage::ALL.len() as u64);
    let progress = |stage: Stage, detail: &str| {
        bar.set_position(stage as u64);
        bar.set_message(if detail.is_empty() { stage.name().to_owned() } else { detail.to_owned() });
    };
    let packed = pack_targets(args, &progress);
    bar.finish_and_clear();
    let packed = match packed {
        // A check that failed, and not a mistake in what was asked.
        Err(e) if e.downcast_ref().is_some_and(|e: &PackerError| e.kind() == ErrorKind::Contract) => {
            eprintln!("glowplug: {e:#}");
            return Ok(ExitCode::FAILURE);
        }
        packed => packed?,
    };
    write(&output, &packed.bytes)?;
    args.compression.write_report(&packed.report)?;
    print(&Answer { file: output.display().to_string(), report: packed.report }, args.json)?;
    Ok(ExitCode::SUCCESS)
}

/// A pack with plans for all targets. A process plans for one target only, so that every other one is packed by a
/// process of its own.
fn pack_targets(args: &PackArgs, progress: &dyn Fn(Stage, &str)) -> Result<Packed> {
    let [first, others @ ..] = args.targets.as_slice() else { anyhow::bail!("no --target") };
    let data = args.compression.read(|| describe(args))?;
    // What other CPUs multiply with are other weights, and what they answer cannot be measured here.
    let asked = [
        ("--weights other than f32", args.weights != Weights::F32),
        ("--compute int8", args.compute == Compute::Int8),
        ("--prune", data.prune.is_some()),
        ("--max-drop", data.is_bounded()),
    ];
    if let Some((what, _)) = asked.iter().find(|(_, asked)| *asked && !others.is_empty()) {
        anyhow::bail!("{what} takes one --target: for others it cannot be measured on this CPU");
    }
    let mut packed = pack_file(
        &args.model,
        args.manifest.as_deref(),
        args.inputs.clone(),
        &How {
            target: *first,
            weights: args.weights,
            entropy: args.entropy,
            compute: args.compute,
            data: &data,
        },
        progress,
    )?;
    for target in others {
        let temp = tempfile::tempdir()?;
        let file = temp.path().join("other.glow");
        let mut child = std::process::Command::new(std::env::current_exe()?);
        child.arg("pack").arg(&args.model).arg("-o").arg(&file).args(["--target", &target.to_string()]);
        // Whatever else the environment asks for is done here, once: `merge` codes, and bounds are checked on what it gives.
        for name in ["ENTROPY", "WEIGHTS", "COMPUTE", "CALIBRATE", "EVAL", "METRIC"] {
            child.env_remove(format!("GLOWPLUG_{name}"));
        }
        if let Some(manifest) = &args.manifest {
            child.arg("--manifest").arg(manifest);
        }
        for input in &args.inputs {
            child.arg("--input").arg(input.to_string());
        }
        let output = child.output().context("cannot start a process for another target")?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let why = stderr.trim().trim_start_matches("glowplug: ");
            anyhow::bail!("--target {target}: {}: {why}", output.status);
        }
        let other = std::fs::read(&file).map_err(|e| super::cannot_read(&file, &e))?;
        packed.bytes = glowplug_packer::merge(&packed.bytes, &other)?;
    }
    packed.report.refresh(&packed.bytes)?;
    if let Some(most) = data.contract().max_bytes.filter(|most| packed.bytes.len() as u64 > *most) {
        let found = packed.bytes.len();
        let text = format!("no pack for these targets has at most {most} bytes: this one has {found}");
        return Err(PackerError::new(ErrorKind::Contract, text).into());
    }
    Ok(packed)
}

/// How a model is packed.
pub(crate) struct How<'a> {
    pub(crate) target: Target,
    pub(crate) weights: Weights,
    pub(crate) entropy: bool,
    pub(crate) compute: Compute,
    pub(crate) data: &'a compression::Data,
}

/// What the model says of itself, for whoever makes tensors of raw files before there is a pack.
fn describe(args: &PackArgs) -> Result<Described> {
    let how = How {
        target: Target::Common,
        weights: Weights::F32,
        entropy: false,
        compute: Compute::F32,
        data: &compression::Data::NONE,
    };
    let (onnx, manifest, inputs) = (&args.model, args.manifest.as_deref(), args.inputs.clone());
    with_model(onnx, manifest, inputs, &how, &|_, _| (), glowplug_packer::describe)
}

/// A pack of the model in `onnx`.
pub(crate) fn pack_file(
    onnx: &Path,
    manifest: Option<&Path>,
    inputs: Vec<InputPins>,
    how: &How<'_>,
    progress: &dyn Fn(Stage, &str),
) -> Result<Packed> {
    let packed = with_model(onnx, manifest, inputs, how, progress, glowplug_packer::pack)?;
    // The packer knows no pipelines: a manifest whose steps contradict the model is found here, not in a function.
    if how.target.runs_here() {
        let opened = glowplug_store::open_bytes(&packed.bytes)?;
        Model::open(opened, &ModelOptions::default())
            .and_then(|model| model.check_pipelines())
            .with_context(|| format!("manifest of {}", onnx.display()))?;
    }
    Ok(packed)
}

/// What `then` makes of the model in `onnx`.
fn with_model<T>(
    onnx: &Path,
    manifest: Option<&Path>,
    inputs: Vec<InputPins>,
    how: &How<'_>,
    progress: &dyn Fn(Stage, &str),
    then: impl FnOnce(&[u8], &mut PackOptions<'_>) -> Result<T, PackerError>,
) -> Result<T> {
    let model = std::fs::read(onnx).map_err(|e| super::cannot_read(onnx, &e))?;
    let text =
        manifest.map(|m| std::fs::read_to_string(m).map_err(|e| super::cannot_read(m, &e))).transpose()?;
    let beside = manifest.and_then(Path::parent).unwrap_or(Path::new("")).to_path_buf();
    let name = onnx.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut options = PackOptions {
        name,
        inputs,
        manifest: text.as_deref(),
        target: how.target,
        weights: how.weights,
        calibration: how.data.calibration.as_ref(),
        prune: how.data.prune,
        contract: how.data.contract(),
        entropy: how.entropy,
        compute: how.compute,
        read_asset: &mut |name| std::fs::read(beside.join(name)),
        progress: &mut |stage, detail| progress(stage, detail),
        seed: 0,
    };
    then(&model, &mut options).with_context(|| onnx.display().to_string())
}

/// Writes all of `bytes` or nothing: into a file beside, then renamed.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tmp");
    let beside = PathBuf::from(beside);
    let written = std::fs::File::create(&beside)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&beside, path));
    written.with_context(|| {
        let _ = std::fs::remove_file(&beside);
        format!("cannot write {}", path.display())
    })
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let r = &self.report;
        let (from, to) = (bytes(r.onnx_bytes as u64), bytes(r.pack_bytes as u64));
        let plans = if r.plans == 1 { String::new() } else { format!("{} plans, the first of ", r.plans) };
        writeln!(f, "{}: {to} from {from} of ONNX, {plans}{} nodes for {}", self.file, r.nodes, r.target)?;
        let w = &r.weights;
        let with = if w.encoded > 0 { "with these weights " } else { "" };
        if w.encoding != "f32" {
            let (saved, of) = (bytes(w.f32_bytes.saturating_sub(w.encoded_bytes)), bytes(w.f32_bytes));
            let (encoded, count) = (w.encoded, w.count);
            writeln!(f, "  {encoded} of {count} weights as {}: {saved} saved of {of}", w.encoding)?;
            for kept in &w.kept {
                writeln!(f, "  {kept}")?;
            }
        }
        if let Some(q) = &r.quantized {
            let (fit, count) = (q.weights_int8, q.weights);
            writeln!(
                f,
                "  came quantized: {fit} of {count} weights fit int8, {} roundings of activations left out",
                q.activations
            )?;
            if fit < count && w.encoding == "f32" {
                writeln!(
                    f,
                    "  the integers of {} weights do not, which are f32 now: --weights int8 rounds them",
                    count - fit
                )?;
            }
        }
        if let Some(compression) = &r.compression {
            compression::told(f, compression)?;
        }
        if let Some(e) = &r.entropy {
            let (stored, decoded) = (bytes(e.stored_bytes), bytes(e.decoded_bytes));
            write!(f, "  {} of {} chunks entropy-coded: {stored} instead of {decoded}", e.coded, e.chunks)?;
            let speed = e.decode_mb_s.map(|speed| format!(", decoded at {speed:.0} MB/s here"));
            writeln!(f, "{}", speed.unwrap_or_default())?;
        }
        if let Some(int8) = &r.int8 {
            let (bytes, kept, percent) = (int8.convolutions, int8.kept, int8.share * 100.0);
            writeln!(
                f,
                "  {bytes} convolutions in int8, {kept} in f32: {percent:.1} % of their multiply-adds in int8"
            )?;
        }
        for (name, error) in &r.max_relative_error {
            writeln!(
                f,
                "  output {name:?} differs from the unoptimized graph {with}by {error:.1e} of its largest value"
            )?;
        }
        if let Some(how) = &r.batch {
            writeln!(f, "  the batch is planned {how}")?;
        }
        if let Some(why) = &r.without_portable {
            writeln!(f, "  no portable graph, other CPUs and shapes are not served: {why}")?;
        }
        write!(f, "digest {}", r.digest)
    }
}
