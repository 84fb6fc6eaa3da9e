//! The queue function: each record of an SQS batch names a model and brings an input; a bad record fails alone.
//! `main` picks the adapters; `handler` takes ports.

mod handler;
mod record;

use glowplug_function::{Scorer, preload, prepare_process};
use glowplug_lambda::config::{Config, Role};
use glowplug_lambda::{BoxError, queue};
use std::process::ExitCode;

fn main() -> ExitCode {
    prepare_process();
    glowplug_lambda::run(Role::Queue, serve)
}

async fn serve(config: Config) -> Result<(), BoxError> {
    let scorer = Scorer::open(&config)?;
    preload(scorer.predictor(), &config)?;
    queue::serve(&config, handler::Queue { scorer }).await
}
