//! The port for models: names, versions and aliases in front, packs behind.
//!
//! [`PackStore`](crate::PackStore) implements it over any [`ObjectStore`](crate::ObjectStore);
//! [`conformance::models`](crate::conformance::models) holds it to what is written here.

use crate::error::StoreError;
use crate::fetch::{Admit, FetchGuard, admit_all};
use crate::names::{AliasName, Digest, ModelName, Version};
use async_trait::async_trait;
use bytes::Bytes;
use glowplug_pack::{Pack, Region};
use std::fmt;
use std::sync::Arc;

/// A version of a model, and the pack it must be where an alias says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The model.
    pub name: ModelName,
    /// Its version.
    pub version: Version,
    /// The digest that the alias promises; `None` where the version was named directly.
    pub digest: Option<Digest>,
}

impl Resolved {
    /// This very version, whatever its digest.
    #[must_use]
    pub fn exact(name: ModelName, version: Version) -> Resolved {
        Resolved { name, version, digest: None }
    }
}

/// `mnist/3`.
impl fmt::Display for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.version)
    }
}

/// A pack whose front part is here and checked, while the rest may still be on its way.
///
/// Dropping it cancels what has not arrived: whoever waits on the region then gets `Cancelled`.
#[derive(Debug)]
pub struct OpenedPack {
    /// Header, chunk table, manifest, plans.
    pub pack: Arc<Pack>,
    /// The file's bytes. Complete over a map; otherwise filled in the background, chunk by verified chunk.
    pub region: Arc<Region>,
    /// Keeps the transfer alive; see [`FetchGuard::finished`].
    pub fetch: FetchGuard,
}

/// What a publish did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// BLAKE3 of the pack's header.
    pub digest: Digest,
    /// False where the very same pack was there already.
    pub created: bool,
}

/// One model of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelEntry {
    /// The model.
    pub name: ModelName,
    /// Its versions, sorted by bytes.
    pub versions: Vec<Version>,
    /// Its aliases, sorted by bytes.
    pub aliases: Vec<AliasName>,
}

/// Models by name and version. Versions never change; aliases do.
#[async_trait]
pub trait ModelStore: Send + Sync + fmt::Debug {
    /// Finds the version that is meant: `None` is the alias `default`, digits alone are a version,
    /// anything else is an alias if there is one of this name, and else a version.
    ///
    /// At most one small read; whether the version exists is for [`ModelStore::get`] to find out.
    ///
    /// # Errors
    /// `NotFound`: `wanted` is `None` and the model has no alias `default`. `Corrupt`: the alias file is not one.
    async fn resolve(&self, name: &ModelName, wanted: Option<&Version>) -> Result<Resolved, StoreError>;

    /// Opens a pack: reads and checks its front part, and starts to bring the rest in the background.
    ///
    /// A directory maps the file; other stores return as soon as the front part has come (some tens of KiB, of a
    /// request for more). Asks `admit` as soon as the pack's size is known, before memory for it is taken.
    /// Must be called within a tokio runtime, which then carries the transfer.
    ///
    /// # Errors
    /// `NotFound`; `Changed`: the header's digest is not the promised one, or the object changed between two reads;
    /// `Corrupt`: the front part is no valid pack, or the object is shorter or longer than its header says; what
    /// `admit` answers.
    async fn open(&self, model: &Resolved, admit: Admit) -> Result<OpenedPack, StoreError>;

    /// [`ModelStore::open`] of a pack of any size.
    ///
    /// # Errors
    /// Those of [`ModelStore::open`].
    async fn get(&self, model: &Resolved) -> Result<OpenedPack, StoreError> {
        self.open(model, admit_all()).await
    }

    /// All models with their versions and aliases, sorted by name. Lists the whole store.
    async fn list(&self) -> Result<Vec<ModelEntry>, StoreError>;

    /// Stores a pack as a new version, after checking its structure and every chunk's hash.
    /// Publishing the very same pack again changes nothing and succeeds.
    ///
    /// # Errors
    /// `AlreadyExists`: the version is there with another content. `Corrupt`: `bytes` is no valid pack.
    async fn publish(
        &self,
        name: &ModelName,
        version: &Version,
        bytes: Bytes,
    ) -> Result<Published, StoreError>;

    /// Points an alias at a version, replacing where it pointed before.
    ///
    /// # Errors
    /// `NotFound`: the version is not in the store. `Changed`: it is there with another digest.
    async fn set_alias(
        &self,
        name: &ModelName,
        alias: &AliasName,
        version: &Version,
        digest: &Digest,
    ) -> Result<(), StoreError>;
}
