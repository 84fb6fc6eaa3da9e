//! The environment, read once, in `main`, into plain data. All problems are reported together, each with the variable,
//! the value found and the legal range.
//!
//! An empty variable counts as missing: templates pass optional parameters that way.

mod reader;
mod types;

use reader::{Range, Reader};

pub use reader::{ConfigError, Problem};
pub use types::{Cache, Fetch, Function, Location, ModelSpec, Role, S3Options, Selector, Verify};

const MIB: usize = 1 << 20;

/// Everything that a function reads from its environment.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The function as Lambda runs it.
    pub function: Function,
    /// `GLOWPLUG_STORE`: where the packs are.
    pub store: Location,
    /// `GLOWPLUG_RESULTS`: where answers go; always there for [`Role::Upload`] and [`Role::Queue`].
    pub results: Option<Location>,
    /// `GLOWPLUG_MODELS`: what to load in the init phase; may be empty.
    pub models: Vec<ModelSpec>,
    /// `GLOWPLUG_MEMORY_BUDGET_MB`, in bytes: what the loaded models may take. Default: 3/4 of the function's memory.
    pub memory_budget_bytes: u64,
    /// `GLOWPLUG_THREADS`: compute threads. Default: the function's share of CPUs, 1769 MB being one.
    pub threads: usize,
    /// `GLOWPLUG_MAX_BODY_BYTES`: the largest request body, after base64. Default 6 MiB.
    pub max_body_bytes: usize,
    /// `GLOWPLUG_MAX_PIXELS`: the largest image, in decoded pixels. Default 50 million.
    pub max_pixels: u64,
    /// `GLOWPLUG_MAX_CONCURRENCY`: objects of one event that are worked on at once. Default 4.
    pub max_concurrency: usize,
    /// `GLOWPLUG_VERIFY`: when content hashes are checked.
    pub verify: Verify,
    /// `GLOWPLUG_LOG`, else `AWS_LAMBDA_LOG_LEVEL`: the log filter. Default `info`.
    pub log: String,
    /// `GLOWPLUG_METRICS_NAMESPACE`: the CloudWatch namespace. Default `Glowplug`.
    pub metrics_namespace: String,
    /// How to reach S3, passed through.
    pub s3: S3Options,
    /// How packs are fetched.
    pub fetch: Fetch,
    /// Where fetched packs are kept on this machine; nowhere where absent.
    pub cache: Option<Cache>,
}

impl Config {
    /// Reads the environment of a function in `role` through `lookup`.
    ///
    /// # Errors
    /// One [`ConfigError`] that lists every variable that is missing or out of range.
    pub fn from_env(role: Role, lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut env = Reader::new(&lookup);
        let function = function(&mut env);
        let memory_mb = function.memory_mb;
        let results = match role {
            Role::Api => env.optional("GLOWPLUG_RESULTS", Location::RULE, Location::parse),
            Role::Upload | Role::Queue => env.required("GLOWPLUG_RESULTS", Location::RULE, Location::parse),
        };
        let budget_mb = env.number("GLOWPLUG_MEMORY_BUDGET_MB", default_budget(memory_mb), Range(1, 10_240));
        let config = Self {
            store: env.required("GLOWPLUG_STORE", Location::RULE, Location::parse).unwrap_or_default(),
            results,
            models: env.or("GLOWPLUG_MODELS", ModelSpec::LIST_RULE, ModelSpec::parse_list, Vec::new()),
            memory_budget_bytes: budget_mb * MIB as u64,
            threads: env.size("GLOWPLUG_THREADS", default_threads(memory_mb), Range(1, 64)),
            max_body_bytes: env.size("GLOWPLUG_MAX_BODY_BYTES", 6 * MIB, Range(1, 200 * MIB as u64)),
            max_pixels: env.number("GLOWPLUG_MAX_PIXELS", 50_000_000, Range(1, 1_000_000_000)),
            max_concurrency: env.size("GLOWPLUG_MAX_CONCURRENCY", 4, Range(1, 64)),
            verify: env.or("GLOWPLUG_VERIFY", "entry or always", Verify::parse, Verify::Entry),
            log: log_filter(&mut env),
            metrics_namespace: env.or(
                "GLOWPLUG_METRICS_NAMESPACE",
                NAMESPACE_RULE,
                namespace,
                "Glowplug".into(),
            ),
            s3: s3_options(&mut env),
            fetch: Fetch {
                part_bytes: env.number("GLOWPLUG_FETCH_PART_KB", 2048, Range(256, 65_536)) * 1024,
                connections: env.size("GLOWPLUG_FETCH_CONNECTIONS", 4, Range(1, 32)),
            },
            cache: cache(&mut env),
            function,
        };
        env.finish(config)
    }

    /// Where answers go.
    ///
    /// # Errors
    /// If the function's role does not need `GLOWPLUG_RESULTS` and it is not set.
    pub fn results(&self) -> Result<&Location, ConfigError> {
        self.results.as_ref().ok_or_else(|| ConfigError::missing("GLOWPLUG_RESULTS", Location::RULE))
    }
}

/// What Lambda itself sets. The runtime would panic without these, so they are checked like all others.
fn function(env: &mut Reader<'_>) -> Function {
    const SET: &str = "a value that Lambda or the local cloud sets";
    let mut text = |name| env.required(name, SET, |value| Some(value.to_owned())).unwrap_or_default();
    text("AWS_LAMBDA_RUNTIME_API");
    let (name, version) = (text("AWS_LAMBDA_FUNCTION_NAME"), text("AWS_LAMBDA_FUNCTION_VERSION"));
    let memory = Range(1, 1 << 20);
    let memory_mb = env.required("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", &memory.to_string(), |v| memory.parse(v));
    Function { name, version, memory_mb: memory_mb.unwrap_or(128) }
}

fn default_budget(memory_mb: u64) -> u64 {
    (memory_mb * 3 / 4).clamp(1, 10_240)
}

fn default_threads(memory_mb: u64) -> usize {
    usize::try_from((memory_mb + 884) / 1769).unwrap_or(usize::MAX).clamp(1, 64)
}

fn log_filter(env: &mut Reader<'_>) -> String {
    let level = env.or("AWS_LAMBDA_LOG_LEVEL", "TRACE DEBUG INFO WARN ERROR FATAL", log_level, "info".into());
    let is_filter = |text: &str| crate::telemetry::is_filter(text).then(|| text.to_owned());
    env.or("GLOWPLUG_LOG", "a level or directives such as info,glowplug_predict=debug", is_filter, level)
}

/// Lambda's level names; `tracing` has no `fatal`.
fn log_level(text: &str) -> Option<String> {
    let level = text.to_ascii_lowercase();
    match level.as_str() {
        "trace" | "debug" | "info" | "warn" | "error" => Some(level),
        "fatal" => Some("error".into()),
        _ => None,
    }
}

const NAMESPACE_RULE: &str = "1 to 255 of A-Z a-z 0-9 . - _ / # : not starting with AWS/ or a colon";

fn namespace(text: &str) -> Option<String> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b".-_/#:".contains(&b);
    let good =
        text.len() <= 255 && text.bytes().all(legal) && !text.starts_with("AWS/") && !text.starts_with(':');
    good.then(|| text.to_owned())
}

/// `GLOWPLUG_CACHE_MB` turns the cache on; 0, the default, means none.
fn cache(env: &mut Reader<'_>) -> Option<Cache> {
    let absolute = |text: &str| (text.starts_with('/') && !text.contains('\0')).then(|| text.into());
    let dir = env.or("GLOWPLUG_CACHE_DIR", "an absolute path", absolute, "/tmp/glowplug".into());
    let max_bytes = env.number("GLOWPLUG_CACHE_MB", 0, Range(0, 10_240)) * MIB as u64;
    (max_bytes > 0).then_some(Cache { dir, max_bytes })
}

fn s3_options(env: &mut Reader<'_>) -> S3Options {
    const RULE: &str = "http://HOST[:PORT] or https://HOST[:PORT]";
    let url = |text: &str| {
        let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"))?;
        let good = !host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic());
        good.then(|| text.to_owned())
    };
    let general = env.optional("AWS_ENDPOINT_URL", RULE, url);
    let flag = |text: &str| text.parse().ok();
    S3Options {
        endpoint: env.optional("AWS_ENDPOINT_URL_S3", RULE, url).or(general),
        path_style: env.or("GLOWPLUG_S3_PATH_STYLE", "true or false", flag, false),
    }
}

#[cfg(test)]
mod tests;
