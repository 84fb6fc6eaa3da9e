//! `Plans`: what a pack can run on this CPU, by the shapes of its inputs.
//!
//! A tuned plan serves the shapes it was made for. The portable graph serves all else: other shapes, and CPUs or tract
//! versions that no tuned plan fits.

use crate::error::{EngineError, ErrorKind};
use crate::expanded::ExpandedWeights;
use crate::plan::{BuildOptions, Plan, Source, unfit};
use crate::portable;
use glowplug_pack::plan::PlanHead;
use glowplug_pack::{DisplayShape, Pack, Region};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many plans made from the portable graph are kept: each holds a copy of the weights.
const MAX_PORTABLE: usize = 2;

/// The plans of a pack that fit this CPU, each built when it is first asked for.
pub struct Plans {
    pack: Arc<Pack>,
    region: Arc<Region>,
    /// What encoded weights become, once for all plans.
    expanded: ExpandedWeights,
    options: BuildOptions,
    /// In the pack's order: of several for the same shapes, the first that builds serves.
    candidates: Vec<Candidate>,
    /// Why the others do not fit.
    skipped: Vec<String>,
    /// The shapes of the manifest's inputs.
    default: Vec<Vec<usize>>,
    built: Mutex<Vec<Built>>,
}

/// A plan section that may be tried.
struct Candidate {
    /// Which of the pack's.
    section: usize,
    head: PlanHead,
}

/// A plan that serves.
struct Built {
    shapes: Vec<Vec<usize>>,
    plan: Arc<Plan>,
}

impl Plans {
    /// Reads the head of every plan and builds the one for the shapes of the manifest.
    ///
    /// Errors: as [`Plans::at`]. Cost: as that; the other plans take a few microseconds each until they are built.
    pub fn open(pack: Arc<Pack>, region: Arc<Region>, options: &BuildOptions) -> Result<Plans, EngineError> {
        let mut candidates = Vec::new();
        let mut skipped = Vec::new();
        for (section, bytes) in pack.plans().enumerate() {
            let head = PlanHead::read(bytes)?;
            let asked = options.portable.then(|| "the portable graph was asked for".to_owned());
            match asked.or_else(|| unfit(&head)) {
                None => candidates.push(Candidate { section, head }),
                Some(why) => {
                    tracing::info!(plan = section, target = %head.target, reason = %why, "plan skipped");
                    skipped.push(format!("plan {section}: {why}"));
                }
            }
        }
        let default = pack.manifest().inputs.iter().map(glowplug_pack::manifest::InputSpec::shape).collect();
        let (options, expanded, built) = (options.clone(), ExpandedWeights::default(), Mutex::default());
        let plans = Plans { pack, region, expanded, options, candidates, skipped, default, built };
        plans.at(&plans.default_shapes())?;
        Ok(plans)
    }

    /// The shapes of the manifest's inputs.
    #[must_use]
    pub fn default_shapes(&self) -> Vec<Vec<usize>> {
        self.default.clone()
    }

    /// The shapes of all inputs, in order, for each plan that fits this CPU; where none does, those that the
    /// manifest tells, so that batches are still cut into pieces and texts filled up.
    pub fn shapes(&self) -> impl Iterator<Item = Vec<&[usize]>> {
        let default = self.candidates.is_empty().then(|| self.default.iter().map(Vec::as_slice).collect());
        let tuned = self.candidates.iter();
        let tuned = tuned.map(|c| c.head.inputs.iter().map(|(_, shape)| shape.as_slice()).collect());
        tuned.chain(default)
    }

    /// The plan for inputs of exactly `shapes`: a tuned one that fits, or else one made from the portable graph, with
    /// a warning that tells why each tuned plan was left out.
    ///
    /// A tuned plan waits for the front of the pack only, and for blobs when they are needed; the portable graph waits
    /// for all of the pack. Errors: [`ErrorKind::UnsupportedCpu`] where no plan fits and there is no portable graph,
    /// with the reason for each; [`ErrorKind::Input`] for shapes that nothing in the pack takes, with those that
    /// something does; [`ErrorKind::Pack`] for a plan that does not validate; transfer errors. Cost: nothing for a
    /// plan that was built before; no graph pass, no copy of a blob, a millisecond for a few hundred nodes; a hundred
    /// times that and a copy of the weights where the portable graph has to serve.
    pub fn at(&self, shapes: &[Vec<usize>]) -> Result<Arc<Plan>, EngineError> {
        // Built under the lock: whoever comes second waits for the first one's plan instead of building another.
        let mut built = self.built();
        if let Some(found) = built.iter().find(|b| b.shapes == shapes) {
            return Ok(found.plan.clone());
        }
        let plan = Arc::new(self.build(shapes)?);
        let portable = |b: &Built| b.plan.source() == Source::Portable;
        if plan.source() == Source::Portable && built.iter().filter(|b| portable(b)).count() >= MAX_PORTABLE {
            let oldest = built.iter().position(portable);
            oldest.map(|i| built.remove(i));
        }
        built.push(Built { shapes: shapes.to_vec(), plan: plan.clone() });
        Ok(plan)
    }

    fn build(&self, shapes: &[Vec<usize>]) -> Result<Plan, EngineError> {
        let mut skipped = self.skipped.clone();
        for Candidate { section, head } in &self.candidates {
            if !head.inputs.iter().map(|(_, s)| s).eq(shapes) {
                continue;
            }
            let bytes = self.pack.plans().nth(*section).unwrap_or_default();
            match Plan::from_section(&self.pack, &self.region, &self.expanded, bytes, &self.options) {
                Err(e) if e.kind() == ErrorKind::UnsupportedCpu => {
                    tracing::info!(plan = section, reason = %e, "plan skipped");
                    skipped.push(format!("plan {section}: {e}"));
                }
                other => return other,
            }
        }
        let error = match (skipped.is_empty(), self.candidates.is_empty()) {
            (true, true) => EngineError::new(ErrorKind::UnsupportedCpu, "no plan fits: the pack holds none"),
            (true, false) => self.no_such_shapes(shapes),
            (false, _) => {
                EngineError::new(ErrorKind::UnsupportedCpu, format!("no plan fits: {}", skipped.join("; ")))
            }
        };
        if self.pack.portable_range().is_none() {
            let none = "this pack has no portable graph";
            let asked = self.options.portable.then(|| EngineError::new(ErrorKind::UnsupportedCpu, none));
            return Err(asked.unwrap_or(error));
        }
        if !self.options.portable {
            tracing::warn!(reason = %error, "no tuned plan fits, the portable graph serves: slower to load");
        }
        portable::build(&self.pack, &self.region, shapes, &self.options)
    }

    fn no_such_shapes(&self, shapes: &[Vec<usize>]) -> EngineError {
        let list = |shapes: &mut dyn Iterator<Item = &[usize]>| {
            shapes.map(|s| DisplayShape(s).to_string()).collect::<Vec<_>>().join(" ")
        };
        let found = list(&mut shapes.iter().map(Vec::as_slice));
        let there: Vec<_> = self.shapes().map(|s| list(&mut s.into_iter())).collect();
        let text = format!("inputs of {found}, expected one of: {}", there.join("; "));
        EngineError::new(ErrorKind::Input, text)
    }

    /// A panic while building cannot leave the list half-changed, so poison is of no concern.
    fn built(&self) -> MutexGuard<'_, Vec<Built>> {
        self.built.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Plans {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.candidates.iter().map(|c| &c.head)).finish()
    }
}
