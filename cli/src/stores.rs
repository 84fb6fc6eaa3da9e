//! Which store a URI means: the one place of the CLI that picks adapters.

use anyhow::{Result, bail};
use clap::Args;
use glowplug_store::{DirectoryStore, ModelStore, ObjectStore, PackStore, StoreUri};
use glowplug_store_s3::{S3Options, S3Store};
use std::sync::Arc;

/// How S3 is reached. Region and credentials come from where the AWS command line finds them.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "S3")]
pub(crate) struct S3Args {
    /// Another endpoint than AWS's.
    #[arg(long = "s3-endpoint", env = "AWS_ENDPOINT_URL_S3", value_name = "URL")]
    pub endpoint: Option<String>,
    /// Put the bucket into the path: most local servers want it.
    #[arg(long = "s3-path-style", env = "GLOWPLUG_S3_PATH_STYLE")]
    pub path_style: bool,
}

impl S3Args {
    async fn options(&self, bucket: &str, prefix: &str) -> Result<S3Options> {
        let mut options = S3Options::for_developer(bucket, prefix).await?;
        if self.endpoint.is_some() {
            options.endpoint.clone_from(&self.endpoint);
        }
        options.path_style |= self.path_style;
        Ok(options)
    }
}

/// The objects under `uri`.
pub(crate) async fn objects(uri: &StoreUri, s3: &S3Args) -> Result<Arc<dyn ObjectStore>> {
    Ok(match uri {
        StoreUri::Memory => bail!("a memory:// store is gone when this command ends"),
        StoreUri::Directory(path) => Arc::new(DirectoryStore::new(path)),
        StoreUri::S3 { bucket, prefix } => Arc::new(S3Store::connect(s3.options(bucket, prefix).await?)?),
    })
}

/// The models under `uri`.
pub(crate) async fn models(uri: &StoreUri, s3: &S3Args) -> Result<Arc<dyn ModelStore>> {
    Ok(Arc::new(PackStore::new(objects(uri, s3).await?)))
}
