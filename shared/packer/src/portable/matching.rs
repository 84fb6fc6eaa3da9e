//! One stored form per weight: the constants of the portable graph, found among those that plans store.
//!
//! A constant is looked up by a sum over its values that does not depend on their order, nor on the zeros
//! that panels are padded with; what is found is compared value by value. Where a weight is stored in panels,
//! the ways in which the constant's axes can number matrices, rows and depth are tried one after the other.

use crate::encode::dtype;
use crate::fingerprint::{Fingerprint, sum};
use glowplug_pack::plan::{Op, PlanGraph};
use glowplug_pack::portable::{Split, Stored};
use glowplug_pack::{Dtype, Form, PackBuilder, PackError, WeightId};
use std::borrow::Cow;
use std::collections::HashMap;
use tract_core::internal::{Tensor, TractResult};

/// Longer lists of axes are tried in their own order only.
const MOST_PERMUTED: usize = 3;

/// Matrices that a plan stores together.
enum Candidate {
    Plain(WeightId),
    Panels(Vec<WeightId>),
}

pub(super) struct Matcher<'a> {
    /// What plans store, without encodings: form and bytes.
    weights: Vec<(Form, Cow<'a, [u8]>)>,
    candidates: HashMap<Fingerprint, Vec<Candidate>>,
    /// What was found nowhere.
    data: Vec<u8>,
    /// Where in `data` a tensor of these bytes is.
    own: HashMap<(Dtype, Vec<u8>), usize>,
}

impl<'a> Matcher<'a> {
    /// All weights of `builder`, and those that nodes of `plans` name together. Errors: a weight without its bytes.
    pub(super) fn new(builder: &'a PackBuilder, plans: &[PlanGraph]) -> Result<Matcher<'a>, PackError> {
        let weights = (0..).zip(builder.weights()).map(|(id, weight)| {
            let (form, bytes) = (&weight.form, builder.weight_bytes(WeightId(id)));
            let bytes = bytes.ok_or_else(|| PackError::corrupt(format!("weight {id} has no bytes")))?;
            Ok(match form.encoding() {
                None => (form.clone(), Cow::Borrowed(bytes)),
                Some(_) => form.expand(bytes).map(|(form, bytes)| (form, Cow::Owned(bytes)))?,
            })
        });
        let weights: Vec<_> = weights.collect::<Result<_, PackError>>()?;
        let mut matcher =
            Matcher { weights, candidates: HashMap::new(), data: Vec::new(), own: HashMap::new() };
        for index in 0..u32::try_from(builder.weights().len()).unwrap_or(u32::MAX) {
            matcher.offer(vec![WeightId(index)]);
        }
        let bodies = plans.iter().flat_map(|p| &p.bodies).flat_map(|b| &b.nodes);
        for node in plans.iter().flat_map(|p| &p.nodes).chain(bodies) {
            if let Op::Panels { weights } = &node.op
                && weights.len() > 1
            {
                matcher.offer(weights.clone());
            }
        }
        Ok(matcher)
    }

    fn offer(&mut self, ids: Vec<WeightId>) {
        let keys: Option<Vec<_>> = ids.iter().map(|id| self.key(*id)).collect();
        let Some(keys) = keys else { return };
        let (count, sum) = keys.iter().fold((0, 0u64), |(n, s), k| (n + k.1, s.wrapping_add(k.2)));
        let plain =
            ids.first().and_then(|id| self.get(*id)).is_some_and(|w| matches!(w.0, Form::Plain { .. }));
        let candidate = match ids.as_slice() {
            [id] if plain => Candidate::Plain(*id),
            _ => Candidate::Panels(ids),
        };
        self.candidates.entry((keys[0].0, count, sum)).or_default().push(candidate);
    }

    fn get(&self, id: WeightId) -> Option<(&Form, &[u8])> {
        self.weights.get(usize::try_from(id.0).ok()?).map(|(form, bytes)| (form, &**bytes))
    }

    /// What is known of a stored weight without its order. `None` for a form that is not read back.
    fn key(&self, id: WeightId) -> Option<Fingerprint> {
        match self.get(id)? {
            (Form::Plain { dtype, .. }, bytes) => {
                Some((*dtype, bytes.len() / dtype.size(), sum(*dtype, bytes)))
            }
            (Form::Panels { dtype: Dtype::F32, k, mn, r, panel_bytes }, bytes) => {
                let values = k * r * size_of::<f32>();
                let sums = bytes.chunks(*panel_bytes).map(|p| sum(Dtype::F32, &p[..values]));
                Some((Dtype::F32, k * mn, sums.fold(0, u64::wrapping_add)))
            }
            _ => None,
        }
    }

    /// Where a constant's values are: among the plans' weights, else as one of the graph's own.
    pub(super) fn place(&mut self, tensor: &Tensor) -> TractResult<Stored> {
        let (dtype, bytes, shape) = (dtype(tensor.datum_type())?, tensor.as_bytes(), tensor.shape());
        let key = (dtype, tensor.len(), sum(dtype, bytes));
        for candidate in self.candidates.get(&key).into_iter().flatten() {
            match candidate {
                Candidate::Plain(weight) if self.get(*weight).is_some_and(|w| w.1 == bytes) => {
                    return Ok(Stored::Plain { weight: *weight, shape: shape.to_vec() });
                }
                Candidate::Panels(weights) if dtype == Dtype::F32 => {
                    if let Some(split) = self.split(weights, bytes, shape) {
                        let (weights, shape) = (weights.clone(), shape.to_vec());
                        return Ok(Stored::Panels { weights, shape, split });
                    }
                }
                _ => {}
            }
        }
        let data = &mut self.data;
        let offset = *self.own.entry((dtype, bytes.to_vec())).or_insert_with(|| {
            data.extend_from_slice(bytes);
            data.len() - bytes.len()
        });
        Ok(Stored::Own { offset, dtype, shape: shape.to_vec() })
    }

    /// The tensors found nowhere, and how many they are.
    pub(super) fn finish(self) -> (Vec<u8>, usize) {
        (self.data, self.own.len())
    }

    /// How the axes of a constant number the matrices, rows and depths of panels that hold exactly its values.
    fn split(&self, ids: &[WeightId], bytes: &[u8], shape: &[usize]) -> Option<Split> {
        let (Form::Panels { k, mn, r, panel_bytes, .. }, _) = self.get(*ids.first()?)? else { return None };
        let panels: Option<Vec<&[u8]>> = ids.iter().map(|id| self.get(*id).map(|w| w.1)).collect();
        let stored = Panels { matrices: panels?, r: *r, panel_bytes: *panel_bytes };
        splits(shape, [ids.len(), *mn, *k]).into_iter().find(|split| stored.hold(bytes, shape, split))
    }
}

/// Matrices of f32, cut into panels of one layout.
struct Panels<'a> {
    matrices: Vec<&'a [u8]>,
    r: usize,
    panel_bytes: usize,
}

impl Panels<'_> {
    /// Whether the tensor of `bytes` is what these panels hold.
    fn hold(&self, bytes: &[u8], shape: &[usize], split: &Split) -> bool {
        let tensor = bytes.as_chunks::<4>().0;
        let rows = Split::offsets(shape, &split.rows);
        let depth = Split::offsets(shape, &split.depth);
        self.matrices.iter().zip(Split::offsets(shape, &split.batch)).all(|(matrix, start)| {
            matrix.chunks(self.panel_bytes).zip(rows.chunks(self.r)).all(|(panel, rows)| {
                let records = panel.as_chunks::<4>().0.chunks(self.r);
                records.zip(&depth).all(|(record, at_depth)| {
                    record
                        .iter()
                        .zip(rows)
                        .all(|(value, row)| tensor.get(start + row + at_depth) == Some(value))
                })
            })
        })
    }
}

/// Every way to share the axes of `shape` out to matrices, rows and depth that have these extents. Lists are
/// in the tensor's own order first; axes of extent 1 are nobody's concern and go to the matrices.
fn splits(shape: &[usize], extents: [usize; 3]) -> Vec<Split> {
    let (ones, axes): (Vec<usize>, Vec<usize>) = (0..shape.len()).partition(|axis| shape[*axis] == 1);
    let ways = 3usize.pow(u32::try_from(axes.len()).unwrap_or(u32::MAX).min(8));
    let mut found = Vec::new();
    for way in 0..ways {
        let mut lists: [Vec<usize>; 3] = Default::default();
        let mut rest = way;
        for axis in &axes {
            lists[rest % 3].push(*axis);
            rest /= 3;
        }
        let fits =
            lists.iter().zip(extents).all(|(l, n)| l.iter().map(|a| shape[*a]).product::<usize>() == n);
        if fits {
            let [mut batch, rows, depth] = lists;
            batch.extend(&ones);
            for rows in permutations(&rows) {
                for depth in permutations(&depth) {
                    found.push(Split { batch: batch.clone(), rows: rows.clone(), depth });
                }
            }
        }
    }
    found
}

/// The orders of a short list, its own first; a long one as it is.
fn permutations(list: &[usize]) -> Vec<Vec<usize>> {
    if list.len() < 2 || list.len() > MOST_PERMUTED {
        return vec![list.to_vec()];
    }
    let with_first = |i: usize| {
        let mut rest = list.to_vec();
        let first = rest.remove(i);
        permutations(&rest).into_iter().map(move |rest| [vec![first], rest].concat())
    };
    (0..list.len()).flat_map(with_first).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use glowplug_pack::{EncodedPanel, Encoding, Place};
    use tract_core::internal::tract_ndarray::ArrayD;

    /// The panels of `[mn, k]` values, `r` rows at a time, padded to 512 bytes.
    fn panels(mn: usize, k: usize, r: usize, value: impl Fn(usize, usize) -> f32) -> (Form, Vec<u8>) {
        let panel_bytes = (k * r * 4).next_multiple_of(512);
        let mut bytes = vec![0; mn.div_ceil(r) * panel_bytes];
        for row in 0..mn {
            for depth in 0..k {
                let at = row / r * panel_bytes + (depth * r + row % r) * 4;
                bytes[at..at + 4].copy_from_slice(&value(row, depth).to_le_bytes());
            }
        }
        (Form::Panels { dtype: Dtype::F32, k, mn, r, panel_bytes }, bytes)
    }

    fn tensor(shape: &[usize], value: impl Fn(&[usize]) -> f32) -> Tensor {
        ArrayD::from_shape_fn(shape, |i| value(tract_core::internal::tract_ndarray::Dimension::slice(&i)))
            .into()
    }

    #[test]
    fn a_constant_is_found_in_panels_whatever_the_order_of_its_axes() {
        // Rows (o) of 5, depth (i, h) of 3 x 2.
        let value = |o: usize, i: usize, h: usize| (o * 100 + i * 10 + h) as f32 - 50.0;
        let (form, bytes) = panels(5, 6, 4, |o, d| value(o, d / 2, d % 2));
        let mut builder = PackBuilder::new();
        builder.weight("w", Place::Blobs, form, &bytes).unwrap();
        let mut matcher = Matcher::new(&builder, &[]).unwrap();
        let split = |batch: &[usize], rows: &[usize], depth: &[usize]| Stored::Panels {
            weights: vec![WeightId(0)],
            shape: vec![],
            split: Split { batch: batch.into(), rows: rows.into(), depth: depth.into() },
        };
        let cases = [
            (tensor(&[5, 3, 2], |x| value(x[0], x[1], x[2])), split(&[], &[0], &[1, 2])),
            (tensor(&[3, 2, 1, 5], |x| value(x[3], x[0], x[1])), split(&[2], &[3], &[0, 1])),
            (tensor(&[2, 5, 3], |x| value(x[1], x[2], x[0])), split(&[], &[1], &[2, 0])),
        ];
        for (tensor, wanted) in cases {
            let Stored::Panels { split: found, .. } = matcher.place(&tensor).unwrap() else {
                panic!("{tensor:?} was not found")
            };
            let Stored::Panels { split: wanted, .. } = wanted else { unreachable!() };
            assert_eq!(found, wanted, "{tensor:?}");
        }
        assert_eq!(matcher.finish().0.len(), 0);
    }

    #[test]
    fn what_differs_in_one_value_or_order_is_stored_once_more_and_only_once() {
        let (form, bytes) = panels(2, 3, 4, |o, d| (o * 3 + d) as f32);
        let mut builder = PackBuilder::new();
        builder.weight("w", Place::Blobs, form, &bytes).unwrap();
        let mut matcher = Matcher::new(&builder, &[]).unwrap();
        let shuffled = tensor(&[2, 3], |x| [[0., 2., 1.], [3., 4., 5.]][x[0]][x[1]]);
        let other = tensor(&[2, 3], |x| (x[0] * 3 + x[1]) as f32 + 0.5);
        for _ in 0..2 {
            assert!(matches!(matcher.place(&shuffled).unwrap(), Stored::Own { offset: 0, .. }));
            assert!(matches!(matcher.place(&other).unwrap(), Stored::Own { offset: 24, .. }));
        }
        assert_eq!(matcher.finish(), ([shuffled.as_bytes(), other.as_bytes()].concat(), 2));
    }

    #[test]
    fn encoded_weights_are_found_by_what_they_become() {
        let value = |o: usize, d: usize| (o * 6 + d) as f32 / 4.0 - 3.0;
        for encoding in [Encoding::F16, Encoding::Int8] {
            let row = |o: usize| encoding.round(&(0..6).map(|d| value(o, d)).collect::<Vec<_>>()).unwrap();
            let layout = EncodedPanel { encoding, k: 6, r: 8 };
            let panel: Vec<f32> = (0..48).map(|i| if i % 8 < 5 { row(i % 8)[i / 8] } else { 0.0 }).collect();
            let mut bytes = layout.encode(&panel).unwrap();
            bytes.resize(bytes.len().next_multiple_of(64), 0);
            let mut builder = PackBuilder::new();
            let form = Form::encoded_panels(layout, 5).unwrap();
            builder.weight("panels", Place::Blobs, form, &bytes).unwrap();
            let bytes: Vec<u8> = (5..9).flat_map(|o| encoding.encode_row(&row(o)).unwrap()).collect();
            let form = Form::EncodedRows { encoding, shape: vec![4, 6] };
            builder.weight("rows", Place::Blobs, form, &bytes).unwrap();
            let mut matcher = Matcher::new(&builder, &[]).unwrap();
            let turned = tensor(&[6, 5], |x| row(x[1])[x[0]]);
            let split = Split { batch: vec![], rows: vec![1], depth: vec![0] };
            let wanted = Stored::Panels { weights: vec![WeightId(0)], shape: vec![6, 5], split };
            assert_eq!(matcher.place(&turned).unwrap(), wanted, "{encoding}");
            let rows = tensor(&[2, 2, 6], |x| row(5 + x[0] * 2 + x[1])[x[2]]);
            let wanted = Stored::Plain { weight: WeightId(1), shape: vec![2, 2, 6] };
            assert_eq!(matcher.place(&rows).unwrap(), wanted, "{encoding}");
            assert!(matches!(
                matcher.place(&tensor(&[5, 6], |x| value(x[0], x[1]) + 0.1)).unwrap(),
                Stored::Own { .. }
            ));
        }
    }

    #[test]
    fn a_batch_of_matrices_and_a_plain_weight_are_found() {
        let (form, first) = panels(2, 2, 4, |o, d| (o * 2 + d) as f32);
        let (_, second) = panels(2, 2, 4, |o, d| (o * 2 + d) as f32 + 10.0);
        let mut builder = PackBuilder::new();
        let ids = [&first, &second].map(|b| builder.weight("w", Place::Blobs, form.clone(), b).unwrap());
        let plain = Form::Plain { dtype: Dtype::I64, shape: vec![2] };
        builder
            .weight("p", Place::Constants, plain, &[1i64.to_le_bytes(), 0i64.to_le_bytes()].concat())
            .unwrap();
        let mut matcher = Matcher::new(&builder, &[]).unwrap();
        matcher.offer(ids.to_vec());
        let batch = tensor(&[2, 2, 2], |x| (x[0] * 10 + x[1] * 2 + x[2]) as f32);
        let split = Split { batch: vec![0], rows: vec![1], depth: vec![2] };
        let wanted = Stored::Panels { weights: ids.to_vec(), shape: vec![2, 2, 2], split };
        assert_eq!(matcher.place(&batch).unwrap(), wanted);
        let plain = Tensor::from_shape(&[1, 2], &[1i64, 0]).unwrap();
        let wanted = Stored::Plain { weight: WeightId(2), shape: vec![1, 2] };
        assert_eq!(matcher.place(&plain).unwrap(), wanted);
    }
}
