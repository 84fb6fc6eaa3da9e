//! `PackBuilder`: collects the parts of a pack and lays them out as a file.

use crate::error::{ErrorKind, PackError};
use crate::file::Pack;
use crate::header::{ALIGN, Body, Header, SectionKind};
use crate::manifest::{AssetRange, Manifest};
use crate::weights::{Form, Place, Weight, WeightId};
use crate::wire::Writer;
use std::collections::HashMap;

/// Collects weights in execution order, plans and assets; [`PackBuilder::finish`] writes the file.
#[derive(Default)]
pub struct PackBuilder {
    weights: Vec<Weight>,
    /// What is stored already, by place, content and encoded form.
    known: HashMap<(Place, blake3::Hash, Vec<u8>), WeightId>,
    constants: Vec<u8>,
    blobs: Vec<u8>,
    embeddings: Vec<u8>,
    assets: Vec<(String, Vec<u8>)>,
    plans: Vec<Vec<u8>>,
    portable: Vec<u8>,
    entropy: bool,
}

impl PackBuilder {
    /// Nothing collected yet.
    #[must_use]
    pub fn new() -> PackBuilder {
        PackBuilder::default()
    }

    /// Appends a weight to the section of `place`, aligned as [`Place::align`] says. The same values in the same
    /// form and place are stored once, whoever asks. Errors: `bytes` is not as long as `form` says; the table
    /// is full.
    pub fn weight(
        &mut self,
        name: &str,
        place: Place,
        form: Form,
        bytes: &[u8],
    ) -> Result<WeightId, PackError> {
        let invalid = |text: String| PackError::new(ErrorKind::Invalid, format!("weight {name:?}: {text}"));
        let wanted = form.byte_len()?;
        if wanted != bytes.len() as u64 {
            return Err(invalid(format!("{} bytes, its form takes {wanted}", bytes.len())));
        }
        let key = (place, blake3::hash(bytes), Writer::encode(&form));
        if let Some(id) = self.known.get(&key) {
            return Ok(*id);
        }
        let id = u32::try_from(self.weights.len()).map_err(|_| invalid("the weight table is full".into()))?;
        let section = match place {
            Place::Constants => &mut self.constants,
            Place::Blobs => &mut self.blobs,
            Place::Embeddings => &mut self.embeddings,
        };
        pad(section, place.align());
        let offset = section.len() as u64;
        section.extend_from_slice(bytes);
        self.weights.push(Weight { name: name.to_owned(), place, offset, form });
        self.known.insert(key, WeightId(id));
        Ok(WeightId(id))
    }

    /// The weights collected so far.
    #[must_use]
    pub fn weights(&self) -> &[Weight] {
        &self.weights
    }

    /// Appends an encoded plan.
    pub fn plan(&mut self, bytes: Vec<u8>) {
        self.plans.push(bytes);
    }

    /// The bytes of a weight collected before. `None` where there is no such row.
    #[must_use]
    pub fn weight_bytes(&self, id: WeightId) -> Option<&[u8]> {
        let weight = self.weights.get(usize::try_from(id.0).ok()?)?;
        let section = match weight.place {
            Place::Constants => &self.constants,
            Place::Blobs => &self.blobs,
            Place::Embeddings => &self.embeddings,
        };
        let range = weight.range().ok()?;
        section.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
    }

    /// The section of an encoded portable graph.
    pub fn portable(&mut self, section: Vec<u8>) {
        self.portable = section;
    }

    /// Whether chunks of weights and of the portable graph are entropy-coded where that makes them shorter. Off at first.
    pub fn entropy(&mut self, entropy: bool) {
        self.entropy = entropy;
    }

    /// Appends an asset. Errors: the name is taken.
    pub fn asset(&mut self, name: &str, bytes: Vec<u8>) -> Result<(), PackError> {
        if self.assets.iter().any(|(n, _)| n == name) {
            return Err(PackError::new(ErrorKind::Invalid, format!("asset {name:?} is there already")));
        }
        self.assets.push((name.to_owned(), bytes));
        Ok(())
    }

    /// The file. `manifest.assets` is filled in here. Errors: an invalid manifest. What is returned was
    /// parsed again by [`Pack::parse`]: a pack that the reader would refuse is never written.
    pub fn finish(self, mut manifest: Manifest) -> Result<Vec<u8>, PackError> {
        let mut assets = Vec::new();
        for (name, bytes) in self.assets {
            pad(&mut assets, ALIGN_BYTES);
            let range = AssetRange { offset: assets.len() as u64, len: bytes.len() as u64 };
            assets.extend_from_slice(&bytes);
            manifest.assets.insert(name, range);
        }
        let (manifest, weights) = (manifest.to_json()?, Writer::encode(&self.weights));
        let mut sections: Vec<(SectionKind, &[u8])> =
            vec![(SectionKind::Manifest, &manifest), (SectionKind::Weights, &weights)];
        sections.extend(self.plans.iter().map(|p| (SectionKind::Plan, p.as_slice())));
        let rest = [
            (SectionKind::Constants, self.constants.as_slice()),
            (SectionKind::Assets, &assets),
            (SectionKind::Blobs, &self.blobs),
            (SectionKind::Embeddings, &self.embeddings),
            (SectionKind::Portable, &self.portable),
        ];
        sections.extend(rest.into_iter().filter(|(_, body)| !body.is_empty()));
        let body = |(kind, bytes)| Body::new(kind, bytes, self.entropy);
        let file = lay_out(&sections.into_iter().map(body).collect::<Vec<_>>())?;
        Pack::parse(&file).map_err(|e| e.within("the pack just written"))?;
        Ok(file)
    }
}

pub(crate) fn lay_out(sections: &[Body<'_>]) -> Result<Vec<u8>, PackError> {
    let (header, mut file) = Header::encode(sections)?;
    for body in sections {
        pad(&mut file, ALIGN_BYTES);
        body.chunks.iter().for_each(|chunk| file.extend_from_slice(chunk));
    }
    // Pair assertion: the header says what was written.
    if header.file_len != file.len() as u64 {
        let text = format!("wrote {} bytes, the header says {}", file.len(), header.file_len);
        return Err(PackError::corrupt(text));
    }
    Ok(file)
}

const ALIGN_BYTES: usize = 512;
const _: () = assert!(ALIGN_BYTES as u64 == ALIGN);

fn pad(bytes: &mut Vec<u8>, align: usize) {
    bytes.resize(bytes.len().next_multiple_of(align), 0);
}
