//! `Pack`: the front of a pack file (everything that a plan is built from), read and checked.

use crate::error::{ErrorKind, PackError};
use crate::header::{Chunk, Header, Section, SectionKind};
use crate::manifest::Manifest;
use crate::region::{Buffer, Region};
use crate::weights::{self, Form, Weight, WeightId};
use crate::wire::Reader;
use std::ops::Range;
use std::time::Instant;

/// A pack's front: header, chunk table, manifest, weight table, plans, constants.
///
/// Structure has been validated and the front's content hashed; blob bytes are read through a [`Region`].
#[derive(Debug)]
pub struct Pack {
    header: Header,
    chunks: Vec<Chunk>,
    manifest: Manifest,
    weights: Vec<Weight>,
    /// The front's bytes, `0..front_len` of the file.
    front: Box<[u8]>,
}

impl Pack {
    /// The pack whose first bytes are `front`: at least [`Header::front_len`], more is fine.
    ///
    /// Checked: all that [`Header::parse`] and [`Header::parse_chunks`] check; the hash of every front
    /// section; the manifest; the weight table against its sections. Plans are decoded and validated by
    /// `plan::PlanGraph::decode`. Errors: [`ErrorKind::Truncated`] where `front` is too short; as those.
    /// Cost: one copy and one BLAKE3 pass over the front.
    pub fn parse(front: &[u8]) -> Result<Pack, PackError> {
        let header = Header::parse(front)?;
        let wanted = usize::try_from(header.front_len).unwrap_or(usize::MAX);
        let front = front.get(..wanted).ok_or_else(|| {
            PackError::new(
                ErrorKind::Truncated,
                format!("front: {wanted} bytes wanted, found {}", front.len()),
            )
        })?;
        let chunks = header.parse_chunks(front)?;
        for section in header.sections.iter().filter(|s| s.kind.is_front()) {
            check_chunks(&chunks[section.chunks.clone()], section, front)?;
        }
        let body = |kind: SectionKind| {
            let section = header.section(kind);
            section
                .map(|s| slice(front, &s.range()))
                .ok_or_else(|| PackError::corrupt(format!("there is no {} section", kind.name())))
        };
        let manifest = Manifest::from_json(body(SectionKind::Manifest)?)?;
        let weights: Vec<Weight> =
            Reader::decode(body(SectionKind::Weights)?).map_err(|e| e.within("weight table"))?;
        weights::validate(&weights, &header)?;
        check_assets(&manifest, &header)?;
        Ok(Pack { manifest, weights, chunks, front: front.into(), header })
    }

    /// The pack whose memory a complete `region` is, such as a mapped file. Errors: as [`Pack::of_file`]; an entropy-coded
    /// pack, whose memory is not its file ([`Pack::open`] takes both).
    pub fn from_complete(region: &Region) -> Result<Pack, PackError> {
        let pack = Pack::of_file(region)?;
        if pack.header.is_coded() {
            let text = "an entropy-coded pack cannot be read in place";
            return Err(PackError::new(ErrorKind::Invalid, text));
        }
        Ok(pack)
    }

    /// The pack in the file `bytes`, coded or not, and its region: a copy, or where it is coded, memory that chunks are
    /// decoded into when they are waited for. Errors: as [`Pack::of_file`]. Cost: a copy.
    pub fn open(bytes: &[u8]) -> Result<(Pack, Region), PackError> {
        let file = Region::complete(Buffer::copy_of(bytes)?);
        let pack = Pack::of_file(&file)?;
        if !pack.header.is_coded() {
            return Ok((pack, file));
        }
        let memory = Buffer::zeroed(pack.memory_len()?)?;
        let region = Region::decoding(memory, file, pack.chunks.clone())?;
        Ok((pack, region))
    }

    /// The pack in a whole file. The region's offsets are the file's: those of memory only where nothing is coded.
    /// Errors: as [`Pack::parse`]; [`ErrorKind::Truncated`] where the region has another length than the header tells.
    pub fn of_file(file: &Region) -> Result<Pack, PackError> {
        let all = file.wait(0..file.len() as u64, None)?;
        let header = Header::parse(all)?;
        if header.file_len != all.len() as u64 {
            let text = format!("the header tells {} bytes, found {}", header.file_len, all.len());
            return Err(PackError::new(ErrorKind::Truncated, text));
        }
        Pack::parse(all)
    }

    /// Bytes of memory that the pack takes. Errors: more than there are addresses.
    pub fn memory_len(&self) -> Result<usize, PackError> {
        usize::try_from(self.header.memory_len)
            .map_err(|_| PackError::new(ErrorKind::Invalid, "a pack larger than the address space"))
    }

    /// The file's first `front_len` bytes: header, chunk table, and every section that a plan is built from.
    #[must_use]
    pub fn front(&self) -> &[u8] {
        &self.front
    }

    /// The section that holds chunk `index`.
    #[must_use]
    pub fn section_of(&self, index: usize) -> Option<&Section> {
        self.header.sections.iter().find(|section| section.chunks.contains(&index))
    }

    /// Header and section table.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The chunk table, in file order.
    #[must_use]
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The weight table.
    #[must_use]
    pub fn weights(&self) -> &[Weight] {
        &self.weights
    }

    /// One weight. Errors: no such row.
    pub fn weight(&self, id: WeightId) -> Result<&Weight, PackError> {
        let index = usize::try_from(id.0).unwrap_or(usize::MAX);
        self.weights.get(index).ok_or_else(|| {
            PackError::corrupt(format!("weight {} of a table of {}", id.0, self.weights.len()))
        })
    }

    /// A weight's bytes as a range of memory.
    pub fn weight_range(&self, id: WeightId) -> Result<Range<u64>, PackError> {
        let weight = self.weight(id)?;
        let range = weight.range()?;
        let base = self.header.section(weight.place.section()).map_or(0, |s| s.offset);
        Ok(base + range.start..base + range.end)
    }

    /// Bytes of memory that encoded panels take beside the pack once plans have expanded them. 0 where none is encoded.
    #[must_use]
    pub fn expanded_bytes(&self) -> u64 {
        let encoded = self.weights.iter().filter(|w| matches!(w.form, Form::EncodedPanels { .. }));
        let bytes = encoded.map(|w| w.form.expanded().and_then(|form| form.byte_len()).unwrap_or(u64::MAX));
        bytes.fold(0, u64::saturating_add)
    }

    /// The bytes of every tuned plan, in file order.
    pub fn plans(&self) -> impl Iterator<Item = &[u8]> {
        let plans = self.header.sections.iter().filter(|s| s.kind == SectionKind::Plan);
        plans.map(|s| slice(&self.front, &s.range()))
    }

    /// The portable graph's section as a range of memory, where the pack holds one.
    /// `portable::PortableGraph::decode` reads it.
    #[must_use]
    pub fn portable_range(&self) -> Option<Range<u64>> {
        self.header.section(SectionKind::Portable).map(Section::range)
    }

    /// An asset's bytes as a range of memory. Errors: no such asset.
    pub fn asset_range(&self, name: &str) -> Result<Range<u64>, PackError> {
        let asset = self.manifest.assets.get(name);
        let asset = asset.ok_or_else(|| PackError::new(ErrorKind::Invalid, format!("no asset {name:?}")))?;
        let base = self.header.section(SectionKind::Assets).map_or(0, |s| s.offset);
        Ok(base + asset.offset..base + asset.offset + asset.len)
    }

    /// BLAKE3 of the header, in hex: the identity of this pack.
    #[must_use]
    pub fn digest(&self) -> String {
        blake3::Hash::from_bytes(self.header.digest).to_hex().to_string()
    }

    /// Hashes every chunk in `region`, and has coded ones decoded. Errors: the first chunk whose bytes differ or that cannot
    /// be decoded, by number and place. Cost: one BLAKE3 pass over the file, waiting for what is missing.
    ///
    /// The hash of a coded chunk is that of what the file has for it. A region that was not made over a file does not
    /// have this any more: it was hashed when it was delivered.
    pub fn verify_content(&self, region: &Region, deadline: Option<Instant>) -> Result<(), PackError> {
        for (index, chunk) in self.chunks.iter().enumerate() {
            let stored = region.stored(chunk).transpose()?;
            if let Some(stored) = stored {
                chunk.check(index, stored)?;
            }
            let decoded = region.wait(chunk.range(), deadline)?;
            if stored.is_none() && !chunk.is_coded() {
                chunk.check(index, decoded)?;
            }
        }
        Ok(())
    }

    /// BLAKE3 of the front and of every chunk behind it as they are in memory: what tells a decoded copy of a coded pack
    /// from a damaged one. Errors: bytes that do not come. Cost: one BLAKE3 pass over the memory.
    pub fn memory_hash(&self, region: &Region) -> Result<[u8; 32], PackError> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.front);
        for chunk in self.chunks.iter().filter(|chunk| chunk.offset >= self.header.front_len) {
            hasher.update(region.wait(chunk.range(), None)?);
        }
        Ok(*hasher.finalize().as_bytes())
    }
}

/// `bytes[range]` for a range that the header's checks put inside of `bytes`; empty otherwise.
fn slice<'a>(bytes: &'a [u8], range: &Range<u64>) -> &'a [u8] {
    let (start, end) = (usize::try_from(range.start), usize::try_from(range.end));
    start.ok().zip(end.ok()).and_then(|(s, e)| bytes.get(s..e)).unwrap_or_default()
}

fn check_chunks(chunks: &[Chunk], section: &Section, front: &[u8]) -> Result<(), PackError> {
    for (chunk, index) in chunks.iter().zip(section.chunks.clone()) {
        let bytes = slice(front, &chunk.stored());
        chunk.check(index, bytes).map_err(|e| e.within(format_args!("section {}", section.kind.name())))?;
    }
    Ok(())
}

fn check_assets(manifest: &Manifest, header: &Header) -> Result<(), PackError> {
    let len = header.section(SectionKind::Assets).map_or(0, |s| s.len);
    for (name, asset) in &manifest.assets {
        if asset.offset.checked_add(asset.len).is_none_or(|end| end > len) {
            let text =
                format!("asset {name:?}: {} bytes at {}, the section has {len}", asset.len, asset.offset);
            return Err(PackError::corrupt(text));
        }
    }
    Ok(())
}
