//! The process that Lambda starts: `main`'s frame, the loop that asks for events, and what is the same for all events.

use std::{
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
};

use lambda_runtime::{LambdaEvent, service_fn};
use serde::Serialize;
use serde_json::value::RawValue;
use tracing::Instrument;

use crate::{
    Error, Invocation,
    config::{Config, Role},
    telemetry::{self, Metrics, Report},
};

/// Any error, as `main` meets them.
pub type BoxError = lambda_runtime::Error;

/// The frame of a function's `main`: reads the environment, starts logging and the async runtime, runs `serve`, and
/// turns any error into one log line and a failing exit code, which Lambda reports as a failed init.
pub fn run<F>(role: Role, serve: impl FnOnce(Config) -> F) -> ExitCode
where
    F: Future<Output = Result<(), BoxError>>,
{
    match start(role, serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            telemetry::init("info");
            tracing::error!("{}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn start<F>(role: Role, serve: impl FnOnce(Config) -> F) -> Result<(), BoxError>
where
    F: Future<Output = Result<(), BoxError>>,
{
    let config = Config::from_env(role, |name| std::env::var(name).ok())?;
    telemetry::init(&config.log);
    // Two workers whatever the CPU share: one may be blocked by a handler while the other keeps the deadline.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let served = runtime.block_on(serve(config));
    // Not dropped: that would wait for a load or a run that blocks its thread, and hide the error meanwhile.
    runtime.shutdown_background();
    served
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// What is the same for every kind of event: the cold flag, the invocation's span, metrics.
pub(crate) struct Host {
    cold: AtomicBool,
    metrics: Metrics,
}

impl Host {
    pub(crate) fn new(config: &Config) -> Self {
        let metrics = Metrics::to_stdout(config.metrics_namespace.clone(), config.function.name.clone());
        Self { cold: AtomicBool::new(true), metrics }
    }

    /// Sends metric lines to `write` instead of stdout.
    pub(crate) fn set_metrics_writer(&mut self, write: impl Fn(&str) + Send + Sync + 'static) {
        self.metrics.write = std::sync::Arc::new(write);
    }

    pub(crate) fn report(&self, invocation: &Invocation, report: Report) {
        self.metrics.emit(&Report {
            request_id: invocation.request_id.clone(),
            cold: invocation.cold,
            ..report
        });
    }

    /// Counts an invocation that failed as a whole and hands its error on.
    pub(crate) fn fail(&self, invocation: &Invocation, error: Error) -> Error {
        tracing::error!(kind = ?error.kind(), "{error}");
        self.report(invocation, Report { failed: true, ..Report::default() });
        error
    }

    /// Asks for events for ever and answers each with `handle`.
    pub(crate) async fn serve<T: Serialize>(
        &self,
        handle: impl AsyncFn(&str, &Invocation) -> Result<T, Error>,
    ) -> Result<(), BoxError> {
        let handle = &handle;
        let service = service_fn(async move |event: LambdaEvent<Box<RawValue>>| {
            let cold = self.cold.swap(false, Ordering::Relaxed);
            let invocation = Invocation::from_context(&event.context, cold, telemetry::now_ms());
            let span = telemetry::span(&invocation, &self.metrics.function);
            handle(event.payload.get(), &invocation).instrument(span).await
        });
        lambda_runtime::Runtime::new(service).run().await
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    use serde_json::Value;

    /// The configuration of a function under test.
    pub(crate) fn config() -> Config {
        config_with(&[])
    }

    /// The same with `changes` to its environment.
    pub(crate) fn config_with(changes: &[(&str, &str)]) -> Config {
        let healthy = [
            ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001"),
            ("AWS_LAMBDA_FUNCTION_NAME", "score"),
            ("AWS_LAMBDA_FUNCTION_VERSION", "1"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "1769"),
            ("GLOWPLUG_STORE", "file:///models"),
        ];
        let lookup = |name: &str| {
            let found = changes.iter().chain(&healthy).find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Config::from_env(Role::Api, lookup).expect("a healthy environment")
    }

    /// Keeps metric lines.
    #[derive(Clone, Default)]
    pub(crate) struct Lines(Arc<Mutex<Vec<String>>>);

    impl Lines {
        pub(crate) fn writer(&self) -> impl Fn(&str) + Send + Sync + 'static {
            let lines = self.0.clone();
            move |line| lines.lock().expect("no panic while locked").push(line.to_owned())
        }

        /// The one document written.
        pub(crate) fn only(&self) -> Value {
            let lines = self.0.lock().expect("no panic while locked");
            assert_eq!(lines.len(), 1, "{lines:?}");
            serde_json::from_str(&lines[0]).expect("JSON")
        }
    }

    #[test]
    fn chain_is_one_line() {
        #[derive(Debug, thiserror::Error)]
        #[error("store is unreachable")]
        struct Outer(#[source] std::io::Error);
        let error = Outer(std::io::Error::other("connection refused"));
        assert_eq!(chain(&error), "store is unreachable: connection refused");
    }
}
