//! Which convolutions are done in bytes: as much of the work as a contract allows.
//!
//! What each of them changes is measured, it alone being done in bytes. In the order of that error for the time that it
//! saves they are taken, as many as keep the bound; how many is found by halving, each number of them being a whole plan that is
//! run on the evaluation data. Convolutions whose borders between bytes and floats would cost more than they save stay f32.

use super::choose::{Judge, SENSITIVITY_SAMPLES};
use crate::error::{PackerError, guard};
use crate::evaluate::{Dataset, Metric, Score};
use crate::int8::{Convolution, Ranges, convolutions, worthwhile};
use crate::pack::{Stage, Writer};
use crate::quantize::Quantizer;
use serde::Serialize;
use std::collections::BTreeMap;

/// Convolutions in bytes: which, and how far their answers are from f32.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Int8Report {
    /// Convolutions in bytes.
    pub convolutions: usize,
    /// Convolutions that stay f32.
    pub kept: usize,
    /// Which part of all convolutions' multiply-adds is done in bytes.
    pub share: f64,
    /// Every convolution, in the order of the graph.
    pub layers: Vec<Int8Layer>,
    /// Every choice that was measured, in the order of the search.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<Int8Point>,
    /// How far each output is from what f32 gives with the same weights, at most, relative to its largest value.
    pub relative_error: BTreeMap<String, f64>,
}

/// A convolution.
#[derive(Clone, Debug, Serialize)]
pub struct Int8Layer {
    /// Its node's name.
    pub name: String,
    /// Of one run.
    pub multiply_adds: u64,
    /// Whether it is done in bytes.
    pub in_bytes: bool,
    /// Squared error of the output, relative to its square, when it alone is done in bytes. Absent where it was not measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sensitivity: Option<f64>,
}

/// A choice of convolutions that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Int8Point {
    /// Which part of all convolutions' multiply-adds it does in bytes.
    pub share: f64,
    /// Its metric.
    pub score: Score,
    /// Whether it keeps the contract.
    pub keeps: bool,
}

impl Int8Report {
    /// What the manifest says of it, as options of the provenance.
    pub(crate) fn told(&self) -> Vec<(String, String)> {
        let Int8Report { convolutions, kept, share, .. } = self;
        let text = format!("{convolutions} convolutions, {kept} in f32, {share:.3} of their multiply-adds");
        let mut told = vec![("int8".to_owned(), text)];
        if *kept > 0 {
            let names = self.layers.iter().filter(|layer| !layer.in_bytes).map(|layer| layer.name.as_str());
            told.push(("int8 kept".to_owned(), names.collect::<Vec<_>>().join("; ")));
        }
        told
    }

    fn set(&mut self, convolutions: &[Convolution], sensitivities: &[Option<f64>]) {
        self.convolutions = convolutions.iter().filter(|conv| conv.in_bytes).count();
        self.kept = convolutions.len() - self.convolutions;
        self.share = share(convolutions);
        let each = convolutions.iter().zip(sensitivities.iter().chain(std::iter::repeat(&None)));
        let layer = |(conv, sensitivity): (&Convolution, &Option<f64>)| Int8Layer {
            name: conv.name.clone(),
            multiply_adds: conv.multiply_adds,
            in_bytes: conv.in_bytes,
            sensitivity: *sensitivity,
        };
        self.layers = each.map(layer).collect();
    }
}

#[allow(clippy::cast_precision_loss, reason = "a ratio to a few digits")]
fn share(convolutions: &[Convolution]) -> f64 {
    let all: u64 = convolutions.iter().map(|conv| conv.multiply_adds).sum();
    let in_bytes: u64 = convolutions.iter().filter(|conv| conv.in_bytes).map(|conv| conv.multiply_adds).sum();
    in_bytes as f64 / all.max(1) as f64
}

impl Writer<'_, '_> {
    /// Leaves in bytes what the contract allows, with weights as `quantizer` has them; everything that can be, where nothing is
    /// bounded. If that is nothing, the plan is one in f32.
    pub(super) fn choose_bytes(
        &mut self,
        quantizer: &Quantizer,
        judge: Option<&Judge<'_>>,
    ) -> Result<(), PackerError> {
        let (Some(ranges), Some(mut report)) = (self.ranges.take(), self.int8.take()) else { return Ok(()) };
        let max_drop = self.options.contract.accuracy.as_ref().and_then(|a| a.max_drop);
        // Ranges may have come with the model, and no data to calibrate with.
        let evaluation = || self.options.contract.accuracy.as_ref().map(|a| a.data);
        let data = self.options.calibration.or_else(evaluation).map(|data| data.spread(SENSITIVITY_SAMPLES));
        let all = self.split(quantizer, &ranges)?;
        let (chosen, sensitivities) = match (judge, max_drop, data) {
            (Some(judge), Some(_), Some(data)) => {
                let sensitivities = self.bytes_sensitivities(quantizer, &ranges, &all, &data, judge)?;
                let found = (&ranges, &all[..], &sensitivities[..]);
                let chosen = self.search_bytes(quantizer, found, judge, &mut report.tried)?;
                (chosen, sensitivities)
            }
            _ => (ranges, Vec::new()),
        };
        let split = self.split(quantizer, &chosen)?;
        report.set(&split, &sensitivities);
        self.ranges = (report.convolutions > 0).then_some(chosen);
        self.int8 = Some(report);
        Ok(())
    }

    /// The convolutions of the default shape.
    fn split(&self, quantizer: &Quantizer, ranges: &Ranges) -> Result<Vec<Convolution>, PackerError> {
        let model = quantizer.apply(self.decluttered[0].clone())?;
        guard("quantize", || convolutions(&model, ranges).map_err(|e| PackerError::model("quantize", &e)))
    }

    /// How much each of the convolutions that can be done in bytes changes the output, alone.
    fn bytes_sensitivities(
        &mut self,
        quantizer: &Quantizer,
        ranges: &Ranges,
        all: &[Convolution],
        data: &Dataset,
        judge: &Judge<'_>,
    ) -> Result<Vec<Option<f64>>, PackerError> {
        let feed = data.feed(self.ports())?;
        let values = Metric::values_of(Some(judge.metric()));
        let float = feed.answers_of(&values, &*self.light(quantizer, None)?)?;
        let mut found = Vec::new();
        for (n, conv) in all.iter().enumerate() {
            let error = if conv.in_bytes {
                self.stage(Stage::Quantize, &format!("int8, convolution {} of {} alone", n + 1, all.len()));
                let alone = ranges.only(&[&conv.name], all);
                let answers = feed.answers_of(&values, &*self.light(quantizer, Some(&alone))?)?;
                Some(answers.squared_error(&float))
            } else {
                None
            };
            found.push(error);
        }
        Ok(found)
    }

    /// The choice with the most work in bytes that loses no more than may be lost.
    fn search_bytes(
        &mut self,
        quantizer: &Quantizer,
        (ranges, all, sensitivities): (&Ranges, &[Convolution], &[Option<f64>]),
        judge: &Judge<'_>,
        tried: &mut Vec<Int8Point>,
    ) -> Result<Ranges, PackerError> {
        let order = order(all, sensitivities);
        let model = quantizer.apply(self.decluttered[0].clone())?;
        let choice = |count: usize| -> Result<Ranges, PackerError> {
            let names: Vec<&str> = order[..count].iter().map(|i| all[*i].name.as_str()).collect();
            let chosen = ranges.only(&names, all);
            let worth = guard("quantize", || {
                worthwhile(&model, &chosen).map_err(|e| PackerError::model("quantize", &e))
            })?;
            Ok(ranges.only(&worth.iter().map(String::as_str).collect::<Vec<_>>(), all))
        };
        let count = most(order.len(), |count| -> Result<bool, PackerError> {
            let chosen = choice(count)?;
            let split = self.split(quantizer, &chosen)?;
            if split.iter().all(|conv| !conv.in_bytes) {
                return Ok(true);
            }
            let score = judge.score(&*self.light(quantizer, Some(&chosen))?)?;
            let (share, drop) = (share(&split), judge.drop(score));
            let keeps = self.options.contract.bounds().accurate(Some(drop));
            let text = format!("{:.3} of the multiply-adds in int8: {} {score}", share, judge.metric());
            self.stage(Stage::Quantize, &text);
            tried.push(Int8Point { share, score, keeps });
            Ok(keeps)
        })?;
        choice(count)
    }
}

/// Which of `all` go to bytes first: those with the least error for the time they save.
#[allow(clippy::cast_precision_loss, reason = "a ratio to a few digits")]
fn order(all: &[Convolution], sensitivities: &[Option<f64>]) -> Vec<usize> {
    let price = |i: usize| sensitivities[i].map(|error| error / all[i].saved.max(1) as f64);
    let mut order: Vec<(usize, f64)> = (0..all.len()).filter_map(|i| Some((i, price(i)?))).collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    order.into_iter().map(|(i, _)| i).collect()
}

/// The largest number up to `count` of which `keeps` is so, taken for granted of 0: all that is asked is whether it is so
/// of `count`, then of the middle of what is left.
fn most<E>(count: usize, mut keeps: impl FnMut(usize) -> Result<bool, E>) -> Result<usize, E> {
    if keeps(count)? {
        return Ok(count);
    }
    let (mut low, mut high) = (0, count);
    while high - low > 1 {
        let middle = usize::midpoint(low, high);
        *(if keeps(middle)? { &mut low } else { &mut high }) = middle;
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_keep_the_bound_are_found_with_few_questions() {
        for (count, limit) in [(0, 0), (1, 0), (1, 1), (50, 0), (50, 17), (50, 49), (50, 50)] {
            let mut asked = 0;
            let found = most::<()>(count, |n| {
                asked += 1;
                Ok(n <= limit)
            });
            assert_eq!(found, Ok(limit), "{count}");
            assert!(asked <= 7, "{count}: {asked} questions");
        }
        assert_eq!(most(9, |_| Err("x")), Err("x"));
    }

    #[test]
    fn cheap_errors_go_first_and_what_cannot_go_does_not() {
        let conv = |name: &str, saved| Convolution {
            name: name.to_owned(),
            multiply_adds: saved,
            saved,
            in_bytes: true,
        };
        let all = [conv("small", 10), conv("large", 1000), conv("never", 1), conv("free", 1)];
        assert_eq!(order(&all, &[Some(1e-3), Some(1e-2), None, Some(0.0)]), [3, 1, 0]);
        let split: Vec<_> = all.into_iter().map(|c| Convolution { in_bytes: c.saved > 9, ..c }).collect();
        let mut report = Int8Report::default();
        report.set(&split, &[None, Some(0.5)]);
        assert_eq!((report.convolutions, report.kept), (2, 2));
        assert!((report.share - 1010.0 / 1012.0).abs() < 1e-12);
        assert_eq!(report.told()[1], ("int8 kept".to_owned(), "never; free".to_owned()));
        assert_eq!(report.layers[1].sensitivity, Some(0.5));
    }
}
