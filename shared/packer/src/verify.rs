//! The packer's own check: the pack just written, loaded by the engine, against tract's unoptimized graph.

use crate::error::{ErrorKind, PackerError};
use crate::import::Port;
use glowplug_engine::{BuildOptions, Plan, Plans};
use glowplug_pack::{Dtype, Pack, Tensor, TensorData};
use std::collections::BTreeMap;
use std::sync::Arc;
use tract_core::internal::*;
use tract_core::ops::array::{Gather, MultiBroadcastTo};
use tract_core::ops::binary::TypedBinOp;
use tract_core::ops::cast::Cast;
use tract_core::ops::change_axes::AxisOp;
use tract_core::ops::element_wise::ElementWiseOp;
use tract_core::ops::konst::Const;
use tract_core::ops::nn::{Sigmoid, Softmax};

/// How far an f32 output may be from the reference, relative to the output's largest value over all sets of inputs.
pub(crate) const TOLERANCE: f64 = 1e-5;
/// As [`TOLERANCE`], for convolutions in bytes: any number. The inputs here are noise, which calibration never showed.
const ANY: f64 = f64::INFINITY;
/// How many sets of inputs are compared at the shapes that a pack is made for.
pub(crate) const ROUNDS: u64 = 3;

/// What of a pack is verified.
pub(crate) enum Path {
    /// The tuned plan that fits.
    Tuned,
    /// The portable graph.
    Portable,
}

impl Path {
    fn name(&self) -> &'static str {
        match self {
            Path::Tuned => "tuned plan",
            Path::Portable => "portable graph",
        }
    }
}

/// The largest error of each output, relative to its largest value.
///
/// Errors: [`ErrorKind::Verify`] with the output's name, the error and the tolerance; a pack that the engine
/// does not load or run.
pub(crate) fn verify(
    pack_bytes: &[u8],
    path: &Path,
    reference: TypedModel,
    inputs: &[Port],
    rounds: (u64, u64),
) -> Result<BTreeMap<String, f64>, PackerError> {
    let plan = load(pack_bytes, path, inputs)?;
    let names: Vec<_> = plan.outputs().iter().map(|port| port.name.clone()).collect();
    compare(path.name(), &names, reference, inputs, rounds, |tensors| {
        let failed = |e| PackerError::new(ErrorKind::Verify, format!("{}: first run: {e}", path.name()));
        plan.run(tensors).map_err(failed)
    })
}

/// Checks a pack with convolutions in bytes: what its plan gives is to the bit what it gives in plain code. Gives how far each
/// output is from the reference in f32, relative to its largest value; only the
/// contract, on real data, can say how far is too far.
///
/// Errors: [`ErrorKind::Verify`] with the output's name; a pack that the engine does not load or run.
pub(crate) fn verify_int8(
    pack_bytes: &[u8],
    reference: TypedModel,
    inputs: &[Port],
    rounds: (u64, u64),
) -> Result<BTreeMap<String, f64>, PackerError> {
    let plan = load(pack_bytes, &Path::Tuned, inputs)?;
    let names: Vec<_> = plan.outputs().iter().map(|port| port.name.clone()).collect();
    let run = |tensors: &[Tensor]| {
        plan.run(tensors)
            .map_err(|e| PackerError::new(ErrorKind::Verify, format!("plan in bytes: first run: {e}")))
    };
    compare_within(ANY, "plan in bytes", &names, reference, inputs, rounds, |tensors| {
        let found = run(tensors)?;
        let plain = glowplug_engine::in_plain_code(|| run(tensors))?;
        for ((name, found), plain) in names.iter().zip(&found).zip(&plain) {
            if relative_error(found, plain, f64::MIN_POSITIVE) > 0.0 {
                let text = format!("output {name:?} of the plan in bytes is another in plain code");
                return Err(PackerError::new(ErrorKind::Verify, text));
            }
        }
        Ok(found)
    })
}

/// Checks that simplifying changed nothing: `simplified` gives what `typed` gives. Where weights are rounded, the pack is compared
/// with the simplified graph, and so this is what the rest stands on. Errors: as [`verify`].
pub(crate) fn verify_simplified(
    typed: TypedModel,
    simplified: TypedModel,
    inputs: &[Port],
    rounds: (u64, u64),
) -> Result<(), PackerError> {
    let names: Vec<_> = (0..typed.outputs.len()).map(|i| i.to_string()).collect();
    let failed = |e: TractError| PackerError::model("run of the simplified graph", &e);
    let simplified = simplified.into_runnable().map_err(failed)?;
    let run = |tensors: &[Tensor]| run(&simplified, tensors).map_err(failed);
    compare("simplified graph", &names, typed, inputs, rounds, run).map(drop)
}

fn run(model: &Arc<TypedRunnableModel>, tensors: &[Tensor]) -> TractResult<Vec<Tensor>> {
    let values = tensors.iter().map(|t| Ok(glowplug_engine::to_tract(t)?.into_tvalue()));
    let outputs = model.run(values.collect::<TractResult<_>>()?)?;
    outputs.iter().map(|t| glowplug_engine::from_tract(t)).collect()
}

/// The largest errors of what `found` gives for random inputs, under the outputs' `names`.
fn compare(
    what: &str,
    names: &[String],
    reference: TypedModel,
    inputs: &[Port],
    rounds: (u64, u64),
    found: impl Fn(&[Tensor]) -> Result<Vec<Tensor>, PackerError>,
) -> Result<BTreeMap<String, f64>, PackerError> {
    compare_within(TOLERANCE, what, names, reference, inputs, rounds, found)
}

/// As [`compare`], with another tolerance.
fn compare_within(
    tolerance: f64,
    what: &str,
    names: &[String],
    reference: TypedModel,
    inputs: &[Port],
    (seed, rounds): (u64, u64),
    found: impl Fn(&[Tensor]) -> Result<Vec<Tensor>, PackerError>,
) -> Result<BTreeMap<String, f64>, PackerError> {
    let bounds: Vec<_> = (0..inputs.len()).map(|i| index_bound(&reference, i)).collect();
    let scales: Vec<_> = reference.outputs.iter().map(|o| least_scale(&reference, *o)).collect();
    let model_error = |e: TractError| PackerError::model("reference run", &e);
    let reference = reference.into_runnable().map_err(model_error)?;
    let round = |round: u64| {
        let mut random = Random(seed.wrapping_add(round).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let tensors = inputs.iter().zip(&bounds).map(|(port, bound)| random.tensor(port, *bound, round));
        let tensors = tensors.collect::<Result<Vec<_>, _>>()?;
        let wanted = run(&reference, &tensors).map_err(model_error)?;
        Ok::<_, PackerError>((tensors, wanted))
    };
    let wanted = (0..rounds).map(round).collect::<Result<Vec<_>, _>>()?;
    // Of all rounds: the two scores of a classifier may happen to be small in one.
    let of_all = |(i, least): (usize, &f64)| wanted.iter().fold(*least, |m, (_, w)| largest(&w[i], m));
    let scales: Vec<f64> = scales.iter().enumerate().map(of_all).collect();
    let mut worst = BTreeMap::new();
    for (tensors, wanted) in &wanted {
        let found = found(tensors)?;
        for (i, (name, wanted)) in names.iter().zip(wanted).enumerate() {
            let error = relative_error(&found[i], wanted, scales[i]);
            if error > tolerance || error.is_nan() {
                let text = format!(
                    "{what}: output {name:?} differs from the reference by {error:.2e} of its largest value, at most {tolerance:.0e} is allowed"
                );
                return Err(PackerError::new(ErrorKind::Verify, text));
            }
            let entry = worst.entry(name.clone()).or_insert(0.0);
            *entry = error.max(*entry);
        }
    }
    Ok(worst)
}

pub(crate) fn load(pack_bytes: &[u8], path: &Path, inputs: &[Port]) -> Result<Arc<Plan>, PackerError> {
    let (pack, region) = Pack::open(pack_bytes)?;
    let (pack, region) = (Arc::new(pack), Arc::new(region));
    let shapes: Vec<_> = inputs.iter().map(Port::shape).collect();
    let options = BuildOptions { portable: matches!(path, Path::Portable), ..BuildOptions::default() };
    let plan = Plans::open(pack, region, &options).and_then(|plans| plans.at(&shapes));
    plan.map_err(|e| {
        let text = format!("the pack just written does not load its {}: {e}", path.name());
        PackerError::new(ErrorKind::Internal, text)
    })
}

/// What an output's error is relative to at least: 1 for probabilities, whose rounding is that of values around
/// 1 even where all of them happen to be small; nothing for others.
fn least_scale(model: &TypedModel, outlet: OutletId) -> f64 {
    let mut node = model.node(outlet.node);
    while node.op_is::<AxisOp>() {
        node = model.node(node.inputs[0].node);
    }
    let sigmoid = node.op_as::<ElementWiseOp>().is_some_and(|op| op.0.is::<Sigmoid>());
    if sigmoid || node.op_is::<Softmax>() { 1.0 } else { f64::MIN_POSITIVE }
}

/// The largest finite magnitude of floats, or `least` where that is larger.
fn largest(values: &Tensor, least: f64) -> f64 {
    let TensorData::F32(values) = values.data() else { return least };
    values.iter().filter(|v| v.is_finite()).fold(least, |most, v| most.max(f64::from(v.abs())))
}

/// Largest difference over largest value (or `least`, where that is larger). Integers that differ count as infinitely far; so do a number and a
/// NaN, while two NaN are equal.
fn relative_error(found: &Tensor, wanted: &Tensor, least: f64) -> f64 {
    if found.shape() != wanted.shape() {
        return f64::INFINITY;
    }
    match (found.data(), wanted.data()) {
        (TensorData::F32(found), TensorData::F32(of_wanted)) => {
            let differences = found.iter().zip(of_wanted).map(|(f, w)| difference(*f, *w));
            differences.fold(0.0, f64::max) / largest(wanted, least)
        }
        (found, wanted) if found == wanted => 0.0,
        _ => f64::INFINITY,
    }
}

fn difference(found: f32, wanted: f32) -> f64 {
    if found == wanted || (found.is_nan() && wanted.is_nan()) {
        return 0.0;
    }
    let d = f64::from(found) - f64::from(wanted);
    if d.is_nan() { f64::INFINITY } else { d.abs() }
}

/// How many rows the smallest table has that input `index` chooses from, if it does: by a Gather, or by a comparison
/// with each of their numbers, which makes one-hot rows.
pub(crate) fn index_bound(model: &TypedModel, index: usize) -> Option<usize> {
    let mut waiting = vec![*model.inputs.get(index)?];
    let mut bound: Option<usize> = None;
    while let Some(outlet) = waiting.pop() {
        for inlet in &model.node(outlet.node).outputs[outlet.slot].successors {
            let node = model.node(inlet.node);
            if let Some(gather) = node.op_as::<Gather>().filter(|_| inlet.slot == 1) {
                let rows = model.outlet_fact(node.inputs[0]).ok()?.shape[gather.axis].to_usize().ok();
                bound = bound.into_iter().chain(rows).min();
            } else if node.op_as::<TypedBinOp>().is_some_and(|op| op.0.name() == "Eq") {
                let other = model.node(node.inputs[1 - inlet.slot].node);
                let rows = other.op_as::<Const>().map(|c| c.val().len()).filter(|rows| *rows > 1);
                bound = bound.into_iter().chain(rows).min();
            } else if node.op_is::<Cast>() || node.op_is::<AxisOp>() || node.op_is::<MultiBroadcastTo>() {
                waiting.push(node.id.into());
            }
        }
    }
    bound
}

/// SplitMix64: enough for test inputs, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In -1..1.
    #[allow(clippy::cast_precision_loss, reason = "24 bits are exact in an f32")]
    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    }

    /// In 0..n, below 2^31.
    fn below(&mut self, n: usize) -> i64 {
        i64::try_from(self.next() % (n as u64).max(1)).unwrap_or_default()
    }

    /// Values that an input of this kind could have. Integers without a table are taken for masks: ones, and
    /// from the second round on some zeros behind them.
    fn tensor(&mut self, port: &Port, bound: Option<usize>, round: u64) -> Result<Tensor, PackerError> {
        let shape: Vec<usize> = port.axes.iter().map(|a| a.size).collect();
        let n = shape.iter().product::<usize>();
        let row = shape.last().copied().unwrap_or(1).max(1);
        let ones = if round == 0 { row } else { 1 + usize::try_from(self.below(row)).unwrap_or_default() };
        let mut integer = |i: usize| match bound {
            Some(bound) => self.below(bound),
            None => i64::from(i % row < ones),
        };
        #[allow(clippy::cast_possible_truncation, reason = "table sizes and masks are small")]
        let data = match port.dtype {
            Dtype::I64 => TensorData::I64((0..n).map(&mut integer).collect()),
            Dtype::I32 => TensorData::I32((0..n).map(|i| integer(i) as i32).collect()),
            Dtype::Bool => TensorData::Bool((0..n).map(|i| i % row < ones).collect()),
            Dtype::F32 => TensorData::F32((0..n).map(|_| self.float()).collect()),
            Dtype::F16 => TensorData::F16((0..n).map(|_| f16::from_f32(self.float()).to_bits()).collect()),
            Dtype::I8 => TensorData::I8((0..n).map(|_| self.next() as i8).collect()),
            Dtype::U8 => TensorData::U8((0..n).map(|_| self.next() as u8).collect()),
        };
        Tensor::new(shape, data).map_err(|e| PackerError::new(ErrorKind::Internal, e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: f64 = f64::MIN_POSITIVE;

    #[test]
    fn errors_are_relative_to_the_largest_value() {
        let t = |v: &[f32]| Tensor::from_f32([v.len()], v.to_vec()).unwrap();
        assert!((relative_error(&t(&[1.0, 99.0]), &t(&[1.0, 100.0]), NONE) - 0.01).abs() < 1e-9);
        assert_eq!(relative_error(&t(&[f32::NAN]), &t(&[f32::NAN]), NONE), 0.0);
        assert_eq!(relative_error(&t(&[f32::NAN]), &t(&[1.0]), NONE), f64::INFINITY);
        assert_eq!(relative_error(&t(&[1.0]), &t(&[1.0, 2.0]), NONE), f64::INFINITY);
        assert!((relative_error(&t(&[0.01]), &t(&[0.02]), 1.0) - 0.01).abs() < 1e-6);
        let i = |v: i64| Tensor::from_i64([1], vec![v]).unwrap();
        assert_eq!(
            (relative_error(&i(1), &i(1), NONE), relative_error(&i(1), &i(2), NONE)),
            (0.0, f64::INFINITY)
        );
    }
}
