//! Entropy coding of one chunk: bytes of quantized weights in fewer bits, and back, exactly.
//!
//! An order-0 Huffman code, whose lengths are at most [`MAX_BITS`], in [`STREAMS`] streams: byte `i` of the chunk is in
//! stream `i % 4`. Four streams are four chains of look-ups that a processor works on at once; what a look-up gives next
//! never depends on more than its own stream. Quantized weights have no repetitions that a match would find, so there
//! are none. The layout is in docs/format.md, what was measured in docs/adr/0015.
//!
//! Everything that is decoded is hostile: the lengths must make a complete code, so that every look-up means a byte; every
//! stream must end where its last code does.
#![allow(
    clippy::cast_possible_truncation,
    reason = "bits of a stream are cut to what a table or a byte holds"
)]

use crate::error::{ErrorKind, PackError};

/// No code is longer. The table of the decoder then has 2048 rows, and five codes fit what one read brings.
pub const MAX_BITS: usize = 11;
/// Streams of a coded chunk.
pub const STREAMS: usize = 4;
/// A coded chunk has at least a bit for each of its bytes, so it is no shorter than its length by this.
pub const MAX_RATIO: u64 = 8;

/// The first byte of a chunk that is coded so.
const HUFFMAN: u8 = 1;
const SYMBOLS: usize = 256;
const LENGTHS_BYTES: usize = SYMBOLS / 2;
/// Coding, code lengths, lengths of all streams but the last.
const HEAD_BYTES: usize = 1 + LENGTHS_BYTES + (STREAMS - 1) * 4;
const TABLE: usize = 1 << MAX_BITS;
/// Codes of a stream that are looked up after one read of eight bytes, of which up to seven bits are of a code before.
const CODES_A_READ: usize = (64 - 7) / MAX_BITS;
const STEP: usize = STREAMS * CODES_A_READ;

/// `bytes` coded, where that makes them at least 3 % shorter; otherwise they are better stored as they are.
/// Cost: some passes over `bytes`.
#[must_use]
pub fn encode(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut counts = [0u64; SYMBOLS];
    for byte in bytes {
        counts[usize::from(*byte)] += 1;
    }
    let lengths = code_lengths(&counts)?;
    let bits: u64 = counts.iter().zip(&lengths).map(|(n, len)| n * u64::from(*len)).sum();
    if !pays(HEAD_BYTES as u64 + bits / 8, bytes.len() as u64) {
        return None;
    }
    let codes = codes(&lengths);
    let mut coded = Vec::with_capacity(bytes.len());
    coded.push(HUFFMAN);
    coded.extend(lengths.as_chunks::<2>().0.iter().map(|[low, high]| low | high << 4));
    let streams: [Vec<u8>; STREAMS] = std::array::from_fn(|stream| {
        write_stream(bytes.iter().skip(stream).step_by(STREAMS), &codes, &lengths)
    });
    for stream in &streams[..STREAMS - 1] {
        coded.extend_from_slice(&u32::try_from(stream.len()).ok()?.to_le_bytes());
    }
    coded.extend(streams.into_iter().flatten());
    pays(coded.len() as u64, bytes.len() as u64).then_some(coded)
}

/// Whether `coded` bytes for `plain` are worth the time that decoding takes.
fn pays(coded: u64, plain: u64) -> bool {
    coded * 100 <= plain * 97
}

/// The bytes that `coded` stands for, which are as many as `to` holds; all of `to` is written. Errors: a coding that this
/// build does not know ([`ErrorKind::Unsupported`]); code lengths that make no complete code; streams that are longer or
/// shorter than their codes. How long `to` is has to be known (the header's hashes cover it): up to 28 bytes more may decode too,
/// from the bits that fill up the last byte of each stream. What `to` holds then is of no use. Allocates nothing.
pub fn decode(coded: &[u8], to: &mut [u8]) -> Result<(), PackError> {
    let (lengths, streams) = parts(coded)?;
    let table = table(&lengths)?;
    let read = decode_streams(&streams, &table, to);
    for (index, (stream, bits)) in streams.iter().zip(read).enumerate() {
        let rest = stream.last().map_or(0, |last| if bits % 8 == 0 { 0 } else { last >> (bits % 8) });
        if bits.div_ceil(8) != stream.len() || rest != 0 {
            return Err(PackError::corrupt(format!(
                "stream {index} of {} bytes, its codes take {bits} bits",
                stream.len()
            )));
        }
    }
    Ok(())
}

/// Code lengths and streams of a coded chunk.
fn parts(coded: &[u8]) -> Result<([u8; SYMBOLS], [&[u8]; STREAMS]), PackError> {
    if let Some(coding) = coded.first().filter(|coding| **coding != HUFFMAN) {
        let text = format!("coding {coding}, this version knows {HUFFMAN}");
        return Err(PackError::new(ErrorKind::Unsupported, text));
    }
    let Some((head, mut rest)) = coded.split_first_chunk::<HEAD_BYTES>() else {
        return Err(PackError::corrupt(format!("{} coded bytes, expected {HEAD_BYTES}", coded.len())));
    };
    let lengths = std::array::from_fn(|symbol| head[1 + symbol / 2] >> (symbol % 2 * 4) & 15);
    let mut streams: [&[u8]; STREAMS] = [&[]; STREAMS];
    for (index, len) in head[1 + LENGTHS_BYTES..].as_chunks().0.iter().enumerate() {
        let len = usize::try_from(u32::from_le_bytes(*len)).unwrap_or(usize::MAX);
        let Some((stream, behind)) = rest.split_at_checked(len) else {
            let text = format!("stream {index} of {len} bytes, {} are left", rest.len());
            return Err(PackError::corrupt(text));
        };
        (streams[index], rest) = (stream, behind);
    }
    streams[STREAMS - 1] = rest;
    Ok((lengths, streams))
}

/// For each value of the next [`MAX_BITS`] bits: the byte that their first code means, and in the low byte its length.
/// Errors: lengths that are too long, or make a code with gaps or with two meanings of one.
fn table(lengths: &[u8; SYMBOLS]) -> Result<[u16; TABLE], PackError> {
    let used = || lengths.iter().map(|len| usize::from(*len)).filter(|len| *len != 0);
    let longest = used().max().unwrap_or(0);
    let rows: usize = used().map(|len| TABLE >> len.min(MAX_BITS)).sum();
    if longest > MAX_BITS || rows != TABLE {
        return Err(PackError::corrupt(format!(
            "code lengths of up to {longest} bits that fill {rows} rows of {TABLE}, expected a complete code of up to {MAX_BITS}"
        )));
    }
    let mut table = [0; TABLE];
    for ((symbol, len), code) in (0u16..).zip(lengths).zip(codes(lengths)) {
        if *len != 0 {
            let row = symbol << 8 | u16::from(*len);
            table[usize::from(code)..].iter_mut().step_by(1 << len).for_each(|to| *to = row);
        }
    }
    Ok(table)
}

/// The canonical code: shorter ones first, those of one length by symbol. The first bit of a code is the lowest of its
/// number here, since streams are read from their low bits on.
fn codes(lengths: &[u8; SYMBOLS]) -> [u16; SYMBOLS] {
    let (mut codes, mut next) = ([0; SYMBOLS], 0u16);
    for bits in 1..=MAX_BITS {
        for (code, _) in codes.iter_mut().zip(lengths).filter(|(_, len)| usize::from(**len) == bits) {
            *code = next.reverse_bits() >> (16 - bits);
            next = next.wrapping_add(1);
        }
        next = next.wrapping_mul(2);
    }
    codes
}

/// Fills `to`. Gives how many bits that took of each stream: more than it has where it is too short.
fn decode_streams(streams: &[&[u8]; STREAMS], table: &[u16; TABLE], to: &mut [u8]) -> [usize; STREAMS] {
    let mut read = [0usize; STREAMS];
    let (steps, rest) = to.as_chunks_mut::<STEP>();
    let mut left = 0;
    for (index, step) in steps.iter_mut().enumerate() {
        let Some(mut bits) = next_bits(streams, &read) else {
            left = steps.len() - index;
            break;
        };
        // The low byte sums up lengths, at most 55; what the bytes above it sum up to is of no interest.
        let mut sums = [0u64; STREAMS];
        for codes in step.as_chunks_mut::<STREAMS>().0 {
            for stream in 0..STREAMS {
                // The index has MAX_BITS bits, so that no check of bounds is left.
                let row = u64::from(table[(bits[stream] & (TABLE as u64 - 1)) as usize]);
                bits[stream] >>= row & 63;
                sums[stream] += row;
                codes[stream] = (row >> 8) as u8;
            }
        }
        for (read, sum) in read.iter_mut().zip(sums) {
            *read += (sum & 255) as usize;
        }
    }
    let done = (steps.len() - left) * STEP;
    let end = steps.len() * STEP + rest.len();
    for (byte, stream) in to[done..end].iter_mut().zip((0..STREAMS).cycle()) {
        let row = table[usize::from(bits_at(streams[stream], read[stream])) & (TABLE - 1)];
        read[stream] += usize::from(row & 255);
        *byte = (row >> 8) as u8;
    }
    read
}

/// At least 57 bits of each stream from bit `read` on. `None` where a stream has no eight bytes left: the end is near.
#[inline(always)]
fn next_bits(streams: &[&[u8]; STREAMS], read: &[usize; STREAMS]) -> Option<[u64; STREAMS]> {
    let mut bits = [0; STREAMS];
    for ((bits, stream), read) in bits.iter_mut().zip(streams).zip(read) {
        let word = stream.get(read / 8..)?.first_chunk()?;
        *bits = u64::from_le_bytes(*word) >> (read % 8);
    }
    Some(bits)
}

/// The 16 bits from bit `at` of a stream on; zeros behind its end.
fn bits_at(stream: &[u8], at: usize) -> u16 {
    let byte = |i: usize| u32::from(stream.get(at / 8 + i).copied().unwrap_or(0)) << (8 * i);
    ((byte(0) | byte(1) | byte(2)) >> (at % 8)) as u16
}

fn write_stream<'a>(
    bytes: impl Iterator<Item = &'a u8>,
    codes: &[u16; SYMBOLS],
    lengths: &[u8; SYMBOLS],
) -> Vec<u8> {
    let (mut to, mut bits, mut count) = (Vec::new(), 0u32, 0);
    for byte in bytes {
        bits |= u32::from(codes[usize::from(*byte)]) << count;
        count += lengths[usize::from(*byte)];
        while count >= 8 {
            to.push(bits as u8);
            (bits, count) = (bits >> 8, count - 8);
        }
    }
    if count > 0 {
        to.push(bits as u8);
    }
    to
}

/// The lengths of the best code for bytes that occur so often, none above [`MAX_BITS`] (package-merge). `None` where
/// nothing occurs. One byte alone gets a code of one bit, and another that does not occur the other.
fn code_lengths(counts: &[u64; SYMBOLS]) -> Option<[u8; SYMBOLS]> {
    let mut leaves: Vec<(u64, usize)> =
        counts.iter().zip(0..).filter(|(n, _)| **n > 0).map(|(n, symbol)| (*n, symbol)).collect();
    if let [(_, only)] = leaves[..] {
        leaves.push((0, only ^ 1));
    }
    leaves.sort_unstable();
    let mut lengths = [0; SYMBOLS];
    let (mut levels, mut packages) = (Vec::new(), Vec::new());
    for _ in 0..MAX_BITS {
        // Leaves before packages of the same weight, so that what is taken of a byte on one level is taken on all above.
        let mut level: Vec<(u64, bool)> = leaves.iter().map(|(n, _)| (*n, false)).collect();
        level.extend(packages.iter().map(|n| (*n, true)));
        level.sort_unstable();
        packages = level.as_chunks().0.iter().map(|[(a, _), (b, _)]| a + b).collect::<Vec<u64>>();
        levels.push(level);
    }
    // Each of the cheapest items of a level costs the bytes in it a bit.
    let mut taken = 2 * leaves.len().checked_sub(1)?;
    for level in levels.iter().rev() {
        let of_leaves = level.iter().take(taken).filter(|(_, package)| !package).count();
        for (_, symbol) in &leaves[..of_leaves] {
            lengths[*symbol] += 1;
        }
        taken = 2 * (taken - of_leaves);
    }
    Some(lengths)
}

#[cfg(test)]
mod tests;
