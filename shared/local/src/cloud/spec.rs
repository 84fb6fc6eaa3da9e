//! The plan of a local cloud: plain data, checked as a whole before anything is started.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::error::LocalError;
use crate::gateway::Route;
use crate::queue::{MappingSpec, QueueSpec};
use crate::runtime_api::FunctionSpec;
use crate::s3::{Notification, Shape, Target};

/// Everything that a local cloud is made of. Ports are on 127.0.0.1; 0 picks a free one.
#[derive(Debug, Clone)]
pub struct CloudSpec {
    /// The region that functions and events are told.
    pub region: String,
    /// The account that ARNs hold.
    pub account: String,
    /// The key pair that the local S3 checks and that functions get.
    pub access_key: String,
    /// Its secret half.
    pub secret_key: String,
    /// The functions.
    pub functions: Vec<FunctionSpec>,
    /// The port of the HTTP gateway.
    pub gateway_port: u16,
    /// How long the gateway waits for a function, up to 30 s.
    pub gateway_timeout: Duration,
    /// Which paths go to which function.
    pub routes: Vec<Route>,
    /// The port of the local S3.
    pub s3_port: u16,
    /// The buckets that exist from the start.
    pub buckets: Vec<String>,
    /// How fast the local S3 is.
    pub shape: Shape,
    /// Who is told of created objects.
    pub notifications: Vec<Notification>,
    /// How long until a failed asynchronous event is tried again; the second time twice as long.
    pub retry_delay: Duration,
    /// The port of the local SQS.
    pub sqs_port: u16,
    /// The queues.
    pub queues: Vec<QueueSpec>,
    /// Which queues feed which functions.
    pub mappings: Vec<MappingSpec>,
}

impl Default for CloudSpec {
    /// An empty cloud on free ports, in us-east-1.
    fn default() -> Self {
        Self {
            region: "us-east-1".to_owned(),
            account: "000000000000".to_owned(),
            access_key: "local".to_owned(),
            secret_key: "local-secret".to_owned(),
            functions: Vec::new(),
            gateway_port: 0,
            gateway_timeout: Duration::from_secs(30),
            routes: Vec::new(),
            s3_port: 0,
            buckets: Vec::new(),
            shape: Shape::default(),
            notifications: Vec::new(),
            retry_delay: Duration::from_secs(1),
            sqs_port: 0,
            queues: Vec::new(),
            mappings: Vec::new(),
        }
    }
}

impl CloudSpec {
    /// Checks every part, and that every name that is used exists.
    pub(crate) fn check(&self) -> Result<(), LocalError> {
        self.functions.iter().try_for_each(FunctionSpec::check)?;
        self.queues.iter().try_for_each(QueueSpec::check)?;
        self.mappings.iter().try_for_each(MappingSpec::check)?;
        if self.gateway_timeout.is_zero() || self.gateway_timeout > Duration::from_secs(30) {
            let found = self.gateway_timeout;
            return Err(LocalError::spec(format!(
                "gateway_timeout is {found:?}, wanted more than 0 and at most 30 s"
            )));
        }
        if let Some(bucket) = self.buckets.iter().find(|bucket| !s3s::path::check_bucket_name(bucket)) {
            return Err(LocalError::spec(format!("bucket name is {bucket:?}, wanted one that S3 allows")));
        }
        if let Some(route) = self.routes.iter().find(|route| !route.prefix.starts_with('/')) {
            return Err(LocalError::spec(format!(
                "route prefix is {:?}, wanted one that begins with /",
                route.prefix
            )));
        }
        self.check_names()?;
        self.check_dead_letters()?;
        self.check_timeouts()
    }

    pub(crate) fn queue(&self, name: &str) -> Option<&QueueSpec> {
        self.queues.iter().find(|queue| queue.name == name)
    }

    /// A message that went round a circle of dead-letter queues would never come to rest.
    fn check_dead_letters(&self) -> Result<(), LocalError> {
        for queue in &self.queues {
            let next = |at: &&QueueSpec| at.dead_letter.as_ref().and_then(|letter| self.queue(&letter.queue));
            if std::iter::successors(Some(queue), next).nth(self.queues.len()).is_some() {
                let name = &queue.name;
                return Err(LocalError::spec(format!(
                    "queue {name:?}: its dead-letter queues lead in a circle"
                )));
            }
        }
        Ok(())
    }

    fn check_names(&self) -> Result<(), LocalError> {
        let functions = unique("function", self.functions.iter().map(|function| function.name.as_str()))?;
        let queues = unique("queue", self.queues.iter().map(|queue| queue.name.as_str()))?;
        let buckets = unique("bucket", self.buckets.iter().map(String::as_str))?;
        unique("route", self.routes.iter().map(|route| route.prefix.as_str()))?;
        unique("notification", self.notifications.iter().map(|notification| notification.id.as_str()))?;
        let dead = self.queues.iter().filter_map(|queue| Some(queue.dead_letter.as_ref()?.queue.as_str()));
        let function_targets = self.notifications.iter().filter_map(|n| match &n.target {
            Target::Function(name) => Some(name.as_str()),
            Target::Queue(_) => None,
        });
        let queue_targets = self.notifications.iter().filter_map(|n| match &n.target {
            Target::Queue(name) => Some(name.as_str()),
            Target::Function(_) => None,
        });
        let mapped = self.mappings.iter().map(|mapping| mapping.function.as_str());
        let used =
            self.routes.iter().map(|route| route.function.as_str()).chain(function_targets).chain(mapped);
        exist("function", used, &functions)?;
        let used =
            self.mappings.iter().map(|mapping| mapping.queue.as_str()).chain(dead).chain(queue_targets);
        exist("queue", used, &queues)?;
        exist("bucket", self.notifications.iter().map(|n| n.bucket.as_str()), &buckets)
    }

    /// AWS refuses a mapping whose messages would come back while the function still works on them.
    fn check_timeouts(&self) -> Result<(), LocalError> {
        for mapping in &self.mappings {
            let queue = self.queue(&mapping.queue);
            let function = self.functions.iter().find(|function| function.name == mapping.function);
            let (Some(queue), Some(function)) = (queue, function) else { continue };
            if queue.visibility_timeout < function.timeout {
                let (found, wanted) = (queue.visibility_timeout, function.timeout);
                let message = format!(
                    "queue {:?}: visibility_timeout is {found:?}, wanted at least the {wanted:?} of function {:?}",
                    queue.name, function.name
                );
                return Err(LocalError::spec(message));
            }
        }
        Ok(())
    }
}

fn unique<'a>(noun: &str, names: impl Iterator<Item = &'a str>) -> Result<BTreeSet<&'a str>, LocalError> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(LocalError::spec(format!("two of the {noun}s are {name:?}, wanted different ones")));
        }
    }
    Ok(seen)
}

fn exist<'a>(
    noun: &str,
    used: impl Iterator<Item = &'a str>,
    known: &BTreeSet<&str>,
) -> Result<(), LocalError> {
    for name in used {
        if !known.contains(name) {
            return Err(LocalError::spec(format!("{noun} {name:?} is used but not one of {known:?}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::DeadLetter;

    fn legal() -> CloudSpec {
        let function = FunctionSpec::new("f", std::env::current_exe().unwrap());
        let dead_letter = Some(DeadLetter { queue: "dead".into(), max_receive_count: 2 });
        CloudSpec {
            functions: vec![function],
            routes: vec![Route::new("/", "f")],
            buckets: vec!["bucket".into()],
            notifications: vec![notification("bucket", Target::Function("f".into()))],
            queues: vec![QueueSpec { dead_letter, ..QueueSpec::new("q") }, QueueSpec::new("dead")],
            mappings: vec![MappingSpec::new("q", "f")],
            ..CloudSpec::default()
        }
    }

    fn notification(bucket: &str, target: Target) -> Notification {
        Notification {
            id: "n".into(),
            bucket: bucket.into(),
            prefix: String::new(),
            suffix: String::new(),
            target,
        }
    }

    #[test]
    fn each_mistake_in_a_plan_is_named() {
        legal().check().unwrap();
        type Break = fn(&mut CloudSpec);
        let cases: [(Break, &str); 15] = [
            (|s| s.functions[0].memory_mb = 0, "function \"f\": memory_mb is 0"),
            (|s| s.queues[0].name = "a b".into(), "queue \"a b\": name is not"),
            (|s| s.mappings[0].batch_size = 0, "mapping \"q\" -> \"f\": batch_size is 0"),
            (|s| s.gateway_timeout = Duration::from_secs(31), "gateway_timeout is 31s"),
            (|s| s.routes[0].prefix = "v2".into(), "route prefix is \"v2\", wanted one that begins with /"),
            (|s| s.routes[0].function = "g".into(), "function \"g\" is used but not one of {\"f\"}"),
            (|s| s.mappings[0].queue = "r".into(), "queue \"r\" is used"),
            (|s| s.queues[0].dead_letter.as_mut().unwrap().queue = "r".into(), "queue \"r\" is used"),
            (
                |s| s.queues[1].dead_letter = Some(DeadLetter { queue: "q".into(), max_receive_count: 1 }),
                "in a circle",
            ),
            (|s| s.notifications[0].bucket = "c".into(), "bucket \"c\" is used"),
            (|s| s.notifications[0].target = Target::Queue("r".into()), "queue \"r\" is used"),
            (|s| s.buckets.push("b".into()), "bucket name is \"b\", wanted one that S3 allows"),
            (|s| s.buckets.push("bucket".into()), "two of the buckets are \"bucket\""),
            (|s| s.routes.push(Route::new("/", "f")), "two of the routes are \"/\""),
            (
                |s| s.queues[0].visibility_timeout = Duration::from_secs(29),
                "wanted at least the 30s of function \"f\"",
            ),
        ];
        for (break_it, wanted) in cases {
            let mut spec = legal();
            break_it(&mut spec);
            let message = spec.check().unwrap_err().to_string();
            assert!(message.contains(wanted), "{message:?} does not hold {wanted:?}");
        }
    }
}
