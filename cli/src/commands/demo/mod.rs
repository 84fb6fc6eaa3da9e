//! `glowplug demo`: the whole product on one machine, against answers that ONNX Runtime gave.
//!
//! Packs the vendored models, starts the local cloud with the real functions, asks by HTTP, by upload and by
//! queue, and prints a table. Any answer that differs from ONNX Runtime's is exit code 1.

mod data;
mod stages;
mod triggers;

use crate::cloud::{self, CloudOptions};
use crate::report::{Table, print};
use anyhow::{Context, Result};
use clap::{Args, ValueHint};
use glowplug_predict::Timings;
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pack the vendored models, serve them locally, and check every answer against ONNX Runtime's.
#[derive(Args)]
#[command(after_help = "Exit codes: 0 all answers right, 1 one differs, 2 something could not run.")]
pub(crate) struct DemoArgs {
    /// The folder with models, digits and lines (tests/data of the repository).
    #[arg(long, default_value = "tests/data", value_hint = ValueHint::DirPath)]
    data: PathBuf,
    /// The folder of the function binaries; this program's own folder where absent.
    #[arg(long, value_hint = ValueHint::DirPath, env = "GLOWPLUG_BIN_DIR")]
    functions: Option<PathBuf>,
    /// Log filter of the functions; their logs go to stderr.
    #[arg(long, default_value = "error")]
    log: String,
    /// JSON on stdout.
    #[arg(long)]
    json: bool,
}

/// One question and its answer.
#[derive(Serialize)]
struct Row {
    trigger: &'static str,
    input: String,
    answer: String,
    expected: String,
    right: bool,
    /// Whether the model was loaded for it; `None` where nothing ran.
    cold: Option<bool>,
    timings: Timings,
}

/// The answer.
#[derive(Serialize)]
struct Demo {
    rows: Vec<Row>,
    right: usize,
    wrong: usize,
    dead_letters: usize,
    pack_ms: f64,
    serve_ms: f64,
}

/// Runs the command.
pub(crate) fn run(args: &DemoArgs) -> Result<ExitCode> {
    let demo = crate::runtime()?.block_on(demo(args))?;
    print(&demo, args.json)?;
    Ok(if demo.wrong == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

async fn demo(args: &DemoArgs) -> Result<Demo> {
    let data = data::Data::read(&args.data)?;
    let bar = crate::progress::bar(5);
    let start = Instant::now();
    let mut packs = Vec::new();
    for model in [data::DIGITS, data::LINES] {
        bar.set_message(format!("packing {model}"));
        packs.push((model.to_owned(), data.pack(model)?));
        bar.inc(1);
    }
    let pack_ms = glowplug_predict::ms_since(start);

    let start = Instant::now();
    let models: Vec<String> = packs.iter().map(|(name, _)| name.clone()).collect();
    let functions = super::dev::functions_dir(args.functions.as_ref())?;
    let options = CloudOptions {
        functions: &functions,
        models: &models,
        gateway_port: 0,
        s3_port: 0,
        sqs_port: 0,
        // Short, so that the poisoned record is given up within seconds.
        visibility_timeout: Duration::from_secs(2),
        log: &args.log,
    };
    let logs = Arc::new(|line: glowplug_local::LogLine| {
        // Metrics are one JSON line per invocation; only what was logged is for people here.
        if !line.text.contains("\"_aws\"") {
            eprintln!("{}[{}] {}", line.function, line.process, line.text);
        }
    });
    let cloud = cloud::start(&options, logs).await?;
    let rows = ask(&cloud, &data, packs, &bar).await;
    let dead_letters = cloud.queue(cloud::DEAD_LETTERS).map(|q| q.len()).unwrap_or(0);
    bar.finish_and_clear();
    cloud.shutdown().await;
    let rows = rows?;
    let right = rows.iter().filter(|row| row.right).count();
    Ok(Demo {
        wrong: rows.len() - right,
        right,
        rows,
        dead_letters,
        pack_ms,
        serve_ms: glowplug_predict::ms_since(start),
    })
}

async fn ask(
    cloud: &glowplug_local::LocalCloud,
    data: &data::Data,
    packs: Vec<(String, Vec<u8>)>,
    bar: &indicatif::ProgressBar,
) -> Result<Vec<Row>> {
    let digits = triggers::Digits::new(data, &packs)?;
    let mut digest = None;
    for (name, bytes) in packs {
        let published =
            cloud::publish(cloud, &name, bytes).await.with_context(|| format!("publishing {name}"))?;
        digest.get_or_insert(published);
    }
    let digest = digest.context("no model was packed")?;
    bar.set_message("http");
    let mut rows = triggers::http(cloud, data, &digits).await?;
    bar.inc(1);
    bar.set_message("upload");
    rows.push(triggers::upload(cloud, data, &digest).await?);
    bar.inc(1);
    bar.set_message("queue");
    rows.extend(triggers::queue(cloud, data, &digits, &digest).await?);
    bar.inc(1);
    Ok(rows)
}

impl fmt::Display for Demo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new([
            "trigger", "input", "answer", "expected", "", "start", "fetch", "verify", "plan", "pre", "run",
            "post",
        ]);
        for row in &self.rows {
            let ms = |stage: Option<f64>| stage.map_or("-".into(), |ms| format!("{ms:.2}"));
            let t = &row.timings;
            table.row([
                row.trigger.into(),
                row.input.clone(),
                row.answer.clone(),
                row.expected.clone(),
                if row.right { "ok" } else { "WRONG" }.into(),
                match row.cold {
                    Some(true) => "cold",
                    Some(false) => "warm",
                    None => "-",
                }
                .into(),
                ms(t.fetch_ms),
                ms(t.verify_ms),
                ms(t.plan_ms),
                ms(t.preprocess_ms),
                ms(t.run_ms),
                ms(t.postprocess_ms),
            ]);
        }
        writeln!(f, "{table}stages in ms; expected is ONNX Runtime's top-1\n")?;
        write!(
            f,
            "{} right, {} wrong, dead letters: {}; packed in {:.1} s, served in {:.1} s",
            self.right,
            self.wrong,
            self.dead_letters,
            self.pack_ms / 1e3,
            self.serve_ms / 1e3
        )
    }
}
