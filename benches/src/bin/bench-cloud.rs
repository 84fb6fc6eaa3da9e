//! The AWS around a measured process: an S3 behind a shaped link, and the Lambda Runtime API.
//!
//! ```text
//! bench-cloud serve  --object KEY=FILE .. --mb-per-s N --first-byte-ms N
//! bench-cloud invoke .. --function PROGRAM --arg A .. --env K=V .. --event FILE --output FILE
//! ```
//!
//! `serve` prints `{"s3": URL}` and serves until its stdin ends. `invoke` starts the function cold, answers with
//! `{"cold_ms", "warm_ms"}`, and writes the body of the first answer: exec to response of the first invocation, and
//! then one more on the same process.

use anyhow::{Context, Result, bail, ensure};
use glowplug_benches::engine::ms_since;
use glowplug_local::{CloudSpec, FunctionSpec, LocalCloud, Shape};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::num::NonZeroU64;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The bucket that holds the models.
const BUCKET: &str = "models";
const FUNCTION: &str = "measured";

#[derive(Default)]
struct Options {
    objects: Vec<(String, String)>,
    mb_per_s: f64,
    first_byte_ms: u64,
    function: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    event: String,
    output: String,
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let options = parse(words)?;
        match command.as_str() {
            "serve" => runtime.block_on(serve(&options)),
            "invoke" => runtime.block_on(invoke(&options)),
            other => bail!("found the command {other:?}, wanted serve or invoke"),
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Options> {
    let mut options = Options::default();
    while let Some(flag) = words.next() {
        let value = words.next().with_context(|| format!("{flag} has no value"))?;
        let pair = || {
            let pair = value.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
            pair.with_context(|| format!("{flag} is {value:?}, wanted KEY=VALUE"))
        };
        match flag.as_str() {
            "--object" => options.objects.push(pair()?),
            "--env" => options.environment.push(pair()?),
            "--mb-per-s" => options.mb_per_s = value.parse()?,
            "--first-byte-ms" => options.first_byte_ms = value.parse()?,
            "--function" => options.function = value,
            "--arg" => options.arguments.push(value),
            "--event" => options.event = value,
            "--output" => options.output = value,
            _ => bail!("unknown flag {flag}"),
        }
    }
    Ok(options)
}

/// A cloud with the objects in it and the link shaped.
async fn start(options: &Options, functions: Vec<FunctionSpec>) -> Result<LocalCloud> {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate is positive and small"
    )]
    let rate = NonZeroU64::new((options.mb_per_s * 1e6) as u64);
    let first_byte = Duration::from_millis(options.first_byte_ms);
    let shape = Shape { link_bytes_per_second: rate, first_byte, ..Shape::default() };
    let spec = CloudSpec { buckets: vec![BUCKET.to_owned()], functions, shape, ..CloudSpec::default() };
    // What a function logs is not part of what is measured, but an error without it would be a riddle.
    let cloud = LocalCloud::start(spec, Arc::new(|line| eprintln!("{}", line.text))).await?;
    for (key, file) in &options.objects {
        let bytes = std::fs::read(file).with_context(|| format!("cannot read {file}"))?;
        cloud.buckets().put(BUCKET, key, bytes)?;
    }
    Ok(cloud)
}

async fn serve(options: &Options) -> Result<()> {
    let cloud = start(options, Vec::new()).await?;
    say(&json!({"s3": cloud.urls().s3}))?;
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    cloud.shutdown().await;
    Ok(())
}

async fn invoke(options: &Options) -> Result<()> {
    let mut function = FunctionSpec::new(FUNCTION, &options.function);
    function.args.clone_from(&options.arguments);
    function.env = options.environment.iter().cloned().collect();
    let cloud = start(options, vec![function]).await?;
    let event = std::fs::read(&options.event).with_context(|| format!("cannot read {}", options.event))?;
    let (cold_ms, answer) = once(&cloud, &event).await?;
    let (warm_ms, _) = once(&cloud, &event).await?;
    cloud.shutdown().await;
    std::fs::write(&options.output, answer).with_context(|| format!("cannot write {}", options.output))?;
    say(&json!({"cold_ms": cold_ms, "warm_ms": warm_ms}))
}

/// One invocation: how long it took, and the body of its answer. Errors: a failed function, another status than 200.
async fn once(cloud: &LocalCloud, event: &[u8]) -> Result<(f64, String)> {
    let started = Instant::now();
    let result = cloud.invoke(FUNCTION, event.to_vec()).await?;
    let took = ms_since(started);
    let payload = match result.outcome {
        Ok(payload) => payload,
        Err(error) => bail!("{}", String::from_utf8_lossy(&error.payload)),
    };
    let answer: Value = serde_json::from_slice(&payload)?;
    let body = answer["body"].as_str().context("the answer has no body")?;
    ensure!(answer["statusCode"] == 200, "the answer is {}: {body}", answer["statusCode"]);
    Ok((took, body.to_owned()))
}

fn say(document: &Value) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{document}")?;
    Ok(stdout.flush()?)
}
