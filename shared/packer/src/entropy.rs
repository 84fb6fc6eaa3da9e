//! What entropy coding did to a pack: bytes, and how fast they are decoded again.

use glowplug_pack::{Pack, PackError, entropy};
use std::time::Instant;

/// Decoding is timed so often, and the fastest time counts.
const ROUNDS: usize = 3;

/// What entropy coding did to a pack.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct EntropyReport {
    /// Bytes of the sections that chunks may be coded of, decoded.
    pub decoded_bytes: u64,
    /// Bytes of the same sections in the file.
    pub stored_bytes: u64,
    /// How many chunks are coded; others would not have become shorter.
    pub coded: usize,
    /// How many chunks these sections have.
    pub chunks: usize,
    /// Decoded bytes of coded chunks, in 10^6 a second, on one core of this machine. Absent where none is coded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decode_mb_s: Option<f64>,
}

impl EntropyReport {
    /// Of a pack's file. Errors: it is no pack, or one that cannot be decoded. Cost: all of it is decoded, some times.
    pub(crate) fn of(file: &[u8]) -> Result<EntropyReport, PackError> {
        let pack = Pack::parse(file)?;
        let sections = || pack.header().sections.iter().filter(|s| s.kind.may_be_coded());
        let chunks = || sections().flat_map(|s| &pack.chunks()[s.chunks.clone()]);
        let mut decoded = vec![0; glowplug_pack::header::CHUNK_BYTES];
        let (mut bytes, mut seconds, mut coded) = (0u64, 0.0, 0);
        for chunk in chunks().filter(|chunk| chunk.is_coded()) {
            let range = chunk.stored();
            let stored = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
            let stored = stored.and_then(|(start, end)| file.get(start..end));
            let stored = stored.ok_or_else(|| PackError::corrupt(format!("no bytes {range:?}")))?;
            let mut fastest = f64::INFINITY;
            for _ in 0..ROUNDS {
                let started = Instant::now();
                entropy::decode(stored, &mut decoded[..chunk.len])?;
                fastest = fastest.min(started.elapsed().as_secs_f64());
            }
            (bytes, seconds, coded) = (bytes + chunk.len as u64, seconds + fastest, coded + 1);
        }
        Ok(EntropyReport {
            decoded_bytes: sections().map(|s| s.len).sum(),
            stored_bytes: chunks().map(|c| c.stored_len as u64).sum(),
            coded,
            chunks: chunks().count(),
            decode_mb_s: (coded > 0).then(|| bytes as f64 / 1e6 / seconds.max(1e-9)),
        })
    }
}
