//! The same model at other shapes than those pinned: with its open axes as symbols, or pinned elsewhere.

use super::{Imported, Port, analyse_pinned, tract_type, with_plain_outputs};
use tract_onnx::tract_hir::internal::*;

/// Axes of the inputs that the ONNX file leaves open under one name.
#[derive(Clone, Debug)]
pub(crate) struct OpenAxis {
    /// The symbol's name.
    pub(crate) name: String,
    /// Its extent as pinned.
    pub(crate) pinned: usize,
    /// `(input, axis)` of each.
    pub(crate) places: Vec<(usize, usize)>,
}

impl Imported {
    /// The open axes. Equal names are one axis where they are pinned to one extent; an axis without a name
    /// is one of its own.
    pub(crate) fn open_axes(&self) -> Vec<OpenAxis> {
        let mut open: Vec<OpenAxis> = Vec::new();
        for (i, port) in self.inputs.iter().enumerate() {
            for (a, axis) in port.axes.iter().enumerate().filter(|(_, axis)| axis.symbolic) {
                let known = open.iter_mut().find(|o| o.name == axis.name && o.pinned == axis.size);
                if let Some(known) = known {
                    known.places.push((i, a));
                    continue;
                }
                let taken = axis.name == format!("d{a}") || open.iter().any(|o| o.name == axis.name);
                let name = if taken { format!("input{i}_axis{a}") } else { axis.name.clone() };
                open.push(OpenAxis { name, pinned: axis.size, places: vec![(i, a)] });
            }
        }
        open
    }

    /// The typed graph with the axes `keep` left open, all others pinned; and the symbol of each.
    pub(crate) fn open(&self, keep: &[OpenAxis]) -> TractResult<(TypedModel, Vec<Symbol>)> {
        let mut model = self.inference.clone();
        let symbols: Vec<Symbol> = keep.iter().map(|axis| model.symbols.sym(&axis.name)).collect();
        for (i, port) in self.inputs.iter().enumerate() {
            let mut dims: TVec<TDim> = port.shape().iter().map(ToDim::to_dim).collect();
            for (axis, symbol) in keep.iter().zip(&symbols) {
                for (_, a) in axis.places.iter().filter(|(input, _)| *input == i) {
                    dims[*a] = symbol.to_dim();
                }
            }
            model.set_input_fact(i, InferenceFact::dt_shape(tract_type(port.dtype), dims))?;
        }
        Ok((with_plain_outputs(model.into_typed()?)?, symbols))
    }

    /// The inputs with `axis` at another extent.
    pub(crate) fn inputs_at(&self, axis: &OpenAxis, extent: usize) -> Vec<Port> {
        let mut inputs = self.inputs.clone();
        for (input, a) in &axis.places {
            inputs[*input].axes[*a].size = extent;
        }
        inputs
    }

    /// The typed graph for other `inputs`, as imported: the reference for them.
    pub(crate) fn typed_at(&self, inputs: &[Port]) -> TractResult<TypedModel> {
        with_plain_outputs(analyse_pinned(self.inference.clone(), inputs)?)
    }
}
