//! Weights in fewer bits: which constants, and their values rounded to what the pack will hold.
//!
//! A pass over the simplified graph. From here on there is one set of weights: plans are made of the rounded values, the
//! portable graph holds them, and what verifies the pack computes with them, so that it tells a wrong pack from a rounded
//! one. The encoder finds them again by themselves: it encodes what comes back bit by bit, and nothing else.
//!
//! Rounded are constants that plans read through panels of our own convolutions and products, or row by row: what
//! is read by tract's kernels stays as it was. Which they are is found by planning once and looking; they are known by their
//! values whatever their order, so that another shape of the model, or one image of a batch, gets the same ones.

mod compensate;
mod round;

pub(crate) use compensate::Moments;
pub(crate) use round::{Rounding, entropy_bits, finest_step};

use crate::blocked::block;
use crate::error::{ErrorKind, PackerError, guard};
use crate::fingerprint::{Fingerprint, sum};
use crate::fuse::fuse;
use crate::int8;
use crate::planned::Planned;
use crate::simplify::simplify;
use glowplug_pack::plan::Op as PlanOp;
use glowplug_pack::{Dtype, Encoding};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::str::FromStr;
use tract_core::internal::*;
use tract_core::ops::array::Gather;
use tract_core::ops::cnn::{Conv, KernelFormat};
use tract_core::ops::einsum::EinSum;
use tract_core::ops::konst::Const;
use tract_core::ops::scan::Scan;

/// How the weights of a pack are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weights {
    /// As the model has them.
    #[default]
    F32,
    /// IEEE 754 binary16.
    F16,
    /// Bytes, with a scale for each output channel and each row of a table; f16 where a weight is so small that bytes save
    /// nothing.
    Int8,
    /// What each of them can bear: as few bits as a contract allows.
    Auto,
}

impl Weights {
    /// Every one, with its name.
    const ALL: [(Weights, &str); 4] =
        [(Weights::F32, "f32"), (Weights::F16, "f16"), (Weights::Int8, "int8"), (Weights::Auto, "auto")];
}

impl fmt::Display for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Weights::ALL.iter().find(|(weights, _)| weights == self).map_or("", |(_, name)| name);
        f.write_str(name)
    }
}

impl FromStr for Weights {
    type Err = String;

    fn from_str(name: &str) -> Result<Weights, String> {
        let found = Weights::ALL.iter().find(|(_, known)| *known == name).map(|(weights, _)| *weights);
        found.ok_or_else(|| {
            let known = Weights::ALL.map(|(_, name)| name).join(", ");
            format!("unknown encoding {name:?}: expected one of {known}")
        })
    }
}

/// What a scale belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Channels {
    /// What goes on to an output channel: a column of a matrix, a filter of a convolution.
    Outputs,
    /// A row of a table, also where the table is multiplied by one-hot rows.
    Rows,
}

/// A constant that can be stored encoded.
#[derive(Clone)]
pub(crate) struct Candidate {
    /// Its node's name in the first model.
    pub(crate) name: String,
    pub(crate) tensor: Arc<Tensor>,
    /// Which of its axes number the channels.
    pub(crate) axes: Vec<usize>,
    /// Whether int8 holds it as it is.
    pub(crate) fits_int8: bool,
    fingerprint: Fingerprint,
    channels: Channels,
}

/// The constants that every one of `models`, the simplified graph at each of its shapes, can read encoded, in the order
/// of the first.
pub(crate) fn candidates(models: &[TypedModel]) -> Result<Vec<Candidate>, PackerError> {
    let (mut found, mut refused) = (Vec::new(), HashSet::new());
    for model in models {
        let (found, refused) = (&mut found, &mut refused);
        guard("quantize", || look(model, found, refused).map_err(|e| PackerError::model("quantize", &e)))?;
    }
    found.retain(|candidate| !refused.contains(&candidate.fingerprint));
    Ok(found)
}

fn look(
    model: &TypedModel,
    found: &mut Vec<Candidate>,
    refused: &mut HashSet<Fingerprint>,
) -> TractResult<()> {
    let ours = ours(model)?;
    for node in &model.nodes {
        if let Some(scan) = node.op_as::<Scan>() {
            look(&scan.body, found, refused)?;
        }
        let Some(tensor) = floats(node) else { continue };
        let fingerprint = fingerprint(tensor);
        let known = found.iter().find(|c| c.fingerprint == fingerprint).map(|c| c.channels);
        // What this model reads in another way, or not only so, stays as it is.
        let channels = ours.get(&*node.name).copied().filter(|c| known.is_none_or(|known| known == *c));
        let Some((channels, axes)) = channels.zip(channels.and_then(|c| weight(model, node, c))) else {
            refused.insert(fingerprint);
            continue;
        };
        if known.is_none() && !refused.contains(&fingerprint) {
            let (name, tensor) = (node.name.clone(), tensor.clone());
            let fits_int8 = round::fits_int8(&tensor, &axes)?;
            found.push(Candidate { name, tensor, axes, fits_int8, fingerprint, channels });
        }
    }
    Ok(())
}

/// The rounded values of a model's constants.
#[derive(Clone, Default)]
pub(crate) struct Quantizer {
    rounded: HashMap<Fingerprint, Rounded>,
    encodings: Vec<Encoding>,
    /// Weights that their encoding has no place for, each with why.
    kept: Vec<String>,
    /// Weights of convolutions in bytes.
    convolutions: int8::RoundedFilters,
}

/// A constant before and after, in the same order.
#[derive(Clone)]
struct Rounded {
    from: Arc<Tensor>,
    to: Arc<Tensor>,
}

impl Quantizer {
    /// `candidates` rounded, each as `roundings` says; by what `moments` tell of its input, where they do, so that its
    /// products change least.
    pub(crate) fn new(
        candidates: &[Candidate],
        roundings: &[Rounding],
        moments: &HashMap<String, Moments>,
    ) -> Result<Quantizer, PackerError> {
        let mut quantizer = Quantizer::default();
        for (candidate, rounding) in candidates.iter().zip(roundings) {
            let encoding = rounding.encoding();
            let moments = moments.get(&candidate.name);
            let rounded = match rounding {
                // By a scale of its own it would be rounded twice.
                Rounding::Int8 { step: 0.0 } if candidate.fits_int8 => Ok(Ok((*candidate.tensor).clone())),
                _ => rounding.round(&candidate.tensor, &candidate.axes, moments),
            };
            match rounded.map_err(|e| PackerError::model("quantize", &e))? {
                Ok(to) => {
                    let (from, to) = (candidate.tensor.clone(), to.into_arc_tensor());
                    quantizer.rounded.insert(candidate.fingerprint, Rounded { from, to });
                    if !quantizer.encodings.contains(&encoding) {
                        quantizer.encodings.push(encoding);
                    }
                }
                Err(why) => quantizer.kept.push(format!("weight {:?} stays f32: it {why}", candidate.name)),
            }
        }
        // Whatever int8 holds, it holds in fewer bytes.
        quantizer.encodings.sort_by_key(|encoding| encoding.value_bytes());
        Ok(quantizer)
    }

    /// What became of `candidate`, if it was rounded.
    pub(crate) fn rounded(&self, candidate: &Candidate) -> Option<&Tensor> {
        self.rounded.get(&candidate.fingerprint).map(|rounded| &*rounded.to)
    }

    /// Also tries int8 for weights that nobody rounded: some came so.
    pub(crate) fn with_int8(mut self) -> Quantizer {
        if !self.encodings.contains(&Encoding::Int8) {
            self.encodings.push(Encoding::Int8);
            self.encodings.sort_by_key(|encoding| encoding.value_bytes());
        }
        self
    }

    /// The encodings of rounded weights, those of fewer bytes first.
    pub(crate) fn encodings(&self) -> &[Encoding] {
        &self.encodings
    }

    /// Also rounds the weights of convolutions in bytes, which were found in the model with all others rounded.
    pub(crate) fn with_convolutions(self, convolutions: int8::RoundedFilters) -> Quantizer {
        Quantizer { convolutions, ..self }
    }

    /// Whether any weights are rounded.
    pub(crate) fn rounds(&self) -> bool {
        !self.rounded.is_empty() || !self.convolutions.is_empty()
    }

    /// Weights that stay as they are though they were asked for, each with why.
    pub(crate) fn kept(&self) -> &[String] {
        &self.kept
    }

    /// `model`, simplified, with its chosen constants rounded.
    pub(crate) fn apply(&self, mut model: TypedModel) -> Result<TypedModel, PackerError> {
        if !self.rounds() {
            return Ok(model);
        }
        guard("quantize", || {
            self.put_into(&mut model)
                .map_err(|e| PackerError::new(ErrorKind::Internal, format!("quantize: {e:#}")))?;
            self.convolutions.apply(model).map_err(|e| PackerError::model("quantize", &e))
        })
    }

    /// In `model` and the bodies of its loops.
    fn put_into(&self, model: &mut TypedModel) -> TractResult<()> {
        for id in 0..model.nodes.len() {
            if let Some(scan) = model.node(id).op_as::<Scan>() {
                let mut scan = scan.clone();
                self.put_into(&mut scan.body)?;
                model.node_mut(id).op = Box::new(scan);
            }
            let Some(tensor) = floats(model.node(id)) else { continue };
            let Some(Rounded { from, to }) = self.rounded.get(&fingerprint(tensor)) else { continue };
            let to = round::in_order_of(tensor, from, to)?;
            let to = to.with_context(|| format!("weight {:?} in another order", model.node(id).name))?;
            replace_constant(model, id, to.into_arc_tensor())?;
        }
        Ok(())
    }

    /// What a pack of the imported graph `typed` is compared with: the graph as it was imported, or where weights are
    /// rounded, the simplified one with them.
    pub(crate) fn reference(&self, typed: &TypedModel) -> Result<TypedModel, PackerError> {
        match self.rounds() {
            false => Ok(typed.clone()),
            true => simplify(typed).and_then(|model| self.apply(model)),
        }
    }
}

/// Gives the constant at node `id` another value.
pub(crate) fn replace_constant(model: &mut TypedModel, id: usize, value: Arc<Tensor>) -> TractResult<()> {
    let constant = Const::new(value)?;
    let facts = constant.output_facts(&[])?;
    let node = model.node_mut(id);
    node.op = Box::new(constant);
    node.outputs.iter_mut().zip(facts).for_each(|(outlet, fact)| outlet.fact = fact);
    Ok(())
}

/// The constants that a plan of `model` reads through panels of ours, or row by row, by name.
fn ours(model: &TypedModel) -> TractResult<HashMap<String, Channels>> {
    let planned = fuse(block(model)?)?;
    let mut names = HashMap::new();
    for node in &planned.nodes {
        if let Some(Planned { op, weight: Some((name, _)), .. }) = node.op_as() {
            match op {
                PlanOp::Dense { .. } => names.insert(name.clone(), Channels::Outputs),
                PlanOp::OneHotRows { .. } => names.insert(name.clone(), Channels::Rows),
                PlanOp::BlockedConv { .. } => match model.nodes.iter().find(|n| n.name == *name) {
                    Some(TypedNode { inputs, .. }) if inputs.len() > 1 => {
                        names.insert(model.node(inputs[1].node).name.clone(), Channels::Outputs)
                    }
                    _ => None,
                },
                _ => None,
            };
        } else if node.op_as::<Gather>().is_some_and(|g| g.axis == 0 && g.output_type.is_none()) {
            names.insert(planned.node(node.inputs[0].node).name.clone(), Channels::Rows);
        }
    }
    Ok(names)
}

/// The matrix, or more, of f32 that a constant is.
fn floats(node: &TypedNode) -> Option<&Arc<Tensor>> {
    let tensor = node.op_as::<Const>()?.val();
    let fits = tensor.is_plain() && tensor.datum_type() == DatumType::F32 && tensor.rank() >= 2;
    fits.then_some(tensor)
}

/// Which axes of a constant number its channels, where all of its readers agree.
fn weight(model: &TypedModel, node: &TypedNode, channels: Channels) -> Option<Vec<usize>> {
    let rank = floats(node)?.rank();
    if model.outputs.iter().any(|o| o.node == node.id) {
        return None;
    }
    let mut readers = node.outputs[0].successors.iter();
    let axes = |inlet: &InletId| axes(model.node(inlet.node), inlet.slot, rank, channels);
    let first = axes(readers.next()?)?;
    readers.all(|reader| axes(reader).as_ref() == Some(&first)).then_some(first)
}

/// Which axes of a constant of `rank` at operand `slot` number its channels. `None` where it is no weight.
fn axes(reader: &TypedNode, slot: usize, rank: usize, channels: Channels) -> Option<Vec<usize>> {
    if let Some(conv) = reader.op_as::<Conv>() {
        let axis = match conv.kernel_fmt {
            KernelFormat::OIHW | KernelFormat::OHWI => 0,
            KernelFormat::HWIO => rank - 1,
        };
        return (slot == 1 && conv.q_params.is_none()).then(|| vec![axis]);
    }
    if let Some(product) = reader.op_as::<EinSum>() {
        let chosen = |axis: &usize| {
            let axis = product.axes.axis((InOut::In(slot), *axis));
            let goes_on = axis.is_ok_and(|axis| !axis.outputs[0].is_empty());
            // Rows are what one-hot rows choose from: the depth of the product.
            goes_on == (channels == Channels::Outputs)
        };
        return product.q_params.is_none().then(|| (0..rank).filter(chosen).collect());
    }
    let gather = reader.op_as::<Gather>()?;
    (slot == 0 && gather.axis == 0).then(|| vec![0])
}

fn fingerprint(tensor: &Tensor) -> Fingerprint {
    (Dtype::F32, tensor.len(), sum(Dtype::F32, tensor.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tract_core::internal::tract_ndarray::ArrayD;
    use tract_core::ops::math;

    /// `x[2, 24] W[24, 16] + b`, and rows of a table that are added to it; W has the values that `f` gives.
    fn model(f: impl Fn(usize, usize) -> f32) -> TypedModel {
        let mut model = TypedModel::default();
        let x = model.add_source("x", f32::fact([2, 24])).unwrap();
        let ids = model.add_source("ids", i64::fact([2])).unwrap();
        let w: Tensor = ArrayD::from_shape_fn(vec![24, 16], |i| f(i[0], i[1])).into();
        let table: Tensor =
            ArrayD::from_shape_fn(vec![5, 16], |i| (i[0] * 16 + i[1]) as f32 * 0.37 - 9.0).into();
        let w = model.add_const("w", w).unwrap();
        let table = model.add_const("table", table).unwrap();
        let bias = model.add_const("bias", Tensor::from_shape(&[1, 16], &[0.1f32; 16]).unwrap()).unwrap();
        let product = EinSum::new("mk,kn->mn".parse().unwrap(), DatumType::F32);
        let product = model.wire_node("product", product, &[x, w]).unwrap();
        let sum = model.wire_node("sum", math::add(), &[product[0], bias]).unwrap();
        let rows = model.wire_node("rows", Gather::new(0), &[table, ids]).unwrap();
        let out = model.wire_node("out", math::mul(), &[sum[0], rows[0]]).unwrap();
        model.select_output_outlets(&out).unwrap();
        model
    }

    const INT8: Rounding = Rounding::Int8 { step: 0.0 };

    /// All that can be rounded, rounded.
    fn quantizer(rounding: Rounding, models: &[TypedModel]) -> Quantizer {
        let candidates = candidates(models).unwrap();
        Quantizer::new(&candidates, &vec![rounding; candidates.len()], &HashMap::new()).unwrap()
    }

    fn constant(model: &TypedModel, name: &str) -> Vec<f32> {
        let node = model.nodes.iter().find(|n| n.name == name).unwrap();
        let value = node.op_as::<Const>().unwrap().val();
        assert_eq!(node.outputs[0].fact.konst.as_ref(), Some(value));
        value.try_as_plain_ram().unwrap().as_slice::<f32>().unwrap().to_vec()
    }

    #[test]
    fn columns_and_rows_are_rounded_and_nothing_else() {
        let value = |k: usize, n: usize| ((k * 31 + n * 17) % 29) as f32 / 7.0 - 2.0 + n as f32;
        let model = model(value);
        if !ours(&model).unwrap().contains_key("w") {
            // Nothing of ours multiplies on this CPU.
            return;
        }
        for weights in [Rounding::F16, INT8] {
            let (encoding, rounding) = (weights.encoding(), weights);
            let quantizer = quantizer(rounding, std::slice::from_ref(&model));
            let found = quantizer.apply(model.clone()).unwrap();
            let w = constant(&found, "w");
            for n in 0..16 {
                let column: Vec<f32> = (0..24).map(|k| value(k, n)).collect();
                let wanted = encoding.round(&column).unwrap();
                assert!((0..24).all(|k| w[k * 16 + n] == wanted[k]), "{weights}, column {n}");
                assert!(wanted != column, "{weights}, column {n} was not rounded");
            }
            let table: Vec<f32> =
                constant(&model, "table").chunks(16).flat_map(|r| encoding.round(r).unwrap()).collect();
            assert_eq!(constant(&found, "table"), table);
            assert_eq!(constant(&found, "bias"), [0.1; 16]);
            // Once more changes nothing: what is rounded is known no longer, and stays.
            assert_eq!(constant(&quantizer.apply(found.clone()).unwrap(), "w"), w);
        }
        assert_eq!(constant(&Quantizer::default().apply(model.clone()).unwrap(), "w"), constant(&model, "w"));
    }

    #[test]
    fn the_same_values_in_another_order_become_the_same() {
        let value = |k: usize, n: usize| ((k * 31 + n * 17) % 29) as f32 / 7.0 - 2.0 + n as f32;
        let first = model(value);
        let quantizer = quantizer(INT8, std::slice::from_ref(&first));
        let mut turned = TypedModel::default();
        let x = turned.add_source("x", f32::fact([2, 24])).unwrap();
        let w: Tensor = ArrayD::from_shape_fn(vec![16, 24], |i| value(i[1], i[0])).into();
        let w = turned.add_const("other name", w).unwrap();
        let product = EinSum::new("mk,nk->mn".parse().unwrap(), DatumType::F32);
        let product = turned.wire_node("product", product, &[x, w]).unwrap();
        turned.select_output_outlets(&product).unwrap();
        let (first, turned) = (quantizer.apply(first).unwrap(), quantizer.apply(turned).unwrap());
        let (w, turned) = (constant(&first, "w"), constant(&turned, "other name"));
        assert!((0..24 * 16).all(|i| w[i] == turned[i % 16 * 24 + i / 16]));
    }

    #[test]
    fn what_one_shape_or_reader_cannot_take_stays_for_all() {
        let value = |k: usize, n: usize| (k * 16 + n) as f32 / 50.0 - 3.0;
        let two = [model(value), {
            // The same weight, read by something that wants it as it is.
            let mut model = model(value);
            let w = model.nodes.iter().find(|n| n.name == "w").unwrap().id;
            let more = model.wire_node("more", math::add(), &[w.into(), w.into()]).unwrap();
            let outputs = [model.outputs[0], more[0]];
            model.select_output_outlets(&outputs).unwrap();
            model
        }];
        for models in [&two[1..], &two[..]] {
            let quantizer = quantizer(INT8, models);
            for model in models {
                assert_eq!(constant(&quantizer.apply(model.clone()).unwrap(), "w"), constant(model, "w"));
            }
        }

        let large = model(|k, n| if (k, n) == (3, 4) { 1e5 } else { value(k, n) });
        let quantizer = quantizer(Rounding::F16, std::slice::from_ref(&large));
        if ours(&large).unwrap().contains_key("w") {
            assert_eq!(quantizer.kept(), ["weight \"w\" stays f32: it holds 1e5, f16 ends at 65504"]);
        }
        assert_eq!(constant(&quantizer.apply(large.clone()).unwrap(), "w"), constant(&large, "w"));
    }

    #[test]
    fn encodings_have_names() {
        for (weights, _) in Weights::ALL {
            assert_eq!(weights.to_string().parse(), Ok(weights));
        }
        assert!("int7".parse::<Weights>().unwrap_err().contains("\"int7\""));
    }
}
