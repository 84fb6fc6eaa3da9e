//! The portable graph of a pack: the simplified graph with its symbols, its weights found among the plans'.
//!
//! Symbols are kept where tract can analyse the model with them. Where it can with some only, those are kept;
//! where it can with none, the graph is fixed to the pinned shapes, and the pack says so.

mod encode;
mod matching;
mod ops;

use crate::error::{PackerError, guard};
use crate::import::{Imported, OpenAxis, Port};
use crate::quantize::Quantizer;
use encode::Encoded;
use glowplug_pack::PackBuilder;
use glowplug_pack::plan::PlanGraph;
use glowplug_pack::portable::Op;
use matching::Matcher;
use tract_core::internal::TypedModel;

/// What a pack's portable graph is.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct PortableReport {
    /// How many nodes it has, those of loops included.
    pub nodes: usize,
    /// The axes it leaves open, by name.
    pub symbols: Vec<String>,
    /// Open axes of the model that it fixes, each with the reason.
    pub fixed: Vec<String>,
    /// Bytes of its section.
    pub bytes: usize,
    /// Bytes in it of tensors that no plan stores in a form that can be read back: second copies.
    pub second_copy_bytes: usize,
    /// How many tensors that are.
    pub second_copies: usize,
}

/// A graph to be written, its constants still beside it.
pub(crate) struct Portable {
    encoded: Encoded,
    open: Vec<OpenAxis>,
    fixed: Vec<String>,
}

/// The model with one of its open axes at another extent.
pub(crate) struct Other {
    /// The axis and its extent.
    pub(crate) name: String,
    pub(crate) inputs: Vec<Port>,
    /// As imported.
    pub(crate) typed: TypedModel,
}

impl Portable {
    /// The graph with as many open axes as tract can do with. `pinned` is the simplified graph at the pinned
    /// shapes, rounded. Errors: an operator that portable graphs do not cover, with the node's name.
    pub(crate) fn of(
        imported: &Imported,
        pinned: &TypedModel,
        quantizer: &Quantizer,
    ) -> Result<Portable, PackerError> {
        let axes = imported.open_axes();
        let mut fixed = Vec::new();
        let mut found = match axes.is_empty() {
            true => None,
            false => Portable::with(imported, &axes, quantizer).map_err(|e| fixed.push(told(&axes, &e))).ok(),
        };
        if found.is_none() && axes.len() > 1 {
            fixed.clear();
            let mut keep = Vec::new();
            for axis in &axes {
                keep.push(axis.clone());
                match Portable::with(imported, &keep, quantizer) {
                    Ok(portable) => found = Some(portable),
                    Err(e) => {
                        fixed.push(told(std::slice::from_ref(axis), &e));
                        keep.pop();
                    }
                }
            }
        }
        match found {
            Some(portable) => Ok(Portable { fixed, ..portable }),
            None => Portable::fixed(imported, pinned, fixed),
        }
    }

    /// The graph at the pinned shapes only, and why.
    pub(crate) fn fixed(
        imported: &Imported,
        pinned: &TypedModel,
        fixed: Vec<String>,
    ) -> Result<Portable, PackerError> {
        let encoded = encode::encode(pinned, &[], &imported.inputs)?;
        Ok(Portable { encoded, open: Vec::new(), fixed })
    }

    fn with(imported: &Imported, keep: &[OpenAxis], quantizer: &Quantizer) -> Result<Portable, PackerError> {
        guard("portable graph", || {
            let model =
                imported.open(keep).and_then(|(typed, symbols)| Ok((typed.into_decluttered()?, symbols)));
            let (model, symbols) = model.map_err(|e| PackerError::model("portable graph", &e))?;
            let model = quantizer.apply(model)?;
            let names: Vec<_> = keep.iter().map(|axis| axis.name.clone()).zip(symbols).collect();
            let encoded = encode::encode(&model, &names, &imported.inputs)?;
            Ok(Portable { encoded, open: keep.to_vec(), fixed: Vec::new() })
        })
    }

    /// For each open axis one other extent that the model and the graph take, where one is found: half of the
    /// pinned one, or twice as much. A graph that does not take an extent says so when it is loaded.
    pub(crate) fn others(&self, imported: &Imported) -> Vec<Other> {
        let other = |axis: &OpenAxis| {
            let half = (axis.pinned > 1 && axis.pinned.is_multiple_of(2)).then_some(axis.pinned / 2);
            half.into_iter().chain([axis.pinned * 2]).find_map(|extent| {
                let inputs = imported.inputs_at(axis, extent);
                let shapes: Vec<_> = inputs.iter().map(Port::shape).collect();
                self.encoded.graph.extents(&shapes).ok()?;
                let typed = guard("reference", || {
                    imported.typed_at(&inputs).map_err(|e| PackerError::model("reference", &e))
                });
                Some(Other { name: format!("{}={extent}", axis.name), inputs, typed: typed.ok()? })
            })
        };
        self.open.iter().filter_map(other).collect()
    }

    /// The axes of the model that it fixes, each with the reason, in a line.
    pub(crate) fn fixed_axes(&self) -> Option<String> {
        (!self.fixed.is_empty()).then(|| format!("fixed: {}", self.fixed.join("; ")))
    }

    /// The section, its constants taken from the weights that `builder` has collected for `plans` wherever
    /// they are there; and what it is.
    pub(crate) fn section(
        &self,
        builder: &PackBuilder,
        plans: &[PlanGraph],
    ) -> Result<(Vec<u8>, PortableReport), PackerError> {
        let mut graph = self.encoded.graph.clone();
        let mut matcher = Matcher::new(builder, plans)?;
        let mut tensors = self.encoded.tensors.iter();
        for node in graph.graphs.iter_mut().flat_map(|g| &mut g.nodes) {
            if let Op::Constant { value } = &mut node.op
                && let Some(tensor) = tensors.next()
            {
                *value = matcher.place(tensor).map_err(|e| PackerError::model("portable graph", &e))?;
            }
        }
        let (data, second_copies) = matcher.finish();
        graph.validate(builder.weights(), data.len())?;
        let bytes = graph.encode(&data);
        let report = PortableReport {
            nodes: graph.graphs.iter().map(|g| g.nodes.len()).sum(),
            symbols: graph.symbols,
            fixed: self.fixed.clone(),
            bytes: bytes.len(),
            second_copy_bytes: data.len(),
            second_copies,
        };
        Ok((bytes, report))
    }
}

/// Why axes are not left open, in a line.
fn told(axes: &[OpenAxis], why: &PackerError) -> String {
    const MOST: usize = 300;
    let names: Vec<_> = axes.iter().map(|a| &*a.name).collect();
    format!("{}: {:.MOST$}", names.join(", "), why.to_string())
}
