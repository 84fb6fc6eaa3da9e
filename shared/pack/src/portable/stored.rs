//! Where the values of a constant are: one stored form serves every plan and the portable graph.

use crate::dtype::Dtype;
use crate::encoding::EncodedPanel;
use crate::tensor::element_count;
use crate::weights::{Form, Weight, WeightId};
use crate::{wire_enum, wire_struct};

/// The values of a constant, by reference.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Stored {
    /// A weight that is stored plain or in encoded rows, perhaps under another shape.
    Plain {
        /// The weight.
        weight: WeightId,
        /// The constant's shape.
        shape: Vec<usize>,
    },
    /// Weights that are stored in panels of f32, encoded or not, one for each matrix of the batch.
    Panels {
        /// The weights.
        weights: Vec<WeightId>,
        /// The constant's shape.
        shape: Vec<usize>,
        /// Which of its axes are which of the matrices'.
        split: Split,
    },
    /// The graph's own: a tensor that no plan of this pack has in a form that could be read back.
    Own {
        /// Where it starts in the section's tensors.
        offset: usize,
        /// Its element type.
        dtype: Dtype,
        /// Its shape.
        shape: Vec<usize>,
    },
}
wire_enum!(Stored {
    0 => Plain { weight, shape },
    1 => Panels { weights, shape, split },
    2 => Own { offset, dtype, shape },
});

/// How the axes of a tensor are shared out to a batch of matrices; each list names the outermost axis first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Split {
    /// The axes that number the matrices.
    pub batch: Vec<usize>,
    /// The axes that number the rows of A, or the columns of B (`mn`).
    pub rows: Vec<usize>,
    /// The axes of depth (`k`).
    pub depth: Vec<usize>,
}
wire_struct!(Split { batch, rows, depth });

impl Split {
    /// Whether every axis of a tensor of rank `rank` is in exactly one list.
    fn covers(&self, rank: usize) -> bool {
        let mut axes: Vec<usize> = self.batch.iter().chain(&self.rows).chain(&self.depth).copied().collect();
        axes.sort_unstable();
        axes.iter().copied().eq(0..rank)
    }

    /// For each position along `axes`, how far it moves in a dense tensor of `shape`. The element at
    /// `(batch b, row i, depth k)` lies at the sum of the three lists' entries.
    #[must_use]
    pub fn offsets(shape: &[usize], axes: &[usize]) -> Vec<usize> {
        let mut offsets = vec![0];
        for axis in axes {
            let stride: usize = shape.iter().skip(axis + 1).product();
            let extent = shape.get(*axis).copied().unwrap_or(1);
            offsets = offsets.iter().flat_map(|o| (0..extent).map(move |i| o + i * stride)).collect();
        }
        offsets
    }
}

impl Stored {
    /// Its shape.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        match self {
            Stored::Plain { shape, .. } | Stored::Panels { shape, .. } | Stored::Own { shape, .. } => shape,
        }
    }

    /// Its type, once everything it refers to exists in the size that is read. Errors (as text).
    pub(super) fn check(&self, weights: &[Weight], data_len: usize) -> Result<Dtype, String> {
        let shape = self.shape();
        let count = element_count(shape).filter(|_| !shape.contains(&0));
        let count = count.ok_or_else(|| format!("a constant of shape {shape:?}"))?;
        let form = |id: &WeightId| {
            let weight = usize::try_from(id.0).ok().and_then(|i| weights.get(i));
            weight.map(|w| &w.form).ok_or_else(|| format!("weight {} of a table of {}", id.0, weights.len()))
        };
        match self {
            Stored::Plain { weight, .. } => match form(weight)? {
                Form::Plain { dtype, shape: stored } if element_count(stored) == Some(count) => Ok(*dtype),
                Form::EncodedRows { shape: stored, .. } if element_count(stored) == Some(count) => {
                    Ok(Dtype::F32)
                }
                other => Err(format!("weight {} is {other:?}, expected plain {shape:?}", weight.0)),
            },
            Stored::Panels { weights: ids, split, .. } => {
                let product = |axes: &[usize]| axes.iter().map(|a| shape.get(*a)).collect::<Option<Vec<_>>>();
                let product = |axes| product(axes).map(|e| e.into_iter().product::<usize>());
                let (rows, depth) = (product(&split.rows), product(&split.depth));
                if !split.covers(shape.len()) || product(&split.batch) != Some(ids.len()) {
                    return Err(format!("{} matrices in {shape:?} by {split:?}", ids.len()));
                }
                for id in ids {
                    match form(id)? {
                        Form::Panels { dtype: Dtype::F32, k, mn, .. }
                        | Form::EncodedPanels { panel: EncodedPanel { k, .. }, mn, .. }
                            if (Some(*mn), Some(*k)) == (rows, depth) => {}
                        other => {
                            return Err(format!(
                                "weight {} is {other:?}, expected f32 panels, mn {rows:?}, k {depth:?}",
                                id.0
                            ));
                        }
                    }
                }
                Ok(Dtype::F32)
            }
            Stored::Own { offset, dtype, .. } => {
                let end = count.checked_mul(dtype.size()).and_then(|n| n.checked_add(*offset));
                if end.is_none_or(|end| end > data_len) {
                    return Err(format!("{dtype} {shape:?} at byte {offset} of {data_len}"));
                }
                Ok(*dtype)
            }
        }
    }
}
