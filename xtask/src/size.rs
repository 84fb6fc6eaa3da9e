//! `size`: what is deployed, in bytes: each function's stripped binary and its zip.
//!
//! The zip is the one Lambda takes (`bootstrap`, deflated) and stays at `target/deploy/<function>/bootstrap.zip`,
//! where infra/template.yaml expects it. A zip built here runs only where the C library is at least as new as
//! this machine's; infra/README.md tells how to build one for Lambda.

use crate::workspace::{self, FUNCTIONS};
use anyhow::{Context, Result};
use serde::Serialize;
use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;
use zip::write::SimpleFileOptions;

/// The deployed profile: link-time optimized and stripped.
const PROFILE: &str = "lambda";
/// Zopfli with five rounds: 3 % smaller than deflate's best, and still plain deflate to whoever unpacks it. The
/// better part of a minute for each function.
const LEVEL: i64 = 14;

#[derive(Serialize)]
struct Row {
    function: &'static str,
    binary_bytes: usize,
    zip_bytes: usize,
}

/// Builds the functions and prints their sizes.
pub(crate) fn report(json: bool) -> Result<()> {
    let packages = FUNCTIONS.into_iter().flat_map(|p| ["--package", p]);
    workspace::run(&mut workspace::cargo(["build", "--profile", PROFILE].into_iter().chain(packages))?)?;
    let target = workspace::target_dir()?;
    let rows = FUNCTIONS.into_iter().map(|f| measure(&target, f)).collect::<Result<Vec<_>>>()?;
    match json {
        true => println!("{}", serde_json::to_string(&rows)?),
        false => print!("{}", table(&rows)),
    }
    Ok(())
}

fn measure(target: &Path, function: &'static str) -> Result<Row> {
    let path = target.join(PROFILE).join(function);
    let binary = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let zipped = zipped(&binary)?;
    let dir = target.join("deploy").join(function);
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    fs::write(dir.join("bootstrap.zip"), &zipped)?;
    Ok(Row { function, binary_bytes: binary.len(), zip_bytes: zipped.len() })
}

/// A zip that holds `bootstrap`, executable, with a fixed date so that equal binaries give equal zips.
fn zipped(binary: &[u8]) -> Result<Vec<u8>> {
    let options = SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Deflated)
        .compression_level(Some(LEVEL))
        .last_modified_time(zip::DateTime::default())
        .unix_permissions(0o755);
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("bootstrap", options)?;
    zip.write_all(binary)?;
    Ok(zip.finish()?.into_inner())
}

fn table(rows: &[Row]) -> String {
    let line = |r: &Row| format!("{:<16} {:>14} {:>14}\n", r.function, r.binary_bytes, r.zip_bytes);
    let header = format!("{:<16} {:>14} {:>14}\n", "function", "binary bytes", "zip bytes");
    rows.iter().map(line).fold(header, |all, line| all + &line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn the_zip_holds_an_executable_bootstrap() {
        let binary = b"\x7fELF and much that repeats, repeats, repeats".repeat(100);
        let bytes = zipped(&binary).unwrap();
        assert!(bytes.len() < binary.len() / 5, "deflated");
        assert_eq!(bytes, zipped(&binary).unwrap(), "reproducible");
        let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
        let mut file = archive.by_name("bootstrap").unwrap();
        assert_eq!(file.unix_mode().unwrap() & 0o777, 0o755);
        let mut found = Vec::new();
        file.read_to_end(&mut found).unwrap();
        assert_eq!(found, binary);
    }

    #[test]
    fn the_table_has_a_line_for_each_function() {
        let rows = FUNCTIONS.map(|function| Row { function, binary_bytes: 7_654_321, zip_bytes: 1_234_567 });
        let text = table(&rows);
        assert_eq!(text.lines().count(), 1 + FUNCTIONS.len());
        assert!(text.contains("glowplug-api            7654321        1234567"), "{text}");
    }
}
