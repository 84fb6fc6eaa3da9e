//! `Predictor`: models by name, loaded when first asked for (or in the init phase), run on compute threads.

use crate::error::{ErrorKind, PredictError};
use crate::model::{Model, ModelOptions};
use crate::slots::{Entry, Slots};
use crate::timings::{Timings, ms_since};
use glowplug_store::{Admit, ModelName, ModelStore, Resolved, StoreError, StoreErrorKind, Version};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// How long an alias is believed before it is read again, in the background.
const ALIAS_AGE: Duration = Duration::from_secs(60);

/// How long after a model's first answer its pack is written into the store's cache: the answer goes out first.
const ANSWER_LEAVES: Duration = Duration::from_millis(50);

/// How a [`Predictor`] uses the machine.
#[derive(Clone, Debug)]
pub struct PredictorOptions {
    /// Bytes that loaded packs may take together.
    pub memory_budget_bytes: u64,
    /// Inferences at once, each on a compute thread of its own.
    pub threads: usize,
    /// How each model is loaded and run.
    pub model: ModelOptions,
}

/// Which model a request means.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModelRef {
    /// The model.
    pub name: ModelName,
    /// A version or an alias; the alias `default` where absent.
    pub version: Option<Version>,
}

/// An answer, which model gave it, and how long each stage took.
#[derive(Debug)]
pub struct Served<T> {
    /// The answer.
    pub value: T,
    /// The model that gave it.
    pub model: Loaded,
    /// The stages that happened for this request; loading is told to the first request of a model only.
    pub timings: Timings,
}

/// A loaded model under the version it was resolved to.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Name and version in the store.
    pub resolved: Resolved,
    /// The model.
    pub model: Arc<Model>,
}

type Key = (ModelName, Version);

/// Models of one store behind lazy slots and one memory budget. Clones share everything.
#[derive(Clone)]
pub struct Predictor(Arc<Inner>);

struct Inner {
    store: Arc<dyn ModelStore>,
    options: PredictorOptions,
    slots: Slots<Key, Model>,
    /// What requests without an exact version resolved to, and when.
    aliases: Mutex<HashMap<ModelRef, (Resolved, Instant)>>,
    compute: Arc<Semaphore>,
}

impl Predictor {
    /// A predictor without any model loaded. Touches nothing.
    #[must_use]
    pub fn new(store: Arc<dyn ModelStore>, options: PredictorOptions) -> Predictor {
        let slots = Slots::new(options.memory_budget_bytes);
        let compute = Arc::new(Semaphore::new(options.threads.max(1)));
        Predictor(Arc::new(Inner { store, options, slots, aliases: Mutex::default(), compute }))
    }

    /// Begins to load a model and returns at once; a failure is logged and told to the first request.
    /// Must be called within a tokio runtime.
    pub fn preload(&self, wanted: &ModelRef) {
        let (this, wanted) = (self.clone(), wanted.clone());
        tokio::spawn(async move {
            let deadline = Instant::now() + Duration::from_secs(900);
            if let Err(error) = this.model(&wanted, deadline).await {
                tracing::warn!(model = %wanted.name, error = %error, "preload");
            }
        });
    }

    /// The model, loaded now if it is not yet. Of many callers at once, one loads.
    /// Errors: not in the store; no plan for this machine; over the memory budget; the deadline; a load
    /// that failed lately, with the time after which it is tried again.
    pub async fn model(&self, wanted: &ModelRef, deadline: Instant) -> Result<Loaded, PredictError> {
        let resolved = self.resolve(wanted, deadline).await?;
        let key = (resolved.name.clone(), resolved.version.clone());
        let model = match self.0.slots.enter(&key) {
            Entry::Ready(model) => model,
            Entry::Failed(error) => return Err(error),
            Entry::Wait(waiter) => waiter.wait(deadline).await?,
            Entry::Load(waiter) => {
                let (this, resolved) = (self.clone(), resolved.clone());
                // A task of its own: a caller that gives up does not take the load with it. And one in it: a
                // load that panics ends all the same.
                tokio::spawn(async move {
                    let (loader, loading) = (this.clone(), key.clone());
                    let load = tokio::spawn(async move { loader.load(&loading, &resolved).await });
                    let result = load.await.unwrap_or_else(|panic| Err(panicked(&panic)));
                    this.0.slots.finish(&key, result);
                });
                waiter.wait(deadline).await?
            }
        };
        Ok(Loaded { resolved, model })
    }

    /// Loads the model if need be and runs `work` with it on a compute thread.
    /// Errors: as [`Predictor::model`]; the deadline, be it in the queue for a thread; `work`'s own, a
    /// panic included. A model whose bytes stopped coming is dropped, so that the next request loads it anew.
    pub async fn run<T, F>(
        &self,
        wanted: &ModelRef,
        deadline: Instant,
        work: F,
    ) -> Result<Served<T>, PredictError>
    where
        T: Send + 'static,
        F: FnOnce(&Model, &Resolved, &mut Timings) -> Result<T, PredictError> + Send + 'static,
    {
        let loaded = self.model(wanted, deadline).await?;
        let late = |_| PredictError::new(ErrorKind::Timeout, "the deadline passed during the inference");
        let permit = tokio::time::timeout_at(deadline.into(), self.0.compute.clone().acquire_owned());
        let permit = permit.await.map_err(late)?;
        let load = loaded.model.take_load_timings();
        let (first, mut timings) = (load.is_some(), load.unwrap_or_default());
        let Loaded { model, resolved } = loaded.clone();
        let job = tokio::task::spawn_blocking(move || {
            // Held by the job and not by its caller: a caller that gives up frees no thread.
            let _permit = permit;
            work(&model, &resolved, &mut timings).map(|value| (value, timings))
        });
        let done = tokio::time::timeout_at(deadline.into(), job).await.map_err(late)?;
        let done = done.unwrap_or_else(|panic| Err(panicked(&panic)));
        if done.as_ref().is_err_and(|e| e.kind() == ErrorKind::Unavailable) {
            let key = (loaded.resolved.name.clone(), loaded.resolved.version.clone());
            self.0.slots.discard(&key, &loaded.model);
        }
        if first {
            let model = loaded.model.clone();
            tokio::spawn(async move {
                tokio::time::sleep(ANSWER_LEAVES).await;
                model.keep();
            });
        }
        let (value, timings) = done?;
        Ok(Served { value, model: loaded, timings })
    }

    async fn load(&self, key: &Key, resolved: &Resolved) -> Result<Model, PredictError> {
        let start = Instant::now();
        let opened = self.0.store.open(resolved, self.admit(key, resolved)).await;
        let opened = opened.map_err(|e| PredictError::store(resolved, &e))?;
        // Encoded weights are expanded beside the pack, as soon as they are read.
        let expanded = opened.pack.expanded_bytes();
        if expanded > 0 {
            let bytes = opened.pack.header().memory_len.saturating_add(expanded);
            self.admit(key, resolved)(bytes).map_err(|e| PredictError::store(resolved, &e))?;
        }
        let mut options = self.0.options.model.clone();
        options.fetch_ms = Some(ms_since(start));
        let built = tokio::task::spawn_blocking(move || Model::open(opened, &options)).await;
        let model = built.unwrap_or_else(|panic| Err(panicked(&panic)))?;
        let t = model.load_timings();
        tracing::info!(model = %resolved, fetch_ms = t.fetch_ms, verify_ms = t.verify_ms, plan_ms = t.plan_ms, "loaded");
        Ok(model)
    }

    /// Makes room within the memory budget for a pack of told size, before the store takes memory for it.
    fn admit(&self, key: &Key, resolved: &Resolved) -> Admit {
        let (this, key, resolved) = (self.clone(), key.clone(), resolved.clone());
        Arc::new(move |bytes| {
            let evicted = this.0.slots.reserve(&key, bytes);
            let evicted = evicted.map_err(|e| StoreError::new(StoreErrorKind::TooLarge, e.to_string()))?;
            for (name, version) in evicted {
                tracing::info!(model = %name, version = %version, "evicted for {resolved}");
            }
            Ok(())
        })
    }

    /// The version that is meant. What was resolved lately is believed; what was resolved long ago is
    /// believed once more while it is read again, so that no request waits for an alias twice.
    async fn resolve(&self, wanted: &ModelRef, deadline: Instant) -> Result<Resolved, PredictError> {
        if let Some((resolved, since)) = self.known(wanted) {
            if since.elapsed() > ALIAS_AGE {
                self.remember(wanted, resolved.clone());
                let (this, wanted) = (self.clone(), wanted.clone());
                tokio::spawn(async move {
                    if let Err(error) = this.read_alias(&wanted).await {
                        tracing::warn!(model = %wanted.name, error = %error, "alias not read again");
                    }
                });
            }
            return Ok(resolved);
        }
        let late = |_| PredictError::new(ErrorKind::Timeout, "the deadline passed while the alias was read");
        tokio::time::timeout_at(deadline.into(), self.read_alias(wanted)).await.map_err(late)?
    }

    async fn read_alias(&self, wanted: &ModelRef) -> Result<Resolved, PredictError> {
        let resolved = self.0.store.resolve(&wanted.name, wanted.version.as_ref()).await;
        let resolved = resolved.map_err(|e| PredictError::store(&wanted.name, &e))?;
        // Only what an alias file told: a version named in a request may not even exist.
        if resolved.digest.is_some() {
            self.remember(wanted, resolved.clone());
        }
        Ok(resolved)
    }

    fn known(&self, wanted: &ModelRef) -> Option<(Resolved, Instant)> {
        self.0.aliases.lock().unwrap_or_else(PoisonError::into_inner).get(wanted).cloned()
    }

    fn remember(&self, wanted: &ModelRef, resolved: Resolved) {
        let mut aliases = self.0.aliases.lock().unwrap_or_else(PoisonError::into_inner);
        aliases.insert(wanted.clone(), (resolved, Instant::now()));
    }
}

fn panicked(error: &tokio::task::JoinError) -> PredictError {
    PredictError::new(ErrorKind::Internal, format!("the compute thread panicked: {error}"))
}
