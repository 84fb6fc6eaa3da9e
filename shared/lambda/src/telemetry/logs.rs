//! The log subscriber: one JSON object per line, with the fields of the invocation's span.
//!
//! `Targets` rather than `EnvFilter`: the same directives but for span fields, and no regular expressions in the function.

use std::panic::PanicHookInfo;

use tracing::{Level, Span, Subscriber};
use tracing_subscriber::{
    Layer, Registry, filter::Targets, fmt, fmt::MakeWriter, layer::SubscriberExt, util::SubscriberInitExt,
};

use crate::Invocation;

/// Whether `text` is a log filter.
pub(crate) fn is_filter(text: &str) -> bool {
    text.parse::<Targets>().is_ok()
}

/// Starts logging to stdout with `filter`, and sends panics there too. A second call changes nothing.
pub fn init(filter: &str) {
    if subscriber(filter, std::io::stdout).try_init().is_ok() {
        std::panic::set_hook(Box::new(log_panic));
    }
}

fn subscriber<W>(filter: &str, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let targets = filter.parse().unwrap_or_else(|_| Targets::new().with_default(Level::INFO));
    let json = fmt::layer().json().flatten_event(true).with_span_list(false).with_writer(writer);
    Registry::default().with(json.with_filter(targets))
}

/// The default hook writes several plain lines to stderr; one JSON line can be searched for by request id.
fn log_panic(info: &PanicHookInfo<'_>) {
    let place = info.location().map(ToString::to_string);
    let text = info.payload_as_str().unwrap_or("no message");
    tracing::error!(place, "panic: {text}");
}

/// The span that every log line of an invocation carries.
pub(crate) fn span(invocation: &Invocation, function: &str) -> Span {
    let Invocation { request_id, trace_id, cold, .. } = invocation;
    tracing::error_span!("invocation", request_id, cold, function, trace_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Write,
        sync::{Arc, Mutex},
        time::Duration,
    };

    use serde_json::Value;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no panic while writing").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The lines that `work` logs under `filter`.
    fn logged(filter: &str, work: impl FnOnce()) -> Vec<Value> {
        let sink = Sink::default();
        let writer = sink.clone();
        tracing::subscriber::with_default(subscriber(filter, move || writer.clone()), work);
        let bytes = sink.0.lock().expect("no panic while writing").clone();
        let text = String::from_utf8(bytes).expect("UTF-8");
        text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    #[test]
    fn lines_carry_request_id_cold_and_function() {
        let invocation = Invocation { cold: true, ..Invocation::new("req-7", Duration::from_secs(1)) };
        let lines = logged("info", || {
            span(&invocation, "score").in_scope(|| tracing::info!(status = 200, "answered"));
        });
        let line = &lines[0];
        assert_eq!(
            (&line["level"], &line["message"], &line["status"]),
            (&"INFO".into(), &"answered".into(), &200.into())
        );
        assert_eq!(line["span"]["request_id"], "req-7");
        assert_eq!(line["span"]["cold"], true);
        assert_eq!(line["span"]["function"], "score");
        assert!(line["timestamp"].is_string());
    }

    #[test]
    fn the_span_is_there_whatever_the_level() {
        let invocation = Invocation::new("req-8", Duration::from_secs(1));
        let lines = logged("error", || {
            span(&invocation, "score").in_scope(|| {
                tracing::info!("not logged");
                tracing::error!("logged");
            });
        });
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0]["span"]["request_id"], "req-8");
    }

    #[test]
    fn a_bad_filter_still_logs() {
        assert!(!is_filter("info,x=loud") && is_filter("info,hyper=warn"));
        assert_eq!(logged("info,x=loud", || tracing::info!("here")).len(), 1);
    }
}
