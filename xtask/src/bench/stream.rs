//! S3 to first output over a shaped link, beside what the link allows.

use super::cases::Case;
use super::cloud::{Cloud, FIRST_BYTE_MS, LINKS};
use super::engines::{ENGINES, OURS};
use super::process::{Sample, sample};
use super::setup::Setup;
use super::summary::{CaseSummary, StreamSummary, bound_ms, median};
use crate::workspace;
use anyhow::{Context, Result};
use std::fmt::Write;
use std::path::Path;

pub(crate) const HEADER: &str = "model,mb_per_s,round,first_output_ms,exec_ms,load_ms,run_ms\n";

/// Measures a case that was packed and has warm figures; nothing for others.
pub(crate) fn measure(
    setup: &Setup,
    case: &Case,
    summary: &CaseSummary,
    runs: usize,
    csv: &mut String,
) -> Result<Vec<StreamSummary>> {
    let Some(figures) = summary.figures(OURS) else { return Ok(Vec::new()) };
    let pack = setup.folder(case).join(ENGINES[0].file);
    let object = format!("{}/1/model.glow={}", case.name, pack.display());
    let mut links = Vec::new();
    for mb_per_s in LINKS {
        let cloud = Cloud::start(setup, mb_per_s, std::slice::from_ref(&object))?;
        let once = || once(setup, case.name, &setup.folder(case).join("input.npz"), &cloud);
        once()?; // not counted: the first one warms the page cache of the binary
        let samples = (0..runs).map(|_| once()).collect::<Result<Vec<_>>>()?;
        for (round, s) in samples.iter().enumerate() {
            let (r, first) = (&s.report, first_output(s));
            writeln!(
                csv,
                "{},{mb_per_s},{round},{first:.3},{:.3},{:.3},{:.3}",
                case.name, s.exec_ms, r.load_ms, r.first_run_ms
            )?;
        }
        links.push(StreamSummary {
            mb_per_s,
            fetched_bytes: figures.file_bytes,
            bound_ms: bound_ms(f64::from(FIRST_BYTE_MS), figures.file_bytes, mb_per_s, figures.run_ms),
            first_output_ms: median(samples.iter().map(first_output)),
            exec_ms: median(samples.iter().map(|s| s.exec_ms)),
        });
    }
    Ok(links)
}

pub(crate) fn first_output(sample: &Sample) -> f64 {
    sample.report.first_output_ms.unwrap_or(f64::NAN)
}

/// One fresh process that fetches version 1 of `model` from `cloud` and runs it on `input`.
pub(crate) fn once(setup: &Setup, model: &str, input: &Path, cloud: &Cloud) -> Result<Sample> {
    let mut command = workspace::command(setup.bin_dir().join("bench-glowplug-s3"));
    command
        .arg(model)
        .arg(input)
        .env("AWS_ENDPOINT_URL_S3", &cloud.s3)
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "local")
        .env("AWS_SECRET_ACCESS_KEY", "local-secret");
    sample(&mut command).with_context(|| format!("{model} from S3"))
}
