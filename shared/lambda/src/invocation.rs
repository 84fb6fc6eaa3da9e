//! One invocation, as handlers see it: who asked, whether the process is cold, and how much time is left.

use std::time::{Duration, Instant};

use lambda_runtime::Context;

/// Lambda's longest timeout: the deadline where the runtime gives none.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// What handlers may know of the invocation they serve.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// Lambda's request id; answers, logs and metrics carry it.
    pub request_id: String,
    /// The X-Ray trace id, where there is one.
    pub trace_id: Option<String>,
    /// True for the first invocation of this process.
    pub cold: bool,
    /// When to have answered: Lambda's deadline less a margin, so that lateness is an answer and not a killed process.
    pub deadline: Instant,
}

impl Invocation {
    /// An invocation with `remaining` time: for tests and local use.
    pub fn new(request_id: impl Into<String>, remaining: Duration) -> Self {
        let deadline = Instant::now() + remaining;
        Self { request_id: request_id.into(), trace_id: None, cold: false, deadline }
    }

    /// The time left; zero once the deadline has passed.
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// From the runtime's context at `now_ms` (milliseconds since 1970).
    pub(crate) fn from_context(context: &Context, cold: bool, now_ms: u64) -> Self {
        let budget = budget(context.deadline, now_ms);
        Self { trace_id: context.xray_trace_id.clone(), cold, ..Self::new(&context.request_id, budget) }
    }
}

/// The time a handler gets between `now_ms` and Lambda's `deadline_ms`: all but a tenth, the margin being at least
/// 200 ms and at most 2 s, and never more than half. A deadline over a minute old is no deadline: emulators send 1970.
fn budget(deadline_ms: u64, now_ms: u64) -> Duration {
    if deadline_ms.saturating_add(60_000) < now_ms {
        return LONGEST;
    }
    let left = Duration::from_millis(deadline_ms.saturating_sub(now_ms)).min(LONGEST);
    let margin = (left / 10).clamp(Duration::from_millis(200), Duration::from_secs(2)).min(left / 2);
    left - margin
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn margin_is_a_tenth_within_bounds() {
        const NOW: u64 = 1_800_000_000_000;
        let table = [
            (NOW, 0),
            (NOW + 100, 50),
            (NOW + 1_000, 800),
            (NOW + 3_000, 2_700),
            (NOW + 30_000, 28_000),
            (NOW + 900_000, 898_000),
            (u64::MAX, 898_000),
            (NOW - 10_000, 0),
            (0, 900_000),
            (NOW - 60_001, 900_000),
        ];
        for (deadline, expected) in table {
            assert_eq!(budget(deadline, NOW), Duration::from_millis(expected), "deadline {deadline}");
        }
    }

    #[test]
    fn remaining_never_underflows() {
        let late = Invocation { deadline: Instant::now(), ..Invocation::new("r", Duration::ZERO) };
        assert_eq!(late.remaining(), Duration::ZERO);
    }

    #[test]
    fn context_is_carried_over() {
        let mut context = Context::default();
        context.request_id = "8f5c".into();
        context.xray_trace_id = Some("Root=1-2-3".into());
        let invocation = Invocation::from_context(&context, true, 0);
        assert_eq!(invocation.request_id, "8f5c");
        assert_eq!(invocation.trace_id.as_deref(), Some("Root=1-2-3"));
        assert!(invocation.cold);
    }
}
