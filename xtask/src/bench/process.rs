//! One measured process: started, timed to its first line, asked for its report.

use crate::workspace;
use anyhow::{Context, Result, bail};
use memmap2::MmapMut;
use serde::Deserialize;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::Instant;

/// The core of the measured processes with one thread, and the one of the servers beside them.
pub(crate) const MEASURED_CORE: usize = 1;
pub(crate) const SERVER_CORE: usize = 0;

/// More than any engine takes, in bytes.
const MEMORY: usize = 384 << 20;

/// What one process gave: benches/src/engine.rs writes it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Report {
    pub(crate) load_ms: f64,
    pub(crate) first_run_ms: f64,
    /// Only of what streams its model.
    #[serde(default)]
    pub(crate) first_output_ms: Option<f64>,
    #[serde(default)]
    pub(crate) run_ms: Option<f64>,
    /// Every timed run, where time was given for them.
    #[serde(default)]
    pub(crate) runs_ns: Vec<u64>,
    #[serde(default)]
    pub(crate) peak_rss_bytes: Option<u64>,
    #[serde(default)]
    pub(crate) warm_peak_rss_bytes: Option<u64>,
}

/// One sample: the clock of the starter and the report of the process.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// Exec to first answer.
    pub(crate) exec_ms: f64,
    pub(crate) report: Report,
}

/// Makes sure that the machine has the memory which the next process takes: touches that much and gives it back. A hypervisor
/// may take away what a guest has not used for a second or two, in pieces of 2 MiB and more, and bringing it back takes a
/// millisecond for each megabyte, which would be charged to whoever happens to come first after a pause.
pub(crate) fn bring_memory() {
    const PAGE: usize = 4096;
    // Without it there is more noise, nothing else.
    let Ok(mut memory) = MmapMut::map_anon(MEMORY) else { return };
    #[cfg(target_os = "linux")]
    let _ = memory.advise(memmap2::Advice::HugePage);
    memory.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
    std::hint::black_box(&memory);
}

/// Runs the command to its end, in memory that is there ([`bring_memory`]). Errors hold the last line that the process wrote to stderr.
pub(crate) fn sample(command: &mut Command) -> Result<Sample> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    bring_memory();
    let started = Instant::now();
    let mut child = command.spawn().with_context(|| format!("starting {:?}", command.get_program()))?;
    let stdout = child.stdout.take().context("the process has no stdout")?;
    let mut lines = BufReader::new(stdout).lines();
    let first = lines.next().transpose()?;
    let exec_ms = started.elapsed().as_secs_f64() * 1e3;
    let second = lines.next().transpose()?;
    let mut stderr = String::new();
    if let Some(mut pipe) = child.stderr.take() {
        pipe.read_to_string(&mut stderr)?;
    }
    let status = child.wait()?;
    match (first, second) {
        (Some(answer), Some(report)) if status.success() && answer.starts_with("answer ") => {
            let report = serde_json::from_str(&report).with_context(|| format!("report {report:?}"))?;
            Ok(Sample { exec_ms, report })
        }
        _ => bail!("{}", refusal(&stderr).unwrap_or_else(|| status.to_string())),
    }
}

/// The line of an error output that says why: the last that is not empty.
fn refusal(stderr: &str) -> Option<String> {
    let line = stderr.lines().rev().find(|l| !l.trim().is_empty())?;
    Some(line.trim_start_matches("error: ").chars().take(300).collect())
}

/// Pins this process, and so all that it starts from now on, to as many cores as the measured processes have
/// threads. Where that cannot be done, it says so.
pub(crate) fn pin(threads: u32) {
    let mut taskset = Command::new("taskset");
    taskset.args(["-a", "-p", "-c", &cores(threads), &std::process::id().to_string()]);
    if !workspace::succeeds(&mut taskset) {
        eprintln!(
            "taskset is missing, or there is no core {}: nothing is pinned, so expect more noise",
            cores(threads)
        );
    }
}

/// The cores of a measured process, as taskset takes them.
fn cores(threads: u32) -> String {
    match threads {
        1 => MEASURED_CORE.to_string(),
        _ => format!("0-{}", threads - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn as_many_cores_as_threads() {
        assert_eq!([1, 2, 4].map(cores), ["1", "0-1", "0-3"]);
    }

    #[test]
    fn a_process_is_timed_to_its_first_line_and_refusals_say_why() {
        let report = r#"{"load_ms":1.5,"first_run_ms":2,"run_ms":null,"peak_rss_bytes":1024}"#;
        let found = sample(&mut shell(&format!("echo answer x 1; sleep 0.2; echo '{report}'"))).unwrap();
        assert!(found.exec_ms < 200.0, "{found:?}");
        assert_eq!((found.report.load_ms, found.report.peak_rss_bytes), (1.5, Some(1024)));
        for (script, wanted) in [
            ("echo 'error: no such op' >&2; exit 1", "no such op"),
            ("exit 3", "exit status: 3"),
            ("echo nonsense; echo {}", "exit status: 0"),
            ("echo answer x 1; echo {}", "report"),
        ] {
            let error = sample(&mut shell(script)).unwrap_err().to_string();
            assert!(error.contains(wanted), "{script}: {error}");
        }
    }
}
