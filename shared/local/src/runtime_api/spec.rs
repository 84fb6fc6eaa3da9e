//! What a function is: the plain data that its environments are made from, checked once at start.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::LocalError;

/// One function: a binary that speaks the Runtime API, and what Lambda would be told about it.
#[derive(Debug, Clone)]
pub struct FunctionSpec {
    /// Name, `[A-Za-z0-9_-]{1,64}`.
    pub name: String,
    /// The built binary (the `bootstrap`). Its folder is the working directory and `LAMBDA_TASK_ROOT`.
    pub binary: PathBuf,
    /// Arguments of the binary; Lambda gives none.
    pub args: Vec<String>,
    /// Environment variables. Those that Lambda reserves are refused; nothing but `PATH` is inherited from the host.
    pub env: BTreeMap<String, String>,
    /// Memory in MB, 128..=10240. Told to the function, not enforced.
    pub memory_mb: u32,
    /// Longest run of one invocation, up to 900 s; then the process is killed.
    pub timeout: Duration,
    /// Longest init phase, up to 10 s; then the process is killed.
    pub init_timeout: Duration,
    /// Most processes at once, 1..=100; further events wait.
    pub max_processes: usize,
}

impl FunctionSpec {
    /// A function with the defaults: 1769 MB (one vCPU), 30 s, 10 s of init, up to 10 processes.
    pub fn new(name: impl Into<String>, binary: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            binary: binary.into(),
            args: Vec::new(),
            env: BTreeMap::new(),
            memory_mb: 1769,
            timeout: Duration::from_secs(30),
            init_timeout: Duration::from_secs(10),
            max_processes: 10,
        }
    }

    pub(crate) fn check(&self) -> Result<(), LocalError> {
        let Self { name, binary, env, memory_mb, timeout, init_timeout, max_processes, .. } = self;
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let faults = [
            (
                !(1..=64).contains(&name.len()) || !name.chars().all(legal),
                "name is not [A-Za-z0-9_-]{1,64}".into(),
            ),
            (!binary.is_file(), format!("binary {} is not a file", binary.display())),
            (!(128..=10240).contains(memory_mb), format!("memory_mb is {memory_mb}, wanted 128..=10240")),
            (!within(*timeout, 900), format!("timeout is {timeout:?}, wanted more than 0 and at most 900 s")),
            (
                !within(*init_timeout, 10),
                format!("init_timeout is {init_timeout:?}, wanted more than 0, at most 10 s"),
            ),
            (!(1..=100).contains(max_processes), format!("max_processes is {max_processes}, wanted 1..=100")),
        ];
        let reserved = env
            .keys()
            .find(|key| is_reserved(key))
            .map(|key| format!("env sets {key}, which Lambda reserves"));
        let malformed = env
            .iter()
            .find(|(key, value)| !is_settable(key, value))
            .map(|(key, _)| format!("env has an illegal variable {key:?}"));
        let first = faults.into_iter().find_map(|(bad, message)| bad.then_some(message));
        match first.or(reserved).or(malformed) {
            Some(message) => Err(LocalError::spec(format!("function {name:?}: {message}"))),
            None => Ok(()),
        }
    }
}

fn within(span: Duration, most_seconds: u64) -> bool {
    !span.is_zero() && span <= Duration::from_secs(most_seconds)
}

fn is_settable(key: &str, value: &str) -> bool {
    !key.is_empty() && !key.contains(['=', '\0']) && !value.contains('\0')
}

/// Lambda refuses to create a function whose configuration sets one of these.
fn is_reserved(key: &str) -> bool {
    const NAMES: [&str; 9] = [
        "_HANDLER",
        "_X_AMZN_TRACE_ID",
        "AWS_DEFAULT_REGION",
        "AWS_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "LAMBDA_TASK_ROOT",
        "LAMBDA_RUNTIME_DIR",
    ];
    NAMES.contains(&key) || key.starts_with("AWS_LAMBDA_") || key.starts_with("AWS_ACCESS_KEY")
}

/// Where a function runs: what every environment is told about the cloud around it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) region: String,
    pub(crate) account: String,
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
    /// Further variables: the endpoints of the local services.
    pub(crate) endpoints: BTreeMap<String, String>,
}

impl Place {
    /// The ARN of a function here.
    pub(crate) fn function_arn(&self, name: &str) -> String {
        format!("arn:aws:lambda:{}:{}:function:{name}", self.region, self.account)
    }
}

/// The whole environment of one process, as on Lambda; the function's own variables win over the endpoints only.
pub(crate) fn environment(spec: &FunctionSpec, place: &Place, api: SocketAddr) -> BTreeMap<String, String> {
    let mut env = place.endpoints.clone();
    env.extend(spec.env.clone());
    let root = task_root(&spec.binary).display().to_string();
    let log_stream = format!("local/[$LATEST]{}", api.port());
    let fixed = [
        ("AWS_LAMBDA_RUNTIME_API", api.to_string()),
        ("AWS_LAMBDA_FUNCTION_NAME", spec.name.clone()),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", spec.memory_mb.to_string()),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".to_owned()),
        ("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{}", spec.name)),
        ("AWS_LAMBDA_LOG_STREAM_NAME", log_stream),
        ("AWS_REGION", place.region.clone()),
        ("AWS_DEFAULT_REGION", place.region.clone()),
        ("AWS_ACCESS_KEY_ID", place.access_key.clone()),
        ("AWS_SECRET_ACCESS_KEY", place.secret_key.clone()),
        ("_HANDLER", "bootstrap".to_owned()),
        ("LAMBDA_TASK_ROOT", root.clone()),
        ("LAMBDA_RUNTIME_DIR", root),
        ("LANG", "en_US.UTF-8".to_owned()),
        ("TZ", ":UTC".to_owned()),
    ];
    env.extend(fixed.map(|(key, value)| (key.to_owned(), value)));
    if let Ok(path) = std::env::var("PATH") {
        env.entry("PATH".to_owned()).or_insert(path);
    }
    env
}

/// The folder of the binary.
pub(crate) fn task_root(binary: &Path) -> &Path {
    binary.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn legal() -> FunctionSpec {
        FunctionSpec::new("api", std::env::current_exe().unwrap())
    }

    #[test]
    fn each_illegal_field_is_named_with_what_was_found() {
        legal().check().unwrap();
        type Break = fn(&mut FunctionSpec);
        let cases: [(Break, &str); 11] = [
            (|f| f.name = String::new(), "name is not"),
            (|f| f.name = "a b".into(), "name is not"),
            (|f| f.binary = "/no/such/file".into(), "binary /no/such/file is not a file"),
            (|f| f.memory_mb = 127, "memory_mb is 127, wanted 128..=10240"),
            (|f| f.timeout = Duration::ZERO, "timeout is 0ns"),
            (|f| f.timeout = Duration::from_secs(901), "timeout is 901s"),
            (|f| f.init_timeout = Duration::from_secs(11), "init_timeout is 11s"),
            (|f| f.max_processes = 0, "max_processes is 0, wanted 1..=100"),
            (
                |f| drop(f.env.insert("AWS_REGION".into(), "x".into())),
                "env sets AWS_REGION, which Lambda reserves",
            ),
            (|f| drop(f.env.insert("AWS_LAMBDA_X".into(), "x".into())), "env sets AWS_LAMBDA_X"),
            (|f| drop(f.env.insert("A=B".into(), "x".into())), "illegal variable \"A=B\""),
        ];
        for (break_it, wanted) in cases {
            let mut spec = legal();
            break_it(&mut spec);
            let message = spec.check().unwrap_err().to_string();
            assert!(message.contains(wanted), "{message:?} does not hold {wanted:?}");
        }
    }

    #[test]
    fn lambdas_variables_win_and_endpoints_can_be_replaced() {
        let endpoints = BTreeMap::from([("AWS_ENDPOINT_URL_S3".to_owned(), "http://s3".to_owned())]);
        let (region, account) = ("eu-west-1".to_owned(), "000000000000".to_owned());
        let place = Place { region, account, access_key: "k".into(), secret_key: "s".into(), endpoints };
        let mut spec = legal();
        spec.env.insert("AWS_ENDPOINT_URL_S3".into(), "http://other".into());
        let env = environment(&spec, &place, "127.0.0.1:9001".parse().unwrap());
        assert_eq!(env["AWS_LAMBDA_RUNTIME_API"], "127.0.0.1:9001");
        assert_eq!(env["AWS_LAMBDA_FUNCTION_NAME"], "api");
        assert_eq!(env["AWS_REGION"], "eu-west-1");
        assert_eq!(env["AWS_ENDPOINT_URL_S3"], "http://other");
        assert_eq!(place.function_arn("api"), "arn:aws:lambda:eu-west-1:000000000000:function:api");
    }
}
