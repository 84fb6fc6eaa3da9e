//! Metrics: what a model's answers are compared by. docs/quantization.md defines each.

use super::{Truth, bad};
use crate::error::PackerError;
use glowplug_pack::{Tensor, TensorData};
use std::fmt;
use std::str::FromStr;

/// The class that stands for no character in CTC.
const BLANK: usize = 0;

/// A metric, and which output it looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    kind: Kind,
    /// By name; the model's only one, or its first, where absent.
    output: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// How often the class of the largest score is the label.
    Top1,
    /// How often it is the float model's.
    Agreement,
    /// Wrong characters of CTC's greedy text, of those of the right ones.
    Cer,
    /// How often a sample of label 1 scores higher than one of label 0.
    Auc,
    /// How much of the target's variance is explained.
    R2,
    /// The mean cosine to the float model's output.
    Cosine,
    /// The largest difference to the float model's output.
    MaxAbs,
}

/// What each metric is called, and whether more of it is better.
const KINDS: [(Kind, &str, bool); 7] = [
    (Kind::Top1, "top1", true),
    (Kind::Agreement, "agreement", true),
    (Kind::Cer, "cer", false),
    (Kind::Auc, "auc", true),
    (Kind::R2, "r2", true),
    (Kind::Cosine, "cosine", true),
    (Kind::MaxAbs, "max-abs", false),
];

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        self.output.as_ref().map_or(Ok(()), |output| write!(f, ":{output}"))
    }
}

impl FromStr for Metric {
    type Err = String;

    fn from_str(text: &str) -> Result<Metric, String> {
        let (name, output) = text.split_once(':').map_or((text, None), |(n, o)| (n, Some(o.to_owned())));
        let found = KINDS.iter().find(|(_, known, _)| *known == name);
        let (kind, ..) = found.ok_or_else(|| {
            let known = KINDS.map(|(_, name, _)| name).join(", ");
            format!(
                "unknown metric {name:?}: expected one of {known}, with :OUTPUT where it is not the first"
            )
        })?;
        Ok(Metric { kind: *kind, output })
    }
}

/// A metric's value.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
#[serde(transparent)]
pub struct Score(pub f64);

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.5}", self.0)
    }
}

/// What is kept of one sample's output.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    /// The class of the largest score of each row.
    Classes(Vec<usize>),
    Values(Vec<f32>),
}

impl Answer {
    /// How many values or classes there are.
    fn len(&self) -> usize {
        match self {
            Answer::Values(values) => values.len(),
            Answer::Classes(classes) => classes.len(),
        }
    }
}

impl Metric {
    fn row(&self) -> (&'static str, bool) {
        let found = KINDS.iter().find(|(kind, ..)| *kind == self.kind);
        found.map_or(("", true), |(_, name, more)| (*name, *more))
    }

    /// What keeps all values of the output that `metric` looks at.
    pub(crate) fn values_of(metric: Option<&Metric>) -> Metric {
        Metric { kind: Kind::Cosine, output: metric.and_then(|m| m.output.clone()) }
    }

    /// `top1`, `agreement`, `cer`, `auc`, `r2`, `cosine` or `max-abs`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.row().0
    }

    /// How much of it was lost between two scores: below 0 where it got better.
    #[must_use]
    pub fn drop(&self, before: Score, after: Score) -> f64 {
        if self.row().1 { before.0 - after.0 } else { after.0 - before.0 }
    }

    /// Which of the outputs it looks at. Errors: none of that name.
    pub fn output(&self, names: &[&str]) -> Result<usize, PackerError> {
        let Some(wanted) = &self.output else { return Ok(0) };
        let found = names.iter().position(|name| name == wanted);
        found.ok_or_else(|| bad(format!("metric {self}: no output {wanted:?}, the model has {names:?}")))
    }

    /// What is kept of an output of `batch` samples, of which the first `count` are meant.
    pub(super) fn answers(
        &self,
        output: &Tensor,
        batch: usize,
        count: usize,
    ) -> Result<Vec<Answer>, PackerError> {
        let by_class = matches!(self.kind, Kind::Top1 | Kind::Agreement);
        if batch > 1 && output.shape().first() != Some(&batch) {
            let found = output.shape();
            return Err(bad(format!("the output has the shape {found:?}, wanted {batch} samples first")));
        }
        let each = output.len() / batch;
        let values = match output.data() {
            TensorData::F32(values) => values,
            // The classes themselves.
            TensorData::I64(classes) if by_class => {
                let of = |i: usize| {
                    let classes = classes[i * each..(i + 1) * each].iter();
                    Answer::Classes(classes.map(|c| usize::try_from(*c).unwrap_or(NO_CLASS)).collect())
                };
                return Ok((0..count).map(of).collect());
            }
            _ => return Err(bad(format!("metric {self} takes f32, the output is {}", output.dtype()))),
        };
        let answer = |values: &[f32]| match self.kind {
            Kind::Top1 | Kind::Agreement | Kind::Cer => {
                let classes = output.shape().last().copied().unwrap_or(1).max(1);
                Answer::Classes(values.chunks(classes).map(largest).collect())
            }
            Kind::Auc | Kind::R2 | Kind::Cosine | Kind::MaxAbs => Answer::Values(values.to_vec()),
        };
        Ok((0..count).map(|i| answer(&values[i * each..(i + 1) * each])).collect())
    }

    pub(super) fn score(
        &self,
        answers: &[Answer],
        float: &[Answer],
        truth: &Truth<'_>,
        labels: Option<&[String]>,
    ) -> Result<Score, PackerError> {
        let lacks =
            |what: &str| bad(format!("metric {self} needs a member {what:?} of the data, which have none"));
        if matches!(self.kind, Kind::Agreement | Kind::Cosine | Kind::MaxAbs)
            && let Some((found, wanted)) =
                answers.iter().zip(float).map(|(a, f)| (a.len(), f.len())).find(|(a, f)| a != f)
        {
            return Err(bad(format!(
                "metric {self}: a model gave {found} answers for a sample, the one that it is compared with {wanted}"
            )));
        }
        let score = match self.kind {
            Kind::Top1 => {
                let wanted = truth.label.ok_or_else(|| lacks("label (i64)"))?;
                let found: Vec<usize> = classes(answers).collect();
                self.as_many(found.len(), wanted.len(), "labels")?;
                let right = found.iter().zip(wanted).filter(|(f, w)| i64::try_from(**f) == Ok(**w)).count();
                ratio(right, found.len())
            }
            Kind::Agreement => {
                let same =
                    classes(answers).zip(classes(float)).filter(|(a, b)| a == b && *a != NO_CLASS).count();
                ratio(same, classes(answers).count())
            }
            Kind::Cer => {
                let wanted = truth.text.ok_or_else(|| lacks("text"))?;
                let labels = labels.ok_or_else(|| {
                    bad(format!(
                        "metric {self} needs the texts of the output's classes: labels of the manifest, or alphabet in the data"
                    ))
                })?;
                character_errors(answers, wanted, labels)
            }
            Kind::Auc => {
                let wanted = truth.label.ok_or_else(|| lacks("label (i64)"))?;
                self.area(answers, wanted)?
            }
            Kind::R2 => {
                let wanted = truth.target.ok_or_else(|| lacks("target (f32)"))?;
                let found: Vec<f32> = values(answers).collect();
                self.as_many(found.len(), wanted.len(), "targets")?;
                explained(&found, wanted)
            }
            Kind::Cosine => {
                let each = answers.iter().zip(float).map(|(a, b)| cosine(a, b));
                each.sum::<f64>() / count(answers.len())
            }
            Kind::MaxAbs => {
                let difference = |(a, b): (f32, f32)| (f64::from(a) - f64::from(b)).abs();
                let differences = values(answers).zip(values(float)).map(difference);
                differences.fold(0.0, |most, d| if d > most || d.is_nan() { d } else { most })
            }
        };
        if score.is_nan() {
            return Err(bad(format!("metric {self} of these data and answers is no number")));
        }
        Ok(Score(score))
    }

    fn as_many(&self, found: usize, wanted: usize, of: &str) -> Result<(), PackerError> {
        if found == wanted {
            return Ok(());
        }
        Err(bad(format!("metric {self}: the model gave {found} answers, the data have {wanted} {of}")))
    }

    /// The area under the curve of true over false positives: ties count half.
    fn area(&self, answers: &[Answer], wanted: &[i64]) -> Result<f64, PackerError> {
        let scores: Vec<f32> = values(answers).collect();
        // Two scores for each label are those of classes 0 and 1.
        let scores: Vec<f32> = match scores.len() == 2 * wanted.len() {
            true => scores.chunks(2).map(|of| of[1]).collect(),
            false => scores,
        };
        self.as_many(scores.len(), wanted.len(), "labels")?;
        if scores.iter().any(|score| score.is_nan()) {
            return Ok(f64::NAN);
        }
        if let Some(other) = wanted.iter().find(|label| !(0..=1).contains(*label)) {
            return Err(bad(format!("metric {self} takes labels 0 and 1, the data have {other}")));
        }
        let mut pairs: Vec<(f32, i64)> = scores.into_iter().zip(wanted.iter().copied()).collect();
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (mut below, mut twice_area) = (0usize, 0usize);
        for same in pairs.chunk_by(|a, b| a.0 == b.0) {
            let ones = same.iter().filter(|(_, label)| *label == 1).count();
            let zeros = same.len() - ones;
            twice_area += ones * (2 * below + zeros);
            below += zeros;
        }
        let ones = pairs.len() - below;
        Ok(ratio(twice_area, 2 * ones * below))
    }
}

fn classes(answers: &[Answer]) -> impl Iterator<Item = usize> {
    let classes = |answer: &'_ Answer| match answer {
        Answer::Classes(classes) => classes.clone(),
        Answer::Values(_) => Vec::new(),
    };
    answers.iter().flat_map(classes)
}

pub(super) fn values(answers: &[Answer]) -> impl Iterator<Item = f32> {
    answers.iter().flat_map(of).copied()
}

fn of(answer: &Answer) -> &[f32] {
    match answer {
        Answer::Values(values) => values,
        Answer::Classes(_) => &[],
    }
}

/// The class of a row that holds NaN: no label is as large.
const NO_CLASS: usize = usize::MAX;

/// The first of the largest.
fn largest(row: &[f32]) -> usize {
    if row.iter().any(|v| v.is_nan()) {
        return NO_CLASS;
    }
    row.iter().enumerate().fold(0, |best, (i, v)| if *v > row[best] { i } else { best })
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
fn count(n: usize) -> f64 {
    n as f64
}

/// NaN where there is nothing to divide by.
fn ratio(part: usize, of: usize) -> f64 {
    count(part) / count(of)
}

/// 1 for two zeros.
fn cosine(a: &Answer, b: &Answer) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let (a, b) = (of(a), of(b));
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths == 0.0 && dot(a, a) == dot(b, b) { 1.0 } else { dot(a, b) / lengths }
}

fn explained(found: &[f32], wanted: &[f32]) -> f64 {
    let mean = wanted.iter().map(|w| f64::from(*w)).sum::<f64>() / count(wanted.len());
    let residual: f64 = found.iter().zip(wanted).map(|(f, w)| (f64::from(*f) - f64::from(*w)).powi(2)).sum();
    let total: f64 = wanted.iter().map(|w| (f64::from(*w) - mean).powi(2)).sum();
    1.0 - residual / total
}

/// Edits that make the right texts of CTC's greedy ones, over the characters of the right ones. Class 0 is the
/// blank, class i the i-th line of `labels` counted from 0.
fn character_errors(answers: &[Answer], wanted: &[String], labels: &[String]) -> f64 {
    let (mut edits, mut length) = (0, 0);
    for (answer, wanted) in answers.iter().zip(wanted) {
        let Answer::Classes(classes) = answer else { continue };
        let mut text: Vec<char> = Vec::new();
        let mut last = BLANK;
        for class in classes.iter().copied() {
            if class != BLANK && class != last {
                text.extend(labels.get(class).iter().flat_map(|label| label.chars()));
            }
            last = class;
        }
        let wanted: Vec<char> = wanted.chars().collect();
        edits += distance(&text, &wanted);
        length += wanted.len();
    }
    ratio(edits, length)
}

/// Levenshtein's.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = corner + usize::from(from != to);
            corner = row[j + 1];
            row[j + 1] = replaced.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Truth<'_> = Truth { label: None, target: None, text: None };

    fn metric(text: &str) -> Metric {
        text.parse().unwrap()
    }

    fn of_values(name: &str, rows: &[&[f32]]) -> Vec<Answer> {
        let each = |row: &&[f32]| {
            let output = Tensor::from_f32([1, row.len()], row.to_vec()).unwrap();
            metric(name).answers(&output, 1, 1).unwrap().remove(0)
        };
        rows.iter().map(each).collect()
    }

    fn score(name: &str, rows: &[&[f32]], truth: &Truth<'_>) -> f64 {
        let answers = of_values(name, rows);
        metric(name).score(&answers, &answers, truth, None).unwrap().0
    }

    #[test]
    fn metrics_give_what_is_counted_by_hand() {
        let label = Truth { label: Some(&[1, 0, 1, 0]), ..NOTHING };
        let rows: [&[f32]; 4] = [&[0.1, 0.9], &[0.6, 0.4], &[0.7, 0.3], &[0.2, 0.8]];
        assert_eq!(score("top1", &rows, &label), 0.5);
        // Of class 1: ones 0.9 and 0.3, zeros 0.4 and 0.8: 0.9 beats both, 0.3 none.
        assert_eq!(score("auc", &rows, &label), 0.5);
        // A tie counts half: (1 + 1 + 0.5 + 1) / 4.
        assert_eq!(score("auc", &[&[0.9], &[0.3], &[0.5], &[0.5]], &label), 0.875);
        let target = Truth { target: Some(&[1.0, 2.0, 3.0, 6.0]), ..NOTHING };
        // Mean 3, total 14, residual 1 + 1.
        assert!((score("r2", &[&[1.0], &[3.0], &[3.0], &[5.0]], &target) - (1.0 - 2.0 / 14.0)).abs() < 1e-12);

        let (a, b) = (
            of_values("cosine", &[&[1.0, 0.0], &[2.0, 2.0]]),
            of_values("cosine", &[&[1.0, 0.0], &[1.0, 0.0]]),
        );
        let found = metric("cosine").score(&a, &b, &NOTHING, None).unwrap().0;
        assert!((found - f64::midpoint(1.0, 0.5f64.sqrt())).abs() < 1e-7, "{found}");
        assert_eq!(metric("max-abs").score(&a, &b, &NOTHING, None).unwrap().0, 2.0);
        let (a, b) =
            (of_values("agreement", &rows), of_values("agreement", &[rows[0], rows[1], rows[3], rows[3]]));
        assert_eq!(metric("agreement").score(&a, &b, &NOTHING, None).unwrap().0, 0.75);
    }

    #[test]
    fn answers_that_are_no_numbers_are_never_right() {
        let nan: [&[f32]; 2] = [&[f32::NAN, 0.0], &[1.0, f32::NAN]];
        let label = Truth { label: Some(&[0, 1]), ..NOTHING };
        assert_eq!(score("top1", &nan, &label), 0.0);
        assert_eq!(score("agreement", &nan, &NOTHING), 0.0);
        let answers = of_values("auc", &nan);
        let e = metric("auc").score(&answers, &answers, &label, None).unwrap_err().to_string();
        assert!(e.contains("is no number"), "{e}");
        // Nor are those of a model with other outputs.
        for name in ["agreement", "cosine", "max-abs"] {
            let classes = Tensor::from_f32([1, 2, 1], vec![0.0; 2]).unwrap();
            let two = metric(name).answers(&classes, 1, 1).unwrap();
            let one = of_values(name, &[&[0.0]]);
            let e = metric(name).score(&two, &one, &NOTHING, None).unwrap_err().to_string();
            assert!(e.contains("gave 2 answers for a sample"), "{e}");
        }
    }

    #[test]
    fn ctc_drops_blanks_and_repeats() {
        let labels: Vec<String> = ["(blank)", "a", "b", " "].map(str::to_owned).to_vec();
        // a a - a b space: "aab " against "abb": two edits of three characters.
        let answers = vec![Answer::Classes(vec![1, 1, 0, 1, 2, 3])];
        let truth = Truth { text: Some(&["abb".to_owned()]), ..NOTHING };
        let found = metric("cer").score(&answers, &answers, &truth, Some(&labels)).unwrap().0;
        assert!((found - 2.0 / 3.0).abs() < 1e-12, "{found}");
        let e = metric("cer").score(&answers, &answers, &truth, None).unwrap_err().to_string();
        assert!(e.contains("labels of the manifest"), "{e}");
    }

    #[test]
    fn distances_are_levenshteins() {
        let d = |a: &str, b: &str| distance(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>());
        for (a, b, wanted) in
            [("", "", 0), ("", "ab", 2), ("kitten", "sitting", 3), ("abc", "abc", 0), ("abc", "", 3)]
        {
            assert_eq!((d(a, b), d(b, a)), (wanted, wanted), "{a} {b}");
        }
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let answers = of_values("top1", &[&[0.1, 0.9]]);
        for (name, truth, text) in [
            ("top1", NOTHING, "metric top1 needs a member \"label (i64)\" of the data, which have none"),
            ("top1", Truth { label: Some(&[1, 2]), ..NOTHING }, "gave 1 answers, the data have 2 labels"),
            ("r2", NOTHING, "\"target (f32)\""),
            ("cer", NOTHING, "\"text\""),
        ] {
            let e = metric(name).score(&answers, &answers, &truth, None).unwrap_err().to_string();
            assert!(e.contains(text), "{e}");
        }
        let one = of_values("auc", &[&[0.5], &[0.6]]);
        let truth = |labels| Truth { label: Some(labels), ..NOTHING };
        let auc = |labels| metric("auc").score(&one, &one, &truth(labels), None).unwrap_err().to_string();
        assert!(auc(&[1, 3]).contains("takes labels 0 and 1, the data have 3"));
        assert!(auc(&[1, 1]).contains("is no number"));
        let integers = Tensor::from_i64([1, 2], vec![0, 1]).unwrap();
        let of = |name: &str, batch| metric(name).answers(&integers, batch, 1).map_err(|e| e.to_string());
        assert_eq!(of("top1", 1).unwrap(), [Answer::Classes(vec![0, 1])]);
        assert_eq!(of("top1", 2).unwrap_err(), "the output has the shape [1, 2], wanted 2 samples first");
        assert_eq!(of("auc", 1).unwrap_err(), "metric auc takes f32, the output is i64");
        assert!("top5".parse::<Metric>().unwrap_err().contains("expected one of top1, agreement, cer"));
        assert!(metric("top1:y").output(&["x"]).unwrap_err().to_string().contains("no output \"y\""));
        assert_eq!(metric("cosine:a:b").to_string(), "cosine:a:b");
    }

    #[test]
    fn what_is_lost_depends_on_the_metric() {
        assert!((metric("top1").drop(Score(0.9), Score(0.8)) - 0.1).abs() < 1e-12);
        assert!((metric("cer").drop(Score(0.02), Score(0.03)) - 0.01).abs() < 1e-12);
    }
}
