//! Logs and metrics: JSON lines on stdout, where Lambda reads them.
//!
//! Every log line of an invocation carries its request id, whether the process was cold, and the function's name.
//! Metrics use the CloudWatch Embedded Metric Format: log lines that CloudWatch turns into metrics, with no API call.

mod emf;
mod logs;

pub use emf::{Batch, Report, documents};
pub use logs::init;
pub(crate) use logs::{is_filter, span};

use std::{
    io::Write,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Where metric documents go, one line each.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) namespace: String,
    pub(crate) function: String,
    pub(crate) write: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Metrics {
    pub(crate) fn to_stdout(namespace: String, function: String) -> Self {
        Self { namespace, function, write: Arc::new(stdout_line) }
    }

    pub(crate) fn emit(&self, report: &Report) {
        for document in documents(&self.namespace, &self.function, now_ms(), report) {
            (self.write)(&document.to_string());
        }
    }
}

/// One write per line, so that lines of several threads do not mix. A closed stdout must not fail an invocation.
fn stdout_line(line: &str) {
    let mut bytes = Vec::with_capacity(line.len() + 1);
    bytes.extend_from_slice(line.as_bytes());
    bytes.push(b'\n');
    let _ = std::io::stdout().lock().write_all(&bytes);
}
