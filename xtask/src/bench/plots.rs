//! Bar charts as SVG, written by hand: axes, units, one colour per engine, spread as whiskers.

use super::archive::File;
use super::engines::ENGINES;
use super::summary::{CaseSummary, Summary, WarmCase};
use super::warm_tables::{columns, mean_over_ort};
use std::fmt::Write;

const COLOURS: [&str; 8] =
    ["#c2410c", "#1d4ed8", "#60a5fa", "#15803d", "#86efac", "#7c3aed", "#a16207", "#6b7280"];
const LEFT: f64 = 150.0;
const WIDTH: f64 = 620.0;
const BAR: f64 = 13.0;

/// One bar: engine, value, and the ends of its whisker.
struct Bar {
    engine: usize,
    value: f64,
    spread: Option<(f64, f64)>,
}

/// A bar's value, and the ends of its whisker.
type Value = (f64, Option<(f64, f64)>);

/// The plots of a cold run.
pub(crate) fn cold(summary: &Summary) -> Vec<File> {
    let exec = groups(summary, |case, id| {
        let f = case.figures(id)?;
        Some((f.exec_ms, Some((f.exec_ms_p10, f.exec_ms_p90))))
    });
    let load = groups(summary, |case, id| Some((case.figures(id)?.load_ms, None)));
    let memory = groups(summary, |case, id| {
        #[allow(clippy::cast_precision_loss, reason = "megabytes")]
        let bytes = case.figures(id)?.peak_rss_bytes? as f64;
        Some((bytes / 1e6, None))
    });
    let title = "Exec to first answer, 1 thread (median; whiskers p10 to p90)";
    let charts = [
        ("exec-to-first-answer.svg", chart(title, "ms", &exec)),
        ("bytes-to-plan.svg", chart("Bytes to plan or session (median)", "ms", &load)),
        ("peak-memory.svg", chart("Peak memory at the first answer (median)", "MB", &memory)),
    ];
    charts.map(|(file, svg)| (file.to_owned(), svg)).into()
}

/// The plots of a warm run: latency at every batch and thread count, and how everyone compares to ONNX Runtime.
pub(crate) fn warm(summary: &Summary<WarmCase>) -> Vec<File> {
    let told = |(batch, threads): &(u32, u32)| {
        let threads = if *threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") };
        format!("batch {batch}, {threads}")
    };
    let latency = |column: &(u32, u32)| {
        let cases = summary.cases.iter().filter(|c| (c.batch, c.threads) == *column);
        let groups = cases.map(|case| {
            let value = |id: &str| case.figures(id).map(|f| (f.p50_ms, Some((f.p50_ms, f.p99_ms))));
            (case.model.clone(), bars(value))
        });
        let title = format!("Latency, {} (median; whiskers to p99)", told(column));
        (format!("latency-b{}-t{}.svg", column.0, column.1), chart(&title, "ms", &shown(groups)))
    };
    let columns = columns(summary);
    let means = columns.iter().map(|column| {
        let value = |id: &str| mean_over_ort(summary, *column, id).map(|(mean, _)| (mean, None));
        (told(column), bars(value))
    });
    let means = chart("Time over ONNX Runtime's (geometric mean)", "times", &shown(means));
    columns.iter().map(latency).chain([("over-ort.svg".to_owned(), means)]).collect()
}

fn groups(summary: &Summary, value: impl Fn(&CaseSummary, &str) -> Option<Value>) -> Vec<(String, Vec<Bar>)> {
    shown(summary.cases.iter().map(|case| (case.name.clone(), bars(|id| value(case, id)))))
}

/// Without the groups that have no bar.
fn shown(groups: impl Iterator<Item = (String, Vec<Bar>)>) -> Vec<(String, Vec<Bar>)> {
    groups.filter(|(_, bars)| !bars.is_empty()).collect()
}

/// A bar for every engine that has a value.
fn bars(value: impl Fn(&str) -> Option<Value>) -> Vec<Bar> {
    let bar = |(engine, e): (usize, &super::engines::Engine)| {
        value(e.id).map(|(value, spread)| Bar { engine, value, spread })
    };
    ENGINES.iter().enumerate().filter_map(bar).collect()
}

/// A horizontal chart on a logarithmic axis: models differ by a factor of a thousand.
fn chart(title: &str, unit: &str, groups: &[(String, Vec<Bar>)]) -> String {
    let bars = || groups.iter().flat_map(|(_, bars)| bars);
    let ends = || bars().flat_map(|b| [b.value, b.spread.map_or(b.value, |(_, to)| to)]).filter(|v| *v > 0.0);
    // Where nothing was measured, an axis without bars from 1 to 10.
    let low = ends().reduce(f64::min).map_or(0.0, |least| least.log10().floor());
    let high = ends().reduce(f64::max).map_or(1.0, |most| most.log10().ceil()).max(low + 1.0);
    let x = |value: f64| LEFT + WIDTH * ((value.max(1e-9).log10() - low) / (high - low)).clamp(0.0, 1.0);
    let mut body = String::new();
    let mut y = 60.0;
    for (name, bars) in groups {
        let middle = y + BAR * bars.len() as f64 / 2.0 + 4.0;
        text(&mut body, LEFT - 8.0, middle, "end", 12, name);
        for bar in bars {
            let colour = COLOURS[bar.engine % COLOURS.len()];
            let width = x(bar.value) - LEFT;
            let _ = write!(
                body,
                r#"<rect x="{LEFT}" y="{y:.1}" width="{width:.1}" height="{:.1}" fill="{colour}"/>"#,
                BAR - 2.0
            );
            let mut end = x(bar.value);
            if let Some((from, to)) = bar.spread {
                let (from, to, centre) = (x(from), x(to), y + BAR / 2.0 - 1.0);
                let _ = write!(
                    body,
                    r##"<path d="M{from:.1} {centre:.1}H{to:.1}" stroke="#111" stroke-width="1"/>"##
                );
                end = end.max(to);
            }
            text(&mut body, end + 4.0, y + BAR - 4.0, "start", 10, &figure(bar.value));
            y += BAR;
        }
        y += 10.0;
    }
    let bottom = y;
    let mut grid = String::new();
    let mut decade = low;
    while decade <= high {
        let at = x(10f64.powf(decade));
        let _ = write!(grid, r##"<path d="M{at:.1} 55V{bottom:.1}" stroke="#ddd"/>"##);
        text(&mut grid, at, bottom + 16.0, "middle", 11, &figure(10f64.powf(decade)));
        decade += 1.0;
    }
    text(&mut grid, LEFT + WIDTH / 2.0, bottom + 34.0, "middle", 12, &format!("{unit}, logarithmic"));
    text(&mut grid, LEFT, 20.0, "start", 14, title);
    let height = legend(&mut grid, bottom + 52.0);
    let width = LEFT + WIDTH + 60.0;
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0} {height:.0}" font-family="sans-serif"><rect width="100%" height="100%" fill="#fff"/>{grid}{body}</svg>
"##
    )
}

/// Draws the engines' names below `top` and returns where the picture ends.
fn legend(to: &mut String, top: f64) -> f64 {
    for (i, engine) in ENGINES.iter().enumerate() {
        let (x, y) = (LEFT + WIDTH / 2.0 * (i % 2) as f64, top + 18.0 * (i / 2) as f64);
        let colour = COLOURS[i % COLOURS.len()];
        let _ =
            write!(to, r#"<rect x="{x:.1}" y="{:.1}" width="11" height="11" fill="{colour}"/>"#, y - 10.0);
        text(to, x + 16.0, y, "start", 11, engine.title);
    }
    top + 18.0 * ENGINES.len().div_ceil(2) as f64
}

fn text(to: &mut String, x: f64, y: f64, anchor: &str, size: u32, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('`', "");
    let _ =
        write!(to, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" font-size="{size}">{text}</text>"#);
}

/// Three significant digits.
pub(crate) fn figure(value: f64) -> String {
    match value.abs() {
        v if v >= 99.95 => format!("{value:.0}"),
        v if v >= 9.995 => format!("{value:.1}"),
        v if v >= 0.9995 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_bars_for_larger_values_and_every_engine_in_the_legend() {
        let bar = |engine, value| Bar { engine, value, spread: Some((value * 0.9, value * 1.1)) };
        let svg = chart("t", "ms", &[("a<b".to_owned(), vec![bar(0, 2.0), bar(3, 95.0)])]);
        assert!(svg.contains("a&lt;b") && svg.contains("ms, logarithmic"));
        let widths: Vec<f64> = (svg.split("<rect x=\"150\"").skip(1))
            .filter_map(|r| r.split("width=\"").nth(1)?.split('"').next()?.parse().ok())
            .collect();
        assert!(widths[0] < widths[1], "{widths:?}");
        assert!(svg.contains(">100</text>"), "the axis has room for the whisker");
        assert!(chart("t", "ms", &[]).contains(">10.0</text>"), "no bars, but an axis");
        assert!(ENGINES.iter().all(|e| svg.contains(&e.title.replace('`', ""))));
        assert_eq!([123.4, 12.34, 1.234, 0.1234].map(figure), ["123", "12.3", "1.23", "0.123"]);
    }
}
