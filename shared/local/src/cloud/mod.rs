//! The whole local cloud, wired from one plan: functions, gateway, S3 with notifications, queues with mappings.

mod spec;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::error::LocalError;
use crate::events::{self, Dropped, DroppedEvent, Receiver};
use crate::invoke::InvokeResult;
use crate::net::{self, Listener, Server};
use crate::queue::{self, Queue};
use crate::runtime_api::{Function, LogSink, Place};
use crate::s3::{self, Buckets, Created};
use crate::{gateway, queue::QueueSpec};

pub use spec::CloudSpec;

type Functions = BTreeMap<String, Arc<Function>>;
type Queues = BTreeMap<String, Arc<Queue>>;

/// Where the services listen; no slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Urls {
    /// The HTTP gateway.
    pub gateway: String,
    /// The local S3, path style.
    pub s3: String,
    /// The local SQS.
    pub sqs: String,
}

/// A running local cloud.
///
/// ```
/// use glowplug_local::{CloudSpec, LocalCloud, QueueSpec};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let spec = CloudSpec {
///     buckets: vec!["uploads".into()],
///     queues: vec![QueueSpec::new("jobs")],
///     ..CloudSpec::default()
/// };
/// let cloud = LocalCloud::start(spec, std::sync::Arc::new(|line| println!("{}", line.text))).await?;
/// cloud.buckets().put("uploads", "digit.png", "not really a picture")?;
/// cloud.queue("jobs")?.send("classify it")?;
/// assert_eq!(cloud.buckets().keys("uploads", "")?, ["digit.png"]);
/// cloud.shutdown().await;
/// # Ok::<(), glowplug_local::LocalError>(())
/// # }).unwrap();
/// ```
///
/// Dropping it stops everything; `shutdown` also waits until all processes are gone.
///
/// Functions run in process groups of their own, so a terminal's Ctrl-C does not reach them: whoever runs a cloud
/// catches the signal and drops the cloud.
pub struct LocalCloud {
    urls: Urls,
    functions: Functions,
    queues: Queues,
    buckets: Buckets,
    dropped: Dropped,
    running: Mutex<Option<Running>>,
}

/// What stops when it is dropped.
#[derive(Default)]
struct Running {
    servers: Vec<Server>,
    tasks: JoinSet<()>,
}

impl LocalCloud {
    /// Checks the plan, binds the ports and starts everything. Function processes start with their first event.
    pub async fn start(spec: CloudSpec, logs: LogSink) -> Result<Self, LocalError> {
        spec.check()?;
        let gateway = net::bind(spec.gateway_port, "the gateway").await?;
        let s3 = net::bind(spec.s3_port, "the local s3").await?;
        let sqs = net::bind(spec.sqs_port, "the local sqs").await?;
        let (give, created) = mpsc::unbounded_channel();
        let mut cloud = Self {
            urls: Urls { gateway: url(&gateway), s3: url(&s3), sqs: url(&sqs) },
            functions: Functions::new(),
            queues: make_queues(&spec),
            buckets: Buckets::new(&spec.buckets, spec.shape, give),
            dropped: Dropped::default(),
            running: Mutex::default(),
        };
        cloud.make_functions(&spec, &logs);
        let mut running = Running { servers: cloud.serve(&spec, gateway, s3, sqs), tasks: JoinSet::new() };
        cloud.run_mappings(&spec, &mut running.tasks);
        cloud.run_notifications(spec, created, &mut running.tasks);
        cloud.running = Mutex::new(Some(running));
        Ok(cloud)
    }

    /// Where the services listen.
    pub fn urls(&self) -> &Urls {
        &self.urls
    }

    /// Invokes a function and waits for its answer. Errors of the function are in the result.
    pub async fn invoke(
        &self,
        function: &str,
        payload: impl Into<Bytes>,
    ) -> Result<InvokeResult, LocalError> {
        self.function(function)?.invoke(payload.into()).await
    }

    /// The objects of the local S3, for puts and gets without HTTP.
    pub fn buckets(&self) -> &Buckets {
        &self.buckets
    }

    /// A queue by name.
    pub fn queue(&self, name: &str) -> Result<&Arc<Queue>, LocalError> {
        self.queues.get(name).ok_or_else(|| LocalError::not_found("queue", name))
    }

    /// The asynchronous events that were given up so far.
    pub fn dropped_events(&self) -> Vec<DroppedEvent> {
        self.dropped.list()
    }

    /// Stops everything, and returns when all function processes are gone. What still runs is answered with an
    /// error of kind `Shutdown`.
    pub async fn shutdown(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Running { servers, mut tasks }) = running else { return };
        tasks.shutdown().await;
        for function in self.functions.values() {
            function.close().await;
        }
        drop(servers);
    }

    fn function(&self, name: &str) -> Result<&Arc<Function>, LocalError> {
        self.functions.get(name).ok_or_else(|| LocalError::not_found("function", name))
    }

    fn make_functions(&mut self, spec: &CloudSpec, logs: &LogSink) {
        let endpoints = [("AWS_ENDPOINT_URL_S3", &self.urls.s3), ("AWS_ENDPOINT_URL_SQS", &self.urls.sqs)];
        let place = Place {
            region: spec.region.clone(),
            account: spec.account.clone(),
            access_key: spec.access_key.clone(),
            secret_key: spec.secret_key.clone(),
            endpoints: endpoints.map(|(name, url)| (name.to_owned(), url.clone())).into(),
        };
        for function in &spec.functions {
            let made = Function::new(function.clone(), place.clone(), Arc::clone(logs));
            self.functions.insert(function.name.clone(), made);
        }
    }

    fn serve(&self, spec: &CloudSpec, gateway: Listener, s3: Listener, sqs: Listener) -> Vec<Server> {
        let bound = spec
            .routes
            .iter()
            .filter_map(|route| Some((route.clone(), Arc::clone(self.functions.get(&route.function)?))));
        let gateway = gateway::serve(gateway, bound.collect(), spec.gateway_timeout, spec.account.clone());
        let (access_key, secret_key) = (spec.access_key.clone(), spec.secret_key.clone());
        let s3 = s3::serve(s3, self.buckets.clone(), spec.region.clone(), access_key, secret_key);
        let sqs = queue::serve(sqs, self.queues.clone(), spec.account.clone());
        vec![gateway, s3, sqs]
    }

    fn run_mappings(&self, spec: &CloudSpec, tasks: &mut JoinSet<()>) {
        for mapping in &spec.mappings {
            let (queue, function) = (self.queues.get(&mapping.queue), self.functions.get(&mapping.function));
            let (Some(queue), Some(function)) = (queue, function) else { continue };
            for _ in 0..mapping.concurrency {
                let (queue, function) = (Arc::clone(queue), Arc::clone(function));
                tasks.spawn(queue::run(
                    mapping.clone(),
                    queue,
                    function,
                    spec.region.clone(),
                    spec.account.clone(),
                ));
            }
        }
    }

    fn run_notifications(
        &self,
        spec: CloudSpec,
        created: mpsc::UnboundedReceiver<Created>,
        tasks: &mut JoinSet<()>,
    ) {
        let found = spec.notifications.into_iter().filter_map(|notification| {
            let receiver = Receiver::find(&notification.target, &self.functions, &self.queues)?;
            Some((notification, receiver))
        });
        let subscriptions = found.collect();
        let delivery =
            events::deliver(created, subscriptions, self.dropped.clone(), spec.region, spec.retry_delay);
        tasks.spawn(delivery);
    }
}

impl Drop for LocalCloud {
    fn drop(&mut self) {
        for function in self.functions.values() {
            function.abandon();
        }
    }
}

/// Dead-letter queues first, whatever the order in the plan: those that others point to are made on the way.
fn make_queues(spec: &CloudSpec) -> Queues {
    let mut made = Queues::new();
    for queue in &spec.queues {
        make_queue(queue, spec, &mut made);
    }
    made
}

/// Ends because the plan was checked to hold no circle of dead-letter queues.
fn make_queue(queue: &QueueSpec, spec: &CloudSpec, made: &mut Queues) -> Arc<Queue> {
    if let Some(done) = made.get(&queue.name) {
        return Arc::clone(done);
    }
    let next = queue.dead_letter.as_ref().and_then(|letter| spec.queue(&letter.queue));
    let dead_letters = next.map(|other| make_queue(other, spec, made));
    let arn = format!("arn:aws:sqs:{}:{}:{}", spec.region, spec.account, queue.name);
    let queue = Queue::new(queue.clone(), arn, dead_letters);
    made.insert(queue.spec().name.clone(), Arc::clone(&queue));
    queue
}

fn url(listener: &Listener) -> String {
    format!("http://{}", listener.1)
}
