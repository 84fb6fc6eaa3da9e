//! The environments of one function: events wait in line, and a process is started whenever all are busy.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinSet;

use super::environment;
use super::process::LogSink;
use super::spec::{FunctionSpec, Place};
use crate::clock;
use crate::error::LocalError;
use crate::invoke::{FunctionError, InvokeResult, MAX_REQUEST_BYTES, Reply};

/// An event on its way to a process.
pub(crate) struct Job {
    pub(crate) request_id: String,
    pub(crate) trace_id: String,
    pub(crate) payload: Bytes,
    pub(crate) reply: oneshot::Sender<Reply>,
}

/// What the environments of a function share.
pub(crate) struct Pool {
    pub(crate) spec: FunctionSpec,
    pub(crate) place: Place,
    pub(crate) logs: LogSink,
    line: Mutex<Line>,
    wake: Notify,
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<Job>,
    idle: usize,
    starting: usize,
    alive: usize,
}

/// A function that can be invoked. Dropping it kills its processes.
pub(crate) struct Function {
    pool: Arc<Pool>,
    closing: watch::Sender<bool>,
    environments: Mutex<JoinSet<()>>,
}

impl Function {
    pub(crate) fn new(spec: FunctionSpec, place: Place, logs: LogSink) -> Arc<Self> {
        let pool = Arc::new(Pool { spec, place, logs, line: Mutex::default(), wake: Notify::new() });
        Arc::new(Self { pool, closing: watch::Sender::new(false), environments: Mutex::default() })
    }

    /// What it was made from.
    pub(crate) fn spec(&self) -> &FunctionSpec {
        &self.pool.spec
    }

    /// Invokes it and waits for the whole answer.
    pub(crate) async fn invoke(self: &Arc<Self>, payload: Bytes) -> Result<InvokeResult, LocalError> {
        Ok(self.begin(payload, clock::trace_id()).await?.collect().await)
    }

    /// Invokes it and waits for the beginning of the answer. Refuses an event that is larger than Lambda takes.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        payload: Bytes,
        trace_id: String,
    ) -> Result<Reply, LocalError> {
        if payload.len() > MAX_REQUEST_BYTES {
            let (name, found) = (&self.pool.spec.name, payload.len());
            let message =
                format!("event for function {name:?} has {found} bytes, wanted at most {MAX_REQUEST_BYTES}");
            return Err(LocalError::payload(message));
        }
        let (give, take) = oneshot::channel();
        let request_id = clock::request_id();
        self.enqueue(Job { request_id: request_id.clone(), trace_id, payload, reply: give });
        Ok(take.await.unwrap_or_else(|_| failed(request_id, FunctionError::shutdown())))
    }

    fn enqueue(self: &Arc<Self>, job: Job) {
        if *self.closing.borrow() {
            return;
        }
        self.pool.line().waiting.push_back(job);
        self.pool.wake.notify_one();
        self.scale_out();
    }

    /// Starts a process for every waiting event that no idle or starting process will take, up to the limit.
    fn scale_out(self: &Arc<Self>) {
        let mut environments = self.environments.lock().unwrap_or_else(PoisonError::into_inner);
        while environments.try_join_next().is_some() {}
        while !*self.closing.borrow() && self.pool.wants_one_more() {
            environments.spawn(Arc::clone(self).run_environment());
        }
    }

    #[expect(
        clippy::manual_async_fn,
        reason = "it spawns itself, so that Send must be declared, not inferred"
    )]
    fn run_environment(self: Arc<Self>) -> impl Future<Output = ()> + Send {
        async move {
            environment::run(&self.pool, self.closing.subscribe()).await;
            self.pool.line().alive -= 1;
            self.scale_out();
        }
    }

    /// Kills all processes and answers what waits; returns when they are gone.
    pub(crate) async fn close(&self) {
        self.closing.send_replace(true);
        let mut environments =
            std::mem::take(&mut *self.environments.lock().unwrap_or_else(PoisonError::into_inner));
        while environments.join_next().await.is_some() {}
        self.pool.line().waiting.clear();
    }

    /// As `close`, without waiting.
    pub(crate) fn abandon(&self) {
        self.closing.send_replace(true);
        self.pool.line().waiting.clear();
    }
}

impl Pool {
    fn line(&self) -> MutexGuard<'_, Line> {
        // The line is consistent between any two statements that hold it, so a panic elsewhere does not spoil it.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more environment in if one is needed and allowed.
    fn wants_one_more(&self) -> bool {
        let mut line = self.line();
        let wanted = line.waiting.len() > line.idle + line.starting && line.alive < self.spec.max_processes;
        if wanted {
            line.alive += 1;
            line.starting += 1;
        }
        wanted
    }

    /// An environment has finished its init phase and is idle.
    pub(crate) fn started(&self) -> Idle<'_> {
        let mut line = self.line();
        line.starting -= 1;
        line.idle += 1;
        Idle { pool: self, counted: true }
    }

    /// The init phase of an environment failed, which answers the event that it was started for.
    pub(crate) fn not_started(&self, error: FunctionError) {
        let mut line = self.line();
        line.starting -= 1;
        tracing::warn!(function = %self.spec.name, kind = ?error.kind, "the init phase failed");
        if let Some(job) = line.waiting.pop_front() {
            let _ = job.reply.send(failed(job.request_id, error));
        }
    }

    /// An event that its environment could not give to its process is first in line again. The environment ends
    /// after this, which starts another one if nobody else is idle.
    pub(crate) fn put_back(&self, job: Job) {
        self.line().waiting.push_front(job);
        self.wake.notify_one();
    }

    /// Counts an environment as idle. One that has answered counts before its process asks for the next event:
    /// it is about to, and a caller that sends one event after the other shall meet one warm process.
    pub(crate) fn idle(&self) -> Idle<'_> {
        self.line().idle += 1;
        Idle { pool: self, counted: true }
    }
}

/// An environment that counts as idle until it takes an event, or ends.
pub(crate) struct Idle<'a> {
    pool: &'a Pool,
    counted: bool,
}

impl Idle<'_> {
    /// The next event.
    pub(crate) async fn take(&mut self) -> Job {
        loop {
            if let Some(job) = self.pop() {
                return job;
            }
            self.pool.wake.notified().await;
        }
    }

    /// The next event whose caller still waits. Leaving the line and being busy are one step: in between, an
    /// arriving event would count on this environment in vain.
    fn pop(&mut self) -> Option<Job> {
        let mut line = self.pool.line();
        while let Some(job) = line.waiting.pop_front() {
            if job.reply.is_closed() {
                continue;
            }
            line.idle -= 1;
            self.counted = false;
            if !line.waiting.is_empty() {
                // Of several events that came at once only one may have left a wake-up.
                self.pool.wake.notify_one();
            }
            return Some(job);
        }
        None
    }
}

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        if self.counted {
            self.pool.line().idle -= 1;
        }
    }
}

fn failed(request_id: String, error: FunctionError) -> Reply {
    Reply { request_id, init: None, started: tokio::time::Instant::now(), outcome: Err(error) }
}
