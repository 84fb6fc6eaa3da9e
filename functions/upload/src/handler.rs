//! One object, one result.

use async_trait::async_trait;
use glowplug_function::{Input, Scorer};
use glowplug_lambda::objects::{ObjectHandler, ObjectRef};
use glowplug_lambda::{Error, Invocation, Outcome};
use glowplug_predict::ModelRef;

/// Scores every object with the one configured model.
pub(crate) struct Upload {
    pub(crate) scorer: Scorer,
    pub(crate) model: ModelRef,
}

#[async_trait]
impl ObjectHandler for Upload {
    async fn object(&self, object: ObjectRef, invocation: &Invocation) -> Result<Outcome, Error> {
        // The state that the event tells of: what has replaced it has an event of its own.
        let bytes = self.scorer.object(&object.bucket, &object.key, object.etag.as_deref()).await?;
        let source = object.to_string();
        let scored = self.scorer.score(&self.model, Input::Raw(bytes), &source, invocation.deadline).await?;
        Ok(scored.outcome)
    }
}
