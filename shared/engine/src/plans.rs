//! `Plans`: what a pack can run on this CPU, by the shapes of its inputs.

use crate::error::{EngineError, ErrorKind};
use crate::plan::{BuildOptions, Plan, unfit};
use glowplug_pack::plan::PlanHead;
use glowplug_pack::{DisplayShape, Pack, Region};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The plans of a pack that fit this CPU, each built when it is first asked for.
pub struct Plans {
    pack: Arc<Pack>,
    region: Arc<Region>,
    options: BuildOptions,
    /// In the pack's order: of several for the same shapes, the first that builds serves.
    candidates: Vec<Candidate>,
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
    /// Errors: as [`Plan::build`]. Cost: as that; the others take a few microseconds each until they are built.
    pub fn open(pack: Arc<Pack>, region: Arc<Region>, options: &BuildOptions) -> Result<Plans, EngineError> {
        let mut candidates = Vec::new();
        let mut skipped = Vec::new();
        for (section, bytes) in pack.plans().enumerate() {
            let head = PlanHead::read(bytes)?;
            match unfit(&head) {
                None => candidates.push(Candidate { section, head }),
                Some(why) => {
                    tracing::info!(plan = section, target = %head.target, reason = %why, "plan skipped");
                    skipped.push(format!("plan {section}: {why}"));
                }
            }
        }
        if candidates.is_empty() {
            return Err(none_fits(&skipped));
        }
        let plans = Plans { pack, region, options: options.clone(), candidates, built: Mutex::default() };
        plans.at(&plans.default_shapes())?;
        Ok(plans)
    }

    /// The shapes of the manifest's inputs.
    #[must_use]
    pub fn default_shapes(&self) -> Vec<Vec<usize>> {
        self.pack.manifest().inputs.iter().map(glowplug_pack::manifest::InputSpec::shape).collect()
    }

    /// The shapes of all inputs, in order, for each plan that fits this CPU.
    pub fn shapes(&self) -> impl Iterator<Item = Vec<&[usize]>> {
        self.candidates.iter().map(|c| c.head.inputs.iter().map(|(_, shape)| shape.as_slice()).collect())
    }

    /// The plan for inputs of exactly `shapes`.
    ///
    /// Errors: [`ErrorKind::Input`] where there is none, with the shapes that there are; as [`Plan::build`] the
    /// first time. Cost: none but the first time.
    pub fn at(&self, shapes: &[Vec<usize>]) -> Result<Arc<Plan>, EngineError> {
        // Built under the lock: whoever comes second waits for the first one's plan instead of building another.
        let mut built = self.built();
        if let Some(found) = built.iter().find(|b| b.shapes == shapes) {
            return Ok(found.plan.clone());
        }
        let plan = Arc::new(self.build(shapes)?);
        built.push(Built { shapes: shapes.to_vec(), plan: plan.clone() });
        Ok(plan)
    }

    fn build(&self, shapes: &[Vec<usize>]) -> Result<Plan, EngineError> {
        let mut skipped = Vec::new();
        let fits = |c: &&Candidate| c.head.inputs.iter().map(|(_, s)| s).eq(shapes);
        for candidate in self.candidates.iter().filter(fits) {
            let section = self.pack.plans().nth(candidate.section).unwrap_or_default();
            match Plan::from_section(&self.pack, &self.region, section, &self.options) {
                Err(e) if e.kind() == ErrorKind::UnsupportedCpu => {
                    tracing::info!(plan = candidate.section, reason = %e, "plan skipped");
                    skipped.push(format!("plan {}: {e}", candidate.section));
                }
                other => return other,
            }
        }
        if skipped.is_empty() { Err(self.no_such_shapes(shapes)) } else { Err(none_fits(&skipped)) }
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

fn none_fits(skipped: &[String]) -> EngineError {
    let why = if skipped.is_empty() { "the pack holds none".to_owned() } else { skipped.join("; ") };
    EngineError::new(ErrorKind::UnsupportedCpu, format!("no plan fits: {why}"))
}

impl std::fmt::Debug for Plans {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.candidates.iter().map(|c| &c.head)).finish()
    }
}
