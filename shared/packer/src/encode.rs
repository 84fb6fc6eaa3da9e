//! tract's optimized graph to a plan: one row per operator.
//!
//! Some of tract's operators keep their attributes private. What they were made from is public, so that is
//! read instead: a convolution's window from the decluttered graph, where it is one node with the same name.

mod conv;
mod matmul;
mod moves;
pub(crate) mod ops;
mod planned;
mod scan;

pub(crate) use conv::window;

use crate::error::{ErrorKind, PackerError};
use glowplug_engine::target;
use glowplug_pack::plan::{
    Body, FILTER_PANEL, Fact, Kernel, Node, Op, Outlet, PanelFormat, PlanGraph, PlanHead,
};
use glowplug_pack::weights::f32_panel_bytes;
use glowplug_pack::{Dtype, EncodedPanel, Encoding, Form, PackBuilder, Place, WeightId};
use std::collections::HashMap;
use tract_core::internal::*;
use tract_core::ops::array::Gather;
use tract_core::ops::cnn::{Conv, Deconv};
use tract_core::ops::konst::Const;
use tract_core::ops::matmul::pack::DynPackedExoticFact;
use tract_core::ops::scan::Scan;
use tract_linalg::isa::IsaSet;
use tract_linalg::mmm::{
    EagerPackedInput, MMMInputFormat, MMMInputValue, PackedExoticFact, PackedMatrixStorage,
};
use tract_linalg::pack::PackedFormat;

/// Gathered tables of at least this many values stay in the pack; smaller ones do too, but beside the blobs.
const EMBEDDING_VALUES: usize = 1 << 16;
/// Weights of up to this many bytes are copied when a plan is built.
const CONSTANT_BYTES: usize = 1 << 16;

/// Columns of a panel, as our own products and convolutions and tract's kernels of this height read them.
const WIDTH: usize = FILTER_PANEL;

/// The plan of `optimized`, its weights added to `builder` in execution order. Those that our own operators read are written
/// in the first of `encodings` from which every value of them comes back bit by bit.
///
/// Errors: an operator, dtype or pattern that plans do not cover, with the node's name.
pub(crate) fn encode(
    decluttered: &TypedModel,
    optimized: &TypedModel,
    encodings: &[Encoding],
    builder: &mut PackBuilder,
) -> Result<PlanGraph, PackerError> {
    let mut encoder = Encoder::new(decluttered, optimized, encodings, builder);
    let order = order(optimized).map_err(|e| PackerError::model("plan", &e))?;
    let mut refused: Vec<Refused<'_>> = Vec::new();
    for id in order {
        let node = optimized.node(id);
        if let Err(e) = encoder.node(node) {
            let (op, why) = (node.op.name().into_owned(), format!("{e:#}"));
            match refused.iter_mut().find(|r| r.op == op && r.why == why) {
                Some(same) => same.more += 1,
                None => refused.push(Refused { node: &node.name, op, why, more: 0 }),
            }
            encoder.pass_over(node);
        }
    }
    if !refused.is_empty() {
        return Err(unsupported(&refused));
    }
    encoder.finish().map_err(|e| PackerError::model("plan", &e))
}

/// The nodes in an order of execution. An input that nothing takes is a node too: a run is given it all the same.
fn order(model: &TypedModel) -> TractResult<Vec<usize>> {
    let mut order = model.eval_order()?;
    for input in &model.inputs {
        if !order.contains(&input.node) {
            order.push(input.node);
        }
    }
    Ok(order)
}

/// A node that a plan cannot say, and how many others are refused for the same reason.
struct Refused<'a> {
    node: &'a str,
    op: String,
    why: String,
    more: usize,
}

/// tract's operators that go by another name in ONNX.
const ONNX_NAMES: [(&str, &str); 10] = [
    ("DeconvSum", "ConvTranspose"),
    ("DepthWiseConv", "Conv"),
    ("DirectLookup", "LabelEncoder"),
    ("GruSeq", "GRU"),
    ("Im2col", "Conv"),
    ("LazyIm2col", "Conv"),
    ("Onehot", "OneHot"),
    ("OptSumPool", "AveragePool"),
    ("Rem", "Mod"),
    ("Topk", "TopK"),
];

/// All that a plan cannot say of a model, in one message: nobody wants to learn it node by node.
fn unsupported(refused: &[Refused<'_>]) -> PackerError {
    let line = |r: &Refused<'_>| {
        let more = if r.more == 0 { String::new() } else { format!(" (and {} more nodes)", r.more) };
        let onnx = ONNX_NAMES.iter().find(|(tract, _)| *tract == r.op).map(|(_, onnx)| *onnx);
        let op = onnx.map_or_else(|| r.op.clone(), |onnx| format!("{onnx}, as {}", r.op));
        format!("node {:?} ({op}){more}: {}", r.node, r.why)
    };
    let lines: Vec<_> = refused.iter().map(line).collect();
    let text = format!("{}; docs/format.md lists what plans cover", lines.join("; "));
    PackerError::new(ErrorKind::Unsupported, text)
}

/// The decluttered convolution that a node was made from, and the shape of its input.
struct ConvSource<'a> {
    conv: &'a Conv,
    input: TVec<usize>,
}

/// As [`ConvSource`], of a transposed convolution.
struct DeconvSource<'a> {
    deconv: &'a Deconv,
    input: TVec<usize>,
}

struct Encoder<'a> {
    model: &'a TypedModel,
    encodings: &'a [Encoding],
    builder: &'a mut PackBuilder,
    convs: HashMap<&'a str, ConvSource<'a>>,
    deconvs: HashMap<&'a str, DeconvSource<'a>>,
    /// The simplified bodies of loops.
    loops: HashMap<&'a str, &'a TypedModel>,
    bodies: Vec<Body>,
    kernels: Vec<Kernel>,
    isa: IsaSet,
    /// How many loops the graph at hand lies in.
    depth: usize,
    nodes: Vec<Node>,
    /// Where each outlet of tract's graph is found in the plan.
    outlets: HashMap<OutletId, Outlet>,
    /// Constants that some node reads in place, so that none is written twice.
    in_place: HashMap<OutletId, WeightId>,
}

impl<'a> Encoder<'a> {
    fn new(
        decluttered: &'a TypedModel,
        model: &'a TypedModel,
        encodings: &'a [Encoding],
        builder: &'a mut PackBuilder,
    ) -> Encoder<'a> {
        let isa = match std::env::consts::ARCH {
            "x86_64" => IsaSet::of_arch(tract_linalg::isa::Arch::X86_64),
            "aarch64" => IsaSet::of_arch(tract_linalg::isa::Arch::Aarch64),
            _ => IsaSet::empty(),
        };
        let (kernels, bodies, nodes, outlets, in_place) = Default::default();
        let (convs, deconvs, loops) = Default::default();
        let mut encoder = Encoder {
            model,
            encodings,
            builder,
            convs,
            deconvs,
            loops,
            bodies,
            kernels,
            isa,
            depth: 0,
            nodes,
            outlets,
            in_place,
        };
        encoder.remember(decluttered);
        encoder
    }

    /// What the simplified graph knows of the operators whose attributes the optimized one hides.
    fn remember(&mut self, decluttered: &'a TypedModel) {
        for node in &decluttered.nodes {
            let name = node.name.as_str();
            let input = |i: usize| -> Option<TVec<usize>> {
                let fact = decluttered.outlet_fact(*node.inputs.get(i)?).ok()?;
                Some(fact.shape.as_concrete()?.into())
            };
            if let Some((conv, input)) = node.op_as::<Conv>().zip(input(0)) {
                self.convs.insert(name, ConvSource { conv, input });
            } else if let Some((deconv, input)) = node.op_as::<Deconv>().zip(input(0)) {
                self.deconvs.insert(name, DeconvSource { deconv, input });
            } else if let Some(scan) = node.op_as::<Scan>() {
                self.loops.insert(name, &scan.body);
            }
        }
    }

    fn node(&mut self, node: &'a TypedNode) -> TractResult<()> {
        if self.is_read_in_place(node) {
            return Ok(());
        }
        let row = ops::ROWS.iter().find_map(|row| row(self, node));
        let encoded = row.unwrap_or_else(|| bail!("the operator is not covered"))?;
        let Encoded { op, inputs } = encoded;
        let inputs = inputs.iter().map(|o| self.outlet(*o)).collect::<TractResult<Vec<_>>>()?;
        let outputs = node.outputs.iter().map(|o| self.fact(&o.fact)).collect::<TractResult<Vec<_>>>()?;
        self.push(node, op, inputs, outputs);
        Ok(())
    }

    /// A step that tract's graph has not: `op` over one outlet, giving `shape` of its dtype.
    fn step(&mut self, name: &str, op: Op, x: OutletId, shape: &[usize]) -> TractResult<OutletId> {
        let input = self.outlet(x)?;
        let dtype = dtype(
            self.model.outlet_fact(OutletId::new(x.node.min(self.model.nodes.len() - 1), x.slot))?.datum_type,
        )?;
        let outputs = vec![Fact::Tensor { dtype, shape: shape.to_vec() }];
        Ok(self.add(Node { name: name.to_owned(), op, inputs: vec![input], outputs }))
    }

    /// A node that tract's graph has not; its output.
    fn add(&mut self, node: Node) -> OutletId {
        let index = self.nodes.len();
        self.nodes.push(node);
        // No node of tract's has this number.
        let id = OutletId::new(self.model.nodes.len() + index, 0);
        self.outlets.insert(id, Outlet { node: index, slot: 0 });
        id
    }

    /// The body of a loop as one of the plan's bodies.
    fn body(&mut self, name: &str, model: &'a TypedModel) -> TractResult<usize> {
        ensure!(self.depth == 0, "a loop within a loop");
        let outer = Outer {
            model: std::mem::replace(&mut self.model, model),
            nodes: std::mem::take(&mut self.nodes),
            outlets: std::mem::take(&mut self.outlets),
            in_place: std::mem::take(&mut self.in_place),
        };
        self.depth += 1;
        if let Some(decluttered) = self.loops.get(name).copied() {
            self.remember(decluttered);
        }
        let body = self.graph();
        self.depth -= 1;
        let Outer { model, nodes, outlets, in_place } = outer;
        (self.model, self.outlets, self.in_place) = (model, outlets, in_place);
        let nodes = std::mem::replace(&mut self.nodes, nodes);
        let (inputs, outputs) = body?;
        self.bodies.push(Body { nodes, inputs, outputs });
        Ok(self.bodies.len() - 1)
    }

    /// All nodes of the graph at hand; gives its inputs and outputs.
    fn graph(&mut self) -> TractResult<(Vec<usize>, Vec<Outlet>)> {
        let model = self.model;
        for id in order(model)? {
            let node = model.node(id);
            self.node(node)
                .with_context(|| format!("node {:?} ({}) of the body", node.name, node.op.name()))?;
        }
        self.ends()
    }

    fn push(&mut self, node: &TypedNode, op: Op, inputs: Vec<Outlet>, outputs: Vec<Fact>) {
        let index = self.nodes.len();
        for slot in 0..outputs.len() {
            self.outlets.insert(OutletId::new(node.id, slot), Outlet { node: index, slot });
        }
        self.nodes.push(Node { name: node.name.clone(), op, inputs, outputs });
    }

    /// Lets the nodes after one that was refused be looked at too.
    fn pass_over(&mut self, node: &TypedNode) {
        for slot in 0..node.outputs.len() {
            self.outlets.insert(OutletId::new(node.id, slot), Outlet { node: 0, slot: 0 });
        }
    }

    fn outlet(&self, outlet: OutletId) -> TractResult<Outlet> {
        match self.outlets.get(&outlet) {
            Some(outlet) => Ok(*outlet),
            None => bail!("operand {outlet:?} ({}) is not in the plan", self.model.node(outlet.node).name),
        }
    }

    /// Constants that no node takes as a tensor: embedding tables and depthwise kernels are read in place by
    /// the node that uses them, padded inputs are taken unpadded.
    fn is_read_in_place(&self, node: &TypedNode) -> bool {
        let takers = &node.outputs[0].successors;
        let all = |test: &dyn Fn(&TypedNode, usize) -> bool| {
            !takers.is_empty() && takers.iter().all(|s| test(self.model.node(s.node), s.slot))
        };
        let is_output = self.model.outputs.iter().any(|o| o.node == node.id);
        !is_output
            && if node.op_is::<Const>() {
                all(&|n, slot| (slot == 0 && is_row_gather(n)) || (slot == 1 && conv::reads_kernel(n)))
            } else {
                all(&|n, _| conv::is_padding_of(node, n))
            }
    }

    /// The weight of a constant that is read in place.
    fn weight_in_place(&mut self, outlet: OutletId) -> TractResult<WeightId> {
        if let Some(id) = self.in_place.get(&outlet) {
            return Ok(*id);
        }
        let node = self.model.node(outlet.node);
        let Some(constant) = node.op_as::<Const>() else {
            bail!("operand {:?} is not a constant", node.name)
        };
        let gathered = node.outputs[0].successors.iter().any(|s| is_row_gather(self.model.node(s.node)));
        let embedding = gathered && constant.val().len() >= EMBEDDING_VALUES;
        let place = if embedding { Place::Embeddings } else { Place::Blobs };
        let id = match gathered {
            true => self.table(&node.name, constant.val(), place)?,
            false => self.plain_weight(&node.name, constant.val(), place)?,
        };
        self.in_place.insert(outlet, id);
        Ok(id)
    }

    fn plain_weight(&mut self, name: &str, tensor: &Tensor, place: Place) -> TractResult<WeightId> {
        ensure!(tensor.is_plain(), "a weight in a layout of tract's own");
        let dtype = dtype(tensor.datum_type())?;
        let tensor = tensor.cast_to_dt(glowplug_engine::datum_type(dtype))?;
        let form = Form::Plain { dtype, shape: tensor.shape().to_vec() };
        Ok(self.builder.weight(name, place, form, tensor.as_bytes())?)
    }

    /// A weight that is read row by row.
    fn table(&mut self, name: &str, tensor: &Tensor, place: Place) -> TractResult<WeightId> {
        let shape = tensor.shape();
        if tensor.is_plain()
            && tensor.datum_type() == DatumType::F32
            && !shape.is_empty()
            && !shape.contains(&0)
        {
            let plain = tensor.try_as_plain_ram()?;
            let row = shape.iter().skip(1).product::<usize>();
            for encoding in self.encodings.iter().copied() {
                let rows = plain.as_slice::<f32>()?.chunks(row).map(|row| encoding.encode_row(row));
                if let Some(rows) = rows.collect::<Option<Vec<_>>>() {
                    let form = Form::EncodedRows { encoding, shape: shape.to_vec() };
                    return Ok(self.builder.weight(name, place, form, &rows.concat())?);
                }
            }
        }
        self.plain_weight(name, tensor, place)
    }

    /// Panels of [`WIDTH`] that are read as f32: `[k, WIDTH]` values each, `panels` holding one after the other.
    fn float_panels(
        &mut self,
        name: &str,
        (k, mn): (usize, usize),
        encodings: &[Encoding],
        panels: &[f32],
    ) -> TractResult<WeightId> {
        let each = panels.chunks_exact(k * WIDTH);
        ensure!(each.len() == mn.div_ceil(WIDTH), "{} panels for {mn} rows", each.len());
        for encoding in encodings.iter().copied() {
            let layout = EncodedPanel { encoding, k, r: WIDTH };
            if let Some(encoded) =
                each.clone().map(|values| layout.encode(values)).collect::<Option<Vec<_>>>()
            {
                let form = Form::encoded_panels(layout, mn)?;
                let Form::EncodedPanels { panel_bytes, .. } = form else { bail!("{form:?}") };
                let mut bytes = vec![0; encoded.len() * panel_bytes];
                for (to, from) in bytes.chunks_exact_mut(panel_bytes).zip(&encoded) {
                    to[..from.len()].copy_from_slice(from);
                }
                return Ok(self.builder.weight(name, Place::Blobs, form, &bytes)?);
            }
        }
        // Room for one record that other kernels read ahead, so that a plan of theirs reads the same weight.
        let panel_bytes = f32_panel_bytes(k, WIDTH).context("a panel too large")?;
        let mut bytes = vec![0; each.len() * panel_bytes];
        for (to, values) in bytes.chunks_exact_mut(panel_bytes).zip(each) {
            to.as_chunks_mut().0.iter_mut().zip(values).for_each(|(to, v)| *to = v.to_le_bytes());
        }
        let form = Form::Panels { dtype: Dtype::F32, k, mn, r: WIDTH, panel_bytes };
        Ok(self.builder.weight(name, Place::Blobs, form, &bytes)?)
    }

    fn constant(&mut self, name: &str, tensor: &Tensor) -> TractResult<Op> {
        let small = tensor.len() * tensor.datum_type().size_of() <= CONSTANT_BYTES;
        let place = if small { Place::Constants } else { Place::Blobs };
        Ok(Op::Constant { weight: self.plain_weight(name, tensor, place)? })
    }

    /// Bools as bytes of 0 and 1, a node before the one that makes bools of them: bytes of a file may be anything.
    fn bytes_of_bools(&mut self, name: &str, bools: &Tensor) -> TractResult<OutletId> {
        let name = format!("{name}.bytes");
        let op = self.constant(&name, &*bools.cast_to::<u8>()?)?;
        let outputs = vec![Fact::Tensor { dtype: Dtype::U8, shape: bools.shape().to_vec() }];
        Ok(self.add(Node { name, op, inputs: Vec::new(), outputs }))
    }

    fn panels(&mut self, name: &str, storage: &PackedMatrixStorage) -> TractResult<Op> {
        let weights = storage.values().iter().map(|v| self.panel_weight(name, &**v));
        Ok(Op::Panels { weights: weights.collect::<TractResult<_>>()? })
    }

    /// A prepacked matrix, its panels moved apart to multiples of the pack's alignment.
    fn panel_weight(&mut self, name: &str, value: &dyn MMMInputValue) -> TractResult<WeightId> {
        let Some(eager) = value.downcast_ref::<EagerPackedInput>() else {
            bail!("a weight packed as {value:?}")
        };
        let format = panel_format(eager.format())?;
        let (k, mn) = (eager.fact.k, eager.mn);
        let record = format.r * format.dtype.size();
        let value_bytes = k * record;
        // Room for one record behind the values, which some kernels read ahead, so that all of one height share.
        let panel_bytes = eager.panel_bytes.max(value_bytes + record);
        let panel_bytes = panel_bytes.next_multiple_of(usize::try_from(glowplug_pack::header::ALIGN)?);
        let mut bytes = vec![0; mn.div_ceil(format.r) * panel_bytes];
        // Only the values: what tract leaves between panels is whatever its memory held before.
        for (to, from) in bytes.chunks_mut(panel_bytes).zip(eager.packed.as_bytes().chunks(eager.panel_bytes))
        {
            to[..value_bytes].copy_from_slice(&from[..value_bytes]);
        }
        let form = Form::Panels { dtype: format.dtype, k, mn, r: format.r, panel_bytes };
        Ok(self.builder.weight(name, Place::Blobs, form, &bytes)?)
    }

    /// What an outlet is, in the plan's terms.
    fn fact(&self, fact: &TypedFact) -> TractResult<Fact> {
        let Some(shape) = fact.shape.as_concrete() else { bail!("the shape {:?} is not fixed", fact.shape) };
        let Some(exotic) = fact.exotic_fact() else {
            return Ok(Fact::Tensor { dtype: dtype(fact.datum_type)?, shape: shape.to_vec() });
        };
        let (format, k, mn) = match exotic.downcast_ref::<DynPackedExoticFact>() {
            Some(DynPackedExoticFact { k, mn, packers }) => {
                let [packer] = packers.as_slice() else { bail!("{} packings to choose from", packers.len()) };
                (packer, k.to_usize()?, mn)
            }
            None => match exotic.downcast_ref::<PackedExoticFact>() {
                Some(PackedExoticFact { format, mn, k }) => (format, *k, mn),
                None => bail!("a value of {exotic:?}"),
            },
        };
        Ok(Fact::Panels { format: panel_format(&**format)?, batch: shape.to_vec(), k, mn: mn.to_usize()? })
    }

    /// The inputs and outputs of the graph at hand.
    fn ends(&self) -> TractResult<(Vec<usize>, Vec<Outlet>)> {
        let inputs =
            self.model.inputs.iter().map(|o| Ok(self.outlet(*o)?.node)).collect::<TractResult<_>>()?;
        let outputs = self.model.outputs.iter().map(|o| self.outlet(*o)).collect::<TractResult<_>>()?;
        Ok((inputs, outputs))
    }

    fn finish(self) -> TractResult<PlanGraph> {
        let (inputs, outputs) = self.ends()?;
        let head = |node: &usize| match self.nodes[*node].outputs.as_slice() {
            [Fact::Tensor { dtype, shape }] => Ok((*dtype, shape.clone())),
            _ => bail!("an input in panels"),
        };
        let heads = inputs.iter().map(head).collect::<TractResult<_>>()?;
        let (target, tract) = (target::name(self.isa), target::TRACT_VERSION.to_owned());
        let head = PlanHead { target, tract, inputs: heads };
        Ok(PlanGraph { head, kernels: self.kernels, bodies: self.bodies, nodes: self.nodes, inputs, outputs })
    }
}

/// What belongs to one graph while the body of a loop is written.
struct Outer<'a> {
    model: &'a TypedModel,
    nodes: Vec<Node>,
    outlets: HashMap<OutletId, Outlet>,
    in_place: HashMap<OutletId, WeightId>,
}

/// An operator and the operands it takes, which may be fewer than tract's.
struct Encoded {
    op: Op,
    inputs: TVec<OutletId>,
}

fn is_row_gather(node: &TypedNode) -> bool {
    node.op_as::<Gather>().is_some_and(|g| g.axis == 0 && g.output_type.is_none())
}

/// tract's symbolic extents are i64 in a plan, where all of them are known.
pub(crate) fn dtype(datum_type: DatumType) -> TractResult<Dtype> {
    if datum_type == DatumType::TDim {
        return Ok(Dtype::I64);
    }
    let found = Dtype::ALL.into_iter().find(|d| glowplug_engine::datum_type(*d) == datum_type);
    found.with_context(|| format!("values of type {datum_type:?}"))
}

fn panel_format(format: &dyn MMMInputFormat) -> TractResult<PanelFormat> {
    let Some(f) = format.downcast_ref::<PackedFormat>() else { bail!("panels in format {format:?}") };
    Ok(PanelFormat {
        dtype: dtype(f.dt)?,
        r: f.r,
        align: f.alignment_bytes,
        end_padding: f.end_padding_record,
    })
}
