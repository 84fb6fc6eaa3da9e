//! The upload function: an object created in S3 is scored by one model, and the result stored beside the model's digest.
//! `main` picks the adapters; `handler` takes ports.

mod handler;

use glowplug_function::{Scorer, preload, prepare_process};
use glowplug_lambda::config::{Config, Role};
use glowplug_lambda::{BoxError, objects};
use std::process::ExitCode;

fn main() -> ExitCode {
    prepare_process();
    glowplug_lambda::run(Role::Upload, serve)
}

async fn serve(config: Config) -> Result<(), BoxError> {
    let scorer = Scorer::open(&config)?;
    let mut models = preload(scorer.predictor(), &config)?.into_iter();
    let (Some(model), None) = (models.next(), models.next()) else {
        let found = config.models.len();
        return Err(
            format!("GLOWPLUG_MODELS names {found} models, the upload function wants exactly 1").into()
        );
    };
    objects::serve(&config, handler::Upload { scorer, model }).await
}
