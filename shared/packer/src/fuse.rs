//! Groups of operators that the engine has one operator for: found in the simplified graph and replaced before tract
//! chooses kernels.
//!
//! Only tuned plans are made from the result. The portable graph stays as it was, and finds its constants among what
//! plans store.

mod activation;
mod attention;
mod conv;
mod layer_norm;
mod one_hot;
mod product;
mod shape;

use tract_core::internal::*;
use tract_core::ops::scan::Scan;
use tract_linalg::isa::{Isa, native};

/// Looks at one node; gives what replaces it and some of those around it.
type Rule = fn(&TypedModel, &TypedNode) -> TractResult<Option<TypedModelPatch>>;

/// In this order, each until it finds nothing more: products take in what they leave to others.
const RULES: [Rule; 5] = [attention::rule, one_hot::rule, product::rule, conv::rule, layer_norm::rule];

/// `model` with its groups replaced. A model for a CPU that has no kernels of ours stays as it is.
pub(crate) fn fuse(mut model: TypedModel) -> TractResult<TypedModel> {
    if !kernels_are_ours(
        native().has(Isa::X86_64Avx2) && native().has(Isa::X86_64Fma),
        native().has(Isa::X86_64Avx512f),
    ) {
        return Ok(model);
    }
    for id in 0..model.nodes.len() {
        if let Some(scan) = model.node(id).op_as::<Scan>() {
            let body = fuse(scan.body.clone())?;
            model.node_mut(id).op = Box::new(Scan { body, ..scan.clone() });
        }
    }
    for rule in RULES {
        while let Some(patch) = first(&model, rule)? {
            patch.apply(&mut model)?;
            model.compact()?;
        }
    }
    Ok(model)
}

/// Whether the engine's own products are the best there are: it has them for AVX2, tract for AVX-512 and NEON.
fn kernels_are_ours(avx2: bool, avx512: bool) -> bool {
    avx2 && !avx512
}

fn first(model: &TypedModel, rule: Rule) -> TractResult<Option<TypedModelPatch>> {
    for id in model.eval_order()? {
        if let Some(patch) = rule(model, model.node(id))? {
            return Ok(Some(patch));
        }
    }
    Ok(None)
}
