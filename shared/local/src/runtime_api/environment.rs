//! One execution environment, told as a straight line: init, then (wait for an event, run it, wait for `next`) for ever.
//!
//! Whatever goes wrong in the process ends the line: the caller is answered at once, the process group is killed, and
//! the pool starts a new environment when there is a next event.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::pool::{Idle, Job, Pool};
use super::process::Process;
use super::server::{self, Ack, Call, Invocation, ResponseBody};
use crate::clock;
use crate::invoke::{
    Chunk, FunctionError, FunctionErrorKind, MAX_STREAM_BYTES, Payload, Reply, StreamPayload,
};
use crate::net::{self, Server};

/// The open `next` request of an idle process.
type Next = oneshot::Sender<Invocation>;

/// A process and its Runtime API.
pub(crate) struct Environment {
    process: Process,
    calls: mpsc::Receiver<Call>,
    _server: Server,
}

/// The process's answer to one event, and where to acknowledge it.
enum Answer {
    Payload(Bytes, oneshot::Sender<Ack>),
    TooLarge(oneshot::Sender<Ack>),
    Handled(Bytes, oneshot::Sender<Ack>),
    Stream { content_type: String, body: Incoming, ack: oneshot::Sender<Ack> },
}

/// Why a process did not ask for an event.
enum NoNext {
    Exited(String),
    InitError(Bytes),
    Late,
}

/// Runs one environment from start to end, which is also the end of its process.
pub(crate) async fn run(pool: &Pool, mut closing: watch::Receiver<bool>) {
    let started = Instant::now();
    match start(pool).await {
        Ok(mut environment) => {
            tokio::select! {
                () = environment.live(pool, started) => {}
                _ = closing.wait_for(|closing| *closing) => {}
            }
            environment.process.kill().await;
        }
        Err(error) => pool.not_started(entrypoint_error(&error)),
    }
}

async fn start(pool: &Pool) -> Result<Environment, std::io::Error> {
    let listener = net::bind(0, "the runtime api").await.map_err(std::io::Error::other)?;
    let process = Process::spawn(&pool.spec, &pool.place, listener.1, &pool.logs)?;
    let (give, calls) = mpsc::channel(8);
    Ok(Environment { process, calls, _server: server::serve(listener, give) })
}

impl Environment {
    async fn live(&mut self, pool: &Pool, started: Instant) {
        match self.wait_next(started + pool.spec.init_timeout, true).await {
            Ok(next) => self.serve(pool, next, started.elapsed()).await,
            Err(reason) => pool.not_started(init_error(pool, reason)),
        }
    }

    async fn serve(&mut self, pool: &Pool, first: Next, init: Duration) {
        let (mut next, mut idle, mut init) = (first, pool.started(), Some(init));
        while let Some((job, idle_next)) = self.wait_event(pool, next, idle).await {
            let deadline = Instant::now() + pool.spec.timeout;
            let Some(idle_again) = self.invoke(pool, job, idle_next, init.take(), deadline).await else {
                return;
            };
            // The invoke phase lasts until the process asks for the next event.
            let Ok(asked) = self.wait_next(deadline, false).await else { return };
            (next, idle) = (asked, idle_again);
        }
    }

    /// Waits for an event while the process waits too; `None` when the process ended.
    async fn wait_event(&mut self, pool: &Pool, mut next: Next, mut idle: Idle<'_>) -> Option<(Job, Next)> {
        loop {
            tokio::select! {
                status = self.process.wait() => {
                    tracing::warn!(function = %pool.spec.name, %status, "an idle process ended");
                    return None;
                }
                call = self.calls.recv() => match call? {
                    // The process gave up its long poll and asks again.
                    Call::Next(again) => next = again,
                    late => refuse(late, Ack::InvalidId),
                },
                job = idle.take() => {
                    // The end of a process is noticed a moment late; no event is given to one that is gone.
                    if self.process.has_ended() {
                        pool.put_back(job);
                        return None;
                    }
                    return Some((job, next));
                }
            }
        }
    }

    /// Waits for the process to ask for an event.
    async fn wait_next(&mut self, deadline: Instant, init: bool) -> Result<Next, NoNext> {
        loop {
            tokio::select! {
                biased;
                call = self.calls.recv() => match call {
                    Some(Call::Next(next)) => return Ok(next),
                    Some(Call::Error { id: None, payload, ack }) if init => {
                        acknowledge(ack, Ack::Accepted);
                        return Err(NoNext::InitError(payload));
                    }
                    Some(late) => refuse(late, Ack::InvalidId),
                    None => return Err(NoNext::Exited("runtime api closed".to_owned())),
                },
                status = self.process.wait() => return Err(NoNext::Exited(status)),
                () = sleep_until(deadline) => return Err(NoNext::Late),
            }
        }
    }

    /// Gives one event to the process and passes on what comes back. `None` when the process must go.
    async fn invoke<'p>(
        &mut self,
        pool: &'p Pool,
        job: Job,
        next: Next,
        init: Option<Duration>,
        deadline: Instant,
    ) -> Option<Idle<'p>> {
        let (invocation, id) = (invocation(pool, &job), job.request_id.clone());
        let reply = Replier { job, init, started: Instant::now() };
        if next.send(invocation).is_err() {
            reply.send(Err(FunctionError::exit(&id, "connection closed")));
            return None;
        }
        match self.answer(&id, deadline, pool.spec.timeout).await {
            Ok(answer) => pass_on(pool, reply, answer, deadline).await,
            Err(error) => {
                tracing::warn!(function = %pool.spec.name, request_id = %id, kind = ?error.kind, "invocation failed");
                reply.send(Err(error));
                None
            }
        }
    }

    /// Waits for the answer to the event `id`.
    async fn answer(
        &mut self,
        id: &str,
        deadline: Instant,
        limit: Duration,
    ) -> Result<Answer, FunctionError> {
        loop {
            let call = tokio::select! {
                biased;
                call = self.calls.recv() => call,
                status = self.process.wait() => return Err(FunctionError::exit(id, &status)),
                () = sleep_until(deadline) => return Err(FunctionError::timeout(id, limit)),
            };
            match call {
                Some(Call::Response { id: got, body, ack }) if got == id => {
                    return Ok(Answer::new(body, ack));
                }
                Some(Call::Error { id: Some(got), payload, ack }) if got == id => {
                    return Ok(Answer::Handled(payload, ack));
                }
                Some(Call::Next(next)) => drop(next),
                Some(stale) => refuse(stale, Ack::InvalidId),
                None => return Err(FunctionError::exit(id, "runtime api closed")),
            }
        }
    }
}

/// Replies and acknowledges; for a stream, until its end. `None` when the stream was late: the process must go.
async fn pass_on<'p>(pool: &'p Pool, reply: Replier, answer: Answer, deadline: Instant) -> Option<Idle<'p>> {
    let (outcome, ack, end) = match answer {
        Answer::Payload(bytes, ack) => (Ok(Payload::Buffered(bytes)), ack, Ack::Accepted),
        Answer::TooLarge(ack) => (Err(FunctionError::too_large()), ack, Ack::TooLarge),
        Answer::Handled(payload, ack) => {
            (Err(FunctionError { kind: FunctionErrorKind::Handled, payload }), ack, Ack::Accepted)
        }
        Answer::Stream { content_type, body, ack } => {
            let (give, chunks) = mpsc::channel(9);
            // One place is kept for the error of a late stream, whose reader may be too slow to make room.
            let last = give.clone().try_reserve_owned().ok();
            let id = reply.job.request_id.clone();
            reply.send(Ok(Payload::Stream(StreamPayload { content_type, chunks })));
            let Ok(end) = timeout_at(deadline, pump(body, &give, &id)).await else {
                let late = Err(FunctionError::timeout(&id, pool.spec.timeout));
                last.map(|place| place.send(late));
                return None;
            };
            acknowledge(ack, end);
            return Some(pool.idle());
        }
    };
    // Before the reply, so that a caller's next event finds this environment counted.
    let idle = pool.idle();
    reply.send(outcome);
    acknowledge(ack, end);
    Some(idle)
}

impl Answer {
    fn new(body: ResponseBody, ack: oneshot::Sender<Ack>) -> Self {
        match body {
            ResponseBody::Buffered(bytes) => Self::Payload(bytes, ack),
            ResponseBody::TooLarge => Self::TooLarge(ack),
            ResponseBody::Stream { content_type, body } => Self::Stream { content_type, body, ack },
        }
    }
}

/// The way back to the caller of one invocation.
struct Replier {
    job: Job,
    init: Option<Duration>,
    started: Instant,
}

impl Replier {
    fn send(self, outcome: Result<Payload, FunctionError>) {
        let Self { job, init, started } = self;
        // A caller that has given up does not stop the function, as on Lambda.
        let _ = job.reply.send(Reply { request_id: job.request_id, init, started, outcome });
    }
}

/// Moves a streamed response to its reader, who may have gone: then the rest is read and thrown away.
async fn pump(mut body: Incoming, to: &mpsc::Sender<Chunk>, id: &str) -> Ack {
    let mut sent = 0_usize;
    while let Some(frame) = body.frame().await {
        let chunk = match frame.map(|frame| frame.into_data()) {
            Ok(Ok(data)) if sent.saturating_add(data.len()) > MAX_STREAM_BYTES => {
                Err(FunctionError::too_large())
            }
            Ok(Ok(data)) => {
                sent += data.len();
                Ok(Some(data))
            }
            Ok(Err(frame)) => match frame.into_trailers().ok().and_then(|trailers| stream_error(&trailers)) {
                Some(error) => Err(error),
                None => continue,
            },
            Err(error) => Err(FunctionError::exit(id, &format!("response stream broke off: {error}"))),
        };
        let (ends, too_large) =
            (chunk.is_err(), matches!(&chunk, Err(e) if e.kind == FunctionErrorKind::TooLarge));
        let _ = to.send(chunk).await;
        if ends {
            return if too_large { Ack::TooLarge } else { Ack::Accepted };
        }
    }
    let _ = to.send(Ok(None)).await;
    Ack::Accepted
}

/// The error that a function reports in the trailers of its stream, if it does.
fn stream_error(trailers: &HeaderMap) -> Option<FunctionError> {
    let text = |name: &str| trailers.get(name).and_then(|value| value.to_str().ok());
    let error_type = text("lambda-runtime-function-error-type")?;
    let body = text("lambda-runtime-function-error-body").unwrap_or_default();
    let decoded = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, body).ok();
    let message = decoded.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_else(|| body.to_owned());
    Some(FunctionError::new(FunctionErrorKind::Handled, error_type, &message))
}

fn invocation(pool: &Pool, job: &Job) -> Invocation {
    Invocation {
        request_id: job.request_id.clone(),
        deadline_ms: clock::epoch_ms(SystemTime::now() + pool.spec.timeout),
        function_arn: pool.place.function_arn(&pool.spec.name),
        trace_id: job.trace_id.clone(),
        payload: job.payload.clone(),
    }
}

fn refuse(call: Call, answer: Ack) {
    match call {
        Call::Next(next) => drop(next),
        Call::Error { id: None, ack, .. } => acknowledge(ack, Ack::InvalidState),
        Call::Response { ack, .. } | Call::Error { ack, .. } => acknowledge(ack, answer),
    }
}

fn acknowledge(ack: oneshot::Sender<Ack>, answer: Ack) {
    // Fails when the process has closed the connection: nobody is left to tell.
    let _ = ack.send(answer);
}

fn init_error(pool: &Pool, reason: NoNext) -> FunctionError {
    let (kind, error_type, message) = match reason {
        NoNext::InitError(payload) => return FunctionError { kind: FunctionErrorKind::Init, payload },
        NoNext::Exited(status) => {
            let message = format!("Error: Runtime exited with error: {status} (in the init phase)");
            (FunctionErrorKind::Init, "Runtime.ExitError", message)
        }
        NoNext::Late => {
            let seconds = pool.spec.init_timeout.as_secs_f64();
            let message = format!("Error: Init timed out after {seconds:.2} seconds");
            (FunctionErrorKind::InitTimeout, "Sandbox.Timedout", message)
        }
    };
    FunctionError::new(kind, error_type, &message)
}

fn entrypoint_error(error: &std::io::Error) -> FunctionError {
    let message = format!("Error: the binary could not be started: {error}");
    FunctionError::new(FunctionErrorKind::Init, "Runtime.InvalidEntrypoint", &message)
}
