//! Graph passes that depend on no CPU: tract's own, and what these leave that plans do not cover.

use crate::error::{PackerError, guard};
use tract_core::internal::*;
use tract_core::ops::array::{Gather, GatherNd};
use tract_core::ops::konst::Const;

/// `typed` as plans and portable graphs are made of it.
pub(crate) fn simplify(typed: &TypedModel) -> Result<TypedModel, PackerError> {
    let simplified = || -> TractResult<TypedModel> {
        let mut model = typed.clone().into_decluttered()?;
        while let Some(patch) = next_patch(&model)? {
            patch.apply(&mut model)?;
            model = model.into_decluttered()?;
        }
        Ok(model)
    };
    guard("simplify", || simplified().map_err(|e| PackerError::model("simplify", &e)))
}

fn next_patch(model: &TypedModel) -> TractResult<Option<TypedModelPatch>> {
    for node in &model.nodes {
        if let Some(patch) = gather_by_one_index(model, node)? {
            return Ok(Some(patch));
        }
    }
    Ok(None)
}

/// A GatherND whose indices are known, as a Gather: the axes that its indices go over become one. Exporters of today make the
/// masks of attention so.
fn gather_by_one_index(model: &TypedModel, node: &TypedNode) -> TractResult<Option<TypedModelPatch>> {
    let (Some(GatherNd { batch_dims: 0 }), [data, indices]) = (node.op_as(), node.inputs.as_slice()) else {
        return Ok(None);
    };
    let (Some(shape), Some(indices)) =
        (model.outlet_fact(*data)?.shape.as_concrete(), model.node(indices.node).op_as::<Const>())
    else {
        return Ok(None);
    };
    let Ok(indices) = indices.val().cast_to::<i64>().map(|i| i.into_owned()) else { return Ok(None) };
    let Some((depth, outer)) = indices.shape().split_last() else { return Ok(None) };
    let Some(axes) = shape.get(..*depth).filter(|axes| !axes.is_empty()) else { return Ok(None) };
    let plain = indices.try_as_plain_ram()?;
    let rows = plain.as_slice::<i64>()?.chunks_exact(*depth).map(|row| one_index(row, axes));
    let Some(rows) = rows.collect::<Option<Vec<i64>>>() else { return Ok(None) };
    let mut patch = TypedModelPatch::new(format!("one index of {}", node.name));
    let mut values = patch.tap_model(model, *data)?;
    if *depth > 1 {
        let from = axes.iter().map(ToDim::to_dim).collect();
        let to = tvec![axes.iter().product::<usize>().to_dim()];
        values = patch.wire_node(format!("{}.flat", node.name), AxisOp::Reshape(0, from, to), &[values])?[0];
    }
    let rows = patch.add_const(format!("{}.index", node.name), Tensor::from_shape(outer, &rows)?)?;
    let gathered = patch.wire_node(&node.name, Gather::new(0), &[values, rows])?;
    patch.shunt_outside(model, node.id.into(), gathered[0])?;
    Ok(Some(patch))
}

/// The place of an index over `axes` in these as one. `None` outside of them, and for one that counts from the end, which the
/// importer's own operator does not know either.
fn one_index(index: &[i64], axes: &[usize]) -> Option<i64> {
    index.iter().zip(axes).try_fold(0i64, |place, (i, extent)| {
        let extent = i64::try_from(*extent).ok()?;
        (0..extent).contains(i).then(|| place.checked_mul(extent)?.checked_add(*i))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_over_several_axes_is_one_over_all() {
        assert_eq!(one_index(&[1, 2], &[3, 5]), Some(7));
        assert_eq!(one_index(&[2, 0], &[3, 5]), Some(10));
        assert_eq!(one_index(&[1, 5], &[3, 5]), None);
        assert_eq!(one_index(&[-1, 0], &[3, 5]), None);
    }

    #[test]
    fn a_gather_nd_of_known_indices_gives_the_same_by_a_gather() {
        let mut model = TypedModel::default();
        let x = model.add_source("x", f32::fact([2, 3, 4])).unwrap();
        let indices = [1i64, 2, 0, 1, 0, 0].as_slice();
        let indices = model.add_const("i", Tensor::from_shape(&[3, 1, 2], indices).unwrap()).unwrap();
        let out = model.wire_node("out", GatherNd::new(0), &[x, indices]).unwrap();
        model.select_output_outlets(&out).unwrap();
        let simple = simplify(&model).unwrap();
        assert!(
            simple.nodes.iter().all(|n| !n.op_is::<GatherNd>())
                && simple.nodes.iter().any(|n| n.op_is::<Gather>())
        );
        let values: Vec<f32> = (0u8..24).map(f32::from).collect();
        let input = tvec![Tensor::from_shape(&[2, 3, 4], &values).unwrap().into_tvalue()];
        let run = |model: TypedModel| model.into_runnable().unwrap().run(input.clone()).unwrap().remove(0);
        let found = run(simple);
        assert_eq!((found.shape(), &*found), (&[3, 1, 4][..], &*run(model)));
    }
}
