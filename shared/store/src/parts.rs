//! Chunks and byte ranges: how the chunk table is cut into requests, and how bodies become chunks again.

use glowplug_pack::header::Chunk;
use glowplug_pack::{PackError, Region};
use std::ops::Range;

/// Cuts `chunks[which]` into runs of about `part_bytes`, in order, each of at least one chunk.
pub(crate) fn cut(chunks: &[Chunk], which: Range<usize>, part_bytes: u64) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let mut start = which.start;
    for index in which.clone() {
        let bytes = chunks[index].offset + chunks[index].len as u64 - chunks[start].offset;
        if bytes > part_bytes && index > start {
            parts.push(start..index);
            start = index;
        }
    }
    if start < which.end {
        parts.push(start..which.end);
    }
    parts
}

/// Turns the pieces of a body into chunks and delivers each to the region when it is whole.
pub(crate) struct Assembler<'a> {
    region: &'a Region,
    chunks: &'a [Chunk],
    /// The chunks that miss.
    which: Range<usize>,
    /// The file offset of the next byte pushed.
    at: u64,
    /// The first bytes of chunk `which.start`, where a piece ended within it.
    partial: Vec<u8>,
}

impl<'a> Assembler<'a> {
    /// One that will deliver `chunks[which]`. `which` lies within the table, which is in file order.
    pub(crate) fn new(region: &'a Region, chunks: &'a [Chunk], which: Range<usize>) -> Assembler<'a> {
        Assembler { region, chunks, which, at: 0, partial: Vec::new() }
    }

    /// The first chunk that has not been delivered.
    pub(crate) fn next(&self) -> usize {
        self.which.start
    }

    /// Whether all have been delivered.
    pub(crate) fn is_done(&self) -> bool {
        self.which.is_empty()
    }

    /// The bytes to ask for: from the first missing chunk to the last.
    pub(crate) fn missing(&self) -> Range<u64> {
        match &self.chunks[self.which.clone()] {
            [] => 0..0,
            [first, .., last] => first.offset..last.offset + last.len as u64,
            [only] => only.offset..only.offset + only.len as u64,
        }
    }

    /// Another body begins, at this byte of the file: at or before the first missing chunk.
    pub(crate) fn start_at(&mut self, at: u64) {
        self.at = at;
        self.partial.clear();
    }

    /// The next bytes of the body. Bytes between chunks (padding) and behind the last are dropped.
    ///
    /// # Errors
    /// `Corrupt`: a chunk whose hash is not the table's. What was delivered before stays.
    pub(crate) fn push(&mut self, mut piece: &[u8]) -> Result<(), PackError> {
        while let (false, Some(chunk)) = (piece.is_empty(), self.chunks[self.which.clone()].first()) {
            let padding = usize::try_from(chunk.offset.saturating_sub(self.at)).unwrap_or(usize::MAX);
            let wanted = if padding > 0 { padding } else { chunk.len - self.partial.len() };
            let (taken, rest) = piece.split_at(wanted.min(piece.len()));
            if padding == 0 {
                self.take(chunk.len, taken)?;
            }
            self.at += taken.len() as u64;
            piece = rest;
        }
        Ok(())
    }

    /// Bytes of the current chunk, of `len` bytes: delivered if they complete it, and kept otherwise.
    fn take(&mut self, len: usize, bytes: &[u8]) -> Result<(), PackError> {
        let index = self.which.start;
        if self.partial.is_empty() && bytes.len() == len {
            self.region.deliver(index, bytes)?;
        } else {
            self.partial.extend_from_slice(bytes);
            if self.partial.len() < len {
                return Ok(());
            }
            self.region.deliver(index, &self.partial)?;
            self.partial.clear();
        }
        self.which.start += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::sample_pack;
    use glowplug_pack::{Buffer, Pack};

    #[test]
    fn parts_are_runs_of_whole_chunks() {
        let chunk = |offset, len| Chunk { offset, len, hash: [0; 32] };
        // Padding lies before the third chunk.
        let chunks = [chunk(10, 10), chunk(20, 5), chunk(32, 10), chunk(42, 10), chunk(52, 1)];
        for (which, bytes, wanted) in [
            (0..5, 1, vec![0..1, 1..2, 2..3, 3..4, 4..5]),
            (0..5, 15, vec![0..2, 2..3, 3..5]),
            (0..5, 32, vec![0..3, 3..5]),
            (1..4, 22, vec![1..3, 3..4]),
            (0..5, 0, vec![0..1, 1..2, 2..3, 3..4, 4..5]),
            (5..5, 10, vec![]),
        ] {
            assert_eq!(cut(&chunks, which.clone(), bytes), wanted, "{which:?} in {bytes}");
        }
        assert_eq!(cut(&chunks, 1..4, 1000).len(), 1);
    }

    #[test]
    fn pieces_of_any_size_become_chunks() {
        let file = sample_pack("m", 800_000, 3);
        let pack = Pack::parse(&file).unwrap();
        let chunks = pack.chunks();
        for piece_bytes in [1, 255, 4096, 262_144, 262_145, file.len()] {
            let region = Region::pending(Buffer::zeroed(file.len()).unwrap(), chunks.to_vec()).unwrap();
            // In two bodies: the second takes up where a chunk was cut.
            let mut assembler = Assembler::new(&region, chunks, 0..chunks.len());
            file[..500_000].chunks(piece_bytes).for_each(|piece| assembler.push(piece).unwrap());
            assert!(!assembler.is_done() && assembler.next() > 0);
            let missing = assembler.missing();
            assert_eq!(missing.end, file.len() as u64);
            let start = usize::try_from(missing.start).unwrap();
            assembler.start_at(missing.start);
            file[start..].chunks(piece_bytes).for_each(|piece| assembler.push(piece).unwrap());
            assert!(assembler.is_done() && region.is_complete(), "{piece_bytes}");
            pack.verify_content(&region, None).unwrap();
        }
    }

    #[test]
    fn a_wrong_byte_is_not_delivered_and_can_be_mended() {
        let file = sample_pack("m", 800_000, 3);
        let pack = Pack::parse(&file).unwrap();
        let region = Region::pending(Buffer::zeroed(file.len()).unwrap(), pack.chunks().to_vec()).unwrap();
        let mut assembler = Assembler::new(&region, pack.chunks(), 0..pack.chunks().len());
        let mut wrong = file.to_vec();
        wrong[600_000] ^= 1;
        let error = assembler.push(&wrong).unwrap_err();
        assert!(error.to_string().contains(&format!("chunk {}", assembler.next())), "{error}");
        let missing = assembler.missing();
        assembler.start_at(missing.start);
        assembler.push(&file[usize::try_from(missing.start).unwrap()..]).unwrap();
        pack.verify_content(&region, None).unwrap();
    }
}
