//! Glowplug from S3 to the first output, as the api function does it: a store on S3, a predictor, the model asked for
//! by its exact version. `AWS_ENDPOINT_URL_S3` and the key pair come from the environment, as on Lambda.
//!
//! usage: bench-glowplug-s3 NAME INPUT.npz [--output OUT.npz]

use anyhow::{Context, Result};
use glowplug_benches::args::Args;
use glowplug_benches::{Named, engine, npz};
use glowplug_predict::v2::NamedTensor;
use glowplug_predict::{ModelOptions, ModelRef, Predictor, PredictorOptions};
use glowplug_store::PackStore;
use glowplug_store_s3::{S3Options, S3Store};
use serde::Serialize;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The same memory as in a function.
#[global_allocator]
static ALLOCATOR: glowplug_predict::Allocator = glowplug_predict::Allocator;

/// The bucket of the bench's local S3.
const BUCKET: &str = "models";

#[derive(Serialize)]
struct Report {
    /// Before the first request to the first output.
    first_output_ms: f64,
    load_ms: Option<f64>,
    first_run_ms: Option<f64>,
    peak_rss_bytes: Option<u64>,
}

fn main() -> ExitCode {
    glowplug_predict::prepare_process();
    match process() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("error: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

fn process() -> Result<()> {
    let args = Args::parse(std::env::args().skip(1))?;
    let inputs = npz::read(&args.input)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let done = runtime.block_on(first_output(&args, inputs));
    runtime.shutdown_background();
    done
}

async fn first_output(args: &Args, inputs: Vec<Named>) -> Result<()> {
    let started = Instant::now();
    let mut options = S3Options::from_env(BUCKET, "")?;
    options.path_style = true;
    let store = PackStore::new(Arc::new(S3Store::connect(options)?));
    let options = PredictorOptions {
        memory_budget_bytes: 4 << 30,
        threads: 1,
        model: ModelOptions { threads: args.threads, ..ModelOptions::default() },
    };
    let predictor = Predictor::new(Arc::new(store), options);
    let wanted = ModelRef { name: args.model.parse()?, version: Some("1".parse()?) };
    let inputs = inputs.into_iter().map(|(name, tensor)| NamedTensor { name, tensor }).collect();
    let deadline = started + Duration::from_secs(60);
    let served = predictor
        .run(&wanted, deadline, move |model, _, timings| model.infer(inputs, Some(deadline), timings));
    let served = served.await.context("no answer")?;
    let first_output_ms = engine::ms_since(started);
    let outputs: Vec<Named> = served.value.into_iter().map(|o| (o.name, o.tensor)).collect();
    engine::answered(&outputs)?;
    let peak_rss_bytes = engine::peak_rss_bytes();
    if let Some(path) = &args.output {
        npz::write(path, &outputs)?;
    }
    let t = served.timings;
    let load_ms = t.fetch_ms.zip(t.plan_ms).map(|(fetch, plan)| fetch + plan);
    engine::report(&Report { first_output_ms, load_ms, first_run_ms: t.run_ms, peak_rss_bytes })
}
