//! `glowplug publish`: a pack into a store, as an immutable version.

use crate::report::print;
use crate::stores;
use anyhow::{Context, Result};
use clap::{Args, ValueHint};
use glowplug_store::{AliasName, ModelName, StoreUri, Version};
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

/// Put a pack into a store under a name and version, and point an alias at it.
///
/// Every chunk is hashed first. A version never changes: publishing another pack under it fails, publishing
/// the same one again does nothing.
#[derive(Args)]
#[command(
    after_help = "Example:\n  glowplug publish mnist-cnn.glow --to s3://my-models/prod --name mnist --version 3 --alias default"
)]
pub(crate) struct PublishArgs {
    /// The pack.
    #[arg(value_hint = ValueHint::FilePath)]
    pack: PathBuf,
    /// file://DIR or s3://BUCKET/PREFIX.
    #[arg(long, env = "GLOWPLUG_STORE")]
    to: StoreUri,
    /// The model's name in the store; the pack's own where absent.
    #[arg(long)]
    name: Option<ModelName>,
    /// 1 to 64 of A-Z a-z 0-9 . _ -
    #[arg(long)]
    version: Version,
    /// Point this alias at it; requests without a version use the alias `default`.
    #[arg(long)]
    alias: Option<AliasName>,
    /// JSON on stdout.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    s3: stores::S3Args,
}

/// The answer.
#[derive(Serialize)]
struct Publication {
    store: String,
    name: String,
    version: String,
    digest: String,
    created: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    alias: Option<String>,
}

/// Runs the command.
pub(crate) fn run(args: &PublishArgs) -> Result<ExitCode> {
    let bytes = std::fs::read(&args.pack).map_err(|e| super::cannot_read(&args.pack, &e))?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => {
            let pack = glowplug_pack::Pack::parse(&bytes).with_context(|| args.pack.display().to_string())?;
            let name = &pack.manifest().model.name;
            name.parse().with_context(|| format!("the pack's name {name:?} is no store name: give --name"))?
        }
    };
    let publication = crate::runtime()?.block_on(publish(args, name, bytes.into()))?;
    print(&publication, args.json)?;
    Ok(ExitCode::SUCCESS)
}

async fn publish(args: &PublishArgs, name: ModelName, bytes: bytes::Bytes) -> Result<Publication> {
    let store = stores::models(&args.to, &args.s3).await?;
    let published = store.publish(&name, &args.version, bytes).await?;
    if let Some(alias) = &args.alias {
        store.set_alias(&name, alias, &args.version, &published.digest).await?;
    }
    Ok(Publication {
        store: args.to.to_string(),
        name: name.to_string(),
        version: args.version.to_string(),
        digest: published.digest.to_string(),
        created: published.created,
        alias: args.alias.as_ref().map(ToString::to_string),
    })
}

impl fmt::Display for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.created { "published" } else { "was there already:" };
        write!(f, "{verb} {}/{} in {}, digest {}", self.name, self.version, self.store, self.digest)?;
        match &self.alias {
            Some(alias) => write!(f, "; alias {alias} points at it"),
            None => Ok(()),
        }
    }
}
