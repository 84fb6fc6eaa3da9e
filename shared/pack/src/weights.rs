//! The weight table: where each weight lies, in which form, shared by every plan of the pack.

use crate::dtype::Dtype;
use crate::encoding::{EncodedPanel, Encoding, PANEL_ALIGN};
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
    /// As `Panels` of f32, in an encoding: `ceil(mn / r)` of `panel`, each padded to `panel_bytes`, a multiple of
    /// [`PANEL_ALIGN`].
    EncodedPanels {
        /// Encoding, depth and height.
        panel: EncodedPanel,
        /// Rows (of A) or columns (of B).
        mn: usize,
        /// Bytes from one panel to the next.
        panel_bytes: usize,
    },
    /// As `Plain` of f32, in an encoding: `d0` rows one after the other, each of `d1 * ..` values behind its scale, if
    /// the encoding has scales.
    EncodedRows {
        /// How values are stored.
        encoding: Encoding,
        /// Extents, outermost first: at least one, none of them 0.
        shape: Vec<usize>,
    },
}
wire_enum!(Form {
    0 => Plain { dtype, shape },
    1 => Panels { dtype, k, mn, r, panel_bytes },
    2 => EncodedPanels { panel, mn, panel_bytes },
    3 => EncodedRows { encoding, shape },
});

/// Bytes from one panel of f32 to the next, as packers store them and as encoded ones become: room for one record of
/// `r` values more, which some kernels read ahead, then up to a multiple of 512. `None` where that overflows.
#[must_use]
pub fn f32_panel_bytes(k: usize, r: usize) -> Option<usize> {
    let bytes = k.checked_add(1)?.checked_mul(r)?.checked_mul(size_of::<f32>())?;
    bytes.checked_next_multiple_of(usize::try_from(ALIGN).ok()?)
}

impl Form {
    /// The form of encoded panels of `mn` rows (or columns). Errors: overflow.
    pub fn encoded_panels(panel: EncodedPanel, mn: usize) -> Result<Form, PackError> {
        let bytes = panel.byte_len().and_then(|n| n.checked_next_multiple_of(PANEL_ALIGN));
        let panel_bytes = bytes.ok_or_else(|| PackError::corrupt("its size overflows"))?;
        Ok(Form::EncodedPanels { panel, mn, panel_bytes })
    }

    /// How its values are stored, where that is not as a dtype of their own.
    #[must_use]
    pub fn encoding(&self) -> Option<Encoding> {
        match self {
            Form::Plain { .. } | Form::Panels { .. } => None,
            Form::EncodedPanels { panel, .. } => Some(panel.encoding),
            Form::EncodedRows { encoding, .. } => Some(*encoding),
        }
    }

    /// The form of the same values without an encoding: what encoded ones become when they are read. Errors: overflow.
    pub fn expanded(&self) -> Result<Form, PackError> {
        Ok(match self {
            Form::Plain { .. } | Form::Panels { .. } => self.clone(),
            Form::EncodedPanels { panel: EncodedPanel { k, r, .. }, mn, .. } => {
                let panel_bytes = f32_panel_bytes(*k, *r);
                let panel_bytes = panel_bytes.ok_or_else(|| PackError::corrupt("its size overflows"))?;
                Form::Panels { dtype: Dtype::F32, k: *k, mn: *mn, r: *r, panel_bytes }
            }
            Form::EncodedRows { shape, .. } => Form::Plain { dtype: Dtype::F32, shape: shape.clone() },
        })
    }

    /// `bytes` of this form in its expanded one. Errors: another number of bytes than the form takes. Cost: a copy.
    pub fn expand(&self, bytes: &[u8]) -> Result<(Form, Vec<u8>), PackError> {
        let form = self.expanded()?;
        if self.byte_len()? != bytes.len() as u64 {
            return Err(PackError::corrupt(format!(
                "{} bytes, its form takes {}",
                bytes.len(),
                self.byte_len()?
            )));
        }
        let write = |values: &[f32], to: &mut [u8]| {
            to.as_chunks_mut().0.iter_mut().zip(values).for_each(|(to, v)| *to = v.to_le_bytes());
        };
        let expanded = match self {
            Form::Plain { .. } | Form::Panels { .. } => bytes.to_vec(),
            Form::EncodedPanels { panel, panel_bytes, .. } => {
                let (to_bytes, mut values) =
                    (f32_panel_bytes(panel.k, panel.r), vec![0.0; panel.k * panel.r]);
                let to_bytes = to_bytes.ok_or_else(|| PackError::corrupt("its size overflows"))?;
                let mut to = vec![0; bytes.len() / panel_bytes * to_bytes];
                for (from, to) in bytes.chunks_exact(*panel_bytes).zip(to.chunks_exact_mut(to_bytes)) {
                    panel.decode(from, &mut values);
                    write(&values, to);
                }
                to
            }
            Form::EncodedRows { encoding, shape } => {
                let mut values = vec![0.0; shape.iter().skip(1).product()];
                let row_bytes = encoding.row_bytes(values.len()).unwrap_or(1);
                let to_bytes = size_of_val(values.as_slice());
                let mut to = vec![0; bytes.len() / row_bytes * to_bytes];
                for (from, to) in bytes.chunks_exact(row_bytes).zip(to.chunks_exact_mut(to_bytes)) {
                    encoding.decode_row(from, &mut values);
                    write(&values, to);
                }
                to
            }
        };
        Ok((form, expanded))
    }

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
            Form::EncodedPanels { panel, mn, panel_bytes } => {
                let EncodedPanel { k, r, .. } = *panel;
                if r == 0 || k == 0 || *mn == 0 {
                    return Err(PackError::corrupt(format!(
                        "panels of r={r}, k={k}, mn={mn}, expected none to be 0"
                    )));
                }
                let values = panel.byte_len().ok_or_else(overflow)?;
                if *panel_bytes < values || !panel_bytes.is_multiple_of(PANEL_ALIGN) {
                    return Err(PackError::corrupt(format!(
                        "panel_bytes {panel_bytes}, expected a multiple of {PANEL_ALIGN} of at least {values}"
                    )));
                }
                // What they become has to fit the address space too.
                let panels = mn.div_ceil(r);
                let becomes = f32_panel_bytes(k, r).and_then(|bytes| panels.checked_mul(bytes));
                let bytes = panels.checked_mul(*panel_bytes).filter(|b| isize::try_from(*b).is_ok());
                let becomes = becomes.filter(|b| isize::try_from(*b).is_ok());
                bytes.zip(becomes).map(|(b, _)| b as u64).ok_or_else(overflow)
            }
            Form::EncodedRows { encoding, shape } => {
                let [rows, row @ ..] = shape.as_slice() else {
                    return Err(PackError::corrupt("rows without an axis"));
                };
                if shape.contains(&0) {
                    return Err(PackError::corrupt(format!("rows of {shape:?}, expected no axis to be 0")));
                }
                let each = element_count(row).and_then(|n| encoding.row_bytes(n));
                let becomes = element_count(shape).and_then(|n| n.checked_mul(size_of::<f32>()));
                let bytes = each.and_then(|each| rows.checked_mul(each)).zip(becomes);
                let bytes =
                    bytes.filter(|(b, to)| isize::try_from(*b).is_ok() && isize::try_from(*to).is_ok());
                bytes.map(|(b, _)| b as u64).ok_or_else(overflow)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pack;
    use crate::build::lay_out;
    use crate::error::ErrorKind;
    use crate::header::Body;
    use crate::manifest::{Manifest, ModelInfo};
    use crate::wire::Writer;

    /// A pack whose weight table says `form` of one weight of `len` bytes: what a hostile one may hold, whoever wrote it.
    fn with_form(form: Form, len: usize) -> Result<Pack, PackError> {
        let weight = Weight { name: "w".into(), place: Place::Blobs, offset: 0, form };
        let model = ModelInfo { name: "m".into(), licence: None };
        let manifest = Manifest { model, ..Manifest::default() }.to_json().unwrap();
        let table = Writer::encode(&vec![weight]);
        let blobs = vec![0xa5; len];
        let sections = [
            (SectionKind::Manifest, &*manifest),
            (SectionKind::Weights, &*table),
            (SectionKind::Blobs, &*blobs),
        ];
        let file = lay_out(&sections.map(|(kind, bytes)| Body::new(kind, bytes, false))).unwrap();
        Pack::parse(&file)
    }

    #[test]
    fn encoded_weights_are_as_long_as_their_form_says() {
        use Encoding::{F16, Int8};
        let panels = |encoding, k, r, mn, panel_bytes| Form::EncodedPanels {
            panel: EncodedPanel { encoding, k, r },
            mn,
            panel_bytes,
        };
        let rows = |encoding, shape: &[usize]| Form::EncodedRows { encoding, shape: shape.to_vec() };
        // Two panels of 16 scales and 3 x 16 bytes; two of 3 x 16 f16; four rows of a scale and six bytes.
        for (form, len) in [
            (panels(Int8, 3, 16, 20, 128), 256),
            (panels(F16, 3, 16, 32, 128), 256),
            (rows(Int8, &[4, 2, 3]), 40),
            (rows(F16, &[4, 2, 3]), 48),
        ] {
            let pack = with_form(form.clone(), len).unwrap();
            assert_eq!(pack.weights()[0].form, form);
            assert_eq!(
                pack.expanded_bytes(),
                if matches!(form, Form::EncodedPanels { .. }) { 1024 } else { 0 }
            );
            let e = with_form(form, len - 1).unwrap_err();
            assert!(e.to_string().contains("bytes 0.."), "{e}");
        }
        const HUGE: usize = usize::MAX / 2;
        for (form, text) in [
            (panels(Int8, 3, 16, 20, 96), "panel_bytes 96, expected a multiple of 64 of at least 112"),
            (panels(Int8, 3, 16, 20, 64), "panel_bytes 64, expected a multiple of 64 of at least 112"),
            (panels(Int8, 0, 16, 20, 128), "k=0"),
            (panels(Int8, 3, 0, 20, 128), "r=0"),
            (panels(F16, 3, 16, 0, 128), "mn=0"),
            (panels(F16, HUGE, 16, 20, 128), "overflows"),
            (panels(Int8, 1, HUGE, 20, 128), "overflows"),
            // Few bytes here, too many once they are expanded.
            (panels(Int8, 1 << 57, 16, 1, (16 << 57) + 64), "overflows"),
            (panels(Int8, 3, 16, usize::MAX, 128), "overflows"),
            (rows(Int8, &[]), "rows without an axis"),
            (rows(Int8, &[4, 0]), "no axis to be 0"),
            (rows(Int8, &[0, 4]), "no axis to be 0"),
            (rows(F16, &[HUGE, 4]), "overflows"),
            (rows(Int8, &[2, HUGE, 4]), "overflows"),
            (rows(Int8, &[1 << 61, 1]), "overflows"),
        ] {
            let e = with_form(form, 256).unwrap_err();
            assert!(e.kind() == ErrorKind::Corrupt && e.to_string().contains(text), "{e}, expected {text:?}");
        }
    }
}
