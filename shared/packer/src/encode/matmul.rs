//! Matrix products and what tract fused into them.

use super::{Encoded, Encoder, panel_format};
use glowplug_pack::plan::{BinaryOp, Fused, Kernel, Op, Operand};
use tract_core::internal::*;
use tract_core::ops::matmul::optimized::{MapOutputAxisToInput, MatMulOperand, OptMatMul, ProtoFusedSpec};
use tract_core::ops::matmul::pack::OptMatMulPack;
use tract_linalg::BinOp;
use tract_linalg::mmm::{MatMatMul, OutputStoreSpec};

pub(super) fn product<'a>(e: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    node.op_as::<OptMatMul>().map(|op| {
        let columns = op.n().to_usize()?;
        let mode = op.mode_picker.pick(columns)?;
        let mmm = op.mmm.get(mode).context("no kernel for this many columns")?;
        let [ProtoFusedSpec::AddMatMul { geo, a, b, packings }, fused @ .., ProtoFusedSpec::Store(stores)] =
            op.micro_ops.as_slice()
        else {
            bail!("a product of another form than product, fused operations, store")
        };
        let Some((packing, None)) = packings.get(mode) else {
            bail!("weights that are unpacked while it runs")
        };
        stores_whole(stores.get(mode), op)?;
        let kernel = e.kernel(&**mmm, *packing)?;
        let (a, b) =
            (e.operand(node, a, &geo.c_to_a_axis_mapping)?, e.operand(node, b, &geo.c_to_b_axis_mapping)?);
        let fused = fused.iter().map(fuse).collect::<TractResult<_>>()?;
        let op = Op::MatMul { kernel, a, b, m_axis: op.c_m_axis, n_axis: op.c_n_axis, fused };
        Ok(Encoded { op, inputs: node.inputs.iter().copied().collect() })
    })
}

pub(super) fn prepack<'a>(e: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    node.op_as::<OptMatMulPack>().map(|op| {
        let glowplug_pack::plan::Fact::Panels { format, .. } = e.fact(&node.outputs[0].fact)? else {
            bail!("a packing that does not give panels")
        };
        // Its axes are private; the map of axes that it gives to tract's analysis names them.
        let (inputs, outputs) = e.model.node_facts(node.id)?;
        let mapping = op.axes_mapping(&inputs, &outputs)?;
        let axis = |repr: char| -> TractResult<usize> {
            let axis = mapping.iter_all_axes().find(|a| a.repr == repr);
            axis.and_then(|a| a.inputs[0].first().copied()).with_context(|| format!("no axis {repr}"))
        };
        let op = Op::Prepack { format, k_axis: axis('K')?, mn_axis: axis('M')? };
        Ok(Encoded { op, inputs: node.inputs.iter().copied().collect() })
    })
}

/// A plan's products store all of their output, along its own axes.
fn stores_whole(store: Option<&OutputStoreSpec>, op: &OptMatMul) -> TractResult<()> {
    match store {
        Some(OutputStoreSpec::View { m_axis, n_axis, .. })
            if (*m_axis, *n_axis) == (op.c_m_axis, op.c_n_axis) =>
        {
            Ok(())
        }
        other => bail!("a product stored by {other:?}"),
    }
}

impl Encoder<'_> {
    fn kernel(&mut self, mmm: &dyn MatMatMul, packing: usize) -> TractResult<usize> {
        let (a, b) = mmm.packings().get(packing).context("no such packing")?;
        let (a, b) = (panel_format(&**a)?, panel_format(&**b)?);
        let kernel = Kernel { name: mmm.name().to_owned(), packing, a, b };
        self.isa = mmm.isa().needs.iter().fold(self.isa, |set, isa| set.with(*isa));
        Ok(self.kernels.iter().position(|k| *k == kernel).unwrap_or_else(|| {
            self.kernels.push(kernel);
            self.kernels.len() - 1
        }))
    }

    fn operand(
        &mut self,
        node: &TypedNode,
        operand: &MatMulOperand,
        axes: &MapOutputAxisToInput,
    ) -> TractResult<Operand> {
        Ok(match operand {
            MatMulOperand::Input(index) => Operand::Input { index: *index, axes: axes.0.to_vec() },
            MatMulOperand::Const(value) => {
                Operand::Weight { weight: self.panel_weight(&node.name, &**value)? }
            }
        })
    }
}

fn fuse(spec: &ProtoFusedSpec) -> TractResult<Fused> {
    Ok(match spec {
        ProtoFusedSpec::BinScalar(input, op) => Fused::Scalar { op: binary(*op), input: *input },
        ProtoFusedSpec::LeakyRelu(input) => Fused::LeakyRelu { input: *input },
        ProtoFusedSpec::BinPerRow(input, op, axes) => {
            Fused::PerRow { op: binary(*op), input: *input, axes: axes.0.to_vec() }
        }
        ProtoFusedSpec::BinPerCol(input, op, axes) => {
            Fused::PerColumn { op: binary(*op), input: *input, axes: axes.0.to_vec() }
        }
        ProtoFusedSpec::AddUnicast(OutputStoreSpec::View { m_axis, n_axis, .. }, input, axes) => {
            Fused::AddTensor { input: *input, m_axis: *m_axis, n_axis: *n_axis, axes: axes.0.to_vec() }
        }
        other => bail!("a fused {other:?}"),
    })
}

/// A kernel's operation.
pub(super) fn binary(op: BinOp) -> BinaryOp {
    match op {
        BinOp::Min => BinaryOp::Min,
        BinOp::Max => BinaryOp::Max,
        BinOp::Add => BinaryOp::Add,
        BinOp::Mul => BinaryOp::Mul,
        BinOp::Sub => BinaryOp::Sub,
        BinOp::SubF => BinaryOp::SubF,
    }
}
