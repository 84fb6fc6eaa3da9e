//! `benches/runs/<date>-<machine>/`: every run that a table or a plot was made from, one kind of run in each.

use super::summary::{Kind, Summary, first_kind};
use super::{cold, lambda, machine, stream};
use crate::workspace;
use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};

/// Where runs are kept.
const RUNS: &str = "benches/runs";
const SUMMARY: &str = "summary.json";

/// A file of a run: its name and content.
pub(crate) type File = (String, String);

/// The raw samples of a cold run, as CSV without headers.
#[derive(Default)]
pub(crate) struct Samples {
    pub(crate) cold: cold::Raw,
    pub(crate) stream: String,
    pub(crate) lambda: String,
}

impl Samples {
    /// A file for each part that was measured.
    pub(crate) fn files(&self) -> Vec<File> {
        let parts = [
            ("cold.csv", cold::COLD_HEADER, &self.cold.cold),
            ("warm.csv", cold::WARM_HEADER, &self.cold.warm),
            ("stream.csv", stream::HEADER, &self.stream),
            ("lambda.csv", lambda::HEADER, &self.lambda),
        ];
        let measured = parts.iter().filter(|(_, _, rows)| !rows.is_empty());
        measured.map(|(name, header, rows)| ((*name).to_owned(), format!("{header}{rows}"))).collect()
    }
}

/// Writes a run with its samples and plots, and returns its folder. A second run on one day gets a number.
pub(crate) fn write<C: Kind + Serialize>(
    summary: &Summary<C>,
    files: impl IntoIterator<Item = File>,
) -> Result<PathBuf> {
    let name = format!("{}-{}", summary.date, machine::slug(&summary.machine));
    let runs = workspace::root().join(RUNS);
    let numbered = (2..).map(|n| format!("{name}-{n}"));
    let dir = std::iter::once(name.clone())
        .chain(numbered)
        .map(|name| runs.join(name))
        .find(|dir| !dir.exists())
        .context("no free folder")?;
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    put(&dir.join(SUMMARY), &format!("{}\n", serde_json::to_string_pretty(summary)?))?;
    put(&dir.join("README.md"), &readme(summary))?;
    for (file, content) in files {
        put(&dir.join(file), &content)?;
    }
    Ok(dir)
}

/// The newest run of a kind: its folder, relative to the root, and its summary; nothing where there is none. Names
/// sort by date.
pub(crate) fn newest<C: Kind + DeserializeOwned>() -> Result<Option<(PathBuf, Summary<C>)>> {
    let found = newest_in(&workspace::root().join(RUNS))?;
    Ok(found.map(|(name, summary)| (Path::new(RUNS).join(name), summary)))
}

fn newest_in<C: Kind + DeserializeOwned>(runs: &Path) -> Result<Option<(String, Summary<C>)>> {
    /// As much of a summary as tells whether to read it.
    #[derive(Deserialize)]
    struct Head {
        #[serde(default = "first_kind")]
        kind: String,
    }
    let folders = fs::read_dir(runs).with_context(|| format!("reading {}", runs.display()))?;
    let mut names: Vec<String> = (folders.filter_map(Result::ok))
        .filter(|f| f.path().join(SUMMARY).is_file())
        .map(|f| f.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_by_key(|name| Reverse(order(name)));
    for name in names {
        let path = runs.join(&name).join(SUMMARY);
        let reading = || format!("reading {}", path.display());
        let text = fs::read_to_string(&path).with_context(reading)?;
        let head: Head = serde_json::from_str(&text).with_context(reading)?;
        if head.kind == C::KIND {
            return Ok(Some((name, serde_json::from_str(&text).with_context(reading)?)));
        }
    }
    Ok(None)
}

/// The date, then the number of the run on that day: the last part where a longer name has one more.
fn order(name: &str) -> (String, usize, u32) {
    let date = name.get(..10).unwrap_or(name).to_owned();
    let last = name.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    (date, name.matches('-').count(), last)
}

fn readme<C: Kind>(summary: &Summary<C>) -> String {
    let lines = |map: &std::collections::BTreeMap<String, String>| {
        map.iter().map(|(key, value)| format!("| {key} | {value} |\n")).collect::<String>()
    };
    format!(
        "# Run of {}: {}\n\n`{}` at commit {}, {} rounds. What is measured and how: {}.\n\n\
         | machine | |\n|---|---|\n{}\n| version | |\n|---|---|\n{}\n\
         Figures: `summary.json`, and beside it samples, plots or tables.\n",
        summary.date,
        summary.kind,
        summary.command,
        summary.commit,
        summary.runs,
        C::DOCUMENT,
        lines(&summary.machine),
        lines(&summary.versions)
    )
}

fn put(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::super::summary::{CaseSummary, WarmCase};
    use super::*;

    #[test]
    fn the_newest_of_a_kind_is_found_and_the_first_runs_were_cold() {
        let runs = std::env::temp_dir().join(format!("glowplug-xtask-runs-{}", std::process::id()));
        let head = r#""command":"","commit":"","machine":{},"versions":{},"runs":1,"cases":[]"#;
        for (name, kind) in [
            ("2026-11-24-x-2", ""),
            ("2026-11-25-x-2", r#""kind":"warm","#),
            ("2026-11-25-x-2-2", r#""kind":"warm","#),
            ("2026-11-26-x-2", r#""kind":"other","#),
        ] {
            fs::create_dir_all(runs.join(name)).unwrap();
            put(&runs.join(name).join(SUMMARY), &format!(r#"{{{kind}"date":"{name}",{head}}}"#)).unwrap();
        }
        let cold = newest_in::<CaseSummary>(&runs).unwrap().unwrap();
        assert_eq!((cold.0.as_str(), cold.1.kind.as_str()), ("2026-11-24-x-2", "cold"));
        let warm = newest_in::<WarmCase>(&runs).unwrap().unwrap();
        assert_eq!((warm.0.as_str(), warm.1.date.as_str()), ("2026-11-25-x-2-2", "2026-11-25-x-2-2"));
        fs::remove_dir_all(runs.join("2026-11-24-x-2")).unwrap();
        assert!(newest_in::<CaseSummary>(&runs).unwrap().is_none());
        fs::remove_dir_all(runs).unwrap();
    }

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
