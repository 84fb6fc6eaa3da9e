//! Where credentials come from.

use crate::http;
use crate::options::Roots;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::ecs::EcsCredentialsProvider;
use aws_config::environment::{EnvironmentVariableCredentialsProvider, EnvironmentVariableRegionProvider};
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use std::fmt;

/// A source of credentials. Made without IO; asked by the first request, and again before they expire.
#[derive(Clone)]
pub struct S3Credentials(pub(crate) SharedCredentialsProvider);

impl S3Credentials {
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`; where they are not set, the container
    /// endpoint `AWS_CONTAINER_CREDENTIALS_{RELATIVE,FULL}_URI` (Lambda SnapStart, ECS).
    ///
    /// Nothing else: no files, and no metadata service that a sandbox without one would wait for.
    #[must_use]
    pub fn of_function() -> S3Credentials {
        let config = ProviderConfig::without_region().with_http_client(http::client(Roots::System));
        let container = EcsCredentialsProvider::builder().configure(&config).build();
        let chain =
            CredentialsProviderChain::first_try("Environment", EnvironmentVariableCredentialsProvider::new())
                .or_else("Container", container);
        S3Credentials(SharedCredentialsProvider::new(chain))
    }

    /// What the AWS command line would use, less SSO: environment, profile files, web identity, container,
    /// instance metadata. For tools. Reads files.
    pub async fn of_developer() -> S3Credentials {
        let config = ProviderConfig::without_region().with_http_client(http::client(Roots::System));
        let chain = DefaultCredentialsChain::builder().configure(config).build().await;
        S3Credentials(SharedCredentialsProvider::new(chain))
    }

    /// This very pair: for local servers and tests.
    pub fn fixed(access_key_id: impl Into<String>, secret_access_key: impl Into<String>) -> S3Credentials {
        let credentials = Credentials::new(access_key_id, secret_access_key, None, None, "fixed");
        S3Credentials(SharedCredentialsProvider::new(credentials))
    }
}

/// The region that the AWS command line would use: environment, then profile files.
pub(crate) async fn developer_region() -> Option<String> {
    let chain = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
        .or_else(ProfileFileRegionProvider::new());
    chain.region().await.map(|region| region.to_string())
}

/// Never the credentials themselves.
impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("S3Credentials(..)")
    }
}
