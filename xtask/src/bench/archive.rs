//! `benches/runs/<date>-<machine>/`: every run that a table or a plot was made from.

use super::summary::Summary;
use super::{cold, lambda, machine, plots, stream};
use crate::workspace;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Where runs are kept.
const RUNS: &str = "benches/runs";

/// The raw samples of a run, as CSV without headers.
#[derive(Default)]
pub(crate) struct Samples {
    pub(crate) cold: cold::Raw,
    pub(crate) stream: String,
    pub(crate) lambda: String,
}

/// Writes a run and returns its folder. A second run on one day gets a number.
pub(crate) fn write(summary: &Summary, samples: &Samples) -> Result<PathBuf> {
    let name = format!("{}-{}", summary.date, machine::slug(&summary.machine));
    let runs = workspace::root().join(RUNS);
    let numbered = (2..).map(|n| format!("{name}-{n}"));
    let dir = std::iter::once(name.clone())
        .chain(numbered)
        .map(|name| runs.join(name))
        .find(|dir| !dir.exists())
        .context("no free folder")?;
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    for (file, header, rows) in [
        ("cold.csv", cold::COLD_HEADER, &samples.cold.cold),
        ("warm.csv", cold::WARM_HEADER, &samples.cold.warm),
        ("stream.csv", stream::HEADER, &samples.stream),
        ("lambda.csv", lambda::HEADER, &samples.lambda),
    ] {
        if !rows.is_empty() {
            put(&dir.join(file), &format!("{header}{rows}"))?;
        }
    }
    put(&dir.join("summary.json"), &format!("{}\n", serde_json::to_string_pretty(summary)?))?;
    put(&dir.join("README.md"), &readme(summary))?;
    for (file, svg) in plots::all(summary) {
        put(&dir.join(file), &svg)?;
    }
    Ok(dir)
}

/// The newest run: its folder, relative to the root, and its summary. Names sort by date.
pub(crate) fn newest() -> Result<(PathBuf, Summary)> {
    let runs = workspace::root().join(RUNS);
    let folders = fs::read_dir(&runs).with_context(|| format!("reading {}", runs.display()))?;
    let mut names: Vec<String> = (folders.filter_map(Result::ok))
        .filter(|f| f.path().join("summary.json").is_file())
        .map(|f| f.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_by_key(|name| order(name));
    let name = names.pop().with_context(|| format!("no run in {}", runs.display()))?;
    let path = runs.join(&name).join("summary.json");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let summary = serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
    Ok((Path::new(RUNS).join(name), summary))
}

/// The date, then the number of the run on that day: the last part where a longer name has one more.
fn order(name: &str) -> (String, usize, u32) {
    let date = name.get(..10).unwrap_or(name).to_owned();
    let last = name.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    (date, name.matches('-').count(), last)
}

fn readme(summary: &Summary) -> String {
    let lines = |map: &std::collections::BTreeMap<String, String>| {
        map.iter().map(|(key, value)| format!("| {key} | {value} |\n")).collect::<String>()
    };
    format!(
        "# Run of {}\n\n`{}` at commit {}, {} rounds. What is measured and how: docs/benchmarks.md.\n\n\
         | machine | |\n|---|---|\n{}\n| version | |\n|---|---|\n{}\n\
         Raw samples: `*.csv`; figures: `summary.json`; plots: `*.svg`.\n",
        summary.date,
        summary.command,
        summary.commit,
        summary.runs,
        lines(&summary.machine),
        lines(&summary.versions)
    )
}

fn put(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_runs_sort_last() {
        let mut names = [
            "2026-11-24-amd-epyc-2-10",
            "2026-11-25-amd-epyc-2",
            "2026-11-24-amd-epyc-2",
            "2026-11-24-amd-epyc-2-2",
        ];
        names.sort_by_key(|name| order(name));
        let expected = [
            "2026-11-24-amd-epyc-2",
            "2026-11-24-amd-epyc-2-2",
            "2026-11-24-amd-epyc-2-10",
            "2026-11-25-amd-epyc-2",
        ];
        assert_eq!(names, expected);
    }
}
