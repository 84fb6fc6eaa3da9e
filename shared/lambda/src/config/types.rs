//! The values that configuration is made of, and how each is written.

use std::{fmt, path::PathBuf};

use crate::name::is_name;

/// Which of the three functions this is; it decides what is required.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Answers HTTP.
    Api,
    /// Scores uploaded objects.
    Upload,
    /// Scores queued records.
    Queue,
}

/// The function as Lambda runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// `AWS_LAMBDA_FUNCTION_NAME`: the `function` dimension of metrics.
    pub name: String,
    /// `AWS_LAMBDA_FUNCTION_VERSION`.
    pub version: String,
    /// `AWS_LAMBDA_FUNCTION_MEMORY_SIZE`.
    pub memory_mb: u64,
}

/// A place for packs or results: a directory, or a bucket with a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// `file:///DIR`.
    Directory(PathBuf),
    /// `s3://BUCKET/PREFIX`; the prefix has no slash at either end and may be empty.
    S3 {
        /// The bucket's name.
        bucket: String,
        /// What keys start with.
        prefix: String,
    },
}

impl Location {
    pub(super) const RULE: &str = "file:///DIR or s3://BUCKET/PREFIX";

    pub(super) fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("file://") {
            let plain = path.starts_with('/') && no_dots(path) && !path.contains('\0');
            return plain.then(|| Self::Directory(path.into()));
        }
        let (bucket, prefix) =
            text.strip_prefix("s3://").map(|rest| rest.split_once('/').unwrap_or((rest, "")))?;
        let prefix = prefix.trim_matches('/');
        let good = is_bucket(bucket) && no_dots(prefix) && !prefix.contains("//") && prefix.len() <= 512;
        good.then(|| Self::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl Default for Location {
    fn default() -> Self {
        Self::Directory(PathBuf::new())
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "file://{}", path.display()),
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

fn no_dots(path: &str) -> bool {
    !path.split('/').any(|segment| segment == "." || segment == "..")
}

fn is_bucket(name: &str) -> bool {
    (3..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric())
}

/// Which version of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// `name:version`.
    Version(String),
    /// `name@alias`; `name` alone means the alias `default`.
    Alias(String),
}

/// A model to load in the init phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSpec {
    /// The model's name in the store.
    pub name: String,
    /// Which version of it.
    pub selector: Selector,
}

impl ModelSpec {
    pub(super) const LIST_RULE: &str = "a comma list of NAME, NAME:VERSION or NAME@ALIAS without doubles, each part 1 to 64 of A-Z a-z 0-9 . _ -";

    /// An empty list is a missing variable, so an empty entry is a mistake.
    pub(super) fn parse_list(text: &str) -> Option<Vec<Self>> {
        let specs = text.split(',').map(|spec| Self::parse(spec.trim())).collect::<Option<Vec<_>>>()?;
        let double = specs.iter().enumerate().any(|(i, spec)| specs[..i].contains(spec));
        (!double).then_some(specs)
    }

    fn parse(text: &str) -> Option<Self> {
        let (name, selector) = if let Some((name, version)) = text.split_once(':') {
            (name, Selector::Version(version.to_owned()))
        } else if let Some((name, alias)) = text.split_once('@') {
            (name, Selector::Alias(alias.to_owned()))
        } else {
            (text, Selector::Alias("default".to_owned()))
        };
        let (Selector::Version(part) | Selector::Alias(part)) = &selector;
        (is_name(name) && is_name(part)).then(|| Self { name: name.to_owned(), selector })
    }
}

/// When content hashes are checked. Structure is checked always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Where bytes enter this machine: the default.
    Entry,
    /// On every load, of a local file too.
    Always,
}

impl Verify {
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "entry" => Some(Self::Entry),
            "always" => Some(Self::Always),
            _ => None,
        }
    }
}

/// How packs are fetched from a store that is not a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// `GLOWPLUG_FETCH_PART_KB`, in bytes: what one range request asks for. Default 2 MiB.
    pub part_bytes: u64,
    /// `GLOWPLUG_FETCH_CONNECTIONS`: range requests in flight. Default 4.
    pub connections: usize,
}

/// Where fetched packs are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// `GLOWPLUG_CACHE_DIR`: a folder of its own. Default `/tmp/glowplug`.
    pub dir: PathBuf,
    /// `GLOWPLUG_CACHE_MB`, in bytes: what its files may take together.
    pub max_bytes: u64,
}

/// How to reach S3, as plain values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct S3Options {
    /// `AWS_ENDPOINT_URL_S3`, else `AWS_ENDPOINT_URL`.
    pub endpoint: Option<String>,
    /// `GLOWPLUG_S3_PATH_STYLE`: the bucket goes into the path. Default `false`.
    pub path_style: bool,
}
