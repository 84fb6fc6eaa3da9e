//! `Model`: one loaded pack, ready to answer. Everything here blocks, so it belongs on a compute thread.

use crate::batch::run_batched;
use crate::error::{ErrorKind, PredictError};
use crate::shapes::Fit;
use crate::timings::{Timings, ms_since, timed};
use glowplug_engine::{BuildOptions, Plan, Plans, Source};
use glowplug_pack::{Manifest, Pack, Region, Tensor};
use glowplug_processing::pipeline::{Limits, Pipeline};
use glowplug_processing::post::{Answer, Post};
use glowplug_processing::v2::{InferRequest, InferResponse, NamedTensor, check_inputs};
use glowplug_store::{FetchGuard, OpenedPack};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// How a model is loaded and run.
#[derive(Clone, Debug)]
pub struct ModelOptions {
    /// Compute threads of one inference.
    pub threads: usize,
    /// Leave the tuned plans out and run the portable graph.
    pub portable: bool,
    /// Hash all content before the first run, even where it was hashed on its way in.
    pub verify_always: bool,
    /// What one raw request may cost.
    pub limits: Limits,
    /// How long opening the pack took, for [`Model::load_timings`].
    pub fetch_ms: Option<f64>,
    /// When `plan_ms` begins: for a local file, which is not fetched, before it is opened and mapped. Now,
    /// where absent.
    pub started: Option<Instant>,
}

impl Default for ModelOptions {
    fn default() -> ModelOptions {
        ModelOptions {
            threads: 1,
            portable: false,
            verify_always: false,
            limits: Limits::default(),
            fetch_ms: None,
            started: None,
        }
    }
}

/// A pack with its plan built.
pub struct Model {
    pack: Arc<Pack>,
    region: Arc<Region>,
    plans: Plans,
    /// The one for the manifest's shapes.
    plan: Arc<Plan>,
    /// Compiled when first used: a tokenizer takes ten times as long to read as a plan, and tensors need none.
    pipelines: OnceLock<Pipelines>,
    limits: Limits,
    load: Timings,
    load_told: AtomicBool,
    /// Whether the last run was the portable graph's.
    ran_portable: AtomicBool,
    /// Keeps the transfer alive while later weights still arrive.
    fetch: FetchGuard,
}

/// What the manifest says of raw requests, ready to be applied.
struct Pipelines {
    pipeline: Pipeline,
    post: Post,
}

impl Model {
    /// Builds the plan of an opened pack. Waits for neither assets nor weights. Errors: no plan fits this machine.
    pub fn open(opened: OpenedPack, options: &ModelOptions) -> Result<Model, PredictError> {
        let OpenedPack { pack, region, fetch } = opened;
        let mut load = Timings { fetch_ms: options.fetch_ms, ..Timings::default() };
        if options.verify_always {
            timed(&mut load.verify_ms, || pack.verify_content(&region, None))?;
        }
        let start = options.started.unwrap_or_else(Instant::now);
        let (threads, portable) = (options.threads, options.portable);
        let build = BuildOptions { threads, portable, ..BuildOptions::default() };
        let plans = Plans::open(pack.clone(), region.clone(), &build)?;
        let plan = plans.at(&plans.default_shapes())?;
        load.plan_ms = Some(ms_since(start));
        let limits = options.limits;
        let ran_portable = AtomicBool::new(plan.source() == Source::Portable);
        Ok(Model {
            pack,
            region,
            plans,
            plan,
            pipelines: OnceLock::new(),
            limits,
            load,
            load_told: AtomicBool::new(false),
            ran_portable,
            fetch,
        })
    }

    /// What the pack says about itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        self.pack.manifest()
    }

    /// The pack's identity, in hex.
    #[must_use]
    pub fn digest(&self) -> String {
        self.pack.digest()
    }

    /// What served the last run, before one the plan for the manifest's shapes: `tuned` or `portable`.
    #[must_use]
    pub fn source(&self) -> &'static str {
        if self.ran_portable.load(Ordering::Relaxed) { Source::Portable } else { Source::Tuned }.name()
    }

    /// The instruction sets that its plan uses: `x86_64+avx2+fma`.
    #[must_use]
    pub fn target(&self) -> &str {
        self.plan.target()
    }

    /// Bytes of the pack's file.
    #[must_use]
    pub fn pack_bytes(&self) -> u64 {
        self.pack.header().file_len
    }

    /// How long loading took: `fetch_ms`, `verify_ms`, `plan_ms`.
    #[must_use]
    pub fn load_timings(&self) -> Timings {
        self.load
    }

    /// [`Model::load_timings`] for the first caller and nothing for all others: whom the cold start delayed.
    pub(crate) fn take_load_timings(&self) -> Option<Timings> {
        (!self.load_told.swap(true, Ordering::Relaxed)).then_some(self.load)
    }

    /// Compiles the pipelines for raw requests now instead of at the first one. Waits for the assets' bytes.
    /// Errors: a contradictory manifest; assets that do not come.
    pub fn check_pipelines(&self) -> Result<(), PredictError> {
        self.pipelines().map(drop)
    }

    fn pipelines(&self) -> Result<&Pipelines, PredictError> {
        match self.pipelines.get() {
            Some(pipelines) => Ok(pipelines),
            None => {
                let compiled = compile(&self.pack, &self.region)?;
                Ok(self.pipelines.get_or_init(|| compiled))
            }
        }
    }

    /// A file that travels with the model, as labels do; `None` where there is none of that name. Waits for its bytes.
    /// Errors: bytes that do not come.
    pub fn asset(&self, name: &str) -> Result<Option<&[u8]>, PredictError> {
        match self.manifest().assets.contains_key(name) {
            true => Ok(Some(self.region.wait(self.pack.asset_range(name)?, None)?)),
            false => Ok(None),
        }
    }

    /// Whether open axes may have other extents than the manifest's: there are plans for some, or a portable graph.
    fn takes_other_shapes(&self) -> bool {
        !self.manifest().buckets.is_empty() || self.pack.portable_range().is_some()
    }

    /// Has the pack kept on this machine, where the store has a cache. Returns at once; within a tokio runtime.
    pub(crate) fn keep(&self) {
        self.fetch.keep();
    }

    /// Runs the plan on named tensors; answers with every output. Times `run_ms`.
    /// Errors: a name, dtype, rank or extent that the model does not take; the deadline.
    pub fn infer(
        &self,
        inputs: Vec<NamedTensor>,
        deadline: Option<Instant>,
        timings: &mut Timings,
    ) -> Result<Vec<NamedTensor>, PredictError> {
        let inputs = check_inputs(self.manifest(), self.takes_other_shapes(), inputs)?;
        let outputs = self.run(&inputs, deadline, timings)?;
        let names = self.manifest().outputs.iter().map(|o| o.name.clone());
        Ok(names.zip(outputs).map(|(name, tensor)| NamedTensor { name, tensor }).collect())
    }

    /// Answers a V2 infer request. Times `preprocess_ms`, `run_ms` and `postprocess_ms`.
    pub fn infer_v2(
        &self,
        request: &mut InferRequest,
        version: Option<&str>,
        deadline: Option<Instant>,
        timings: &mut Timings,
    ) -> Result<InferResponse, PredictError> {
        request.check_outputs(self.manifest())?;
        let inputs = std::mem::take(&mut request.inputs);
        let check = || check_inputs(self.manifest(), self.takes_other_shapes(), inputs);
        let inputs = timed(&mut timings.preprocess_ms, check)?;
        let outputs = self.run(&inputs, deadline, timings)?;
        Ok(timed(&mut timings.postprocess_ms, || request.respond(self.manifest(), version, outputs))?)
    }

    /// Answers a raw request (an image, a text, a row) through the manifest's pipelines.
    /// Times `preprocess_ms`, `run_ms` and `postprocess_ms`.
    pub fn predict(
        &self,
        content_type: Option<&str>,
        body: &[u8],
        deadline: Option<Instant>,
        timings: &mut Timings,
    ) -> Result<Answer, PredictError> {
        let inputs = timed(&mut timings.preprocess_ms, || {
            let Pipelines { pipeline, .. } = self.pipelines()?;
            Ok::<_, PredictError>(pipeline.run(content_type, body, &self.limits)?)
        })?;
        let outputs = self.run(&inputs, deadline, timings)?;
        let Pipelines { post, .. } = self.pipelines()?;
        Ok(timed(&mut timings.postprocess_ms, || post.answer(outputs))?)
    }

    fn run(
        &self,
        inputs: &[Tensor],
        deadline: Option<Instant>,
        timings: &mut Timings,
    ) -> Result<Vec<Tensor>, PredictError> {
        timed(&mut timings.run_ms, || {
            let manifest = self.manifest();
            let Some(fit) = Fit::find(manifest, self.plans.shapes(), inputs) else {
                let shapes: Vec<_> = inputs.iter().map(|t| t.shape().to_vec()).collect();
                return self.run_plan(&shapes, inputs, deadline);
            };
            if fit.is_exact() {
                return self.run_plan(&fit.shapes, inputs, deadline);
            }
            let outputs = self.run_plan(&fit.shapes, &fit.fill(manifest, inputs)?, deadline)?;
            fit.cut(manifest, outputs)
        })
    }

    /// Runs the plan for `shapes`, as often as the batch asks for.
    fn run_plan(
        &self,
        shapes: &[Vec<usize>],
        inputs: &[Tensor],
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>, PredictError> {
        let plan = self.plans.at(shapes)?;
        self.ran_portable.store(plan.source() == Source::Portable, Ordering::Relaxed);
        run_batched(self.manifest(), shapes, inputs, |t| {
            if deadline.is_some_and(|d| d <= Instant::now()) {
                return Err(PredictError::new(ErrorKind::Timeout, "the deadline passed before the run"));
            }
            Ok(plan.run_until(t, deadline)?)
        })
    }
}

fn compile(pack: &Pack, region: &Region) -> Result<Pipelines, PredictError> {
    let mut assets = std::collections::BTreeMap::new();
    for name in pack.manifest().assets.keys() {
        assets.insert(name.as_str(), region.wait(pack.asset_range(name)?, None)?);
    }
    let asset = |name: &str| assets.get(name).copied();
    let (pipeline, post) =
        (Pipeline::compile(pack.manifest(), asset)?, Post::compile(pack.manifest(), asset)?);
    Ok(Pipelines { pipeline, post })
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Model({}, {} bytes)", self.manifest().model.name, self.pack_bytes())
    }
}
