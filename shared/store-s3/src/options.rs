//! How to reach a bucket.

use crate::credentials::{self, S3Credentials};
use glowplug_store::{Retry, StoreError, StoreErrorKind, check_key};
use std::time::Duration;

/// Whose signature under a server's certificate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Roots {
    /// Whom the system trusts: some 140 authorities, whose certificates take 6 to 16 ms to parse.
    System,
    /// Amazon's own five alone, which are part of the program and take 0.3 ms.
    Amazon,
}

/// How to reach a bucket, and how patiently.
#[derive(Clone, Debug)]
pub struct S3Options {
    /// The bucket's name.
    pub bucket: String,
    /// What all keys begin with, without slashes at its ends; may be empty.
    pub prefix: String,
    /// The bucket's region, such as `eu-central-1`.
    pub region: String,
    /// Another server than Amazon's: `http://` or `https://`, host and port.
    pub endpoint: Option<String>,
    /// Whether the bucket goes into the path of the URL instead of the host name: what local servers want.
    pub path_style: bool,
    /// Where credentials come from.
    pub credentials: S3Credentials,
    /// Whose certificates are believed.
    pub roots: Roots,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait of one try for the first byte of an answer. Uploads get a second more per MiB.
    pub attempt_timeout: Duration,
    /// How often transient failures are tried again.
    pub retry: Retry,
}

impl S3Options {
    /// A bucket as a function reaches it: region from `AWS_REGION` or `AWS_DEFAULT_REGION`, another endpoint
    /// from `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL` (with path style), credentials from
    /// [`S3Credentials::of_function`]. Without another endpoint, Amazon's roots alone are believed, unless
    /// `SSL_CERT_FILE` or `SSL_CERT_DIR` names others.
    ///
    /// # Errors
    /// `Invalid`: no region is set, and no endpoint that could do without.
    pub fn from_env(bucket: impl Into<String>, prefix: impl Into<String>) -> Result<S3Options, StoreError> {
        S3Options::from_lookup(bucket.into(), prefix.into(), variable)
    }

    /// A bucket as a developer's tool reaches it: the same, but region and credentials may also come from the
    /// profile files and the other places that the AWS command line looks at ([`S3Credentials::of_developer`]).
    ///
    /// # Errors
    /// Those of [`S3Options::from_env`].
    pub async fn for_developer(
        bucket: impl Into<String>,
        prefix: impl Into<String>,
    ) -> Result<S3Options, StoreError> {
        let (bucket, prefix, endpoint) = (bucket.into(), prefix.into(), endpoint(&variable));
        let region = credentials::developer_region().await;
        S3Options::new(bucket, prefix, region, endpoint, S3Credentials::of_developer().await)
    }

    /// A bucket of the local server at `endpoint`, in path style, with this very key pair.
    ///
    /// # Errors
    /// Those of [`S3Options::from_env`].
    pub fn local(
        endpoint: impl Into<String>,
        bucket: impl Into<String>,
        credentials: S3Credentials,
    ) -> Result<S3Options, StoreError> {
        S3Options::new(bucket.into(), String::new(), None, Some(endpoint.into()), credentials)
    }

    /// `from_env`, by a function in place of the process's environment.
    fn from_lookup(
        bucket: String,
        prefix: String,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<S3Options, StoreError> {
        let region = first(&lookup, ["AWS_REGION", "AWS_DEFAULT_REGION"]);
        let named = first(&lookup, ["SSL_CERT_FILE", "SSL_CERT_DIR"]);
        let options =
            S3Options::new(bucket, prefix, region, endpoint(&lookup), S3Credentials::of_function())?;
        let roots = match (&options.endpoint, named) {
            // China is another partition, with a domain of its own.
            (None, None) if !options.region.starts_with("cn-") => Roots::Amazon,
            _ => Roots::System,
        };
        Ok(S3Options { roots, ..options })
    }

    fn new(
        bucket: String,
        prefix: String,
        region: Option<String>,
        endpoint: Option<String>,
        credentials: S3Credentials,
    ) -> Result<S3Options, StoreError> {
        // Local servers do not care about the region, but signatures hold one.
        let region = region.or_else(|| endpoint.is_some().then(|| "us-east-1".to_owned()));
        let region = region.ok_or_else(|| {
            let text =
                format!("bucket {bucket:?}: AWS_REGION is not set, expected a region such as eu-central-1");
            StoreError::new(StoreErrorKind::Invalid, text)
        })?;
        Ok(S3Options {
            bucket,
            prefix,
            region,
            path_style: endpoint.is_some(),
            endpoint,
            credentials,
            roots: Roots::System,
            connect_timeout: Duration::from_secs(3),
            attempt_timeout: Duration::from_secs(10),
            retry: Retry::default(),
        })
    }

    /// Checks what the SDK would only trip over later.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let invalid = |text: String| Err(StoreError::new(StoreErrorKind::Invalid, text));
        if self.bucket.is_empty() || self.bucket.contains(['/', ' ', '?', '#']) {
            return invalid(format!("bucket {:?}: expected a name", self.bucket));
        }
        if self.region.is_empty() || !self.region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return invalid(format!("region {:?}: expected one such as eu-central-1", self.region));
        }
        if !self.prefix.is_empty() {
            check_key(&self.prefix).map_err(|e| e.within("prefix"))?;
        }
        match &self.endpoint {
            Some(url) if !is_http(url) => {
                invalid(format!("endpoint {url:?}: expected http://host:port or https://host:port"))
            }
            _ => Ok(()),
        }
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The first of `names` that is set to something.
fn first(lookup: &impl Fn(&str) -> Option<String>, names: [&str; 2]) -> Option<String> {
    names.into_iter().filter_map(lookup).find(|value| !value.trim().is_empty())
}

fn endpoint(lookup: &impl Fn(&str) -> Option<String>) -> Option<String> {
    first(lookup, ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
}

/// Whether `url` is a scheme of HTTP and a host.
fn is_http(url: &str) -> bool {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    rest.is_some_and(|rest| {
        !rest.is_empty() && !rest.starts_with('/') && !rest.contains([' ', '@', '?', '#'])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(variables: &[(&str, &str)]) -> Result<S3Options, StoreError> {
        let lookup = |name: &str| variables.iter().find(|v| v.0 == name).map(|v| v.1.to_owned());
        S3Options::from_lookup("bucket".into(), "a/b".into(), lookup)
    }

    #[test]
    fn region_and_endpoint_come_from_the_first_variable_that_is_set() {
        type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, Option<&'a str>);
        let cases: [Case<'_>; 4] = [
            (&[("AWS_REGION", "eu-west-1"), ("AWS_DEFAULT_REGION", "x")], "eu-west-1", None),
            (&[("AWS_REGION", " "), ("AWS_DEFAULT_REGION", "us-west-2")], "us-west-2", None),
            (&[("AWS_ENDPOINT_URL", "http://a:1")], "us-east-1", Some("http://a:1")),
            (
                &[("AWS_ENDPOINT_URL", "http://a:1"), ("AWS_ENDPOINT_URL_S3", "http://b:2")],
                "us-east-1",
                Some("http://b:2"),
            ),
        ];
        for (variables, region, endpoint) in cases {
            let options = options(variables).unwrap();
            assert_eq!((options.region.as_str(), options.endpoint.as_deref()), (region, endpoint));
            assert_eq!(options.path_style, endpoint.is_some());
            options.check().unwrap();
        }
        let error = options(&[]).unwrap_err();
        assert!(
            error.to_string().contains("AWS_REGION") && error.kind() == StoreErrorKind::Invalid,
            "{error}"
        );
    }

    #[test]
    fn a_function_believes_amazon_alone_where_it_talks_to_amazon() {
        let cases: [(&[(&str, &str)], Roots); 4] = [
            (&[("AWS_REGION", "eu-west-1")], Roots::Amazon),
            (&[("AWS_REGION", "cn-north-1")], Roots::System),
            (&[("AWS_REGION", "eu-west-1"), ("AWS_ENDPOINT_URL", "https://a:1")], Roots::System),
            (&[("AWS_REGION", "eu-west-1"), ("SSL_CERT_FILE", "/proxy.pem")], Roots::System),
        ];
        for (variables, roots) in cases {
            assert_eq!(options(variables).unwrap().roots, roots, "{variables:?}");
        }
    }

    #[test]
    fn options_that_cannot_work_are_told() {
        let good = options(&[("AWS_REGION", "eu-west-1")]).unwrap();
        let with = |change: fn(&mut S3Options)| {
            let mut options = good.clone();
            change(&mut options);
            options.check().unwrap_err().to_string()
        };
        assert!(with(|o| o.bucket = "a/b".into()).contains("bucket \"a/b\""));
        assert!(with(|o| o.bucket = String::new()).contains("bucket \"\""));
        assert!(with(|o| o.region = "eu west".into()).contains("region \"eu west\""));
        assert!(with(|o| o.prefix = "../x".into()).contains("prefix"));
        for url in ["localhost:9000", "ftp://x", "http://", "http:///x", "http://user:secret@host"] {
            let mut options = good.clone();
            options.endpoint = Some(url.to_owned());
            assert!(options.check().unwrap_err().to_string().contains("expected http://"), "{url}");
        }
    }

    #[test]
    fn nobody_prints_credentials() {
        let mut options = options(&[("AWS_REGION", "eu-west-1")]).unwrap();
        options.credentials = S3Credentials::fixed("AKIDEXAMPLE", "s3cr3t");
        let text = format!("{options:?}");
        assert!(!text.contains("s3cr3t") && !text.contains("AKID"), "{text}");
    }
}
