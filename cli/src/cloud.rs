//! The local cloud as the CLI runs it: three functions, three buckets, one queue with dead letters, and packs
//! published into its store. `dev` and `demo` share it.

use anyhow::{Context, Result, ensure};
use glowplug_local::{
    CloudSpec, DeadLetter, FunctionSpec, LocalCloud, LogSink, MappingSpec, Notification, QueueSpec, Route,
    Target,
};
use glowplug_store::{AliasName, Digest, ModelName, ModelStore, PackStore, Version};
use glowplug_store_s3::{S3Credentials, S3Options, S3Store};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Bucket of packs.
pub const MODELS: &str = "models";
/// Bucket whose objects the upload function scores.
pub const UPLOADS: &str = "uploads";
/// Bucket of results.
pub const RESULTS: &str = "results";
/// The queue that the queue function reads.
pub const QUEUE: &str = "records";
/// Where its poisoned records end.
pub const DEAD_LETTERS: &str = "records-dead-letters";
/// How often a record is received before it is a dead letter.
const MAX_RECEIVE_COUNT: u32 = 2;

/// What can be chosen. Ports: 0 picks a free one.
pub struct CloudOptions<'a> {
    /// The folder of the function binaries.
    pub functions: &'a Path,
    /// Names of the models to load in the init phase; the first one scores uploads.
    pub models: &'a [String],
    /// Port of the HTTP gateway.
    pub gateway_port: u16,
    /// Port of the local S3.
    pub s3_port: u16,
    /// Port of the local SQS.
    pub sqs_port: u16,
    /// How long a record stays hidden after it was received.
    pub visibility_timeout: Duration,
    /// Log filter of the functions.
    pub log: &'a str,
}

/// Starts the cloud. Functions start with their first event.
pub async fn start(options: &CloudOptions<'_>, logs: LogSink) -> Result<LocalCloud> {
    let function = |name: &str, models: String| -> Result<FunctionSpec> {
        let binary = options.functions.join(format!("glowplug-{name}{}", std::env::consts::EXE_SUFFIX));
        ensure!(
            binary.is_file(),
            "no function binary {}: build it, or name its folder with --functions",
            binary.display()
        );
        let mut spec = FunctionSpec::new(name, binary);
        let env = [
            ("GLOWPLUG_STORE", format!("s3://{MODELS}")),
            ("GLOWPLUG_RESULTS", format!("s3://{RESULTS}")),
            ("GLOWPLUG_MODELS", models),
            ("GLOWPLUG_S3_PATH_STYLE", "true".into()),
            ("GLOWPLUG_LOG", options.log.into()),
        ];
        spec.env = env.map(|(k, v)| (k.to_owned(), v)).into();
        spec.timeout = options.visibility_timeout.min(Duration::from_secs(30));
        Ok(spec)
    };
    let first = options.models.first().cloned().unwrap_or_default();
    let dead_letter = DeadLetter { queue: DEAD_LETTERS.into(), max_receive_count: MAX_RECEIVE_COUNT };
    let records = QueueSpec {
        visibility_timeout: options.visibility_timeout,
        dead_letter: Some(dead_letter),
        ..QueueSpec::new(QUEUE)
    };
    let uploaded = Notification {
        id: "uploaded".into(),
        bucket: UPLOADS.into(),
        prefix: String::new(),
        suffix: String::new(),
        target: Target::Function("upload".into()),
    };
    let all = options.models.join(",");
    let spec = CloudSpec {
        functions: vec![function("api", all.clone())?, function("upload", first)?, function("queue", all)?],
        routes: vec![Route::new("/", "api")],
        buckets: [MODELS, UPLOADS, RESULTS].map(str::to_owned).into(),
        notifications: vec![uploaded],
        queues: vec![records, QueueSpec::new(DEAD_LETTERS)],
        mappings: vec![MappingSpec::new(QUEUE, "queue")],
        gateway_port: options.gateway_port,
        s3_port: options.s3_port,
        sqs_port: options.sqs_port,
        ..CloudSpec::default()
    };
    LocalCloud::start(spec, logs).await.context("cannot start the local cloud")
}

/// Publishes a pack as version 1 with the alias `default`, through the local S3 itself.
pub async fn publish(cloud: &LocalCloud, name: &str, bytes: Vec<u8>) -> Result<Digest> {
    let keys = CloudSpec::default();
    let credentials = S3Credentials::fixed(keys.access_key, keys.secret_key);
    let options = S3Options::local(&cloud.urls().s3, MODELS, credentials)?;
    let store = PackStore::new(Arc::new(S3Store::connect(options)?));
    let (name, version) = (name.parse::<ModelName>()?, "1".parse::<Version>()?);
    let published = store.publish(&name, &version, bytes.into()).await?;
    store.set_alias(&name, &AliasName::default_alias(), &version, &published.digest).await?;
    Ok(published.digest)
}
