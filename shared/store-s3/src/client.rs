//! The SDK's client, set up for many small range reads.

use crate::http;
use crate::options::S3Options;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Config, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use std::time::Duration;

/// A body that brings nothing for so long is given up, and its range asked for again.
const STALL: Duration = Duration::from_secs(5);

/// Builds the client. No IO.
pub(crate) fn client(options: &S3Options) -> Client {
    let stalls = StalledStreamProtectionConfig::enabled().upload_enabled(false).grace_period(STALL).build();
    let config = Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(options.region.clone()))
        .credentials_provider(options.credentials.0.clone())
        .http_client(http::client(options.roots))
        .force_path_style(options.path_style)
        .timeout_config(timeouts(options, 0))
        .stalled_stream_protection(stalls)
        // Tries are counted in one place, `glowplug_store::with_retries`: two would multiply.
        .retry_config(RetryConfig::disabled())
        // Packs carry a BLAKE3 per chunk and are checked by it; TLS covers everything else.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    Client::from_conf(match &options.endpoint {
        Some(url) => config.endpoint_url(url.trim_end_matches('/')).build(),
        None => config.build(),
    })
}

/// Limits of one try that sends `upload_bytes`.
pub(crate) fn timeouts(options: &S3Options, upload_bytes: usize) -> TimeoutConfig {
    let upload = Duration::from_secs(u64::try_from(upload_bytes >> 20).unwrap_or(u64::MAX));
    TimeoutConfig::builder()
        .connect_timeout(options.connect_timeout)
        .operation_attempt_timeout(options.attempt_timeout.saturating_add(upload))
        .build()
}
