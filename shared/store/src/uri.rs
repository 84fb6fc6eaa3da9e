//! Store addresses, as configuration and command line spell them.

use crate::error::{StoreError, StoreErrorKind};
use crate::names::check_key;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a store is. Whoever wires a process picks the adapter by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUri {
    /// `memory://`: empty, and gone with the process.
    Memory,
    /// `file:///absolute/directory`, or `file://relative/directory`. Taken literally: no %-escapes.
    Directory(PathBuf),
    /// `s3://bucket` or `s3://bucket/prefix`.
    S3 {
        /// The bucket.
        bucket: String,
        /// What all keys begin with, without slashes at its ends; may be empty.
        prefix: String,
    },
}

impl FromStr for StoreUri {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<StoreUri, StoreError> {
        let bad = |why: &str| {
            let forms = "memory://, file:///directory, s3://bucket/prefix";
            StoreError::new(
                StoreErrorKind::Invalid,
                format!("store {text:?}: {why}, expected one of {forms}"),
            )
        };
        match text.split_once("://") {
            Some(("memory", "")) => Ok(StoreUri::Memory),
            Some(("memory", _)) => Err(bad("a memory store has no path")),
            Some(("file", "")) => Err(bad("no directory")),
            Some(("file", path)) if path.contains('\0') => Err(bad("a NUL in the path")),
            Some(("file", path)) => Ok(StoreUri::Directory(path.into())),
            Some(("s3", rest)) => s3(rest).ok_or_else(|| bad("no legal bucket and prefix")),
            Some((scheme, _)) => Err(bad(&format!("unknown scheme {scheme:?}"))),
            None => Err(bad("no scheme")),
        }
    }
}

/// `bucket[/prefix]`. Bucket names by S3's own rule, so that none is mistaken for a part of a host or path.
fn s3(rest: &str) -> Option<StoreUri> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.trim_matches('/');
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-".contains(&b);
    let bucket_ok = (3..=63).contains(&bucket.len()) && bucket.bytes().all(legal);
    let prefix_ok = prefix.is_empty() || check_key(prefix).is_ok();
    (bucket_ok && prefix_ok).then(|| StoreUri::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
}

impl fmt::Display for StoreUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreUri::Memory => f.write_str("memory://"),
            StoreUri::Directory(path) => write!(f, "file://{}", path.display()),
            StoreUri::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            StoreUri::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_round_trip() {
        let s3 = |bucket: &str, prefix: &str| StoreUri::S3 { bucket: bucket.into(), prefix: prefix.into() };
        for (text, wanted) in [
            ("memory://", StoreUri::Memory),
            ("file:///var/models", StoreUri::Directory("/var/models".into())),
            ("file://./models", StoreUri::Directory("./models".into())),
            ("s3://my-bucket", s3("my-bucket", "")),
            ("s3://my.bucket/a/b", s3("my.bucket", "a/b")),
        ] {
            let uri: StoreUri = text.parse().unwrap();
            assert_eq!(uri, wanted);
            assert_eq!(uri.to_string(), text);
        }
        assert_eq!("s3://my-bucket/a/".parse::<StoreUri>().unwrap(), s3("my-bucket", "a"));
    }

    #[test]
    fn other_texts_are_refused_with_the_forms_that_are_not() {
        for text in [
            "",
            "/var",
            "http://x",
            "memory://x",
            "file://",
            "s3://",
            "s3://UPPER/x",
            "s3://b/x",
            "s3://buck/a//b",
        ] {
            let e = text.parse::<StoreUri>().unwrap_err();
            assert_eq!(e.kind(), StoreErrorKind::Invalid);
            assert!(e.to_string().contains("s3://bucket/prefix"), "{e}");
        }
    }
}
