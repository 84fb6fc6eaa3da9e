//! Chunks and byte ranges: which chunks to ask for next, and how bodies become chunks again.

use crate::fetch::FetchOptions;
use glowplug_pack::header::SectionKind;
use glowplug_pack::{Pack, PackError, Region};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Unwanted chunks of an embedding table that are fetched along, rather than that another request is sent.
const GAP_CHUNKS: usize = 2;

/// Which chunks nobody has asked for yet, and who gets which: each chunk is given out once.
#[derive(Debug)]
pub(crate) struct Queue {
    pack: Arc<Pack>,
    region: Arc<Region>,
    part_bytes: u64,
    /// How many requests for rows of tables may be under way beside others. They are short, so they mostly wait for
    /// their first byte, and would leave the link idle if they had all connections.
    max_rows: usize,
    state: Mutex<State>,
    /// Told whenever a part that was needed has arrived.
    arrived: Notify,
}

#[derive(Debug)]
struct State {
    /// Per chunk, whether it was given out.
    given: Vec<bool>,
    /// Parts that were given out, are needed, and have not arrived.
    under_way: usize,
    /// Those of them that are rows of tables.
    rows: usize,
}

/// The chunks of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) chunks: Range<usize>,
    /// Whether a run of the model will need them, as opposed to rows of a table that nobody looks up.
    needed: bool,
    /// Whether it is rows of a table that somebody waits for.
    rows: bool,
}

impl Part {
    /// What the first request brings.
    pub(crate) fn first(chunks: Range<usize>) -> Part {
        Part { chunks, needed: true, rows: false }
    }
}

impl Queue {
    /// All chunks but those of the first request, in requests of about `part_bytes`, each of at least one chunk.
    pub(crate) fn new(pack: Arc<Pack>, region: Arc<Region>, options: &FetchOptions, first: &Part) -> Queue {
        let (part_bytes, max_rows) = (options.part_bytes, options.parallel.div_ceil(2));
        let given = (0..pack.chunks().len()).map(|index| first.chunks.contains(&index)).collect();
        let state = Mutex::new(State { given, under_way: 1, rows: 0 });
        Queue { pack, region, part_bytes, max_rows, state, arrived: Notify::new() }
    }

    /// The chunks to ask for next: first what somebody waits for, weights before rows of tables; then the weights in
    /// file order; and what is left of tables once all of that has arrived, so that nothing needed shares the link
    /// with it.
    pub(crate) async fn next(&self) -> Option<Part> {
        loop {
            let arrived = self.arrived.notified();
            match self.now() {
                Some(part) if part.chunks.is_empty() => arrived.await,
                part => return part,
            }
        }
    }

    /// To be told of every part from [`Queue::next`] when it is here.
    pub(crate) fn arrived(&self, part: &Part) {
        if part.needed {
            let mut state = self.lock();
            state.under_way -= 1;
            state.rows -= usize::from(part.rows);
            drop(state);
            self.arrived.notify_waiters();
        }
    }

    /// What can be asked for now: empty where one has to wait, `None` where nothing is left.
    fn now(&self) -> Option<Part> {
        let mut state = self.lock();
        // Of tables, a run needs the rows that it looks up; of weights, all.
        let tables = self.pack.chunks().partition_point(|c| c.offset < self.weights_end());
        let left = |chunks: Range<usize>| chunks.filter(|index| !state.given[*index]);
        let wanted = |chunks| left(chunks).find(|index| self.region.is_wanted(*index));
        let (weights, rest) = (0..tables, tables..state.given.len());
        let (weight, row) = (left(weights.clone()).next(), wanted(rest.clone()));
        let start = match (wanted(weights), weight, row) {
            (Some(wanted), ..) => wanted,
            (None, Some(_), Some(row)) if state.rows < self.max_rows => row,
            (None, Some(weight), _) => weight,
            (None, None, Some(row)) => row,
            (None, None, None) => left(rest).next()?,
        };
        let rows = row == Some(start);
        let needed = rows || start < tables;
        if !needed && state.under_way > 0 {
            return Some(Part { chunks: start..start, needed, rows });
        }
        let limit = if start < tables { tables } else { state.given.len() };
        let end = self.end_of_part(start, &state.given, limit, rows);
        state.given[start..end].fill(true);
        state.under_way += usize::from(needed);
        state.rows += usize::from(rows);
        Some(Part { chunks: start..end, needed, rows })
    }

    /// Where the sections end that every run of the model needs.
    fn weights_end(&self) -> u64 {
        let sections = self.pack.header().sections.iter().filter(|s| s.kind <= SectionKind::Blobs);
        sections.map(|s| s.range().end).max().unwrap_or(0)
    }

    /// A panic elsewhere cannot leave the state half changed.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far a request that begins with chunk `start` reaches, `limit` at most. What is wanted of a table is some of
    /// its `rows`; of weights, what follows will be wanted next.
    fn end_of_part(&self, start: usize, given: &[bool], limit: usize, rows: bool) -> usize {
        let chunks = self.pack.chunks();
        let mut end = start + 1;
        for index in start + 1..limit {
            let bytes = chunks[index].stored().end - chunks[start].stored_offset;
            if given[index] || bytes > self.part_bytes || (rows && index - end > GAP_CHUNKS) {
                break;
            }
            if !rows || self.region.is_wanted(index) {
                end = index + 1;
            }
        }
        end
    }
}

/// Turns the pieces of a body into chunks and delivers each to the region when it is whole.
#[derive(Debug)]
pub(crate) struct Assembler {
    pack: Arc<Pack>,
    region: Arc<Region>,
    /// The chunks that miss.
    which: Range<usize>,
    /// The file offset of the next byte pushed.
    at: u64,
    /// The first bytes of chunk `which.start`, where a piece ended within it.
    partial: Vec<u8>,
    /// The chunk of this body that came with a wrong hash, if one did.
    wrong: Option<usize>,
}

impl Assembler {
    /// One that will deliver the chunks `which` of `pack`'s table, which is in file order.
    pub(crate) fn new(pack: Arc<Pack>, region: Arc<Region>, which: Range<usize>) -> Assembler {
        Assembler { pack, region, which, at: 0, partial: Vec::new(), wrong: None }
    }

    /// The first chunk that has not been delivered.
    pub(crate) fn next(&self) -> usize {
        self.which.start
    }

    /// Whether all have been delivered.
    pub(crate) fn is_done(&self) -> bool {
        self.which.is_empty()
    }

    /// The chunk of this body that was refused: its hash was not the table's.
    pub(crate) fn wrong(&self) -> Option<usize> {
        self.wrong
    }

    /// The bytes to ask for: from the first byte that misses to the last.
    pub(crate) fn missing(&self) -> Range<u64> {
        match &self.pack.chunks()[self.which.clone()] {
            [] => 0..0,
            [first, rest @ ..] => {
                first.stored_offset + self.partial.len() as u64..rest.last().unwrap_or(first).stored().end
            }
        }
    }

    /// Another body begins, at this byte of the file: at or before the first that misses.
    pub(crate) fn start_at(&mut self, at: u64) {
        self.at = at;
        self.wrong = None;
    }

    /// The next bytes of the body. Bytes that are there already, padding, and what is behind the last chunk are dropped.
    ///
    /// # Errors
    /// `Corrupt`: a chunk whose hash is not the table's. What was delivered before stays.
    pub(crate) fn push(&mut self, mut piece: &[u8]) -> Result<(), PackError> {
        while !piece.is_empty() && !self.is_done() {
            let missing = self.missing().start;
            let skipped = usize::try_from(missing.saturating_sub(self.at)).unwrap_or(usize::MAX);
            let len = self.pack.chunks()[self.which.start].stored_len;
            let wanted = if skipped > 0 { skipped } else { len - self.partial.len() };
            let (taken, rest) = piece.split_at(wanted.min(piece.len()));
            if skipped == 0 {
                self.take(len, taken)?;
            }
            self.at += taken.len() as u64;
            piece = rest;
        }
        Ok(())
    }

    /// Bytes of the current chunk, of `len` bytes: delivered if they complete it, and kept otherwise.
    fn take(&mut self, len: usize, bytes: &[u8]) -> Result<(), PackError> {
        if self.partial.is_empty() && bytes.len() == len {
            return self.deliver(bytes);
        }
        self.partial.reserve_exact(len - self.partial.len());
        self.partial.extend_from_slice(bytes);
        if self.partial.len() < len {
            return Ok(());
        }
        let mut whole = std::mem::take(&mut self.partial);
        let delivered = self.deliver(&whole);
        // The memory serves the next chunk; the bytes are there, or wrong.
        whole.clear();
        self.partial = whole;
        delivered
    }

    fn deliver(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        let index = self.which.start;
        self.region.deliver(index, bytes).map_err(|error| {
            self.wrong = Some(index);
            let section = self.pack.section_of(index).map_or("no", |section| section.kind.name());
            error.within(format_args!("section {section}"))
        })?;
        self.which.start += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::sample_pack;
    use glowplug_pack::{Buffer, Pack};

    /// A pack of two thirds weights and one third embedding table, and its empty region.
    fn pending(weight_bytes: usize) -> (Vec<u8>, Arc<Pack>, Arc<Region>) {
        let file = sample_pack("m", weight_bytes, 3).to_vec();
        let pack = Pack::parse(&file).unwrap();
        let memory = Buffer::zeroed(pack.memory_len().unwrap()).unwrap();
        let region = Region::pending(memory, pack.chunks().to_vec()).unwrap();
        (file, Arc::new(pack), Arc::new(region))
    }

    #[test]
    fn parts_are_runs_of_whole_chunks_in_file_order() {
        let (_, pack, region) = pending(3_000_000);
        let n = pack.chunks().len();
        let table = pack.header().section(SectionKind::Embeddings).unwrap().chunks.start;
        for (part_bytes, given) in [(0, 0), (262_144, 2), (600_000, 0), (600_000, 3), (1 << 30, 4), (1, n)] {
            let first = Part::first(0..given);
            let options = FetchOptions { part_bytes, ..FetchOptions::default() };
            let queue = Queue::new(pack.clone(), region.clone(), &options, &first);
            queue.arrived(&first);
            let parts = rest(&queue);
            let mut at = given;
            for part in &parts {
                assert!(part.start == at && !part.is_empty(), "{parts:?}");
                // A part of more than one chunk is no longer than asked for, and not shorter than it may be.
                let bytes_to = |end: usize| {
                    pack.chunks().get(end - 1).map(|c| c.range().end - pack.chunks()[part.start].offset)
                };
                assert!(part.len() == 1 || bytes_to(part.end).unwrap() <= part_bytes, "{parts:?}");
                let ends = bytes_to(part.end + 1).is_none_or(|bytes| bytes > part_bytes);
                assert!(ends || part.end == table, "{parts:?}");
                at = part.end;
            }
            assert_eq!(at, n, "{part_bytes}: {parts:?}");
        }
    }

    /// All parts that are left, each arriving before the next is asked for.
    fn rest(queue: &Queue) -> Vec<Range<usize>> {
        let part = || queue.now().inspect(|part| queue.arrived(part)).map(|part| part.chunks);
        std::iter::from_fn(part).collect()
    }

    #[test]
    fn what_somebody_waits_for_comes_next_and_of_a_table_only_what_is_wanted() {
        let (_, pack, region) = pending(9_000_000);
        let section = |kind| pack.header().section(kind).unwrap().chunks.clone();
        let (blobs, table) = (section(SectionKind::Blobs), section(SectionKind::Embeddings));
        let want = |index: usize| region.want(&pack.chunks()[index].range());
        let first = Part::first(0..blobs.start);
        let options = FetchOptions { part_bytes: 1 << 20, parallel: 4, ..FetchOptions::default() };
        let queue = Queue::new(pack.clone(), region.clone(), &options, &first);
        let mut parts = Vec::new();
        let mut next = || {
            parts.extend(queue.now());
            parts.last().unwrap().chunks.clone()
        };
        // Weights behind the front of the transfer: they and what follows, and then the ones before.
        want(blobs.start + 4);
        assert_eq!(next(), blobs.start + 4..blobs.start + 8);
        assert_eq!(next(), blobs.start..blobs.start + 4);
        // Rows of the table: small gaps are bridged, large ones not; and weights go on beside them.
        for index in [1, 5, 7] {
            want(table.start + index);
        }
        assert_eq!(next(), table.start + 1..table.start + 2);
        assert_eq!(next(), table.start + 5..table.start + 8);
        want(table.start + 10);
        assert_eq!(next(), blobs.start + 8..blobs.start + 12);
        queue.arrived(&parts[2]);
        let next = || queue.now().unwrap().chunks;
        assert_eq!(next(), table.start + 10..table.start + 11);
        // Everything is given out once.
        let mut given: Vec<usize> = std::iter::from_fn(|| queue.now().filter(|p| !p.chunks.is_empty()))
            .flat_map(|p| p.chunks)
            .collect();
        given.sort_unstable();
        assert_eq!(given, (blobs.start + 12..table.start).collect::<Vec<_>>());
        // What nobody looks up comes when all else has arrived; the first request and most after it are under way.
        let needed = first;
        let under_way = queue.lock().under_way;
        for _ in 0..under_way {
            assert!(next().is_empty());
            queue.arrived(&needed);
        }
        let before = [1, 5, 6, 7, 10].map(|i| table.start + i);
        let wanted: Vec<usize> = table.filter(|i| !before.contains(i)).collect();
        assert_eq!(rest(&queue).into_iter().flatten().collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn pieces_of_any_size_become_chunks() {
        for piece_bytes in [1, 255, 4096, 262_144, 262_145, 900_000] {
            let (file, pack, region) = pending(800_000);
            // In two bodies: the second begins where the first broke off.
            let mut assembler = Assembler::new(pack.clone(), region.clone(), 0..pack.chunks().len());
            file[..500_000].chunks(piece_bytes).for_each(|piece| assembler.push(piece).unwrap());
            assert!(!assembler.is_done() && assembler.next() > 0);
            let missing = assembler.missing();
            assert_eq!(missing, 500_000..file.len() as u64);
            // And so that a part of it is there already.
            assembler.start_at(missing.start - 1000);
            file[499_000..].chunks(piece_bytes).for_each(|piece| assembler.push(piece).unwrap());
            assert!(assembler.is_done() && region.is_complete(), "{piece_bytes}");
            pack.verify_content(&region, None).unwrap();
        }
    }

    #[test]
    fn a_wrong_byte_is_not_delivered_and_can_be_mended() {
        let (file, pack, region) = pending(800_000);
        let mut assembler = Assembler::new(pack.clone(), region.clone(), 0..pack.chunks().len());
        let mut wrong = file.clone();
        wrong[600_000] ^= 1;
        let error = wrong.chunks(5000).find_map(|piece| assembler.push(piece).err()).unwrap().to_string();
        assert!(error.contains(&format!("chunk {}", assembler.next())), "{error}");
        assert!(error.contains("section embeddings") && error.contains("the chunk table wants"), "{error}");
        assert_eq!(assembler.wrong(), Some(assembler.next()));
        let missing = assembler.missing();
        assert_eq!(missing.start, pack.chunks()[assembler.next()].offset);
        assembler.start_at(missing.start);
        assembler.push(&file[usize::try_from(missing.start).unwrap()..]).unwrap();
        assert!(assembler.wrong().is_none() && assembler.is_done());
        pack.verify_content(&region, None).unwrap();
    }
}
