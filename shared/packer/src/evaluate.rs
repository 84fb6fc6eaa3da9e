//! What a pack is worth on data: samples with or without the right answers, and metrics.

mod metric;

pub use metric::{Metric, Score};

use crate::error::{ErrorKind, PackerError};
use glowplug_engine::Plan;
use glowplug_pack::{Dtype, Tensor, TensorData, element_count};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use tract_core::internal::{IntoTValue as _, TValue, TVec, TractResult, format_err};

/// Members of a data file that hold right answers, by name.
const LABEL: &str = "label";
const TARGET: &str = "target";
const TEXT: &str = "text";

/// Samples, by the names of the model's inputs, and what is right for them.
#[derive(Clone, Debug)]
pub struct Dataset {
    members: Vec<(String, Tensor)>,
    texts: Texts,
    digest: String,
}

/// What of the data is no tensor.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    /// The right one of each sample.
    pub text: Option<Vec<String>>,
    /// What each class of an output stands for, where the manifest names no labels.
    pub alphabet: Option<Vec<String>>,
}

/// What is right for each sample.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Truth<'a> {
    label: Option<&'a [i64]>,
    target: Option<&'a [f32]>,
    text: Option<&'a [String]>,
}

/// An input as a plan takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputPort {
    /// Its name.
    pub name: String,
    /// Type of its values.
    pub dtype: Dtype,
    /// Its extents.
    pub shape: Vec<usize>,
}

impl Dataset {
    /// Samples from named members, of each of which the first axis numbers the samples: the model's inputs, `label` (i64)
    /// and `target` (f32). `digest` tells the data apart, `blake3:` and hex.
    ///
    /// Errors: no member; members of different numbers of samples; a `label` that is not i64 or a `target` that is not f32.
    pub fn new(members: Vec<(String, Tensor)>, texts: Texts, digest: String) -> Result<Dataset, PackerError> {
        let Some((first, samples)) = members.first().map(|(n, t)| (n.clone(), t.shape().first().copied()))
        else {
            return Err(bad("the data have no member"));
        };
        let count = |n: Option<usize>| n.map_or("no axis".to_owned(), |n| format!("{n} samples"));
        let text = texts.text.as_ref().map(|text| (TEXT, Some(text.len())));
        for (name, n) in members.iter().map(|(n, t)| (&**n, t.shape().first().copied())).chain(text) {
            if n != samples || n.is_none() {
                let (found, wanted) = (count(n), count(samples));
                return Err(bad(format!(
                    "member {name:?} has {found}, wanted as many as {first:?}, {wanted}"
                )));
            }
        }
        for (name, wanted) in [(LABEL, Dtype::I64), (TARGET, Dtype::F32)] {
            if let Some((_, tensor)) = members.iter().find(|(n, t)| n == name && t.dtype() != wanted) {
                return Err(bad(format!("member {name:?} is {}, wanted {wanted}", tensor.dtype())));
            }
        }
        Ok(Dataset { members, texts, digest })
    }

    /// How many there are.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.members.first().and_then(|(_, t)| t.shape().first().copied()).unwrap_or_default()
    }

    /// What tells the data apart.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The right text of each sample, where there is one.
    #[must_use]
    pub fn text(&self) -> Option<&[String]> {
        self.texts.text.as_deref()
    }

    /// The inputs of at most so many samples, evenly spread: neighbours are often alike.
    pub(crate) fn spread(&self, samples: usize) -> Dataset {
        let (all, n) = (self.samples(), samples.min(self.samples()));
        let which: Vec<usize> = (0..n).map(|i| i * all / n).collect();
        let members = self.members.iter().map(|(name, tensor)| (name.clone(), rows(tensor, &which)));
        Dataset { members: members.collect(), texts: Texts::default(), digest: self.digest.clone() }
    }

    fn truth(&self) -> Truth<'_> {
        let find = |name: &str| self.members.iter().find(|(n, _)| n == name).map(|(_, t)| t);
        Truth {
            label: find(LABEL).and_then(|t| t.as_i64().ok()),
            target: find(TARGET).and_then(|t| t.as_f32().ok()),
            text: self.texts.text.as_deref(),
        }
    }

    /// The samples as a model takes them.
    ///
    /// Errors, each with name, found and wanted: an input that the data have not; another type; another shape; NaN.
    pub fn feed(&self, ports: Vec<InputPort>) -> Result<Feed<'_>, PackerError> {
        let mut batch = None;
        let mut tensors = Vec::new();
        for port in &ports {
            let found = self.members.iter().find(|(name, _)| *name == port.name);
            let Some((name, tensor)) = found else {
                let known: Vec<_> = self.members.iter().map(|(name, _)| name).collect();
                return Err(bad(format!("input {:?} is not in the data, which have {known:?}", port.name)));
            };
            if tensor.dtype() != port.dtype {
                return Err(bad(format!("input {name:?} is {}, wanted {}", tensor.dtype(), port.dtype)));
            }
            let of_sample = tensor.shape().get(1..).unwrap_or_default();
            let rows = match port.shape.split_first() {
                _ if of_sample == port.shape => 1,
                Some((rows, rest)) if of_sample == rest => *rows,
                _ => {
                    let wanted = port.shape.get(1..).unwrap_or_default();
                    return Err(bad(format!(
                        "input {name:?} has {of_sample:?} for each sample, wanted {wanted:?}"
                    )));
                }
            };
            if *batch.get_or_insert(rows) != rows {
                let first = &ports[0].name;
                return Err(bad(format!(
                    "input {name:?} takes {rows} samples at once, input {first:?} does not"
                )));
            }
            if let TensorData::F32(values) = tensor.data()
                && let Some(at) = values.iter().position(|v| !v.is_finite())
            {
                let sample = at / element_count(of_sample).unwrap_or(1).max(1);
                return Err(bad(format!("input {name:?} of sample {sample} holds {}", values[at])));
            }
            tensors.push(tensor);
        }
        if self.samples() == 0 {
            return Err(bad("the data have no samples"));
        }
        Ok(Feed { data: self, ports, tensors, batch: batch.unwrap_or(1).max(1) })
    }
}

pub(crate) fn bad(text: impl Into<String>) -> PackerError {
    PackerError::new(ErrorKind::Data, text)
}

/// These samples of a tensor.
fn rows(tensor: &Tensor, which: &[usize]) -> Tensor {
    let mut shape = tensor.shape().to_vec();
    let each = shape.iter().skip(1).product::<usize>();
    shape[0] = which.len();
    macro_rules! cut {
        ($values:expr, $kind:ident) => {
            TensorData::$kind(
                which.iter().flat_map(|i| &$values[i * each..(i + 1) * each]).copied().collect(),
            )
        };
    }
    let data = match tensor.data() {
        TensorData::F32(v) => cut!(v, F32),
        TensorData::F16(v) => cut!(v, F16),
        TensorData::I64(v) => cut!(v, I64),
        TensorData::I32(v) => cut!(v, I32),
        TensorData::I8(v) => cut!(v, I8),
        TensorData::U8(v) => cut!(v, U8),
        TensorData::Bool(v) => cut!(v, Bool),
    };
    Tensor::new(shape, data).expect("as many values as before for each sample")
}

/// Samples in the shapes of a model's inputs.
#[derive(Clone, Debug)]
pub struct Feed<'a> {
    data: &'a Dataset,
    ports: Vec<InputPort>,
    tensors: Vec<&'a Tensor>,
    /// Samples of one run.
    batch: usize,
}

impl Feed<'_> {
    /// How many samples there are.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.data.samples()
    }

    /// How many runs they take.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.samples().div_ceil(self.batch)
    }

    /// The inputs of one run; the last sample fills up the last batch. Errors: none for a run below [`Feed::runs`].
    pub fn inputs(&self, run: usize) -> Result<Vec<Tensor>, PackerError> {
        let from = run * self.batch;
        let count = self.samples().saturating_sub(from).min(self.batch);
        if count == 0 {
            return Err(bad(format!("no run {run} of {}", self.runs())));
        }
        let which: Vec<usize> = (0..self.batch).map(|i| from + i.min(count - 1)).collect();
        let tensor = |(port, tensor): (&InputPort, &&Tensor)| {
            rows(tensor, &which).reshape(port.shape.clone()).map_err(|e| bad(e.to_string()))
        };
        self.ports.iter().zip(&self.tensors).map(tensor).collect()
    }

    /// The same for tract.
    pub(crate) fn values(&self, run: usize) -> TractResult<TVec<TValue>> {
        let inputs = self.inputs(run).map_err(|e| format_err!("{e}"))?;
        inputs.iter().map(|t| Ok(glowplug_engine::to_tract(t)?.into_tvalue())).collect()
    }

    /// What output `output` of `run` is for each sample, as far as `metric` needs it, runs being shared by all processors.
    ///
    /// `run` is given the inputs of one run and gives that output. Errors: those of `run`; an output that the metric
    /// does not fit.
    pub fn answers(
        &self,
        metric: &Metric,
        run: impl Fn(&[Tensor]) -> Result<Tensor, PackerError> + Sync,
        progress: impl Fn(usize) + Sync,
    ) -> Result<Answers, PackerError> {
        let runs = self.runs();
        let found: Vec<OnceLock<Result<Vec<metric::Answer>, PackerError>>> =
            (0..runs).map(|_| OnceLock::new()).collect();
        let (next, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let work = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= runs || failed.load(Ordering::Relaxed) > 0 {
                    return;
                }
                let answers = self.inputs(index).and_then(|inputs| run(&inputs)).and_then(|output| {
                    let count = (self.samples() - index * self.batch).min(self.batch);
                    metric.answers(&output, self.batch, count)
                });
                if answers.is_err() {
                    failed.store(1, Ordering::Relaxed);
                }
                // Each run is done once.
                let _ = found[index].set(answers);
                progress(index);
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(runs);
        std::thread::scope(|scope| {
            (1..threads).for_each(|_| drop(scope.spawn(work)));
            work();
        });
        let mut answers = Vec::with_capacity(self.samples());
        // A run that is missing was left out since another one failed.
        for of_run in found.into_iter().filter_map(OnceLock::into_inner) {
            answers.extend(of_run?);
        }
        Ok(Answers(answers))
    }

    /// [`Feed::answers`] of a plan. Errors: as that; no output of that name.
    pub(crate) fn answers_of(&self, metric: &Metric, plan: &Plan) -> Result<Answers, PackerError> {
        let names: Vec<&str> = plan.outputs().iter().map(|port| port.name.as_str()).collect();
        let output = metric.output(&names)?;
        let run = |inputs: &[Tensor]| {
            let mut outputs = plan.run(inputs).map_err(|e| bad(format!("a run on the data: {e}")))?;
            Ok(outputs.swap_remove(output))
        };
        self.answers(metric, run, |_| ())
    }

    /// `metric` of `answers`; of those of the float model where it compares with them. `labels` is the asset of an output's
    /// labels: a text for each class, and line. Errors: data without what the metric compares with; answers that do not fit it.
    pub fn score(
        &self,
        metric: &Metric,
        answers: &Answers,
        float: &Answers,
        labels: Option<&[u8]>,
    ) -> Result<Score, PackerError> {
        let lines = |bytes| String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect::<Vec<_>>();
        let labels = labels.map(lines);
        let labels = labels.as_deref().or(self.data.texts.alphabet.as_deref());
        metric.score(&answers.0, &float.0, &self.data.truth(), labels)
    }
}

/// What a model answered for each sample, as far as a metric needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct Answers(Vec<metric::Answer>);

impl Answers {
    /// The squared difference to `wanted`, over its square; infinite where that is no number.
    pub(crate) fn squared_error(&self, wanted: &Answers) -> f64 {
        let square = |v: f64| v * v;
        let (found, wanted) = (metric::values(&self.0), metric::values(&wanted.0));
        let (error, of) = found.zip(wanted).fold((0.0, 0.0), |(error, of), (f, w)| {
            (error + square(f64::from(f) - f64::from(w)), of + square(f64::from(w)))
        });
        let error = error / of;
        if error.is_nan() { f64::INFINITY } else { error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, shape: &[usize]) -> InputPort {
        InputPort { name: name.into(), dtype: Dtype::F32, shape: shape.to_vec() }
    }

    fn data(shape: &[usize]) -> Dataset {
        let values = (0..shape.iter().product::<usize>()).map(|i| i as f32).collect();
        let x = Tensor::from_f32(shape.to_vec(), values).unwrap();
        Dataset::new(vec![("x".into(), x)], Texts::default(), String::new()).unwrap()
    }

    #[test]
    fn samples_fill_batches_and_the_last_is_repeated() {
        let data = data(&[5, 2]);
        let feed = data.feed(vec![port("x", &[2, 2])]).unwrap();
        assert_eq!((feed.samples(), feed.runs()), (5, 3));
        assert_eq!(feed.inputs(1).unwrap()[0].as_f32().unwrap(), [4.0, 5.0, 6.0, 7.0]);
        assert_eq!(feed.inputs(2).unwrap()[0].as_f32().unwrap(), [8.0, 9.0, 8.0, 9.0]);
        assert!(feed.inputs(3).is_err());
        // A sample may be all of an input.
        let feed = data.feed(vec![port("x", &[2])]).unwrap();
        assert_eq!((feed.runs(), feed.inputs(4).unwrap()[0].shape()), (5, &[2usize][..]));
        let spread = data.spread(3);
        assert_eq!(spread.members[0].1.as_f32().unwrap(), [0.0, 1.0, 2.0, 3.0, 6.0, 7.0]);
        assert_eq!((data.spread(9).samples(), spread.digest()), (5, data.digest()));
    }

    #[test]
    fn data_that_do_not_fit_are_told() {
        let data = data(&[5, 2]);
        let nan = Tensor::from_f32([2, 2], vec![0.0, 0.0, 0.0, f32::NAN]).unwrap();
        let nan = Dataset::new(vec![("x".into(), nan)], Texts::default(), String::new()).unwrap();
        for (data, ports, text) in [
            (&data, vec![port("y", &[1, 2])], "input \"y\" is not in the data, which have [\"x\"]"),
            (&data, vec![port("x", &[1, 3])], "input \"x\" has [2] for each sample, wanted [3]"),
            (&nan, vec![port("x", &[1, 2])], "input \"x\" of sample 1 holds NaN"),
        ] {
            let e = data.feed(ports).unwrap_err();
            assert_eq!((e.kind(), e.to_string().as_str()), (ErrorKind::Data, text));
        }
        let integer = InputPort { dtype: Dtype::I64, ..port("x", &[1, 2]) };
        assert_eq!(data.feed(vec![integer]).unwrap_err().to_string(), "input \"x\" is f32, wanted i64");
        let x = || Tensor::from_f32([2, 1], vec![0.0; 2]).unwrap();
        let new = |more: (&str, Tensor)| {
            let members = vec![("x".to_owned(), x()), (more.0.to_owned(), more.1)];
            Dataset::new(members, Texts::default(), String::new()).unwrap_err().to_string()
        };
        let three = Tensor::from_i64([3], vec![0; 3]).unwrap();
        assert_eq!(
            new(("label", three)),
            "member \"label\" has 3 samples, wanted as many as \"x\", 2 samples"
        );
        assert_eq!(new(("label", x())), "member \"label\" is f32, wanted i64");
        let scalar = Tensor::from_f32(Vec::new(), vec![0.0]).unwrap();
        assert!(new(("target", scalar)).contains("has no axis"));
        assert!(Dataset::new(vec![], Texts::default(), String::new()).is_err());
    }
}
