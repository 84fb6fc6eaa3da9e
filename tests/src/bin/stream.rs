//! Measures S3 -> first output on a shaped link, beside the bound of docs/adr/0008.
//!
//! ```text
//! taskset -c 1 stream PACK... [--rate MB/s,..] [--part KiB,..] [--connections N,..] [--samples N]
//! ```
//!
//! The embedded S3 runs in a process of its own on CPU 0. Each sample is a new client and a new predictor, so new
//! connections, plan and region. Prints one CSV row per pack, rate, part size and number of connections.
#![allow(clippy::print_stdout, reason = "a tool whose answer is a table")]

use anyhow::{Context, Result, ensure};
use glowplug_local::{CloudSpec, LocalCloud, Shape};
use glowplug_pack::header::SectionKind;
use glowplug_pack::{Dtype, Form, Pack, Place, Tensor, TensorData};
use glowplug_predict::{ModelOptions, ModelRef, Predictor, PredictorOptions, Timings};
use glowplug_processing::v2::NamedTensor;
use glowplug_store::{FetchOptions, PackStore};
use glowplug_store_s3::{S3Credentials, S3Options, S3Store};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const FIRST_BYTE: Duration = Duration::from_millis(15);
/// What one connection to Amazon S3 gives.
const CONNECTION_MB: u64 = 90;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match args.first().map(String::as_str) {
        Some("serve") => runtime.block_on(serve(&args[1..])),
        _ => runtime.block_on(measure(&args)),
    }
}

/// The server's process: prints its address, and serves until it is killed.
async fn serve(args: &[String]) -> Result<()> {
    let (rate, packs) = args.split_first().context("a rate")?;
    let mega = |n: u64| NonZeroU64::new(n * 1_000_000);
    let shape = Shape {
        bytes_per_second: mega(CONNECTION_MB),
        link_bytes_per_second: mega(rate.parse()?),
        first_byte: FIRST_BYTE,
    };
    let spec = CloudSpec { buckets: vec!["models".into()], shape, ..CloudSpec::default() };
    let cloud = LocalCloud::start(spec, Arc::new(|_| ())).await?;
    for (i, pack) in packs.iter().enumerate() {
        cloud.buckets().put("models", &format!("m{i}/1/model.glow"), std::fs::read(pack)?)?;
    }
    println!("{}", cloud.urls().s3);
    std::future::pending::<()>().await;
    Ok(())
}

struct Server(Child, String);

impl Server {
    fn start(rate: u64, packs: &[PathBuf]) -> Result<Server> {
        let mut command = Command::new("taskset");
        command
            .args(["-c", "0"])
            .arg(std::env::current_exe()?)
            .arg("serve")
            .arg(rate.to_string())
            .args(packs);
        let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start taskset")?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("piped above")?).read_line(&mut line)?;
        ensure!(line.starts_with("http://"), "the server said {line:?}");
        Ok(Server(child, line.trim().to_owned()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Of no use on a child that has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn measure(args: &[String]) -> Result<()> {
    let option = |name: &str, default: &str| {
        let at = args.iter().position(|a| a == name);
        at.and_then(|at| args.get(at + 1)).map_or(default, String::as_str).to_owned()
    };
    let numbers = |text: String| text.split(',').map(|n| Ok(n.parse()?)).collect::<Result<Vec<u64>>>();
    let packs: Vec<PathBuf> = args.iter().take_while(|a| !a.starts_with("--")).map(PathBuf::from).collect();
    let (rates, parts) = (numbers(option("--rate", "50,100,300"))?, numbers(option("--part", "2048"))?);
    let (connections, samples) = (numbers(option("--connections", "4"))?, option("--samples", "11").parse()?);
    println!(
        "pack,bytes,needed,rate,part,connections,run_ms,bound_ms,median_ms,least_ms,ratio,excess_ms,fetch_ms"
    );
    for rate in rates {
        let server = Server::start(rate, &packs)?;
        for (i, path) in packs.iter().enumerate() {
            for &part in &parts {
                for &connections in &connections {
                    let fetch = FetchOptions::of_parts(part << 10, usize::try_from(connections)?);
                    let case = Case { url: &server.1, name: format!("m{i}"), path, rate, fetch };
                    case.measure(samples).await?;
                }
            }
        }
    }
    Ok(())
}

struct Case<'a> {
    url: &'a str,
    name: String,
    path: &'a Path,
    rate: u64,
    fetch: FetchOptions,
}

impl Case<'_> {
    async fn measure(&self, samples: usize) -> Result<()> {
        let pack = Pack::parse(&std::fs::read(self.path)?)?;
        let inputs = inputs(&pack)?;
        let (mut totals, mut fetches, mut runs) = (Vec::new(), Vec::new(), Vec::new());
        for sample in 0..=samples {
            let predictor = self.predictor()?;
            let started = Instant::now();
            let timings = self.run(&predictor, &inputs).await?;
            let total = started.elapsed().as_secs_f64() * 1e3;
            // The first one pays for what a process makes once.
            if sample > 0 {
                totals.push(total);
                fetches.push(timings.fetch_ms.unwrap_or_default());
            }
            if sample == samples {
                for _ in 0..20 {
                    runs.extend(self.run(&predictor, &inputs).await?.run_ms);
                }
            }
        }
        let (total, fetch, run) = (median(&mut totals), median(&mut fetches), median(&mut runs));
        let (bytes, needed) = (pack.header().file_len, needed(&pack, &inputs));
        let transfer = needed as f64 / (self.rate as f64 * 1e3);
        let bound = 2.0 * FIRST_BYTE.as_secs_f64() * 1e3 + transfer.max(run);
        let name = self.path.file_stem().unwrap_or_default().display();
        let (part, parallel, rate) = (self.fetch.part_bytes >> 10, self.fetch.parallel, self.rate);
        let least = totals.first().copied().unwrap_or_default();
        println!(
            "{name},{bytes},{needed},{rate},{part},{parallel},{run:.1},{bound:.1},{total:.1},{least:.1},{:.3},{:.1},{fetch:.1}",
            total / bound,
            total - bound,
        );
        Ok(())
    }

    fn predictor(&self) -> Result<Predictor> {
        let credentials = S3Credentials::fixed("local", "local-secret");
        let objects = S3Store::connect(S3Options::local(self.url, "models", credentials)?)?;
        let store = PackStore::new(Arc::new(objects)).with_options(self.fetch);
        let options =
            PredictorOptions { memory_budget_bytes: 1 << 32, threads: 1, model: ModelOptions::default() };
        Ok(Predictor::new(Arc::new(store), options))
    }

    async fn run(&self, predictor: &Predictor, inputs: &[NamedTensor]) -> Result<Timings> {
        let model = ModelRef { name: self.name.parse()?, version: Some("1".parse()?) };
        let (inputs, deadline) = (inputs.to_vec(), Instant::now() + Duration::from_secs(60));
        let served = predictor.run(&model, deadline, move |model, _, timings| {
            let outputs = model.infer(inputs, Some(deadline), timings)?;
            Ok(outputs.len())
        });
        let served = served.await?;
        ensure!(served.value > 0, "no outputs");
        Ok(served.timings)
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Seeded values; integers spread evenly over the rows of the largest embedding table.
fn inputs(pack: &Pack) -> Result<Vec<NamedTensor>> {
    let rows = tables(pack).map(|(_, rows, _)| rows).max().unwrap_or(2) as u64;
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let mut all = Vec::new();
    for (i, input) in pack.manifest().inputs.iter().enumerate() {
        let shape = input.shape();
        let len = shape.iter().product();
        let data = match input.dtype {
            // Token ids first; masks and types behind them, where 1 and 0 are the only sensible values.
            Dtype::I64 if i == 0 => {
                TensorData::I64((0..len).map(|_| (next() % rows).cast_signed()).collect())
            }
            Dtype::I64 => TensorData::I64(vec![i64::from(i == 1); len]),
            Dtype::F32 => TensorData::F32((0..len).map(|_| (next() % 1000) as f32 / 1000.0).collect()),
            other => anyhow::bail!("an input of {other}"),
        };
        all.push(NamedTensor { name: input.name.clone(), tensor: Tensor::new(shape, data)? });
    }
    Ok(all)
}

/// Embedding tables: offset in memory, rows, bytes of a row.
fn tables(pack: &Pack) -> impl Iterator<Item = (u64, usize, u64)> {
    let base = pack.header().section(SectionKind::Embeddings).map_or(0, |s| s.offset);
    pack.weights().iter().filter_map(move |weight| match (&weight.place, &weight.form) {
        (Place::Embeddings, Form::Plain { dtype, shape }) if !shape.is_empty() => {
            let row: usize = shape[1..].iter().product();
            let start = weight.range().ok()?.start;
            Some((base + start, shape[0], (row * dtype.size()) as u64))
        }
        _ => None,
    })
}

/// Bytes that the first output needs: all but the portable graph, and the chunks of embedding tables in which
/// no row is looked up. Tables smaller than the largest are taken as needed as a whole.
fn needed(pack: &Pack, inputs: &[NamedTensor]) -> u64 {
    let portable = pack.header().section(SectionKind::Portable).map_or(0, |s| s.stored.end - s.stored.start);
    let all = pack.header().file_len - portable;
    let largest = tables(pack).max_by_key(|t| t.1);
    let (Some((start, rows, row_bytes)), Some(first)) = (largest, inputs.first()) else {
        return all;
    };
    let TensorData::I64(ids) = first.tensor.data() else { return all };
    let table = start..start + rows as u64 * row_bytes;
    let hit = |chunk: &&glowplug_pack::header::Chunk| {
        ids.iter().any(|id| {
            let row = start + id.unsigned_abs() * row_bytes;
            chunk.range().start < row + row_bytes && row < chunk.range().end
        })
    };
    let inside: Vec<_> =
        pack.chunks().iter().filter(|c| c.range().start < table.end && table.start < c.range().end).collect();
    let hits: BTreeSet<u64> = inside.iter().filter(|c| hit(c)).map(|c| c.offset).collect();
    let needless: u64 =
        inside.iter().filter(|c| !hits.contains(&c.offset)).map(|c| c.stored_len as u64).sum();
    all - needless
}
