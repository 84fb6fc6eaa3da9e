//! The weight table: where each weight lies, in which form, shared by every plan of the pack.

use crate::dtype::Dtype;
use crate::error::PackError;
use crate::header::{ALIGN, Header, SectionKind};
use crate::tensor::element_count;
use crate::{wire_enum, wire_struct};
use std::ops::Range;

/// Index into the weight table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WeightId(pub u32);

impl crate::wire::Wire for WeightId {
    fn write(&self, w: &mut crate::wire::Writer) {
        self.0.write(w);
    }
    fn read(r: &mut crate::wire::Reader<'_>) -> Result<Self, PackError> {
        Ok(WeightId(u32::read(r)?))
    }
}

/// The section a weight's bytes lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Small, copied when a plan is built.
    Constants,
    /// In execution order, read in place.
    Blobs,
    /// Embedding rows, read in place.
    Embeddings,
}
wire_enum!(Place { 0 => Constants {}, 1 => Blobs {}, 2 => Embeddings {} });

impl Place {
    /// What offsets within the section are multiples of, in bytes: what is read in place suits the widest vectors
    /// and what kernels ask of panels; what is copied does not waste the front, which every cold start reads.
    #[must_use]
    pub fn align(self) -> usize {
        match self {
            Place::Constants => 64,
            Place::Blobs | Place::Embeddings => 512,
        }
    }

    /// The section's kind.
    #[must_use]
    pub fn section(self) -> SectionKind {
        match self {
            Place::Constants => SectionKind::Constants,
            Place::Blobs => SectionKind::Blobs,
            Place::Embeddings => SectionKind::Embeddings,
        }
    }
}

/// How a weight's values are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// Row-major values of `dtype`, `shape` = `[d0, d1, ..]`.
    Plain {
        /// Element type.
        dtype: Dtype,
        /// Extents, outermost first.
        shape: Vec<usize>,
    },
    /// `ceil(mn / r)` panels for a matrix kernel. Panel p holds `[k, r]` values: element `[kk, i]` is the
    /// matrix' element at depth kk and row (or column) `p * r + i`, or 0 past `mn`; then padding up to
    /// `panel_bytes`, a multiple of 512.
    Panels {
        /// Element type.
        dtype: Dtype,
        /// Depth of the product.
        k: usize,
        /// Rows (of A) or columns (of B).
        mn: usize,
        /// Panel height: rows a kernel takes at once.
        r: usize,
        /// Bytes from one panel to the next.
        panel_bytes: usize,
    },
}
wire_enum!(Form {
    0 => Plain { dtype, shape },
    1 => Panels { dtype, k, mn, r, panel_bytes },
});

impl Form {
    /// The number of bytes a weight in this form takes. Errors: overflow; a panel too small for its values.
    pub fn byte_len(&self) -> Result<u64, PackError> {
        let overflow = || PackError::corrupt("its size overflows");
        match self {
            Form::Plain { dtype, shape } => {
                let bytes = element_count(shape).and_then(|n| n.checked_mul(dtype.size()));
                bytes.filter(|b| isize::try_from(*b).is_ok()).map(|b| b as u64).ok_or_else(overflow)
            }
            Form::Panels { dtype, k, mn, r, panel_bytes } => {
                if *r == 0 || *k == 0 || *mn == 0 {
                    return Err(PackError::corrupt(format!(
                        "panels of r={r}, k={k}, mn={mn}, expected none to be 0"
                    )));
                }
                let values =
                    k.checked_mul(*r).and_then(|n| n.checked_mul(dtype.size())).ok_or_else(overflow)?;
                if *panel_bytes < values || !(*panel_bytes as u64).is_multiple_of(ALIGN) {
                    return Err(PackError::corrupt(format!(
                        "panel_bytes {panel_bytes}, expected a multiple of {ALIGN} of at least {values}"
                    )));
                }
                let bytes = mn.div_ceil(*r).checked_mul(*panel_bytes);
                bytes.filter(|b| isize::try_from(*b).is_ok()).map(|b| b as u64).ok_or_else(overflow)
            }
        }
    }
}

/// One row of the weight table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weight {
    /// The graph node or initializer it came from, for people.
    pub name: String,
    /// Which section.
    pub place: Place,
    /// Bytes from the section's start; a multiple of [`Place::align`].
    pub offset: u64,
    /// How it is stored, hence how long it is.
    pub form: Form,
}
wire_struct!(Weight { name, place, offset, form });

impl Weight {
    /// Its bytes as a range of its section.
    pub fn range(&self) -> Result<Range<u64>, PackError> {
        let end = self.offset.checked_add(self.form.byte_len()?);
        end.map(|end| self.offset..end).ok_or_else(|| PackError::corrupt("its end overflows"))
    }
}

/// Every weight aligned, inside its section and not overlapping the one before it.
pub(crate) fn validate(weights: &[Weight], header: &Header) -> Result<(), PackError> {
    let mut ends = std::collections::HashMap::new();
    for (i, weight) in weights.iter().enumerate() {
        let place = format!("weight {i} ({:?})", weight.name);
        let range = weight.range().map_err(|e| e.within(&place))?;
        let len = header.section(weight.place.section()).map_or(0, |s| s.len);
        let end = ends.entry(weight.place).or_insert(0);
        let align = weight.place.align() as u64;
        if !weight.offset.is_multiple_of(align) || range.start < *end || range.end > len {
            return Err(PackError::corrupt(format!(
                "{place}: bytes {range:?} of section {}, expected a multiple of {align}, from {end} on, up to {len}",
                weight.place.section().name()
            )));
        }
        *end = range.end;
    }
    Ok(())
}
