//! Stage timings out of what the functions answer: the `server-timing` header and result documents.

use glowplug_predict::Timings;

/// The stages of a `server-timing` header: `run_ms;dur=1.250, ..`.
pub(crate) fn of_header(header: &str) -> Timings {
    let mut timings = Timings::default();
    for part in header.split(',') {
        let Some((name, ms)) = part.trim().split_once(";dur=") else { continue };
        let stage = match name {
            "fetch_ms" => &mut timings.fetch_ms,
            "verify_ms" => &mut timings.verify_ms,
            "plan_ms" => &mut timings.plan_ms,
            "preprocess_ms" => &mut timings.preprocess_ms,
            "run_ms" => &mut timings.run_ms,
            "postprocess_ms" => &mut timings.postprocess_ms,
            _ => continue,
        };
        *stage = ms.parse().ok();
    }
    timings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_read_by_name_and_others_passed_over() {
        let t = of_header("fetch_ms;dur=1.5, cdn;dur=9, run_ms;dur=0.250");
        assert_eq!((t.fetch_ms, t.run_ms, t.plan_ms), (Some(1.5), Some(0.25), None));
    }
}
