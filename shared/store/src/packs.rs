//! `PackStore`: models on top of objects. The layout of keys, aliases, publishing, opening.
//!
//! ```text
//! <model>/<version>/model.glow        immutable
//! <model>/aliases/<alias>.json        {"version":"3","digest":"..."}
//! ```

use crate::cache::PackCache;
use crate::error::{StoreError, StoreErrorKind};
use crate::fetch::{Admit, FetchGuard, FetchOptions};
use crate::first::{self, Opening};
use crate::map;
use crate::model::{ModelEntry, ModelStore, OpenedPack, Published, Resolved};
use crate::names::{ALIASES, AliasName, Digest, ModelName, Version};
use crate::object::{ObjectStore, PutOutcome};
use crate::transfer::Source;
use async_trait::async_trait;
use bytes::Bytes;
use glowplug_pack::{Header, Pack, PackError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

const PACK_FILE: &str = "model.glow";
/// More than any alias file has.
const ALIAS_BYTES: Range<u64> = 0..4096;

/// A [`ModelStore`] over any [`ObjectStore`].
#[derive(Clone, Debug)]
pub struct PackStore {
    objects: Arc<dyn ObjectStore>,
    options: FetchOptions,
    cache: Option<Arc<PackCache>>,
}

/// The content of an alias file.
#[derive(Serialize, Deserialize)]
struct AliasFile {
    version: String,
    digest: Digest,
}

impl PackStore {
    /// The models in `objects`, fetched with the default options.
    #[must_use]
    pub fn new(objects: Arc<dyn ObjectStore>) -> PackStore {
        PackStore { objects, options: FetchOptions::default(), cache: None }
    }

    /// The same store with other options for what is not a local file.
    #[must_use]
    pub fn with_options(mut self, options: FetchOptions) -> PackStore {
        self.options = options;
        self
    }

    /// The same store with a cache on this machine for packs that had to be fetched.
    #[must_use]
    pub fn with_cache(mut self, cache: Arc<PackCache>) -> PackStore {
        self.cache = Some(cache);
        self
    }

    /// Maps the pack in `file`, which lies at `key`.
    fn map(key: &str, file: &File, model: &Resolved, admit: &Admit) -> Result<OpenedPack, StoreError> {
        let started = Instant::now();
        let (pack, region) = map::open(key, file, |header| {
            check_digest(model, header)?;
            admit(header.memory_len)
        })?;
        let fetch = FetchGuard::done(&pack, &region, started);
        Ok(OpenedPack { pack: Arc::new(pack), region, fetch })
    }

    /// The pack in the cache, if it is known which one is meant, and it lies there.
    fn cached(&self, model: &Resolved, admit: &Admit) -> Option<Result<OpenedPack, StoreError>> {
        let pack = self.cache.as_ref()?.find(model)?;
        Some(admit(pack.pack.header().memory_len).map(|()| pack))
    }

    /// The pack at `key`, fetched.
    async fn fetch(&self, key: String, model: &Resolved, admit: Admit) -> Result<OpenedPack, StoreError> {
        let source = Source { objects: self.objects.clone(), key, options: self.options };
        let opening = Opening { source, model: model.clone(), admit, cache: self.cache.clone() };
        let opened = first::open(opening).await?;
        if let Some(cache) = &self.cache {
            cache.learn(model, Digest(opened.pack.header().digest));
        }
        Ok(opened)
    }

    async fn alias(&self, name: &ModelName, alias: &AliasName) -> Result<Resolved, StoreError> {
        let key = alias_key(name, alias);
        let source = Source { objects: self.objects.clone(), key: key.clone(), options: self.options };
        let bytes = source.get(ALIAS_BYTES).await?;
        let corrupt =
            |text: String| StoreError::new(StoreErrorKind::Corrupt, format!("alias file {key:?}: {text}"));
        let file: AliasFile = serde_json::from_slice(&bytes).map_err(|e| corrupt(e.to_string()))?;
        let version = Version::new(file.version).map_err(|e| corrupt(e.to_string()))?;
        Ok(Resolved { name: name.clone(), version, digest: Some(file.digest) })
    }

    /// The digest of the pack that is stored as this version.
    async fn stored_digest(&self, key: &str) -> Result<Digest, StoreError> {
        let first = self.objects.get(key, Some(first::FIRST_READ), None).await?;
        let header = Header::parse(&first.bytes).map_err(|e| of_pack(key, &e))?;
        Ok(Digest(header.digest))
    }
}

#[async_trait]
impl ModelStore for PackStore {
    async fn resolve(&self, name: &ModelName, wanted: Option<&Version>) -> Result<Resolved, StoreError> {
        let Some(wanted) = wanted else {
            return self.alias(name, &AliasName::default_alias()).await.map_err(|e| match e.kind() {
                StoreErrorKind::NotFound => no_default(name),
                _ => e,
            });
        };
        let exact = Resolved::exact(name.clone(), wanted.clone());
        let Ok(alias) = AliasName::new(wanted.as_str()) else { return Ok(exact) };
        match self.alias(name, &alias).await {
            Err(e) if e.kind() == StoreErrorKind::NotFound => Ok(exact),
            resolved => resolved,
        }
    }

    async fn open(&self, model: &Resolved, admit: Admit) -> Result<OpenedPack, StoreError> {
        let key = pack_key(&model.name, &model.version);
        let opened = match self.objects.local_file(&key) {
            Ok(Some(file)) => PackStore::map(&key, &file, model, &admit),
            Ok(None) => match self.cached(model, &admit) {
                Some(cached) => cached,
                None => self.fetch(key, model, admit).await,
            },
            Err(error) => Err(error),
        };
        opened.map_err(|e| match e.kind() {
            StoreErrorKind::NotFound => {
                StoreError::new(e.kind(), format!("model {model} is not in the store: {e}"))
            }
            _ => e,
        })
    }

    async fn list(&self) -> Result<Vec<ModelEntry>, StoreError> {
        let mut models = BTreeMap::new();
        for key in self.objects.list("").await? {
            add_to_listing(&mut models, &key);
        }
        Ok(models.into_values().collect())
    }

    async fn publish(
        &self,
        name: &ModelName,
        version: &Version,
        bytes: Bytes,
    ) -> Result<Published, StoreError> {
        let key = pack_key(name, version);
        let digest = verify(&bytes).map_err(|e| of_pack(&key, &e))?;
        if self.objects.put_if_absent(&key, bytes).await? == PutOutcome::Created {
            return Ok(Published { digest, created: true });
        }
        let stored = self.stored_digest(&key).await?;
        if stored == digest {
            return Ok(Published { digest, created: false });
        }
        let text = format!(
            "{name}/{version} already exists with digest {stored}, this pack has {digest}: versions never change, publish another"
        );
        Err(StoreError::new(StoreErrorKind::AlreadyExists, text))
    }

    async fn set_alias(
        &self,
        name: &ModelName,
        alias: &AliasName,
        version: &Version,
        digest: &Digest,
    ) -> Result<(), StoreError> {
        let stored = self.stored_digest(&pack_key(name, version)).await?;
        if stored != *digest {
            return Err(other_digest(&format!("{name}/{version}"), &stored, digest));
        }
        let file = AliasFile { version: version.to_string(), digest: *digest };
        let json = serde_json::to_vec(&file)
            .map_err(|e| StoreError::new(StoreErrorKind::Other, format!("alias {alias}: {e}")))?;
        self.objects.put(&alias_key(name, alias), json.into()).await
    }
}

fn pack_key(name: &ModelName, version: &Version) -> String {
    format!("{name}/{version}/{PACK_FILE}")
}

fn alias_key(name: &ModelName, alias: &AliasName) -> String {
    format!("{name}/{ALIASES}/{alias}.json")
}

/// Adds what `key` tells. Keys of another form are other people's and are passed over.
fn add_to_listing(models: &mut BTreeMap<ModelName, ModelEntry>, key: &str) {
    let mut parts = key.split('/');
    let (Some(name), Some(folder), Some(file), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return;
    };
    let Ok(name) = ModelName::new(name) else { return };
    let version = Version::new(folder).ok().filter(|_| file == PACK_FILE);
    let alias = file.strip_suffix(".json").filter(|_| folder == ALIASES).and_then(|a| AliasName::new(a).ok());
    if version.is_none() && alias.is_none() {
        return;
    }
    let empty = ModelEntry { name: name.clone(), versions: Vec::new(), aliases: Vec::new() };
    let entry = models.entry(name).or_insert(empty);
    entry.versions.extend(version);
    entry.aliases.extend(alias);
}

/// Structure and every chunk's hash. Gives the digest.
fn verify(bytes: &[u8]) -> Result<Digest, PackError> {
    let (pack, region) = Pack::open(bytes)?;
    pack.verify_content(&region, None)?;
    Ok(Digest(pack.header().digest))
}

/// Whether the pack is the one that an alias promised.
pub(crate) fn check_digest(model: &Resolved, header: &Header) -> Result<(), StoreError> {
    let found = Digest(header.digest);
    match &model.digest {
        Some(wanted) if *wanted != found => Err(other_digest(&model.to_string(), &found, wanted)),
        _ => Ok(()),
    }
}

fn other_digest(model: &str, found: &Digest, wanted: &Digest) -> StoreError {
    let text = format!("model {model} has digest {found}, the alias wants {wanted}");
    StoreError::new(StoreErrorKind::Changed, text)
}

fn no_default(name: &ModelName) -> StoreError {
    let text = format!("model {name} has no alias \"default\" in the store: set one or ask for a version");
    StoreError::new(StoreErrorKind::NotFound, text)
}

/// A pack that is none, as an error about an object.
pub(crate) fn of_pack(key: &str, error: &PackError) -> StoreError {
    StoreError::of_pack(format_args!("object {key:?}"), error)
}
