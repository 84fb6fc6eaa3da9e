//! Compression under a contract: how much of a metric may be lost, how many bytes a pack may take, and which
//! rounding of each weight gets there.
//!
//! For small steps the error of an output grows with the square of a weight's step, by a factor that is
//! measured for each weight: it alone is rounded, and the model is run. The bits of `n` values fall by one each time their step is
//! doubled. So the least error for a number of bits is where every further bit helps as much wherever it is
//! spent: `step^2 = mu * n / sensitivity`, one number `mu` for all weights. Packs for several `mu` are the front of size
//! and accuracy; it is searched for the smallest that keeps the contract, every one of them built and measured
//! on the evaluation data.

mod choose;
mod convolutions;

pub(crate) use choose::check;
pub use convolutions::{Int8Layer, Int8Point, Int8Report};

use crate::error::{ErrorKind, PackerError};
use crate::evaluate::{Dataset, Metric, Score};
use crate::prune::PruneReport;
use crate::quantize::Rounding;
use serde::Serialize;

/// The coarsest step that is tried, in parts of a channel's root mean square: most weights are -1, 0 or 1 times it.
const COARSEST: f64 = 1.0;
/// The step at which sensitivities are measured: about what five bits have.
pub(crate) const MEASURED_STEP: f32 = 0.125;
/// How often the interval of `mu` is halved: steps are known to a few per cent then.
const HALVINGS: usize = 8;

/// What a pack has to keep.
#[derive(Clone, Debug, Default)]
pub struct Contract<'a> {
    /// What is measured.
    pub accuracy: Option<Accuracy<'a>>,
    /// Most bytes of the pack.
    pub max_bytes: Option<u64>,
}

/// A metric, the data that it is measured on, and how much of it may be lost.
#[derive(Clone, Debug)]
pub struct Accuracy<'a> {
    /// The metric.
    pub metric: Metric,
    /// Samples that neither training nor calibration have seen.
    pub data: &'a Dataset,
    /// How much less than the float model's it may be, in the metric's own unit. Told only, where absent.
    pub max_drop: Option<f64>,
}

impl Contract<'_> {
    pub(crate) fn bounds(&self) -> Bounds<'_> {
        Bounds {
            metric: self.accuracy.as_ref().map(|a| &a.metric),
            max_drop: self.accuracy.as_ref().and_then(|a| a.max_drop),
            max_bytes: self.max_bytes,
        }
    }
}

/// What of a contract can be broken.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bounds<'a> {
    metric: Option<&'a Metric>,
    max_drop: Option<f64>,
    max_bytes: Option<u64>,
}

impl Bounds<'_> {
    /// Whether no more is lost than may be: where that is bounded, it has to be known.
    pub(crate) fn accurate(&self, drop: Option<f64>) -> bool {
        /// Metrics are ratios of counts and sums: the last bits of their differences are no loss.
        const NOISE: f64 = 1e-9;
        self.max_drop.is_none_or(|most| drop.is_some_and(|drop| drop <= most + NOISE))
    }

    fn small(&self, bytes: u64) -> bool {
        self.max_bytes.is_none_or(|most| bytes <= most)
    }

    fn keeps(&self, trial: &Trial) -> bool {
        self.accurate(trial.drop) && self.small(trial.bytes)
    }

    /// The error that tells what was asked for and what was reached.
    fn broken(&self, best: Option<&Trial>) -> PackerError {
        let mut wanted = Vec::new();
        let told = self.metric.zip(self.max_drop);
        wanted.extend(told.map(|(metric, most)| format!("loses at most {most} of {metric}")));
        wanted.extend(self.max_bytes.map(|most| format!("has at most {most} bytes")));
        let found = best.map(|trial| {
            let lost = trial.drop.zip(self.metric);
            let lost = lost.map(|(drop, metric)| format!(" and loses {drop:.5} of {metric}"));
            format!(": the best found has {} bytes{}", trial.bytes, lost.unwrap_or_default())
        });
        let text = format!("no pack of this model {}{}", wanted.join(" and "), found.unwrap_or_default());
        PackerError::new(ErrorKind::Contract, text)
    }
}

/// What compression cost.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CompressionReport {
    /// What was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<AccuracyReport>,
    /// The most bytes that were allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// The data that weights were rounded by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<DataReport>,
    /// What pruning removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pruning: Option<PruneReport>,
    /// What was chosen for each weight that can be encoded.
    pub layers: Vec<LayerReport>,
    /// Every pack that was tried, the smallest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub front: Vec<Point>,
}

impl CompressionReport {
    /// What the manifest says of it, as options of the provenance.
    pub(crate) fn told(&self) -> Vec<(String, String)> {
        let data = |d: &DataReport| format!("{} samples, {}", d.samples, d.digest);
        let mut told = Vec::new();
        if let Some(a) = &self.accuracy {
            let text = format!("{} {} -> {} on {}", a.metric, a.before, a.after, data(&a.data));
            told.push(("accuracy".to_owned(), text));
        }
        told.extend(self.calibration.as_ref().map(|d| ("calibration".to_owned(), data(d))));
        if let Some(p) = &self.pruning {
            let how = if p.restored { "restored" } else { "not restored" };
            told.push((
                "pruned".to_owned(),
                format!("{} -> {} multiply-adds, {how}", p.macs_before, p.macs_after),
            ));
        }
        if self.layers.windows(2).any(|pair| pair[0].rounding != pair[1].rounding) {
            let each = self.layers.iter().map(|layer| format!("{}: {}", layer.name, layer.rounding));
            told.push(("weights chosen".to_owned(), each.collect::<Vec<_>>().join("; ")));
        }
        told
    }
}

/// Data, told apart.
#[derive(Clone, Debug, Serialize)]
pub struct DataReport {
    /// `blake3:` and hex.
    pub digest: String,
    /// How many samples.
    pub samples: usize,
}

impl DataReport {
    pub(crate) fn of(data: &Dataset) -> DataReport {
        DataReport { digest: data.digest().to_owned(), samples: data.samples() }
    }
}

/// A metric before and after.
#[derive(Clone, Debug, Serialize)]
pub struct AccuracyReport {
    /// Its name, and the output's where one was named.
    pub metric: String,
    /// What it was measured on.
    pub data: DataReport,
    /// Of the f32 model.
    pub before: Score,
    /// Of the pack as written.
    pub after: Score,
    /// What was lost, below 0 where it got better.
    pub drop: f64,
    /// What might be lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_drop: Option<f64>,
}

/// One weight.
#[derive(Clone, Debug, Serialize)]
pub struct LayerReport {
    /// Its node's name.
    pub name: String,
    /// How many values it has.
    pub values: usize,
    /// `f32`, `f16`, `int8`, or `int8` with its step.
    pub rounding: String,
    /// Order-0 entropy of what is stored, in bits for each value: what coding can reach.
    pub entropy_bits: f64,
    /// Squared error of the output, relative to its square, when it alone is rounded to five bits or so. Absent where it was
    /// not measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sensitivity: Option<f64>,
}

/// A pack that was tried.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// Its size.
    pub bytes: u64,
    /// Its metric, where one is measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<Score>,
    /// Whether it keeps the contract.
    pub keeps: bool,
}

/// A weight, for the search.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sensitivity {
    pub(crate) values: usize,
    /// Relative squared error of the output when it alone is rounded in steps of [`MEASURED_STEP`].
    pub(crate) error: f64,
    /// The finest step that int8 has for it.
    pub(crate) finest: f32,
}

impl Sensitivity {
    fn step(&self, mu: f64) -> f64 {
        let of_square = self.error / f64::from(MEASURED_STEP).powi(2);
        (mu * count(self.values) / of_square.max(f64::MIN_POSITIVE)).sqrt().min(COARSEST)
    }

    /// The `mu` at which its step is `step`.
    fn mu(&self, step: f64) -> f64 {
        let of_square = self.error / f64::from(MEASURED_STEP).powi(2);
        step * step * of_square / count(self.values)
    }

    #[allow(clippy::cast_possible_truncation, reason = "a step, to a few digits")]
    fn rounding(&self, mu: f64) -> Rounding {
        let (step, finest) = (self.step(mu), f64::from(self.finest));
        if step < finest / 2.0 {
            Rounding::F16
        } else if step <= finest {
            Rounding::Int8 { step: 0.0 }
        } else {
            Rounding::Int8 { step: step as f32 }
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
fn count(n: usize) -> f64 {
    n as f64
}

/// A pack that was built and measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trial {
    pub(crate) bytes: u64,
    pub(crate) score: Option<Score>,
    /// What is lost of the metric.
    pub(crate) drop: Option<f64>,
}

/// What a search found.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) roundings: Vec<Rounding>,
    pub(crate) front: Vec<Point>,
}

/// The roundings of the smallest pack that keeps the contract; without a bound on what may be lost, of the most accurate one
/// that is small enough. `try_them` builds and measures.
///
/// Errors: those of `try_them`; [`ErrorKind::Contract`] where no pack keeps it, with the best that was found.
pub(crate) fn search(
    layers: &[Sensitivity],
    bounds: Bounds<'_>,
    mut try_them: impl FnMut(&[Rounding]) -> Result<Trial, PackerError>,
) -> Result<Choice, PackerError> {
    let roundings = |mu: f64| layers.iter().map(|layer| layer.rounding(mu)).collect::<Vec<_>>();
    let ends = |step: &dyn Fn(&Sensitivity) -> f64| {
        let each = layers.iter().map(|layer| layer.mu(step(layer))).filter(|mu| mu.is_finite() && *mu > 0.0);
        each.collect::<Vec<f64>>()
    };
    // A little below half of the finest: there a weight becomes f16.
    let finest = ends(&|layer| f64::from(layer.finest) / 2.1).into_iter().fold(f64::INFINITY, f64::min);
    let coarsest = ends(&|_| COARSEST).into_iter().fold(0.0, f64::max);
    let mut front: Vec<Point> = Vec::new();
    let mut best: Option<(Trial, Vec<Rounding>)> = None;
    let mut nearest: Option<Trial> = None;
    let by_drop = bounds.max_drop.is_some();
    let accurate = |trial: &Trial| bounds.accurate(trial.drop);
    let mut attempt = |mu: f64| -> Result<Trial, PackerError> {
        let chosen = roundings(mu);
        let trial = try_them(&chosen)?;
        let keeps = bounds.keeps(&trial);
        front.push(Point { bytes: trial.bytes, score: trial.score, keeps });
        // Where accuracy is bounded, smaller is better; else what is finer is.
        let better = |than: &Trial| {
            if by_drop { trial.bytes < than.bytes } else { trial.bytes > than.bytes }
        };
        if keeps && best.as_ref().is_none_or(|(than, _)| better(than)) {
            best = Some((trial, chosen));
        }
        let closer = |than: &Trial| {
            if accurate(than) {
                accurate(&trial) && trial.bytes < than.bytes
            } else {
                accurate(&trial) || trial.drop < than.drop
            }
        };
        if nearest.as_ref().is_none_or(closer) {
            nearest = Some(trial);
        }
        Ok(trial)
    };
    let (mut low, mut high) = if finest.is_finite() && coarsest > 0.0 {
        (finest.log2(), coarsest.max(finest).log2())
    } else {
        // Nothing that is rounded changes the output.
        (0.0, 0.0)
    };
    let first = attempt(low.exp2())?;
    // The finest rounding is the most accurate one.
    if accurate(&first) && (by_drop || !bounds.small(first.bytes)) && high > low {
        for _ in 0..HALVINGS {
            let middle = f64::midpoint(low, high);
            let trial = attempt(middle.exp2())?;
            let coarser = if by_drop { accurate(&trial) } else { !bounds.small(trial.bytes) };
            *(if coarser { &mut low } else { &mut high }) = middle;
        }
    }
    front.sort_by_key(|point| point.bytes);
    match best {
        Some((_, roundings)) => Ok(Choice { roundings, front }),
        None => Err(bounds.broken(nearest.as_ref())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYERS: [Sensitivity; 3] = [
        Sensitivity { values: 10_000, error: 1e-3, finest: 0.03 },
        Sensitivity { values: 200_000, error: 1e-4, finest: 0.04 },
        Sensitivity { values: 500, error: 0.0, finest: 0.02 },
    ];

    /// A model in which everything is as the search believes: the metric falls by the square root of the error.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bytes")]
    fn trial(roundings: &[Rounding]) -> Trial {
        let (mut bytes, mut error) = (1000.0, 0.0);
        for (layer, rounding) in LAYERS.iter().zip(roundings) {
            let (step, bits) = match rounding {
                Rounding::F16 => (0.0005, 15.0),
                Rounding::Int8 { step } => {
                    let step = f64::from(step.max(layer.finest));
                    (step, 2.05 - step.log2())
                }
            };
            bytes += count(layer.values) * bits / 8.0;
            error += layer.error * (step / f64::from(MEASURED_STEP)).powi(2);
        }
        Trial { bytes: bytes as u64, score: Some(Score(1.0 - error.sqrt())), drop: Some(error.sqrt()) }
    }

    fn bounds(drop: Option<(&Metric, f64)>, max_bytes: Option<u64>) -> Bounds<'_> {
        Bounds { metric: drop.map(|(m, _)| m), max_drop: drop.map(|(_, most)| most), max_bytes }
    }

    #[test]
    fn a_bound_holds_to_the_last_bits_and_only_what_is_known_keeps_it() {
        let metric = top1();
        let bounds = bounds(Some((&metric, 0.01)), None);
        assert!(bounds.accurate(Some(0.95 - 0.94)) && !bounds.accurate(Some(0.0101)));
        assert!(!bounds.accurate(None) && !bounds.accurate(Some(f64::NAN)));
    }

    fn top1() -> Metric {
        "top1".parse().unwrap()
    }

    #[test]
    fn the_smallest_pack_that_keeps_the_contract_is_found() {
        for max_drop in [0.005, 0.02, 0.1] {
            let metric = top1();
            let found = search(&LAYERS, bounds(Some((&metric, max_drop)), None), |r| Ok(trial(r))).unwrap();
            let chosen = trial(&found.roundings);
            assert!(chosen.drop.unwrap() <= max_drop);
            // Nothing of the same form is much smaller: all weights in one step take more.
            let all = |step: f32| trial(&[Rounding::Int8 { step }; 3]);
            let uniform = (1..1000).map(|i| all(i as f32 / 1000.0)).filter(|t| t.drop.unwrap() <= max_drop);
            let uniform = uniform.map(|t| t.bytes).min();
            if let Some(uniform) = uniform {
                assert!(chosen.bytes <= uniform + uniform / 50, "{max_drop}: {} {uniform}", chosen.bytes);
            }
            assert!(found.front.is_sorted_by_key(|point| point.bytes));
            assert!(found.front.iter().filter(|p| p.keeps).all(|p| p.bytes >= chosen.bytes));
        }
    }

    #[test]
    fn a_budget_of_bytes_is_used_up() {
        let most = 200_000;
        let found = search(&LAYERS, bounds(None, Some(most)), |r| Ok(trial(r))).unwrap();
        let bytes = trial(&found.roundings).bytes;
        // A matrix that goes from f16 to int8 is a step of its own.
        assert!((most - most / 10..=most).contains(&bytes), "{bytes}");
        // What has room for everything is left as fine as possible.
        let found = search(&LAYERS, bounds(None, Some(10_000_000)), |r| Ok(trial(r))).unwrap();
        assert_eq!(found.roundings[0], Rounding::F16);
        assert_eq!(found.front.len(), 1);
    }

    #[test]
    fn what_cannot_be_kept_is_told_with_the_best() {
        let metric = top1();
        let e = search(&LAYERS, bounds(Some((&metric, 1e-9)), None), |r| Ok(trial(r))).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Contract);
        assert!(
            e.to_string()
                .starts_with("no pack of this model loses at most 0.000000001 of top1: the best found has"),
            "{e}"
        );
        let e = search(&LAYERS, bounds(Some((&metric, 0.01)), Some(5000)), |r| Ok(trial(r))).unwrap_err();
        assert!(e.to_string().contains("loses at most 0.01 of top1 and has at most 5000 bytes"), "{e}");
        let failed = |_: &[Rounding]| Err(PackerError::new(ErrorKind::Internal, "x"));
        assert_eq!(search(&LAYERS, bounds(None, Some(1)), failed).unwrap_err().kind(), ErrorKind::Internal);
    }

    #[test]
    fn a_model_that_nothing_changes_is_rounded_as_coarsely_as_there_is() {
        let still = [Sensitivity { values: 100, error: 0.0, finest: 0.03 }];
        let found = search(&still, bounds(None, Some(1000)), |r| {
            let coarse = matches!(r[0], Rounding::Int8 { step } if f64::from(step) == COARSEST);
            assert!(coarse, "{r:?}");
            Ok(Trial { bytes: 10, score: None, drop: None })
        });
        assert_eq!(found.unwrap().roundings.len(), 1);
    }
}
