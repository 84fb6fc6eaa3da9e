//! Asynchronous delivery: notifications to their targets, with Lambda's asynchronous semantics (two retries, then the
//! event is put on a list of dropped events, so that nothing is lost without a trace).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::invoke::{FunctionError, InvokeResult};
use crate::queue::Queue;
use crate::runtime_api::Function;
use crate::s3::{Created, Notification, Target, event};

/// How often an asynchronous event is tried.
const ATTEMPTS: u32 = 3;

/// An asynchronous event that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedEvent {
    /// The function or queue that should have had it.
    pub target: String,
    /// The event.
    pub payload: Bytes,
    /// How often it was tried.
    pub attempts: u32,
    /// The last error.
    pub reason: String,
}

/// The events that were given up, in order.
#[derive(Clone, Default)]
pub(crate) struct Dropped(Arc<Mutex<Vec<DroppedEvent>>>);

impl Dropped {
    pub(crate) fn list(&self) -> Vec<DroppedEvent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, event: DroppedEvent) {
        let DroppedEvent { target, attempts, reason, .. } = &event;
        tracing::error!(%target, attempts, %reason, "an asynchronous event was dropped");
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }
}

/// Where a notification goes, its target found.
pub(crate) enum Receiver {
    Function(Arc<Function>),
    Queue(Arc<Queue>),
}

impl Receiver {
    /// The receiver of a target, if it exists.
    pub(crate) fn find(
        target: &Target,
        functions: &BTreeMap<String, Arc<Function>>,
        queues: &BTreeMap<String, Arc<Queue>>,
    ) -> Option<Self> {
        match target {
            Target::Function(name) => functions.get(name).cloned().map(Self::Function),
            Target::Queue(name) => queues.get(name).cloned().map(Self::Queue),
        }
    }
}

/// Delivers notifications of created objects until it is dropped.
pub(crate) async fn deliver(
    mut created: mpsc::UnboundedReceiver<Created>,
    subscriptions: Vec<(Notification, Receiver)>,
    dropped: Dropped,
    region: String,
    retry_delay: Duration,
) {
    let (mut sequencer, mut running) = (0, JoinSet::new());
    loop {
        let object = tokio::select! {
            object = created.recv() => object,
            Some(_) = running.join_next() => continue,
        };
        let Some(object) = object else { break };
        sequencer += 1;
        for (notification, receiver) in
            subscriptions.iter().filter(|(notification, _)| notification.matches(&object))
        {
            let payload = event(&object, &notification.id, &region, sequencer).to_string();
            match receiver {
                Receiver::Function(function) => {
                    running.spawn(invoke_later(
                        Arc::clone(function),
                        payload.into(),
                        dropped.clone(),
                        retry_delay,
                    ));
                }
                Receiver::Queue(queue) => enqueue(queue, payload, &dropped),
            }
        }
    }
    while running.join_next().await.is_some() {}
}

fn enqueue(queue: &Queue, payload: String, dropped: &Dropped) {
    if let Err(error) = queue.send(payload.clone()) {
        let (target, reason) = (queue.spec().name.clone(), error.to_string());
        dropped.add(DroppedEvent { target, payload: payload.into(), attempts: 1, reason });
    }
}

/// One asynchronous invocation with its retries; Lambda waits a minute and then two, we wait `delay` and twice that.
async fn invoke_later(function: Arc<Function>, payload: Bytes, dropped: Dropped, delay: Duration) {
    let mut reason = String::new();
    for attempt in 1..=ATTEMPTS {
        match function.invoke(payload.clone()).await {
            Ok(InvokeResult { outcome: Ok(_), .. }) => return,
            Ok(InvokeResult { outcome: Err(error), .. }) => reason = told(&error),
            Err(error) => reason = error.to_string(),
        }
        if attempt < ATTEMPTS {
            tokio::time::sleep(delay * attempt).await;
        }
    }
    dropped.add(DroppedEvent { target: function.spec().name.clone(), payload, attempts: ATTEMPTS, reason });
}

fn told(error: &FunctionError) -> String {
    format!("{:?}: {}", error.kind, String::from_utf8_lossy(&error.payload))
}
