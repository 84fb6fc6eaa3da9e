//! Header, section table and chunk table: the first bytes of a pack, from which every other read follows.
//! The layout, byte by byte, is in docs/format.md.

use crate::entropy;
use crate::error::{ErrorKind, PackError};
use std::borrow::Cow;
use std::ops::Range;

/// The first eight bytes. Line ends and the high bit reveal a transfer that mangled the file.
pub const MAGIC: [u8; 8] = *b"\x89GLOW\r\n\x1a";
/// The format version of packs without coded sections. This build reads it and [`CODED_VERSION`].
pub const FORMAT_VERSION: u16 = 1;
/// The format version of packs with a coded section: readers of version 1 alone refuse it by its number.
pub const CODED_VERSION: u16 = 2;
/// Sections are cut into chunks of this many bytes; the last of a section may be shorter.
pub const CHUNK_BYTES: usize = 256 * 1024;
/// Sections and blobs start at multiples of this: what the widest kernels read aligned.
pub const ALIGN: u64 = 512;
/// What a reader asks for first. `front_len` tells whether it was enough.
pub const FIRST_READ_BYTES: usize = 256 * 1024;

const FIXED_BYTES: usize = 40;
const SECTION_BYTES: usize = 64;
const SIGNATURE_BYTES: usize = 96;
const CHUNK_ENTRY_BYTES: usize = 40;
/// More sections than any pack has use for; bounds what a hostile header can ask for.
const MAX_SECTIONS: usize = 4096;

/// What a section holds. The order is the order in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum SectionKind {
    /// The manifest, JSON. Exactly one.
    Manifest = 1,
    /// The weight table. Exactly one.
    Weights = 2,
    /// A tuned plan. Any number.
    Plan = 3,
    /// Plain values that a plan copies when it is built (biases, shapes). At most one.
    Constants = 4,
    /// Labels, tokenizers. At most one.
    Assets = 5,
    /// Weights in execution order. At most one.
    Blobs = 6,
    /// Embedding tables. At most one.
    Embeddings = 7,
    /// The portable graph and the tensors that only it has. At most one.
    Portable = 8,
}

impl SectionKind {
    /// Every kind, in file order.
    pub const ALL: [SectionKind; 8] = {
        use SectionKind::*;
        [Manifest, Weights, Plan, Constants, Assets, Blobs, Embeddings, Portable]
    };

    /// The name that `inspect` prints.
    #[must_use]
    pub const fn name(self) -> &'static str {
        ["manifest", "weights", "plan", "constants", "assets", "blobs", "embeddings", "portable"]
            [self as usize - 1]
    }

    fn from_code(code: u32) -> Option<SectionKind> {
        Self::ALL.into_iter().find(|k| *k as u32 == code)
    }

    /// Whether its chunks may be entropy-coded: what is large and not needed before a plan is built.
    #[must_use]
    pub const fn may_be_coded(self) -> bool {
        matches!(self, SectionKind::Blobs | SectionKind::Embeddings | SectionKind::Portable)
    }

    /// Whether the first read has to cover it: without it no plan can be built.
    #[must_use]
    pub const fn is_front(self) -> bool {
        (self as u32) <= SectionKind::Constants as u32
    }
}

/// One row of the section table.
///
/// A section has two places: in the file, and in memory once it is decoded. Memory is laid out as the file would be
/// if nothing were coded, so the two are one where nothing before the section's end is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// What it holds.
    pub kind: SectionKind,
    /// Where it starts in memory.
    pub offset: u64,
    /// Its length in memory.
    pub len: u64,
    /// Its bytes in the file.
    pub stored: Range<u64>,
    /// Whether chunks of it are entropy-coded.
    pub coded: bool,
    /// Its chunks, as indices into the chunk table.
    pub chunks: Range<usize>,
    /// BLAKE3 over the hashes of its chunks, in order.
    pub hash: [u8; 32],
}

impl Section {
    /// Its bytes as a range of memory.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.len
    }
}

/// An ed25519 signature over the section table. Carried, not yet verified by this version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Who signed.
    pub public_key: [u8; 32],
    /// The signature.
    pub signature: [u8; 64],
}

/// One row of the chunk table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Where it starts in memory.
    pub offset: u64,
    /// Its length in memory.
    pub len: usize,
    /// Where it starts in the file.
    pub stored_offset: u64,
    /// Its length in the file: less than in memory where it is coded.
    pub stored_len: usize,
    /// BLAKE3 of its bytes in the file.
    pub hash: [u8; 32],
}

impl Chunk {
    /// Its bytes as a range of memory.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.len as u64
    }

    /// Its bytes as a range of the file.
    #[must_use]
    pub fn stored(&self) -> Range<u64> {
        self.stored_offset..self.stored_offset + self.stored_len as u64
    }

    /// Whether it is entropy-coded.
    #[must_use]
    pub fn is_coded(&self) -> bool {
        self.stored_len != self.len
    }

    /// Whether `bytes` are what the file has for this chunk, which is number `index` of its table. Errors: another hash,
    /// with the first digits of the one found and the one wanted. Cost: one BLAKE3 pass.
    pub fn check(&self, index: usize, bytes: &[u8]) -> Result<(), PackError> {
        let found = blake3::hash(bytes);
        if found == self.hash {
            return Ok(());
        }
        let digits = |hash: blake3::Hash| hash.to_hex()[..16].to_owned();
        let (found, wanted) = (digits(found), digits(self.hash.into()));
        let Range { start, end } = self.stored();
        Err(PackError::corrupt(format!(
            "chunk {index} (bytes {start} to {end}): its hash is {found}.., the chunk table wants {wanted}.."
        )))
    }
}

/// The header of a pack, checked against itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the whole file.
    pub file_len: u64,
    /// Bytes of memory that it takes: as many as the file would have if nothing were coded.
    pub memory_len: u64,
    /// Bytes from the start that hold everything a plan is built from.
    pub front_len: u64,
    /// Bytes of this header.
    pub header_len: usize,
    /// The section table, in file order.
    pub sections: Vec<Section>,
    /// A signature, where the pack carries one.
    pub signature: Option<Signature>,
    /// BLAKE3 of the header's bytes: the identity of the pack.
    pub digest: [u8; 32],
}

/// `n` rounded up to the next multiple of [`ALIGN`], or `None` where that overflows.
#[must_use]
pub fn align_up(n: u64) -> Option<u64> {
    n.checked_next_multiple_of(ALIGN)
}

/// How many chunks `len` bytes take.
#[must_use]
pub fn chunk_count(len: u64) -> u64 {
    len.div_ceil(CHUNK_BYTES as u64)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}

impl Header {
    /// The header at the start of `bytes`, which may be longer.
    ///
    /// Checked: magic, version, reserved bytes 0, kinds known and in order, offsets gapless but for
    /// alignment, lengths summing to the file's, chunk counts, lengths of coded sections, `front_len`. Errors: not a
    /// pack; another version; [`ErrorKind::Truncated`] where `bytes` end too early; anything that contradicts itself.
    /// Allocates at most 4096 section rows.
    pub fn parse(bytes: &[u8]) -> Result<Header, PackError> {
        let fixed = fixed_part(bytes)?;
        let bytes = bytes
            .get(..fixed.header_len)
            .ok_or_else(|| too_short("header", fixed.header_len, bytes.len()))?;
        let sections = section_table(bytes, &fixed)?;
        if (fixed.version == CODED_VERSION) != sections.iter().any(|s| s.coded) {
            let text = format!("header: version {CODED_VERSION}, and no section is coded");
            return Err(PackError::corrupt(text));
        }
        let signature = fixed.signed.then(|| {
            let at = FIXED_BYTES + fixed.section_count * SECTION_BYTES;
            Signature { public_key: array_at(bytes, at), signature: array_at(bytes, at + 32) }
        });
        let header = Header {
            file_len: fixed.file_len,
            memory_len: sections.last().map_or(fixed.file_len, |s| s.range().end),
            front_len: fixed.front_len,
            header_len: fixed.header_len,
            sections,
            signature,
            digest: *blake3::hash(bytes).as_bytes(),
        };
        header.check_front()?;
        Ok(header)
    }

    /// Chunks of all sections.
    #[must_use]
    pub fn chunk_total(&self) -> usize {
        self.sections.last().map_or(0, |s| s.chunks.end)
    }

    /// The chunk table's place in the file.
    #[must_use]
    pub fn chunk_table(&self) -> Range<usize> {
        self.header_len..self.header_len + self.chunk_total() * CHUNK_ENTRY_BYTES
    }

    /// The first section of `kind`.
    #[must_use]
    pub fn section(&self, kind: SectionKind) -> Option<&Section> {
        self.sections.iter().find(|s| s.kind == kind)
    }

    /// Whether any section is entropy-coded: then the file's offsets are not those of memory.
    #[must_use]
    pub fn is_coded(&self) -> bool {
        self.sections.iter().any(|s| s.coded)
    }

    /// `front_len` is where the last front section ends, or the chunk table where there is none.
    fn check_front(&self) -> Result<(), PackError> {
        let front = self.sections.iter().filter(|s| s.kind.is_front()).map(|s| s.range().end).max();
        let wanted = front.unwrap_or(self.chunk_table().end as u64);
        if self.front_len != wanted {
            return Err(PackError::corrupt(format!(
                "header: front length {}, expected {wanted}",
                self.front_len
            )));
        }
        Ok(())
    }

    /// The chunk table in `front`, the first bytes of the file. Checked: every chunk's lengths against its
    /// section's, every section's hash against its chunks'.
    pub fn parse_chunks(&self, front: &[u8]) -> Result<Vec<Chunk>, PackError> {
        let range = self.chunk_table();
        let table =
            front.get(range.clone()).ok_or_else(|| too_short("chunk table", range.end, front.len()))?;
        let mut chunks = Vec::with_capacity(self.chunk_total());
        for section in &self.sections {
            let mut hasher = blake3::Hasher::new();
            let mut stored_offset = section.stored.start;
            for (i, index) in section.chunks.clone().enumerate() {
                let start = i as u64 * CHUNK_BYTES as u64;
                let wanted = (section.len - start).min(CHUNK_BYTES as u64);
                let entry = &table[index * CHUNK_ENTRY_BYTES..][..CHUNK_ENTRY_BYTES];
                let (stored, decoded) = (u64::from(u32_at(entry, 32)), u64::from(u32_at(entry, 36)));
                check_lengths(stored, decoded, wanted, section.coded)
                    .map_err(|e| e.within(format_args!("chunk {index}")))?;
                let hash = array_at(entry, 0);
                hasher.update(&hash);
                let len = |n| usize::try_from(n).map_err(|_| PackError::corrupt("chunk length"));
                let (len, stored_len) = (len(wanted)?, len(stored)?);
                chunks.push(Chunk { offset: section.offset + start, len, stored_offset, stored_len, hash });
                stored_offset += stored;
            }
            if stored_offset != section.stored.end {
                return Err(PackError::corrupt(format!(
                    "chunk table: the chunks of section {} end at {stored_offset}, the section at {}",
                    section.kind.name(),
                    section.stored.end
                )));
            }
            if hasher.finalize() != section.hash {
                return Err(PackError::corrupt(format!(
                    "chunk table: the hash of section {} differs from the header's",
                    section.kind.name()
                )));
            }
        }
        Ok(chunks)
    }

    /// The bytes of a header and chunk table over sections laid out one after the other.
    pub(crate) fn encode(sections: &[Body<'_>]) -> Result<(Header, Vec<u8>), PackError> {
        let header_len = FIXED_BYTES + sections.len() * SECTION_BYTES;
        let total = sections.iter().map(|body| body.chunks.len() as u64).sum::<u64>();
        let overflow = || PackError::new(ErrorKind::Invalid, "the pack is too large");
        let mut at = header_len as u64 + total * CHUNK_ENTRY_BYTES as u64;
        let (mut front_len, mut table, mut chunk_table) = (at, Vec::new(), Vec::new());
        for Body { kind, len, chunks } in sections {
            let mut hasher = blake3::Hasher::new();
            for (chunk, start) in chunks.iter().zip((0..).step_by(CHUNK_BYTES)) {
                let hash = blake3::hash(chunk);
                hasher.update(hash.as_bytes());
                chunk_table.extend_from_slice(hash.as_bytes());
                for len in [chunk.len(), (len - start).min(CHUNK_BYTES)] {
                    chunk_table.extend_from_slice(&u32::try_from(len).map_err(|_| overflow())?.to_le_bytes());
                }
            }
            let (offset, stored_len) = (align_up(at).ok_or_else(overflow)?, stored_len(chunks));
            let coded = stored_len != *len;
            let count = u32::try_from(chunks.len()).map_err(|_| overflow())?;
            let last = len - chunks.len().saturating_sub(1) * CHUNK_BYTES;
            let last = if coded { u32::try_from(last).map_err(|_| overflow())? } else { 0 };
            table.extend_from_slice(&(*kind as u32).to_le_bytes());
            table.extend_from_slice(&u32::from(coded).to_le_bytes());
            table.extend_from_slice(&offset.to_le_bytes());
            table.extend_from_slice(&(stored_len as u64).to_le_bytes());
            table.extend_from_slice(&count.to_le_bytes());
            table.extend_from_slice(&last.to_le_bytes());
            table.extend_from_slice(hasher.finalize().as_bytes());
            at = offset + stored_len as u64;
            if kind.is_front() {
                front_len = at;
            }
        }
        let coded = sections.iter().any(|body| stored_len(&body.chunks) != body.len);
        let version = if coded { CODED_VERSION } else { FORMAT_VERSION };
        let mut bytes = Vec::with_capacity(header_len + chunk_table.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&version.to_le_bytes());
        bytes.extend_from_slice(&0u16.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(sections.len()).map_err(|_| overflow())?.to_le_bytes());
        bytes.extend_from_slice(&at.to_le_bytes());
        bytes.extend_from_slice(&front_len.to_le_bytes());
        bytes.extend_from_slice(&0u64.to_le_bytes());
        bytes.extend_from_slice(&table);
        bytes.extend_from_slice(&chunk_table);
        Ok((Header::parse(&bytes)?, bytes))
    }
}

/// A section as it is to be written.
pub(crate) struct Body<'a> {
    pub(crate) kind: SectionKind,
    /// Its length in memory.
    len: usize,
    /// What the file has for each chunk: a shorter one is coded.
    pub(crate) chunks: Vec<Cow<'a, [u8]>>,
}

impl<'a> Body<'a> {
    /// A section as it is, or where `entropy` says so and its kind allows it, with those chunks coded that get shorter.
    pub(crate) fn new(kind: SectionKind, bytes: &'a [u8], entropy: bool) -> Body<'a> {
        let coded = |chunk| if entropy && kind.may_be_coded() { entropy::encode(chunk) } else { None };
        let chunk = |chunk| coded(chunk).map_or(Cow::Borrowed(chunk), Cow::Owned);
        Body { kind, len: bytes.len(), chunks: bytes.chunks(CHUNK_BYTES).map(chunk).collect() }
    }
}

fn stored_len(chunks: &[Cow<'_, [u8]>]) -> usize {
    chunks.iter().map(|chunk| chunk.len()).sum()
}

/// Whether a chunk of `wanted` bytes may say that it has so many in the file, and so many in memory.
fn check_lengths(stored: u64, decoded: u64, wanted: u64, coded: bool) -> Result<(), PackError> {
    if decoded != wanted {
        return Err(PackError::corrupt(format!("{decoded} bytes, expected {wanted}")));
    }
    let shortest = if coded { decoded.div_ceil(entropy::MAX_RATIO) } else { decoded };
    if !(shortest..=decoded).contains(&stored) {
        let text = format!("{stored} stored bytes for {decoded}, expected {shortest} to {decoded}");
        return Err(PackError::corrupt(text));
    }
    Ok(())
}

/// The first 40 bytes.
struct Fixed {
    version: u16,
    header_len: usize,
    section_count: usize,
    signed: bool,
    file_len: u64,
    front_len: u64,
}

fn too_short(what: &str, wanted: usize, found: usize) -> PackError {
    PackError::new(ErrorKind::Truncated, format!("{what}: {wanted} bytes wanted, found {found}"))
}

fn fixed_part(bytes: &[u8]) -> Result<Fixed, PackError> {
    let start = &bytes[..bytes.len().min(MAGIC.len())];
    if start != &MAGIC[..start.len()] || start.is_empty() {
        let text = format!("not a pack: expected the magic {MAGIC:02x?}, found {start:02x?}");
        return Err(PackError::new(ErrorKind::NotAPack, text));
    }
    if bytes.len() < FIXED_BYTES {
        return Err(too_short("header", FIXED_BYTES, bytes.len()));
    }
    let version = u16::from_le_bytes([bytes[8], bytes[9]]);
    if !(FORMAT_VERSION..=CODED_VERSION).contains(&version) {
        let mend = if version < FORMAT_VERSION { "pack the model again" } else { "use a newer build" };
        let text = format!(
            "pack format version {version}, this build reads versions {FORMAT_VERSION} and {CODED_VERSION}: {mend}"
        );
        return Err(PackError::new(ErrorKind::Unsupported, text));
    }
    let flags = u16::from_le_bytes([bytes[10], bytes[11]]);
    if flags > 1 || u64_at(bytes, 32) != 0 {
        return Err(PackError::corrupt(format!(
            "header: unknown flags {flags:#06x} or reserved bytes not 0"
        )));
    }
    let signed = flags & 1 == 1;
    let section_count = usize::try_from(u32_at(bytes, 12)).unwrap_or(usize::MAX);
    if section_count == 0 || section_count > MAX_SECTIONS {
        return Err(PackError::corrupt(format!(
            "header: {section_count} sections, expected 1 to {MAX_SECTIONS}"
        )));
    }
    let header_len = FIXED_BYTES + section_count * SECTION_BYTES + usize::from(signed) * SIGNATURE_BYTES;
    let (file_len, front_len) = (u64_at(bytes, 16), u64_at(bytes, 24));
    Ok(Fixed { version, header_len, section_count, signed, file_len, front_len })
}

/// The section table. Offsets are redundant on purpose: each must be the aligned end of the one before,
/// so that sections cannot overlap, leave holes or point past the end.
fn section_table(bytes: &[u8], fixed: &Fixed) -> Result<Vec<Section>, PackError> {
    let rows = |i: usize| &bytes[FIXED_BYTES + i * SECTION_BYTES..][..SECTION_BYTES];
    let chunk_total: u64 = (0..fixed.section_count).map(|i| u64::from(u32_at(rows(i), 24))).sum();
    let mut end = fixed.header_len as u64 + chunk_total * CHUNK_ENTRY_BYTES as u64;
    let mut memory_end = end;
    let (mut first_chunk, mut previous) = (0usize, None);
    let mut sections = Vec::with_capacity(fixed.section_count);
    for i in 0..fixed.section_count {
        let row = rows(i);
        let code = u32_at(row, 0);
        let kind = SectionKind::from_code(code).ok_or_else(|| {
            PackError::new(ErrorKind::Unsupported, format!("section {i} has the unknown kind {code}"))
        })?;
        let bad = |text: String| PackError::corrupt(format!("section {i} ({}): {text}", kind.name()));
        let in_order = previous.is_none_or(|p| p < kind || (p == kind && kind == SectionKind::Plan));
        if !in_order {
            return Err(bad("out of order or repeated".into()));
        }
        previous = Some(kind);
        let (offset, len, chunks) = (u64_at(row, 8), u64_at(row, 16), u32_at(row, 24));
        let wanted = align_up(end).ok_or_else(|| bad("offset overflows".into()))?;
        if offset != wanted {
            return Err(bad(format!("offset {offset}, expected {wanted}")));
        }
        let (coding, last) = (u32_at(row, 4), u32_at(row, 28));
        let coded = coding == 1 && fixed.version == CODED_VERSION && kind.may_be_coded();
        if !coded && (coding != 0 || last != 0) {
            return Err(bad("unknown coding or reserved bytes not 0".into()));
        }
        let decoded_len =
            if coded { coded_len(len, chunks, last).map_err(|e| bad(e.to_string()))? } else { len };
        if u64::from(chunks) != chunk_count(decoded_len) {
            let wanted = chunk_count(decoded_len);
            return Err(bad(format!("{chunks} chunks for {decoded_len} bytes, expected {wanted}")));
        }
        let overflows = || bad(format!("length {len} overflows"));
        end = offset.checked_add(len).ok_or_else(overflows)?;
        let memory_offset = align_up(memory_end).ok_or_else(overflows)?;
        memory_end = memory_offset.checked_add(decoded_len).ok_or_else(overflows)?;
        let chunks =
            first_chunk..first_chunk + usize::try_from(chunks).map_err(|_| bad("too many chunks".into()))?;
        first_chunk = chunks.end;
        let (stored, hash) = (offset..end, array_at(row, 32));
        sections.push(Section { kind, offset: memory_offset, len: decoded_len, stored, coded, chunks, hash });
    }
    if end != fixed.file_len {
        return Err(PackError::corrupt(format!(
            "header: file length {}, sections end at {end}",
            fixed.file_len
        )));
    }
    Ok(sections)
}

/// The length in memory of a coded section of `len` bytes in the file, whose last chunk has `last` bytes in memory. That it
/// is at most eight times as long bounds what a small file can ask for.
fn coded_len(len: u64, chunks: u32, last: u32) -> Result<u64, PackError> {
    let bad = |text: String| Err(PackError::corrupt(text));
    let Some(before) = chunks.checked_sub(1) else { return bad("coded, and without chunks".into()) };
    if last == 0 || last as usize > CHUNK_BYTES {
        return bad(format!("its last chunk has {last} bytes, expected 1 to {CHUNK_BYTES}"));
    }
    let decoded = u64::from(before) * CHUNK_BYTES as u64 + u64::from(last);
    if len >= decoded || len < decoded.div_ceil(entropy::MAX_RATIO) {
        return bad(format!("{len} coded bytes for {decoded}, expected fewer, and not less than an eighth"));
    }
    Ok(decoded)
}
