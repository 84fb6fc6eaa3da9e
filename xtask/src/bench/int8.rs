//! What doing convolutions in bytes is worth: warm runs in f32 and in int8, ours and ONNX Runtime's, in turn.

use super::engines::{ENGINES, INT8, ORT, OURS};
use super::plots::figure;
use super::summary::WarmCase;

/// What is measured, unless told otherwise.
pub(crate) const MODELS: [&str; 2] = ["resnet50", "mobilenetv2"];
/// What the archive calls such a run: its figures are of warm runs, the tables of docs/benchmarks.md are not made from it.
pub(crate) const KIND: &str = "int8";

/// The run as a table. An engine in int8 is compared with the same one in f32.
pub(crate) fn table(cases: &[WarmCase]) -> String {
    use std::fmt::Write;
    let mut text = "| model | engine | p50 ms | p99 ms | times as fast as its f32 | largest difference from f32 | peak MB |\n\
                    |---|---|--:|--:|--:|--:|--:|\n"
        .to_owned();
    let pairs = [(OURS, None), (INT8[0].id, Some(OURS)), (ORT, None), (INT8[1].id, Some(ORT))];
    for case in cases {
        let mut name = case.model.as_str();
        for (id, f32) in pairs {
            let Some(found) = case.figures(id) else { continue };
            let faster = f32.and_then(|f32| case.figures(f32)).map(|f32| f32.p50_ms / found.p50_ms);
            #[allow(clippy::cast_precision_loss, reason = "megabytes")]
            let peak = found.peak_rss_bytes.map_or("-".to_owned(), |b| format!("{:.0}", b as f64 / 1e6));
            let title = ENGINES.iter().chain(INT8).find(|e| e.id == id).map_or(id, |e| e.title);
            let _ = writeln!(
                text,
                "| {name} | {title} | {} | {} | {} | {:.1e} | {peak} |",
                figure(found.p50_ms),
                figure(found.p99_ms),
                faster.map_or("-".to_owned(), |times| format!("{times:.2}")),
                found.output_error,
            );
            name = "";
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::summary::{WarmEngine, WarmFigures};
    use super::*;

    #[test]
    fn int8_is_compared_with_the_same_engine_in_f32() {
        let engine = |id: &str, p50_ms| WarmEngine {
            id: id.to_owned(),
            wrong: false,
            refused: None,
            figures: Some(WarmFigures {
                runs: 3,
                p50_ms,
                p99_ms: 2.0 * p50_ms,
                rows_per_second: 1.0,
                over_ort: None,
                output_error: 0.02,
                peak_rss_bytes: Some(50_000_000),
            }),
        };
        let case = WarmCase {
            model: "m".into(),
            batch: 1,
            threads: 1,
            random_weights: true,
            rounds: 3,
            refused: None,
            engines: vec![engine("ort-int8", 5.0), engine("glowplug-int8", 4.0), engine("glowplug", 9.0)],
        };
        let text = table(&[case]);
        let rows: Vec<&str> = text.lines().skip(2).collect();
        assert!(rows[0].starts_with("| m | Glowplug") && rows[0].ends_with("| - | 2.0e-2 | 50 |"), "{text}");
        assert!(rows[1].starts_with("|  | Glowplug") && rows[1].contains("| 2.25 |"), "{text}");
        assert!(rows[2].contains("ONNX Runtime") && rows[2].contains("| - |"), "without its f32: {text}");
    }
}
