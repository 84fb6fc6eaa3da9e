//! What flows between the nodes of a plan: plain tensors, and matrices cut into panels for a kernel.

use crate::dtype::Dtype;
use crate::tensor::element_count;
use crate::{wire_enum, wire_struct};

/// The most axes a tensor of a plan may have.
pub const MAX_RANK: usize = 8;

/// How a matrix kernel wants one operand: `ceil(mn / r)` panels of `[k, r]` values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PanelFormat {
    /// Element type.
    pub dtype: Dtype,
    /// Panel height: rows (or columns) that the kernel takes at once.
    pub r: usize,
    /// What a panel's address is a multiple of, in bytes.
    pub align: usize,
    /// Records of `r` values past the end of a panel that the kernel may read ahead.
    pub end_padding: usize,
}
wire_struct!(PanelFormat { dtype, r, align, end_padding });

impl PanelFormat {
    /// Bytes that a kernel may read from one panel of depth `k`: its records and those it reads ahead. `None` where
    /// that overflows.
    #[must_use]
    pub fn panel_bytes(&self, k: usize) -> Option<usize> {
        let values = k.checked_add(self.end_padding)?.checked_mul(self.r)?;
        values.checked_mul(self.dtype.size())
    }

    /// Whether panels in this format can be read as `wanted`: same values in the same places, at least as
    /// aligned, at least as much padding.
    #[must_use]
    pub fn serves(&self, wanted: &PanelFormat) -> bool {
        self.dtype == wanted.dtype
            && self.r == wanted.r
            && self.align.is_multiple_of(wanted.align)
            && self.end_padding >= wanted.end_padding
    }

    /// Sizes that a kernel of this world could have. The alignment is bounded by that of weights.
    pub(super) fn check(&self) -> Result<(), String> {
        let sane = (1..=1024).contains(&self.r)
            && self.align.is_power_of_two()
            && self.align <= 512
            && self.end_padding <= 16
            && self.dtype == Dtype::F32;
        if sane {
            return Ok(());
        }
        Err(format!(
            "panel format {self:?}, expected f32, r 1 to 1024, a power of two up to 512 as align, end_padding up to 16"
        ))
    }
}

/// What one output of a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A dense row-major tensor.
    Tensor {
        /// Element type.
        dtype: Dtype,
        /// Extents, outermost first, none of them 0.
        shape: Vec<usize>,
    },
    /// `[batch..]` matrices of depth `k` and `mn` rows (or columns), each cut into panels.
    Panels {
        /// Their layout.
        format: PanelFormat,
        /// Extents of the batch, outermost first, none of them 0; empty for one matrix.
        batch: Vec<usize>,
        /// Depth of the product.
        k: usize,
        /// Rows of A, or columns of B.
        mn: usize,
    },
}
wire_enum!(Fact { 0 => Tensor { dtype, shape }, 1 => Panels { format, batch, k, mn } });

impl Fact {
    /// An f32 tensor.
    #[must_use]
    pub fn f32(shape: &[usize]) -> Fact {
        Fact::Tensor { dtype: Dtype::F32, shape: shape.to_vec() }
    }

    /// Bytes of the value. Errors (as text): a rank or extent out of range; overflow.
    pub(super) fn byte_len(&self) -> Result<usize, String> {
        let (shape, each) = match self {
            Fact::Tensor { dtype, shape } => (shape, Some(dtype.size())),
            Fact::Panels { format, batch, k, mn } => {
                format.check()?;
                if *k == 0 || *mn == 0 {
                    return Err(format!("panels of k={k}, mn={mn}, expected none to be 0"));
                }
                (batch, format.panel_bytes(*k).and_then(|b| b.checked_mul(mn.div_ceil(format.r))))
            }
        };
        if shape.len() > MAX_RANK || shape.contains(&0) {
            return Err(format!("shape {shape:?}, expected at most {MAX_RANK} extents and none to be 0"));
        }
        let bytes = element_count(shape).zip(each).and_then(|(n, each)| n.checked_mul(each));
        bytes.ok_or_else(|| format!("shape {shape:?} overflows"))
    }
}
