//! The coder against a decoder that goes bit by bit, and against chunks that nobody coded.

use super::*;
use proptest::prelude::*;

/// Bytes that are likelier the nearer to 0 they are, as quantized weights are: `spread` says how much.
fn weights(len: usize, spread: u32) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    };
    let sum = |random: &mut dyn FnMut() -> u32| (0..4).map(|_| random() % spread).sum::<u32>();
    (0..len).map(|_| (sum(&mut random).wrapping_sub(2 * spread)).to_le_bytes()[0]).collect()
}

/// What a chunk means by the words of docs/format.md: codes are numbers that count up, each of its length.
fn reference(coded: &[u8], len: usize) -> Option<Vec<u8>> {
    let nibble = |symbol: usize| coded[1 + symbol / 2] >> (4 * (symbol % 2)) & 15;
    let mut by_code = std::collections::HashMap::new();
    let mut code = 0u32;
    for bits in 1..=11u8 {
        for symbol in (0..256).filter(|symbol| nibble(*symbol) == bits) {
            by_code.insert((bits, code), symbol as u8);
            code += 1;
        }
        code *= 2;
    }
    let mut rest = &coded[141..];
    let mut streams = Vec::new();
    for at in [129, 133, 137] {
        let len = u32::from_le_bytes(coded[at..at + 4].try_into().ok()?) as usize;
        streams.push(&rest[..len]);
        rest = &rest[len..];
    }
    streams.push(rest);
    let mut at = [0; 4];
    let byte = |index: usize| {
        let (mut bits, mut code) = (0, 0);
        loop {
            let bit = at[index % 4];
            code = code * 2 + u32::from(streams[index % 4].get(bit / 8)? >> (bit % 8) & 1);
            (bits, at[index % 4]) = (bits + 1, bit + 1);
            if let Some(byte) = by_code.get(&(bits, code)) {
                return Some(*byte);
            }
            if bits == 11 {
                return None;
            }
        }
    };
    (0..len).map(byte).collect()
}

fn round_trip(bytes: &[u8]) -> Option<usize> {
    let coded = encode(bytes)?;
    let mut decoded = vec![0xa5; bytes.len()];
    decode(&coded, &mut decoded).unwrap();
    assert_eq!(decoded, bytes);
    assert_eq!(reference(&coded, bytes.len()).unwrap(), bytes);
    Some(coded.len())
}

/// A chunk of these code lengths and streams.
fn chunk(lengths: &[(u8, u8)], streams: [&[u8]; 4]) -> Vec<u8> {
    let mut coded = vec![0; HEAD_BYTES];
    coded[0] = HUFFMAN;
    for (symbol, len) in lengths {
        coded[1 + usize::from(*symbol) / 2] |= len << (4 * (symbol % 2));
    }
    for (index, stream) in streams[..3].iter().enumerate() {
        coded[129 + 4 * index] = u8::try_from(stream.len()).unwrap();
    }
    coded.extend(streams.concat());
    coded
}

#[test]
fn quantized_weights_become_shorter_by_nearly_what_their_entropy_says() {
    for (spread, wanted) in [(64, 0.92), (32, 0.80), (8, 0.60), (2, 0.30)] {
        let bytes = weights(256 * 1024, spread);
        let mut counts = [0u32; 256];
        bytes.iter().for_each(|b| counts[usize::from(*b)] += 1);
        let share = |n: u32| f64::from(n) / bytes.len() as f64;
        let entropy: f64 = counts.iter().filter(|n| **n > 0).map(|n| -share(*n) * share(*n).log2()).sum();
        let ratio = round_trip(&bytes).unwrap() as f64 / bytes.len() as f64;
        assert!(ratio < wanted && ratio >= entropy / 8.0, "{spread}: {ratio} of entropy {}", entropy / 8.0);
        // What whole bits for each byte cost: the more, the fewer there are.
        assert!(ratio < entropy / 8.0 + 0.015, "{spread}: {ratio} of entropy {}", entropy / 8.0);
    }
}

#[test]
fn chunks_of_every_length_come_back() {
    let bytes = weights(4096, 8);
    for len in (400..460).chain(1000..1030).chain(4000..4096) {
        assert!(round_trip(&bytes[..len]).is_some(), "{len}");
    }
}

#[test]
fn what_does_not_get_shorter_is_not_coded() {
    assert_eq!(encode(&[]), None);
    assert_eq!(encode(&[7; 100]), None, "shorter than what a chunk begins with");
    let even: Vec<u8> = (0..=255).cycle().take(256 * 1024).collect();
    assert_eq!(encode(&even), None);
    // 8 bits of entropy less 2 % are not worth it either.
    assert_eq!(encode(&weights(256 * 1024, 256)), None);
}

#[test]
fn one_byte_and_two_bytes_and_very_rare_ones_have_codes() {
    let len = 256 * 1024;
    assert_eq!(round_trip(&vec![0; len]), Some(HEAD_BYTES + len / 8));
    assert_eq!(round_trip(&vec![255; len]), Some(HEAD_BYTES + len / 8));
    let two: Vec<u8> = (0..len).map(|i| if i % 7 == 0 { 3 } else { 200 }).collect();
    assert_eq!(round_trip(&two), Some(HEAD_BYTES + len / 8));
    // Each byte half as often as the one before: the best code would have lengths of up to 17 bits.
    let mut steep: Vec<u8> = (0..17u8).flat_map(|byte| vec![byte; 1 << (17 - byte)]).collect();
    steep.push(17);
    assert!(round_trip(&steep).unwrap() < steep.len() * 28 / 100);
    let all: Vec<u8> = (0..=255).chain(vec![9; len]).collect();
    assert!(round_trip(&all).is_some());
}

#[test]
fn code_lengths_are_a_complete_code_and_the_best() {
    // By hand: 1, 1, 2, 3, 5, 8 and so on are the steepest counts that need no limit.
    let mut counts = [0; SYMBOLS];
    for (count, n) in counts.iter_mut().zip([1, 1, 2, 3, 5, 8, 13]) {
        *count = n;
    }
    assert_eq!(code_lengths(&counts).unwrap()[..8], [6, 6, 5, 4, 3, 2, 1, 0]);
    counts = [0; SYMBOLS];
    assert_eq!(code_lengths(&counts), None);
    for n in 1..=256 {
        counts[n - 1] = 1 << (n % 50);
        let lengths = code_lengths(&counts).unwrap();
        assert!(table(&lengths).is_ok(), "{n}");
        assert!(counts.iter().zip(lengths).all(|(count, len)| n == 1 || (*count > 0) == (len > 0)), "{n}");
    }
}

#[test]
fn hostile_chunks_are_refused() {
    let half: &[(u8, u8)] = &[(0, 1), (1, 1)];
    let one: &[u8] = &[0b10];
    // Eight bytes: two bits of each stream.
    let sound = chunk(half, [one; 4]);
    let mut to = [0; 8];
    decode(&sound, &mut to).unwrap();
    assert_eq!(to, [0, 0, 0, 0, 1, 1, 1, 1]);

    let with = |at: usize, byte: u8| {
        let mut coded = sound.clone();
        coded[at] = byte;
        coded
    };
    for (name, coded, len, text) in [
        ("nothing", vec![], 8, "0 coded bytes"),
        ("a head cut short", sound[..HEAD_BYTES - 1].to_vec(), 8, "140 coded bytes, expected 141"),
        ("no codes", chunk(&[], [one; 4]), 8, "fill 0 rows"),
        ("one code of one bit", chunk(&[(0, 1)], [one; 4]), 8, "fill 1024 rows"),
        ("a gap", chunk(&[(0, 1), (1, 2)], [one; 4]), 8, "fill 1536 rows"),
        ("too many codes", chunk(&[(0, 1), (1, 1), (2, 11)], [one; 4]), 8, "fill 2049 rows"),
        ("a code of 12 bits", chunk(&[(0, 1), (1, 1), (2, 12)], [one; 4]), 8, "up to 12 bits"),
        ("a code of 15 bits", chunk(&[(0, 1), (1, 1), (9, 15)], [one; 4]), 8, "up to 15 bits"),
        ("all bytes of 7 bits", with(1, 0x77), 8, "rows of 2048"),
        ("a long stream", with(129, 9), 8, "stream 0 of 9 bytes, 4 are left"),
        ("a very long stream", with(140, 255), 8, "stream 2 of 4278190081 bytes"),
        ("no bytes are left", with(137, 3), 8, "stream 2 of 3 bytes, 2 are left"),
        ("a byte too few", chunk(half, [one, one, one, &[]]), 8, "stream 3 of 0 bytes"),
        ("a byte too many", chunk(half, [one, one, one, &[2, 0]]), 8, "stream 3 of 2 bytes"),
        ("bits behind the last code", chunk(half, [one, &[0b110], one, one]), 8, "stream 1 of 1 bytes"),
        ("longer than told", sound.clone(), 4, "stream 0 of 1 bytes, its codes take 1 bits"),
        ("shorter than told", sound.clone(), 256, "stream 0 of 1 bytes, its codes take 64 bits"),
        ("much shorter than told", sound.clone(), 100_000, "stream 0 of 1 bytes"),
    ] {
        let e = decode(&coded, &mut vec![0; len]).unwrap_err();
        assert!(e.kind() == ErrorKind::Corrupt && e.to_string().contains(text), "{name}: {e}");
    }
    for coding in [0, 2, 255] {
        let e = decode(&with(0, coding), &mut to).unwrap_err();
        assert!(e.kind() == ErrorKind::Unsupported && e.to_string().contains("coding"), "{e}");
    }
}

#[test]
fn a_chunk_cut_anywhere_is_refused() {
    let bytes = weights(3000, 8);
    let coded = encode(&bytes).unwrap();
    let mut to = vec![0; bytes.len()];
    for len in 0..coded.len() {
        decode(&coded[..len], &mut to).unwrap_err();
    }
    for len in (0..bytes.len()).chain([bytes.len() + 1, 2 * bytes.len()]) {
        decode(&coded, &mut vec![0; len]).unwrap_err();
    }
}

proptest! {
    #[test]
    fn whatever_is_coded_comes_back(len in 0usize..3000, spread in 1u32..40, rare in any::<[u8; 3]>()) {
        let mut bytes = weights(len, spread);
        bytes.extend(rare);
        if let Some(coded) = round_trip(&bytes) {
            prop_assert!(coded * 100 <= bytes.len() * 97);
            prop_assert!(coded as u64 * MAX_RATIO >= bytes.len() as u64);
        }
    }

    #[test]
    fn a_damaged_chunk_is_refused_or_means_what_the_words_say(
        len in 500usize..2000,
        spread in 1u32..20,
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let bytes = weights(len, spread);
        let Some(mut coded) = encode(&bytes) else { return Ok(()) };
        for (at, byte) in damage {
            let at = at.index(coded.len());
            coded[at] = byte;
        }
        let mut decoded = vec![0; len];
        if decode(&coded, &mut decoded).is_ok() {
            prop_assert_eq!(reference(&coded, len), Some(decoded));
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), len in 0usize..2000) {
        let mut coded = bytes;
        if let Some(first) = coded.first_mut() {
            *first = HUFFMAN;
        }
        let _ = decode(&coded, &mut vec![0; len]);
    }
}
