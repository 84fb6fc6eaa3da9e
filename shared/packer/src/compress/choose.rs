//! Which rounding each weight gets, and the proof that the pack keeps its contract.

use super::{
    Accuracy, AccuracyReport, CompressionReport, Contract, DataReport, Int8Report, LayerReport,
    MEASURED_STEP, Sensitivity, Trial, search,
};
use crate::calibrate;
use crate::error::{ErrorKind, PackerError, guard};
use crate::evaluate::{Answers, Dataset, Feed, InputPort, Metric, Score, bad};
use crate::graphs::PlannedModel;
use crate::import::Imported;
use crate::int8::{self, Compute, Ranges};
use crate::pack::{PackOptions, Stage, Writer};
use crate::prune::PruneReport;
use crate::quantize::{
    Candidate, Moments, Quantizer, Rounding, Weights, candidates, entropy_bits, finest_step,
};
use crate::verify::{Path, load};
use glowplug_engine::Plan;
use glowplug_pack::PackBuilder;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tract_core::internal::TypedModel;

/// Samples that sensitivities are measured on.
pub(super) const SENSITIVITY_SAMPLES: usize = 24;
/// Weights below this part of all encoded values are f16, never less: they save nothing, and first layers are among them.
const SMALL: usize = 500;
/// Samples that the ranges of activations are taken from.
const RANGE_SAMPLES: usize = 64;

/// Which candidates are not [`SMALL`].
fn large(candidates: &[Candidate]) -> Vec<usize> {
    let all: usize = candidates.iter().map(|c| c.tensor.len()).sum();
    (0..candidates.len()).filter(|i| candidates[*i].tensor.len() * SMALL >= all).collect()
}

/// The rounding of each candidate, where those of the `large` ones are `chosen`. What int8 holds as it is gains nothing by f16.
fn all_roundings(candidates: &[Candidate], large: &[usize], chosen: &[Rounding]) -> Vec<Rounding> {
    let mut all = vec![Rounding::F16; candidates.len()];
    large.iter().zip(chosen).for_each(|(index, rounding)| all[*index] = *rounding);
    let finest = |(rounding, candidate): (Rounding, &Candidate)| match rounding {
        Rounding::F16 if candidate.fits_int8 => Rounding::Int8 { step: 0.0 },
        other => other,
    };
    all.into_iter().zip(candidates).map(finest).collect()
}

/// What a plan is judged by.
pub(crate) struct Judge<'a> {
    metric: Metric,
    feed: Feed<'a>,
    float: Answers,
    /// The asset of the output's labels.
    labels: Option<Vec<u8>>,
    before: Score,
}

impl Judge<'_> {
    pub(super) fn metric(&self) -> &Metric {
        &self.metric
    }

    /// What `after` has lost.
    pub(super) fn drop(&self, after: Score) -> f64 {
        self.metric.drop(self.before, after)
    }

    pub(super) fn score(&self, plan: &Plan) -> Result<Score, PackerError> {
        let answers = self.feed.answers_of(&self.metric, plan)?;
        self.feed.score(&self.metric, &answers, &self.float, self.labels.as_deref())
    }

    fn told(&self, accuracy: &Accuracy<'_>, after: Score) -> AccuracyReport {
        AccuracyReport {
            metric: self.metric.to_string(),
            data: DataReport::of(accuracy.data),
            before: self.before,
            after,
            drop: self.drop(after),
            max_drop: accuracy.max_drop,
        }
    }
}

/// Errors: options that contradict each other; a model that would have to be run though this CPU cannot.
pub(crate) fn check(options: &PackOptions<'_>) -> Result<(), PackerError> {
    let (target, weights, contract) = (options.target, options.weights, &options.contract);
    let calibrated = options.calibration.is_some() && weights != Weights::F32;
    let in_bytes = options.compute == Compute::Int8;
    let runs = contract.accuracy.is_some() || calibrated || in_bytes || options.prune.is_some();
    if runs && !target.runs_here() {
        let text =
            format!("a model for {target} can be run on no data on this CPU, to calibrate or to measure");
        return Err(PackerError::new(ErrorKind::Target, text));
    }
    let bounded = contract.max_bytes.is_some() || contract.accuracy.iter().any(|a| a.max_drop.is_some());
    if in_bytes && weights == Weights::Auto {
        return Err(bad(
            "compute int8 takes weights f32, f16 or int8: what auto leaves is coarser than its kernels round",
        ));
    }
    if weights == Weights::Auto && !bounded {
        return Err(bad(
            "weights auto need a bound: on what may be lost (--max-drop), or on the bytes of the pack (--max-bytes)",
        ));
    }
    Ok(())
}

/// What is told of each candidate, but what has to be measured.
fn layers(candidates: &[Candidate], roundings: &[Rounding], quantizer: &Quantizer) -> Vec<LayerReport> {
    let layer = |(candidate, rounding): (&Candidate, &Rounding)| LayerReport {
        name: candidate.name.clone(),
        values: candidate.tensor.len(),
        // What an encoding has no place for stays as it is.
        rounding: quantizer.rounded(candidate).map_or("f32".to_owned(), |_| rounding.to_string()),
        entropy_bits: 0.0,
        sensitivity: None,
    };
    candidates.iter().zip(roundings).map(layer).collect()
}

impl<'o> Writer<'_, 'o> {
    /// Chooses the roundings that the options ask for, and plans the model with them. Gives what the pack is to be judged by.
    pub(crate) fn compress(&mut self) -> Result<Option<Judge<'o>>, PackerError> {
        self.stage(Stage::Quantize, "");
        let (weights, contract) = (self.options.weights, self.options.contract.clone());
        let calibration = self.options.calibration;
        let candidates = match weights {
            Weights::F32 => Vec::new(),
            _ => candidates(self.decluttered)?,
        };
        let by_data = matches!(weights, Weights::Int8 | Weights::Auto);
        let moments = match calibration {
            Some(data) if by_data && !candidates.is_empty() => self.moments(data, &candidates)?,
            _ => HashMap::new(),
        };
        let used = by_data || self.options.compute == Compute::Int8 || self.unpruned.is_some();
        let mut report = CompressionReport {
            max_bytes: contract.max_bytes,
            calibration: calibration.filter(|_| used).map(DataReport::of),
            ..CompressionReport::default()
        };
        let judge = self.judge(&contract)?;
        report.pruning = self.pruning(judge.as_ref())?;
        self.observe(calibration)?;
        let mut sensitivities = Vec::new();
        let roundings = match weights {
            Weights::F32 => Vec::new(),
            Weights::F16 => all_roundings(&candidates, &[], &[]),
            Weights::Int8 => {
                let large = large(&candidates);
                all_roundings(&candidates, &large, &vec![Rounding::Int8 { step: 0.0 }; large.len()])
            }
            Weights::Auto => {
                // On samples that rounding has seen, what it fitted itself to looks less sensitive than it is.
                let unseen = contract.accuracy.as_ref().map(|a| a.data);
                let data = unseen.or(calibration).map(|data| data.spread(SENSITIVITY_SAMPLES));
                let data = data.ok_or_else(|| bad("weights auto need calibration or evaluation data"))?;
                let metric = contract.accuracy.as_ref().map(|a| &a.metric);
                let (chosen, layers) = self.sensitivities(&candidates, &moments, &data, metric)?;
                self.compression = Some(report.clone());
                let found =
                    self.search(&candidates, &moments, (&chosen, &layers), judge.as_ref(), &contract)?;
                report.front = found.1;
                sensitivities = chosen.into_iter().zip(layers).collect();
                found.0
            }
        };
        let quantizer = self.quantizer(&candidates, &roundings, &moments)?;
        if judge.is_some() || contract.max_bytes.is_some() || calibration.is_some() {
            report.layers = layers(&candidates, &roundings, &quantizer);
            for (layer, candidate) in report.layers.iter_mut().zip(&candidates) {
                layer.entropy_bits = entropy_bits(candidate, quantizer.rounded(candidate));
            }
            for (index, sensitivity) in &sensitivities {
                report.layers[*index].sensitivity = Some(sensitivity.error);
            }
            self.compression = Some(report);
        }
        self.choose_bytes(&quantizer, judge.as_ref())?;
        self.stage(Stage::Plan, "");
        self.plan(quantizer)?;
        Ok(judge)
    }

    /// `candidates` rounded, each as `roundings` says, for a pack of the model.
    fn quantizer(
        &self,
        candidates: &[Candidate],
        roundings: &[Rounding],
        moments: &HashMap<String, Moments>,
    ) -> Result<Quantizer, PackerError> {
        let quantizer = Quantizer::new(candidates, roundings, moments)?;
        Ok(if self.came_quantized.quantized.weights_int8 > 0 { quantizer.with_int8() } else { quantizer })
    }

    /// Tells the accuracy of the pack in `bytes`, whose tuned plans are final. Errors: it cannot be run on the data.
    pub(crate) fn measure(&mut self, judge: Option<Judge<'o>>, bytes: &[u8]) -> Result<(), PackerError> {
        let (Some(judge), Some(accuracy)) = (judge, &self.options.contract.accuracy) else { return Ok(()) };
        let after = judge.score(&*load(bytes, &Path::Tuned, &self.imported[0].inputs)?)?;
        let told = judge.told(accuracy, after);
        if let Some(report) = &mut self.compression {
            report.accuracy = Some(told);
        }
        Ok(())
    }

    /// The ranges of activations, where convolutions are to be done in bytes.
    fn observe(&mut self, data: Option<&Dataset>) -> Result<(), PackerError> {
        if self.options.compute == Compute::F32 {
            return Ok(());
        }
        let (model, names) = (&self.decluttered[0], &self.came_quantized.limits);
        let of_file =
            guard("quantize", || int8::limits(model, names).map_err(|e| PackerError::model("quantize", &e)))?;
        let Some(data) = data else {
            if of_file.is_empty() {
                return Err(bad(
                    "compute int8 needs calibration data (--calibrate), or a model whose activations came quantized by stored scales",
                ));
            }
            (self.ranges, self.int8) = (Some(of_file), Some(Int8Report::default()));
            return Ok(());
        };
        let data = data.spread(RANGE_SAMPLES);
        let feed = data.feed(self.ports())?;
        let runs = feed.runs();
        let progress = &mut *self.options.progress;
        let mut told = |run: usize| progress(Stage::Quantize, &format!("ranges, run {} of {runs}", run + 1));
        let ranges = guard("calibrate", || {
            int8::observe(model, &feed, &mut told).map_err(|e| PackerError::model("calibrate", &e))
        })?;
        (self.ranges, self.int8) = (Some(ranges.beside(of_file)), Some(Int8Report::default()));
        Ok(())
    }

    pub(super) fn ports(&self) -> Vec<InputPort> {
        self.imported[0].ports()
    }

    fn moments(
        &mut self,
        data: &Dataset,
        candidates: &[Candidate],
    ) -> Result<HashMap<String, Moments>, PackerError> {
        let feed = data.feed(self.ports())?;
        let (model, runs) = (&self.decluttered[0], feed.runs());
        let progress = &mut *self.options.progress;
        let mut told =
            |run: usize| progress(Stage::Quantize, &format!("calibration, run {} of {runs}", run + 1));
        calibrate::moments(model, candidates, &feed, &mut told)
    }

    /// The float model on the evaluation data.
    fn judge(&mut self, contract: &Contract<'o>) -> Result<Option<Judge<'o>>, PackerError> {
        let Some(accuracy) = &contract.accuracy else { return Ok(None) };
        let data: &'o Dataset = accuracy.data;
        let feed = data.feed(self.ports())?;
        self.stage(Stage::Quantize, &format!("f32 on {} samples", feed.samples()));
        let plan = match &self.unpruned {
            Some(unpruned) => self.light_of(&unpruned.float.imported, unpruned.float.simplified.clone())?,
            None => self.light(&Quantizer::default(), None)?,
        };
        let names: Vec<&str> = plan.outputs().iter().map(|port| port.name.as_str()).collect();
        let output = accuracy.metric.output(&names)?;
        let labels = self.parsed.manifest.outputs.get(output).and_then(|o| o.labels.as_ref());
        let labels = labels.and_then(|name| self.parsed.assets.get(name)).cloned();
        let float = feed.answers_of(&accuracy.metric, &plan)?;
        let before = feed.score(&accuracy.metric, &float, &float, labels.as_deref())?;
        Ok(Some(Judge { metric: accuracy.metric.clone(), feed, float, labels, before }))
    }

    /// What pruning did, with the metric where there is one.
    fn pruning(&mut self, judge: Option<&Judge<'_>>) -> Result<Option<PruneReport>, PackerError> {
        let Some(unpruned) = &self.unpruned else { return Ok(None) };
        let mut report = unpruned.report.clone();
        if let Some(judge) = judge {
            report.score = Some(judge.score(&*self.light(&Quantizer::default(), None)?)?);
            if let Some(other) = &unpruned.unrestored {
                let plan = self.light_of(&other.imported, other.simplified.clone())?;
                report.score_without_restoring = Some(judge.score(&plan)?);
            }
        }
        Ok(Some(report))
    }

    /// The default plan alone; in f32, where `ranges` do not say what is done in bytes.
    pub(super) fn light(
        &self,
        quantizer: &Quantizer,
        ranges: Option<&Ranges>,
    ) -> Result<Arc<Plan>, PackerError> {
        let quantizer = &self.with_bytes(quantizer.clone(), ranges)?;
        let model = quantizer.apply(self.decluttered[0].clone())?;
        self.planned_alone(&self.imported[0], model, quantizer, ranges)
    }

    /// The same of another model in f32, its weights as they are.
    fn light_of(&self, imported: &Imported, simplified: TypedModel) -> Result<Arc<Plan>, PackerError> {
        self.planned_alone(imported, simplified, &Quantizer::default(), None)
    }

    fn planned_alone(
        &self,
        imported: &Imported,
        model: TypedModel,
        quantizer: &Quantizer,
        ranges: Option<&Ranges>,
    ) -> Result<Arc<Plan>, PackerError> {
        let by_image = self.options.target.runs_here() && ranges.is_none();
        let planned = PlannedModel::of(imported, model, quantizer, by_image, ranges)?;
        let mut builder = PackBuilder::new();
        let plan = planned.encode(quantizer.encodings(), &mut builder)?;
        plan.validate(builder.weights())?;
        builder.plan(plan.encode());
        for (name, bytes) in &self.parsed.assets {
            builder.asset(name, bytes.clone())?;
        }
        load(&builder.finish(self.parsed.manifest.clone())?, &Path::Tuned, &imported.inputs)
    }

    /// How much each of the large candidates changes the output, by itself.
    fn sensitivities(
        &mut self,
        candidates: &[Candidate],
        moments: &HashMap<String, Moments>,
        data: &Dataset,
        metric: Option<&Metric>,
    ) -> Result<(Vec<usize>, Vec<Sensitivity>), PackerError> {
        let feed = data.feed(self.ports())?;
        let values = Metric::values_of(metric);
        let float = feed.answers_of(&values, &*self.light(&Quantizer::default(), None)?)?;
        let large = large(candidates);
        let mut found = Vec::new();
        for (n, index) in large.iter().enumerate() {
            let candidate = std::slice::from_ref(&candidates[*index]);
            self.stage(Stage::Quantize, &format!("sensitivity, weight {} of {}", n + 1, large.len()));
            let rounding = Rounding::Int8 { step: MEASURED_STEP };
            let quantizer = Quantizer::new(candidate, &[rounding], moments)?;
            let answers = feed.answers_of(&values, &*self.light(&quantizer, None)?)?;
            let error = answers.squared_error(&float);
            let finest = finest_step(&candidates[*index]);
            found.push(Sensitivity { values: candidates[*index].tensor.len(), error, finest });
        }
        Ok((large, found))
    }

    fn search(
        &mut self,
        candidates: &[Candidate],
        moments: &HashMap<String, Moments>,
        (large, sensitivities): (&[usize], &[Sensitivity]),
        judge: Option<&Judge<'_>>,
        contract: &Contract<'_>,
    ) -> Result<(Vec<Rounding>, Vec<super::Point>), PackerError> {
        let mut tried = 0;
        // The manifest tells how far each output is off: what a trial says has as many digits as what will be measured.
        let errors = self.imported[0].outputs.iter().map(|port| (port.name.clone(), 1.0 / 3.0e7));
        let errors: BTreeMap<_, _> = errors.collect();
        let found = search(sensitivities, contract.bounds(), |chosen| {
            tried += 1;
            self.stage(Stage::Quantize, &format!("pack {tried} of the search"));
            let roundings = all_roundings(candidates, large, chosen);
            let quantizer = self.quantizer(candidates, &roundings, moments)?;
            // So does what it tells of compression.
            if let Some(report) = &mut self.compression {
                report.layers = layers(candidates, &roundings, &quantizer);
                report.accuracy = judge.zip(contract.accuracy.as_ref()).map(|(j, a)| j.told(a, j.before));
            }
            self.plan(quantizer)?;
            let written = self.write(errors.clone())?;
            let bytes = written.bytes.len() as u64;
            let Some(judge) = judge else { return Ok(Trial { bytes, score: None, drop: None }) };
            let score = judge.score(&*load(&written.bytes, &Path::Tuned, &self.imported[0].inputs)?)?;
            let drop = judge.metric.drop(judge.before, score);
            self.stage(
                Stage::Quantize,
                &format!("pack {tried} of the search: {bytes} bytes, {} {score}", judge.metric),
            );
            Ok(Trial { bytes, score: Some(score), drop: Some(drop) })
        })?;
        Ok((all_roundings(candidates, large, &found.roundings), found.front))
    }

    /// Whether the pack as written keeps what was asked for.
    pub(crate) fn check_contract(&self, bytes: &[u8]) -> Result<(), PackerError> {
        let bounds = self.options.contract.bounds();
        let told = self.compression.as_ref().and_then(|c| c.accuracy.as_ref());
        let (score, drop) = (told.map(|t| t.after), told.map(|t| t.drop));
        let trial = Trial { bytes: bytes.len() as u64, score, drop };
        if bounds.keeps(&trial) { Ok(()) } else { Err(bounds.broken(Some(&trial))) }
    }
}
