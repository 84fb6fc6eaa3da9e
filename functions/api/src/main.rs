//! The api function: the Open Inference Protocol V2 over HTTP, and `predict` for raw requests.
//! `main` picks the adapters; `handler` takes ports.

mod handler;

use glowplug_function::{Threads, open_predictor, preload, prepare_process};
use glowplug_lambda::config::{Config, Role};
use glowplug_lambda::{BoxError, http};
use std::process::ExitCode;

fn main() -> ExitCode {
    prepare_process();
    glowplug_lambda::run(Role::Api, serve)
}

async fn serve(config: Config) -> Result<(), BoxError> {
    let predictor = open_predictor(&config, Threads::Within)?;
    let models = preload(&predictor, &config)?;
    http::serve(&config, handler::Api { predictor, models }).await
}
