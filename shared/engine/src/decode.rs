//! Plan nodes to tract operators: one row per operator, no graph pass.

pub(crate) mod names;

use crate::checked::CheckedGraph;
use crate::error::{EngineError, ErrorKind};
use crate::expanded::{ExpandedWeights, Matrix};
use crate::kernels::columns::Reduction;
use crate::laid_out::Reading;
use crate::ops::{
    Attention, BlockChannels, BlockedConv, BlockedDepthwiseConv, Chain, ChainStep, Col2Im, Dense,
    DepthwiseConv, DequantizeImage, DirectConv, GatherAxis, GatherRows, Im2col, Int8Conv, Int8DepthwiseConv,
    Int8MaxPool, LayerNorm, OneHotRows, Pad, PerChannel, PlaneReduce, PlaneReducer, Pool, PoolKind, Prepack,
    QuantizeImage, ReduceColumns, Scan, UnblockChannels, Upsample, int8,
};
use crate::panels::{RegionPanels, deadline};
use crate::planned::NodeFacts;
use crate::values::{datum_type, from_bytes, packed_format, typed_fact};
use glowplug_pack::int8::Runs;
use glowplug_pack::plan::{
    AxisMap, BinaryOp, Body, CHANNEL_BLOCK, Fact, Fused, Kernel, Node, Op, Operand, Outlet, PanelFormat,
    PlanGraph, Reducer, ScanInput, Share, Step, Window, fact_of,
};
use glowplug_pack::{Dtype, Form, Pack, PackError, Region, WeightId};
use names::{binary, comparison, find_kernel, kernel_op, reducer, unary};
use std::ops::Range;
use std::sync::Arc;
use tract_core::internal::{
    AxesMapping, AxisOp, DatumType, InletId, OutletId, TVec, Tensor, ToDim, TractResult, TypedFact,
    TypedModel, TypedOp, bail, ensure, format_err, tensor0,
};
use tract_core::ops::array::{Gather, MultiBroadcastTo, Slice, TypedConcat};
use tract_core::ops::binary::TypedBinOp;
use tract_core::ops::cast::Cast;
use tract_core::ops::change_axes::IntoShape;
use tract_core::ops::downsample::Downsample;
use tract_core::ops::element_wise::ElementWiseOp;
use tract_core::ops::konst::Const;
use tract_core::ops::logic::Iff;
use tract_core::ops::lstm_cell::LstmEpilogue;
use tract_core::ops::matmul::ModePicker;
use tract_core::ops::matmul::optimized::{
    AddMatMulGeometry, MapOutputAxisToInput, MatMulOperand, OptMatMul, ProtoFusedSpec,
};
use tract_core::ops::nn::resize::NearestUpsample;
use tract_core::ops::nn::{Reduce, RmsNorm, Softmax, SoftmaxKind};
use tract_core::ops::source::TypedSource;
use tract_linalg::BinFn;
use tract_linalg::mmm::{MMMInputValue, MatMatMul, OutputStoreSpec, PackedMatrixStorage};
use tract_linalg::multithread::BShare;
use tract_linalg::routines::Func;

/// The runnable graph of a validated plan, and the plan's target. What encoded weights become is shared through `expanded`. Errors: a kernel that this CPU or this build
/// has not, or has with another panel layout ([`ErrorKind::UnsupportedCpu`]); weights whose bytes do not arrive.
pub(crate) fn decode(
    pack: &Pack,
    region: &Arc<Region>,
    expanded: &ExpandedWeights,
    graph: PlanGraph,
) -> Result<(String, CheckedGraph), EngineError> {
    let PlanGraph { head, kernels, bodies, nodes, inputs, outputs } = graph;
    let found = kernels.iter().map(find_kernel).collect::<Result<_, _>>()?;
    let (bodies_so_far, binary, layouts) = (Vec::new(), Vec::new(), kernels.as_slice());
    let mut decoder =
        Decoder { pack, region, expanded, layouts, kernels: found, bodies: bodies_so_far, binary };
    for Body { nodes, inputs, outputs } in bodies {
        let body = decoder.graph(nodes, &inputs, &outputs)?;
        decoder.bodies.push(Arc::new(body));
    }
    Ok((head.target, decoder.graph(nodes, &inputs, &outputs)?))
}

/// An elementwise kernel of this CPU, where it has one, by operation and sharing.
type BinaryKernel = (BinaryOp, Share, Option<Arc<BinFn>>);

struct Decoder<'a> {
    pack: &'a Pack,
    region: &'a Arc<Region>,
    expanded: &'a ExpandedWeights,
    layouts: &'a [Kernel],
    kernels: Vec<Box<dyn MatMatMul>>,
    bodies: Vec<Arc<CheckedGraph>>,
    /// Found so far; looking one up takes longer than building a node.
    binary: Vec<BinaryKernel>,
}

impl Decoder<'_> {
    fn graph(
        &mut self,
        nodes: Vec<Node>,
        inputs: &[usize],
        outputs: &[Outlet],
    ) -> Result<CheckedGraph, EngineError> {
        let mut model = TypedModel::default();
        model.nodes.reserve(nodes.len());
        for node in &nodes {
            self.add(&mut model, &nodes, node).map_err(|e| {
                let place = format!("node {:?} ({})", node.name, node.op.name());
                EngineError::from_tract(ErrorKind::Pack, &e.context(place))
            })?;
        }
        model.inputs = inputs.iter().map(|node| OutletId::new(*node, 0)).collect();
        model.outputs = outputs.iter().map(|o| OutletId::new(o.node, o.slot)).collect();
        let weights = nodes.iter().map(|node| self.matrices(&nodes, node)).collect::<Result<Vec<_>, _>>()?;
        let facts = nodes.into_iter().zip(weights);
        let facts = facts
            .map(|(node, weights)| NodeFacts { operator: node.op.name(), outputs: node.outputs, weights })
            .collect();
        CheckedGraph::new(model, facts, self.region.clone())
            .map_err(|e| EngineError::from_tract(ErrorKind::Pack, &e))
    }

    /// The matrices that `node`'s kernel reads in place, as ranges of the file.
    fn matrices(&self, nodes: &[Node], node: &Node) -> Result<Vec<Range<u64>>, PackError> {
        if let Op::Dense { weight, .. } = &node.op {
            return Ok(vec![self.pack.weight_range(*weight)?]);
        }
        let Op::MatMul { a, b, .. } = &node.op else { return Ok(Vec::new()) };
        let mut ids = Vec::new();
        for operand in [a, b] {
            match operand {
                Operand::Weight { weight } => ids.push(*weight),
                Operand::Input { index, .. } => {
                    let from = node.inputs.get(*index).and_then(|outlet| nodes.get(outlet.node));
                    if let Some(Op::Panels { weights }) = from.map(|n| &n.op) {
                        ids.extend(weights);
                    }
                }
            }
        }
        ids.into_iter().map(|id| self.pack.weight_range(id)).collect()
    }

    fn add(&mut self, model: &mut TypedModel, nodes: &[Node], node: &Node) -> TractResult<()> {
        let mut facts: TVec<TypedFact> = node.outputs.iter().map(typed_fact).collect();
        let ([output, ..], [fact, ..]) = (node.outputs.as_slice(), facts.as_mut_slice()) else {
            bail!("no output")
        };
        let inputs: TVec<&Fact> = node.inputs.iter().filter_map(|o| fact_of(nodes, *o)).collect();
        let op = self.op(node, &inputs, output, fact)?;
        let id = model.add_node(node.name.clone(), op, facts)?;
        for (slot, input) in node.inputs.iter().enumerate() {
            model.add_edge(OutletId::new(input.node, input.slot), InletId::new(id, slot))?;
        }
        Ok(())
    }

    fn op(
        &mut self,
        node: &Node,
        inputs: &[&Fact],
        output: &Fact,
        fact: &mut TypedFact,
    ) -> TractResult<Box<dyn TypedOp>> {
        Ok(match &node.op {
            Op::Source => Box::new(TypedSource::new(fact.clone())),
            Op::Constant { weight } => Box::new(Const::new(Arc::new(self.constant(*weight)?))?),
            Op::Panels { weights } => Box::new(self.panels(weights, output, fact)?),
            Op::Prepack { format, k_axis, mn_axis } => {
                Box::new(Prepack { format: packed_format(format), k_axis: *k_axis, mn_axis: *mn_axis })
            }
            Op::Im2col { format, window, group } => {
                let shape = image(inputs)?;
                Box::new(Im2col::new(packed_format(format), window, *group, shape))
            }
            Op::MatMul { kernel, a, b, m_axis, n_axis, fused } => {
                let steps = self.product(*kernel, (a, b), (*m_axis, *n_axis), fused, inputs)?;
                let kernel = vec![self.kernels[*kernel].clone()];
                Box::new(OptMatMul::new(
                    kernel,
                    ModePicker::Single,
                    fact.clone(),
                    *m_axis,
                    *n_axis,
                    steps,
                    true,
                )?)
            }
            Op::DepthwiseConv { window, kernel } => {
                let ([_, _, h, w], shape) = (image(inputs)?, tensor_shape(output)?);
                let weights = self.pack.weight_range(*kernel)?;
                Box::new(DepthwiseConv::new(window, (h, w), shape, self.region.clone(), weights))
            }
            Op::DirectConv { window, kernel } => {
                let ([_, c, h, w], shape) = (image(inputs)?, tensor_shape(output)?);
                let weights = self.pack.weight_range(*kernel)?;
                Box::new(DirectConv::new(window, (c, h, w), shape, self.region.clone(), weights))
            }
            Op::Col2Im { window } => {
                let [_, _, h, w] = nchw(tensor_shape(output)?)?;
                Box::new(Col2Im::new(window, (h, w), tensor_shape(output)?))
            }
            Op::MaxPool { window } => Box::new(pool(PoolKind::Max, window, inputs, output)?),
            Op::AveragePool { window, count_include_pad } => {
                let kind = PoolKind::Average { count_include_pad: *count_include_pad };
                Box::new(pool(kind, window, inputs, output)?)
            }
            Op::BlockChannels => {
                let ([_, channels, ..], shape) = (image(inputs)?, tensor_shape(output)?.to_vec());
                Box::new(BlockChannels { channels, shape })
            }
            Op::UnblockChannels => Box::new(UnblockChannels { shape: tensor_shape(output)?.to_vec() }),
            Op::BlockedConv { window, kernel, steps } => {
                let filters = self.matrix(*kernel)?;
                Box::new(BlockedConv::new(window, first(inputs)?, tensor_shape(output)?, filters, steps)?)
            }
            Op::BlockedDepthwiseConv { window, kernel, steps } => {
                let ([_, _, h, w], shape) = (image(inputs)?, tensor_shape(output)?);
                let kernel = (self.region.clone(), self.pack.weight_range(*kernel)?);
                Box::new(BlockedDepthwiseConv::new(window, (h, w), shape, kernel, steps)?)
            }
            Op::QuantizeImage { inverse, zero } => Box::new(QuantizeImage {
                inverse: *inverse,
                zero: *zero,
                floats: int8::floats(first(inputs)?)?,
                shape: tensor_shape(output)?.to_vec(),
            }),
            Op::DequantizeImage { scale, zero } => Box::new(DequantizeImage {
                scale: *scale,
                zero: *zero,
                pixel: first(inputs)?.last().copied().unwrap_or(1),
                shape: tensor_shape(output)?.to_vec(),
            }),
            Op::Int8Conv { window, kernel, zero, residual, tail } => {
                let slide = int8::slide(window, first(inputs)?, *zero)?;
                let (depth, filters) = self.extents(*kernel)?;
                let taps = window.kernel.0 * window.kernel.1;
                let runs = Runs::of(window, depth / taps.max(1), slide.pixel);
                let reading = Reading::Runs(runs);
                let weights = self.expanded.bytes.get(self.pack, self.region, *kernel, reading)?;
                let (tail, shape) = (*tail, tensor_shape(output)?.to_vec());
                Box::new(Int8Conv { slide, runs, filters, weights, residual: *residual, tail, shape })
            }
            Op::Int8DepthwiseConv { window, kernel, zero, tail } => {
                let slide = int8::slide(window, first(inputs)?, *zero)?;
                let weights = self.expanded.bytes.get(self.pack, self.region, *kernel, Reading::Taps)?;
                Box::new(Int8DepthwiseConv {
                    slide,
                    weights,
                    tail: *tail,
                    shape: tensor_shape(output)?.to_vec(),
                })
            }
            Op::Int8MaxPool { window } => {
                let slide = int8::slide(window, first(inputs)?, 0)?;
                Box::new(Int8MaxPool { slide, shape: tensor_shape(output)?.to_vec() })
            }
            Op::Chain { steps } => {
                Box::new(Chain { steps: steps.iter().map(|s| self.chain_step(*s)).collect() })
            }
            Op::Binary { op } if is_per_channel(inputs, output) => Box::new(PerChannel { op: *op }),
            Op::Binary { op } => Box::new(TypedBinOp(binary(*op), None)),
            Op::Compare { op } => Box::new(TypedBinOp(comparison(*op), None)),
            Op::Logic { op } => Box::new(TypedBinOp(names::logic(*op), None)),
            Op::Where => Box::new(Iff),
            Op::Unary { op } => Box::new(ElementWiseOp(unary(*op), None)),
            Op::Function { op } => Box::new(ElementWiseOp(names::function(*op), None)),
            Op::Reduce { axes, reducer: r @ (Reducer::Sum | Reducer::Max) }
                if is_over_planes(axes, output) =>
            {
                let reducer = if *r == Reducer::Sum { PlaneReducer::Sum } else { PlaneReducer::Max };
                Box::new(PlaneReduce { reducer, shape: tensor_shape(output)?.to_vec() })
            }
            Op::Reduce { axes, reducer: r } => match columns(axes, *r, inputs)? {
                Some(columns) => Box::new(columns),
                None => Box::new(Reduce { axes: axes.iter().copied().collect(), reducer: reducer(*r) }),
            },
            Op::Softmax { axes } => Box::new(Softmax {
                axes: axes.iter().copied().collect(),
                quant_output_dt: None,
                kind: SoftmaxKind::Softmax,
            }),
            Op::RmsNorm { axis, epsilon } => {
                Box::new(RmsNorm { axis: *axis, eps: Arc::new(tensor0(*epsilon)) })
            }
            Op::Reshape => Box::new(into_shape(tensor_shape(output)?)?),
            Op::MoveAxis { from, to } => Box::new(AxisOp::Move(*from, *to)),
            Op::Cast => Box::new(Cast { to: fact.datum_type }),
            Op::GatherRows { table } => Box::new(self.gather(*table)?),
            Op::Gather { axis } => Box::new(GatherAxis(Gather::new(*axis))),
            Op::Slice { axis, start, step: 1 } => {
                Box::new(Slice::new(*axis, *start, start + tensor_shape(output)?[*axis]))
            }
            Op::Slice { axis, start, step } => {
                Box::new(Downsample::new(*axis, isize::try_from(*step)?, *start))
            }
            Op::Concat { axis } => Box::new(TypedConcat::new(*axis)),
            Op::Pad { pads, mode } => Box::new(Pad { pads: pads.clone(), mode: *mode }),
            Op::Upsample { scales } => match Upsample::new(scales, first(inputs)?, tensor_shape(output)?) {
                Some(own) => Box::new(own),
                None => Box::new(NearestUpsample { scales: scales.iter().copied().collect() }),
            },
            Op::Expand => Box::new(MultiBroadcastTo { shape: fact.shape.clone() }),
            Op::Dense { weight, rows, bias, residual, activation: a } => Box::new(Dense {
                weight: self.matrix(*weight)?,
                rows: *rows,
                bias: *bias,
                residual: *residual,
                activation: *a,
                shape: tensor_shape(output)?.to_vec(),
            }),
            Op::Attention { batch, heads, queries, keys, scale } => Box::new(Attention {
                heads: *heads,
                scale: *scale,
                extents: [*batch, *queries, *keys],
                shape: tensor_shape(output)?.to_vec(),
                mask: inputs.get(3).map(|mask| mask_steps(mask)).transpose()?,
            }),
            Op::OneHotRows { table, activation: a } => Box::new(OneHotRows {
                region: self.region.clone(),
                table: self.pack.weight_range(*table)?,
                encoding: self.pack.weight(*table)?.form.encoding(),
                activation: *a,
                shape: tensor_shape(output)?.to_vec(),
            }),
            Op::LayerNorm { epsilon } => Box::new(LayerNorm { epsilon: *epsilon }),
            Op::LstmCell => match tensor_shape(output)? {
                [.., hidden] => Box::new(LstmEpilogue { hidden: *hidden }),
                [] => bail!("a cell without an axis"),
            },
            Op::Scan { body, inputs: from, outputs } => Box::new(Scan {
                body: self.bodies[*body].clone(),
                inputs: from.clone(),
                outputs: outputs.clone(),
                iterations: iterations(from, inputs)?,
                arity: node.outputs.len(),
            }),
        })
    }

    fn constant(&self, id: WeightId) -> TractResult<Tensor> {
        let Form::Plain { dtype, shape } = &self.pack.weight(id)?.form else { bail!("a constant in panels") };
        from_bytes(*dtype, shape, self.region.wait(self.pack.weight_range(id)?, deadline())?)
    }

    /// A matrix in panels that are read as f32.
    fn matrix(&self, id: WeightId) -> TractResult<Matrix> {
        let (depth, columns) = self.extents(id)?;
        Ok(Matrix { panels: self.expanded.panels(self.pack, self.region, id)?, depth, columns })
    }

    /// Depth and columns of a matrix in panels.
    fn extents(&self, id: WeightId) -> TractResult<(usize, usize)> {
        match &self.pack.weight(id)?.form {
            Form::Panels { k, mn, .. } => Ok((*k, *mn)),
            Form::EncodedPanels { panel, mn, .. } => Ok((panel.k, *mn)),
            form => bail!("{form:?}, expected panels"),
        }
    }

    fn region_panels(&self, id: WeightId, format: &PanelFormat) -> TractResult<Box<dyn MMMInputValue>> {
        let Form::Panels { k, mn, panel_bytes, .. } = &self.pack.weight(id)?.form else {
            bail!("a plain matrix")
        };
        let start = self.pack.weight_range(id)?.start;
        let format = packed_format(format);
        Ok(Box::new(RegionPanels::new(self.region.clone(), start, *panel_bytes, &format, *k, *mn)?))
    }

    fn panels(&self, ids: &[WeightId], output: &Fact, fact: &mut TypedFact) -> TractResult<Const> {
        let Fact::Panels { format, batch, .. } = output else { bail!("panels that give {output:?}") };
        let values = ids.iter().map(|id| self.region_panels(*id, format)).collect::<TractResult<_>>()?;
        let tensor = PackedMatrixStorage::new_batched(batch, values).into_tensor(datum_type(format.dtype));
        let Some(exotic) = tensor.exotic_fact()? else { bail!("panels without a fact") };
        fact.exotic_fact = Some(exotic.clone());
        Const::new_with_exotic_fact(Arc::new(tensor), exotic)
    }

    fn product(
        &self,
        kernel: usize,
        (a, b): (&Operand, &Operand),
        (m_axis, n_axis): (Option<usize>, Option<usize>),
        fused: &[Fused],
        inputs: &[&Fact],
    ) -> TractResult<Vec<ProtoFusedSpec>> {
        let Some(layout) = self.layouts.get(kernel) else { bail!("no kernel {kernel}") };
        let mmm = &self.kernels[kernel];
        let k = self.depth(a, inputs)?.to_dim();
        let (a, a_axes) = self.operand(a, &layout.a)?;
        let (b, b_axes) = self.operand(b, &layout.b)?;
        let geo = AddMatMulGeometry { k, c_to_a_axis_mapping: a_axes, c_to_b_axis_mapping: b_axes };
        let mut steps = vec![ProtoFusedSpec::AddMatMul { geo, a, b, packings: vec![(layout.packing, None)] }];
        steps.extend(fused.iter().map(|f| self.fused(f, &**mmm)).collect::<TractResult<Vec<_>>>()?);
        steps.push(ProtoFusedSpec::Store(vec![view(&**mmm, m_axis, n_axis)]));
        Ok(steps)
    }

    /// The depth of a product, as its left operand tells it.
    fn depth(&self, a: &Operand, inputs: &[&Fact]) -> TractResult<usize> {
        let depth = match a {
            Operand::Weight { weight } => match &self.pack.weight(*weight)?.form {
                Form::Panels { k, .. } => Some(*k),
                _ => None,
            },
            Operand::Input { index, .. } => match inputs.get(*index) {
                Some(Fact::Panels { k, .. }) => Some(*k),
                _ => None,
            },
        };
        depth.ok_or_else(|| format_err!("a left operand that is no panels"))
    }

    fn operand(
        &self,
        operand: &Operand,
        format: &PanelFormat,
    ) -> TractResult<(MatMulOperand, MapOutputAxisToInput)> {
        Ok(match operand {
            Operand::Input { index, axes } => (MatMulOperand::Input(*index), axis_map(axes)),
            Operand::Weight { weight } => {
                (MatMulOperand::Const(self.region_panels(*weight, format)?), axis_map(&Vec::new()))
            }
        })
    }

    fn fused(&self, fused: &Fused, kernel: &dyn MatMatMul) -> TractResult<ProtoFusedSpec> {
        Ok(match fused {
            Fused::Scalar { op, input } => ProtoFusedSpec::BinScalar(*input, kernel_op(*op)?),
            Fused::PerRow { op, input, axes } => {
                ProtoFusedSpec::BinPerRow(*input, kernel_op(*op)?, axis_map(axes))
            }
            Fused::PerColumn { op, input, axes } => {
                ProtoFusedSpec::BinPerCol(*input, kernel_op(*op)?, axis_map(axes))
            }
            Fused::AddTensor { input, m_axis, n_axis, axes } => {
                ProtoFusedSpec::AddUnicast(view(kernel, *m_axis, *n_axis), *input, axis_map(axes))
            }
            Fused::LeakyRelu { input } => ProtoFusedSpec::LeakyRelu(*input),
        })
    }

    fn chain_step(&mut self, step: Step) -> ChainStep {
        let share = match step.share {
            Share::Lockstep => BShare::Lockstep,
            Share::PerBlock => BShare::PerBlock,
        };
        ChainStep { op: binary(step.op), kernel: self.binary_kernel(step), share }
    }

    fn binary_kernel(&mut self, step: Step) -> Option<Arc<BinFn>> {
        if let Some((_, _, kernel)) =
            self.binary.iter().find(|(op, share, _)| (*op, *share) == (step.op, step.share))
        {
            return kernel.clone();
        }
        let func = kernel_op(step.op).ok().map(|op| match step.share {
            Share::Lockstep => Func::BinUnicast(op),
            Share::PerBlock => Func::BinByScalar(op),
        });
        let kernel = func.and_then(|f| f.bin(DatumType::F32)).map(Arc::from);
        self.binary.push((step.op, step.share, kernel.clone()));
        kernel
    }

    fn gather(&self, id: WeightId) -> TractResult<GatherRows> {
        let form = &self.pack.weight(id)?.form;
        let (dtype, shape) = match form {
            Form::Plain { dtype, shape } => (*dtype, shape),
            Form::EncodedRows { shape, .. } => (Dtype::F32, shape),
            form => bail!("a table of {form:?}"),
        };
        let [rows, row_shape @ ..] = shape.as_slice() else { bail!("a table without rows") };
        Ok(GatherRows {
            region: self.region.clone(),
            start: self.pack.weight_range(id)?.start,
            rows: *rows,
            row_shape: row_shape.to_vec(),
            datum_type: datum_type(dtype),
            encoding: form.encoding(),
        })
    }
}

/// The shape of the first operand.
fn first<'a>(inputs: &[&'a Fact]) -> TractResult<&'a [usize]> {
    match inputs {
        [x, ..] => tensor_shape(x),
        [] => bail!("no operand"),
    }
}

fn pool(kind: PoolKind, window: &Window, inputs: &[&Fact], output: &Fact) -> TractResult<Pool> {
    let [_, _, h, w] = image(inputs)?;
    Ok(Pool::new(kind, window, (h, w), tensor_shape(output)?))
}

/// Whether the second operand has one value for each channel, in blocks, of a first that has the output's shape.
fn is_per_channel(inputs: &[&Fact], output: &Fact) -> bool {
    match (inputs, output) {
        ([x, Fact::Tensor { shape: y, .. }], Fact::Tensor { shape, .. }) if *x == output => {
            matches!((&**shape, &**y), ([n, c, .., CHANNEL_BLOCK], [m, d, 1, 1, CHANNEL_BLOCK])
                if shape.len() == y.len() && c == d && (m == n || *m == 1))
        }
        _ => false,
    }
}

/// Whether a reduction over `axes` leaves one value for each channel of an image in blocks.
fn is_over_planes(axes: &[usize], output: &Fact) -> bool {
    matches!(output, Fact::Tensor { shape, .. } if matches!(**shape, [_, _, 1, 1, CHANNEL_BLOCK]))
        && matches!(axes, [2, 3])
}

fn tensor_shape(fact: &Fact) -> TractResult<&[usize]> {
    match fact {
        Fact::Tensor { shape, .. } => Ok(shape),
        Fact::Panels { .. } => bail!("found {fact:?}, expected a tensor"),
    }
}

/// `[N, C, H, W]` of the first operand.
fn image(inputs: &[&Fact]) -> TractResult<[usize; 4]> {
    match inputs {
        [x, ..] => nchw(tensor_shape(x)?),
        [] => bail!("no operand"),
    }
}

/// The reduction of whole rows, where the axis is one and values that stay lie behind it.
fn columns(axes: &[usize], reducer: Reducer, inputs: &[&Fact]) -> TractResult<Option<ReduceColumns>> {
    let ([axis], Some(x)) = (axes, inputs.first()) else { return Ok(None) };
    let reduction = match reducer {
        Reducer::Sum => Reduction::Sum,
        Reducer::Max => Reduction::Max,
        Reducer::Min => Reduction::Min,
        Reducer::MeanOfSquares => Reduction::MeanOfSquares,
        Reducer::Prod | Reducer::ArgMax | Reducer::ArgMin => return Ok(None),
    };
    let behind = tensor_shape(x)?.iter().skip(axis + 1).product::<usize>();
    Ok((behind > 1).then_some(ReduceColumns { axis: *axis, reduction }))
}

/// From one position of a mask to the next along `batch, heads, queries`.
fn mask_steps(mask: &Fact) -> TractResult<[usize; 3]> {
    let shape = tensor_shape(mask)?;
    ensure!(shape.len() == 4, "a mask of {shape:?}");
    Ok([0, 1, 2].map(|axis| if shape[axis] == 1 { 0 } else { shape[axis + 1..].iter().product() }))
}

/// How often a loop runs its body.
fn iterations(from: &[ScanInput], inputs: &[&Fact]) -> TractResult<usize> {
    for (from, input) in from.iter().zip(inputs) {
        if let ScanInput::Position { axis, .. } = from {
            return Ok(tensor_shape(input)?[*axis]);
        }
    }
    bail!("no operand is scanned")
}

fn nchw(shape: &[usize]) -> TractResult<[usize; 4]> {
    match *shape {
        [n, c, h, w] => Ok([n, c, h, w]),
        [c, h, w] => Ok([1, c, h, w]),
        // Channels in blocks.
        [n, c, h, w, CHANNEL_BLOCK] => Ok([n, c, h, w]),
        _ => bail!("a tensor of shape {shape:?}, expected [N, C, H, W] or [C, H, W]"),
    }
}

fn into_shape(shape: &[usize]) -> TractResult<IntoShape> {
    ensure!(shape.len() <= glowplug_pack::plan::MAX_RANK, "rank {}", shape.len());
    Ok(IntoShape {
        mapping: AxesMapping::disconnected_for_ranks(&[1], &[shape.len()])?,
        len: shape.iter().product(),
        dims: shape.iter().copied().collect(),
        strides: Tensor::natural_strides(shape),
    })
}

fn axis_map(axes: &AxisMap) -> MapOutputAxisToInput {
    MapOutputAxisToInput(axes.iter().copied().collect())
}

/// Where a kernel reads or writes tiles of a tensor: along its own axes.
#[allow(unsafe_code, reason = "tract marks the description of an access as unsafe, not only the access")]
fn view(kernel: &dyn MatMatMul, m_axis: Option<usize>, n_axis: Option<usize>) -> OutputStoreSpec {
    // SAFETY: nothing is accessed here. The axes were validated to exist in the tensor they are used with and
    // to be as long as the product's rows and columns.
    unsafe { kernel.c_view(m_axis, n_axis) }
}
