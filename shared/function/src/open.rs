//! Adapters from configuration: which store a location means, and a predictor over it.

use glowplug_lambda::BoxError;
use glowplug_lambda::config::{Config, Location, ModelSpec, Selector, Verify};
use glowplug_predict::{Limits, ModelOptions, ModelRef, Predictor, PredictorOptions};
use glowplug_store::{DirectoryStore, FetchOptions, ObjectStore, PackCache, PackStore, StoreError};
use glowplug_store_s3::{S3Options, S3Store};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

fn s3(config: &Config, bucket: &str, prefix: &str) -> Result<S3Store, StoreError> {
    let mut options = S3Options::from_env(bucket, prefix)?;
    options.path_style |= config.s3.path_style;
    S3Store::connect(options)
}

fn objects(config: &Config, location: &Location) -> Result<Arc<dyn ObjectStore>, StoreError> {
    Ok(match location {
        Location::Directory(path) => Arc::new(DirectoryStore::new(path)),
        Location::S3 { bucket, prefix } => Arc::new(s3(config, bucket, prefix)?),
    })
}

/// What the configured threads are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// One inference at a time uses them all: a function whose events come one by one.
    Within,
    /// Several inferences at a time use one each: a function whose events bring many inputs.
    Across,
}

/// A predictor over the configured store, with nothing loaded yet.
pub fn open_predictor(config: &Config, threads: Threads) -> Result<Predictor, BoxError> {
    let options = FetchOptions::of_parts(config.fetch.part_bytes, config.fetch.connections);
    let mut store = PackStore::new(objects(config, &config.store)?).with_options(options);
    if let Some(cache) = &config.cache {
        let cache = PackCache::new(&cache.dir, cache.max_bytes);
        store = store.with_cache(Arc::new(cache.hashing_all(config.verify == Verify::Always)));
    }
    let limits = Limits { max_pixels: config.max_pixels, ..Limits::default() };
    let verify_always = config.verify == Verify::Always;
    let (at_once, each) = match threads {
        Threads::Within => (1, config.threads),
        Threads::Across => (config.threads, 1),
    };
    let options = PredictorOptions {
        memory_budget_bytes: config.memory_budget_bytes,
        threads: at_once,
        model: ModelOptions { limits, verify_always, threads: each, ..ModelOptions::default() },
    };
    Ok(Predictor::new(Arc::new(store), options))
}

/// A configured model, as the predictor names it.
pub fn model_ref(spec: &ModelSpec) -> Result<ModelRef, StoreError> {
    let version = match &spec.selector {
        Selector::Version(version) => Some(version.parse()?),
        Selector::Alias(alias) if alias == "default" => None,
        Selector::Alias(alias) => Some(alias.parse()?),
    };
    Ok(ModelRef { name: spec.name.parse()?, version })
}

/// Begins to load every configured model, in the init phase, without waiting for any. Returns them.
pub fn preload(predictor: &Predictor, config: &Config) -> Result<Vec<ModelRef>, BoxError> {
    let models = config.models.iter().map(model_ref).collect::<Result<Vec<_>, _>>()?;
    for model in &models {
        predictor.preload(model);
    }
    Ok(models)
}

/// Where results go.
pub fn results_store(config: &Config) -> Result<Arc<dyn ObjectStore>, BoxError> {
    Ok(objects(config, config.results()?)?)
}

/// The buckets that events name, each opened once.
pub struct Buckets {
    config: Config,
    opened: Mutex<HashMap<String, S3Store>>,
}

impl Buckets {
    /// No bucket opened yet.
    #[must_use]
    pub fn new(config: &Config) -> Buckets {
        Buckets { config: config.clone(), opened: Mutex::default() }
    }

    /// The objects of `bucket`; all buckets share one client's connections.
    pub fn get(&self, bucket: &str) -> Result<S3Store, StoreError> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = opened.get(bucket) {
            return Ok(store.clone());
        }
        let store = match opened.values().next() {
            Some(other) => other.with_bucket(bucket, "")?,
            None => s3(&self.config, bucket, "")?,
        };
        opened.insert(bucket.to_owned(), store.clone());
        Ok(store)
    }
}
