//! How a command answers: one value that is both text for people and JSON for programs. stdout carries it,
//! stderr everything else.

use serde::Serialize;
use std::fmt::Display;
use std::io::Write;

/// Prints `report` to stdout: JSON on one line where `json`, else its `Display`. A closed pipe is no error.
pub(crate) fn print<R: Display + Serialize>(report: &R, json: bool) -> anyhow::Result<()> {
    let text = if json { serde_json::to_string(report)? } else { report.to_string() };
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{}", text.trim_end()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// `3.2 MB` for 3,200,000: decimal units, as disks and links are told.
#[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(crate) fn bytes(n: u64) -> String {
    let units = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    match units.iter().find(|(size, _)| n as f64 >= *size) {
        Some((size, unit)) => format!("{:.1} {unit}", n as f64 / size),
        None => format!("{n} B"),
    }
}

/// Rows under headers, numbers right-aligned: a cell that starts with a digit is a number.
pub(crate) struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column headers.
    pub(crate) fn new<const N: usize>(header: [&str; N]) -> Table {
        Table { header: header.iter().map(ToString::to_string).collect(), rows: Vec::new() }
    }

    /// Appends a row, one cell per column.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = |c: usize| {
            let cells = std::iter::once(&self.header).chain(&self.rows);
            cells.map(|row| row[c].chars().count()).max().unwrap_or(0)
        };
        let is_number = |c: usize| {
            let mut cells = self.rows.iter().map(|row| &row[c]).filter(|cell| *cell != "-").peekable();
            cells.peek().is_some() && cells.all(|cell| cell.starts_with(|d: char| d.is_ascii_digit()))
        };
        let columns: Vec<_> = (0..self.header.len()).map(|c| (width(c), is_number(c))).collect();
        for row in std::iter::once(&self.header).chain(&self.rows) {
            let mut line = String::new();
            for (cell, (width, right)) in row.iter().zip(&columns) {
                match right {
                    true => line.push_str(&format!("{cell:>width$}  ")),
                    false => line.push_str(&format!("{cell:<width$}  ")),
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_decimal() {
        assert_eq!(
            [0, 999, 1000, 209_993, 90_000_000].map(bytes),
            ["0 B", "999 B", "1.0 kB", "210.0 kB", "90.0 MB"]
        );
    }

    #[test]
    fn numbers_stand_right_and_text_left() {
        let mut table = Table::new(["name", "ms"]);
        table.row(["a".into(), "1.5".into()]);
        table.row(["bcdef".into(), "10.5".into()]);
        assert_eq!(table.to_string(), "name     ms\na       1.5\nbcdef  10.5\n");
    }
}
