//! `glowplug dev`: the local cloud, until Ctrl-C.

use crate::cloud::{self, CloudOptions};
use crate::report::print;
use anyhow::{Context, Result};
use clap::{Args, ValueHint};
use glowplug_local::LogLine;
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Run the three functions against a local API Gateway, S3 and SQS on 127.0.0.1, until Ctrl-C.
///
/// The functions are the real binaries, started as processes; their logs go to stderr.
#[derive(Args)]
#[command(
    after_help = "Example:\n  glowplug dev --pack mnist-cnn.glow\n  curl -H 'Content-Type: image/png' --data-binary @7.png http://127.0.0.1:9000/v2/models/mnist-cnn/predict"
)]
pub(crate) struct DevArgs {
    /// Packs to publish into the local store, each as version 1 of its own name. The first one scores uploads.
    #[arg(long = "pack", required = true, value_hint = ValueHint::FilePath)]
    packs: Vec<PathBuf>,
    /// The folder of glowplug-api, glowplug-upload and glowplug-queue; this program's own folder where absent.
    #[arg(long, value_hint = ValueHint::DirPath, env = "GLOWPLUG_BIN_DIR")]
    functions: Option<PathBuf>,
    /// Port of the HTTP gateway; 0 picks a free one.
    #[arg(long, default_value_t = 9000)]
    port: u16,
    /// Port of the local S3; 0 picks a free one.
    #[arg(long, default_value_t = 0)]
    s3_port: u16,
    /// Port of the local SQS; 0 picks a free one.
    #[arg(long, default_value_t = 0)]
    sqs_port: u16,
    /// Log filter of the functions.
    #[arg(long, default_value = "info")]
    log: String,
    /// JSON on stdout.
    #[arg(long)]
    json: bool,
}

/// The answer, printed once everything listens.
#[derive(Serialize)]
struct Dev {
    gateway: String,
    s3: String,
    sqs: String,
    models: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(args: &DevArgs) -> Result<ExitCode> {
    crate::runtime()?.block_on(serve(args))?;
    Ok(ExitCode::SUCCESS)
}

/// The folder to find function binaries in.
pub(crate) fn functions_dir(given: Option<&PathBuf>) -> Result<PathBuf> {
    match given {
        Some(dir) => Ok(dir.clone()),
        None => {
            let exe = std::env::current_exe().context("cannot find this program's own file")?;
            Ok(exe.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf))
        }
    }
}

async fn serve(args: &DevArgs) -> Result<()> {
    let mut packs = Vec::new();
    for path in &args.packs {
        let name = super::open(path)?.pack.manifest().model.name.clone();
        packs.push((name, std::fs::read(path).map_err(|e| super::cannot_read(path, &e))?));
    }
    let models: Vec<String> = packs.iter().map(|(name, _)| name.clone()).collect();
    let options = CloudOptions {
        functions: &functions_dir(args.functions.as_ref())?,
        models: &models,
        gateway_port: args.port,
        s3_port: args.s3_port,
        sqs_port: args.sqs_port,
        visibility_timeout: Duration::from_secs(30),
        log: &args.log,
    };
    let logs = Arc::new(|line: LogLine| eprintln!("{}[{}] {}", line.function, line.process, line.text));
    let cloud = cloud::start(&options, logs).await?;
    for (name, bytes) in packs {
        cloud::publish(&cloud, &name, bytes).await?;
    }
    let urls = cloud.urls().clone();
    print(&Dev { gateway: urls.gateway, s3: urls.s3, sqs: urls.sqs, models }, args.json)?;
    let ended = until_told_to_end().await;
    // In any case: functions run in process groups of their own, which no signal to this process reaches.
    cloud.shutdown().await;
    ended
}

/// Waits for Ctrl-C, or for the signal that service managers send.
async fn until_told_to_end() -> Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot wait for Ctrl-C"),
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await.context("cannot wait for Ctrl-C")
}

impl fmt::Display for Dev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let model = self.models.first().map_or("MODEL", String::as_str);
        writeln!(
            f,
            "http  {}/v2/models/{model}/predict (POST an image or a text; /infer takes tensors)",
            self.gateway
        )?;
        let (s3, sqs) = (&self.s3, &self.sqs);
        writeln!(
            f,
            "s3    {s3} (aws s3 cp FILE s3://{}/ ; results in s3://{})",
            cloud::UPLOADS,
            cloud::RESULTS
        )?;
        writeln!(f, "sqs   {sqs} (queue {}, dead letters in {})", cloud::QUEUE, cloud::DEAD_LETTERS)?;
        writeln!(f, "env   AWS_ENDPOINT_URL_S3={s3} AWS_ENDPOINT_URL_SQS={sqs} AWS_REGION=us-east-1")?;
        write!(f, "      AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local-secret; Ctrl-C ends it")
    }
}
