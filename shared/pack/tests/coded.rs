//! Entropy-coded packs: what plain ones are in memory, whichever way they come; and what hostile ones get.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails panics")]

use glowplug_pack::header::{CHUNK_BYTES, Chunk};
use glowplug_pack::manifest::ModelInfo;
use glowplug_pack::{
    Buffer, Dtype, ErrorKind, Form, Header, Manifest, Pack, PackBuilder, PackError, Place, Region,
    SectionKind, WeightId,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Values of 4 bits or so, as quantized weights are; no two chunks are alike.
fn few(len: usize) -> Vec<u8> {
    let mut state = 7u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 61) as u8
    };
    (0..len).map(|_| next().wrapping_add(next()).wrapping_sub(7)).collect()
}

/// Blobs of three chunks that get shorter and one that does not, an embedding table that does not, a portable section
/// that does.
fn pack(entropy: bool) -> Vec<u8> {
    let mut b = PackBuilder::new();
    b.entropy(entropy);
    let plain = |n: usize| Form::Plain { dtype: Dtype::U8, shape: vec![n] };
    let mut blobs = few(2 * CHUNK_BYTES);
    blobs.extend((0u32..1 << 18).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8));
    blobs.extend(few(1000));
    b.weight("bias", Place::Constants, plain(10_000), &[1; 10_000]).unwrap();
    b.weight("w", Place::Blobs, plain(blobs.len()), &blobs).unwrap();
    let even: Vec<u8> = (0..=255).cycle().take(700).collect();
    b.weight("rows", Place::Embeddings, plain(700), &even).unwrap();
    b.portable(few(5000));
    b.asset("labels.txt", vec![b'a'; 5000]).unwrap();
    let model = ModelInfo { name: "m".into(), licence: None };
    b.finish(Manifest { model, ..Manifest::default() }).unwrap()
}

/// What every chunk is in memory.
fn memory(pack: &Pack, region: &Region) -> Vec<Vec<u8>> {
    // A chunk that another thread is decoding is waited for.
    let soon = Some(Instant::now() + Duration::from_secs(30));
    pack.chunks().iter().map(|c| region.wait(c.range(), soon).unwrap().to_vec()).collect()
}

fn at(range: std::ops::Range<u64>) -> std::ops::Range<usize> {
    usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()
}

fn pending(pack: &Pack) -> Region {
    let memory = Buffer::zeroed(pack.memory_len().unwrap()).unwrap();
    Region::pending(memory, pack.chunks().to_vec()).unwrap()
}

#[test]
fn a_coded_pack_is_in_memory_what_the_plain_one_is() {
    let (plain, coded) = (pack(false), pack(true));
    let (of_plain, plain_region) = Pack::open(&plain).unwrap();
    let (of_coded, coded_region) = Pack::open(&coded).unwrap();
    assert_eq!((plain[8], coded[8]), (1, 2), "readers of version 1 refuse it by its version");
    assert!(coded.len() * 10 < plain.len() * 7, "{} of {}", coded.len(), plain.len());
    assert_eq!(of_coded.header().file_len, coded.len() as u64);
    assert_eq!(of_coded.header().memory_len, plain.len() as u64);
    let coded_sections = of_coded.header().sections.iter().filter(|s| s.coded).map(|s| s.kind);
    assert_eq!(coded_sections.collect::<Vec<_>>(), [SectionKind::Blobs, SectionKind::Portable]);
    let coded_chunks: Vec<_> = of_coded.chunks().iter().map(Chunk::is_coded).collect();
    assert_eq!(coded_chunks, [false, false, false, false, true, true, false, true, false, true]);

    assert_eq!(memory(&of_coded, &coded_region), memory(&of_plain, &plain_region));
    of_coded.verify_content(&coded_region, None).unwrap();
    assert!(coded_region.is_complete());
    for id in (0..3).map(WeightId) {
        assert_eq!(of_coded.weight_range(id).unwrap(), of_plain.weight_range(id).unwrap());
    }
    assert_eq!(of_coded.portable_range(), of_plain.portable_range());
    assert_eq!(of_coded.asset_range("labels.txt").unwrap(), of_plain.asset_range("labels.txt").unwrap());
    // The fronts differ, and so do the hashes of all.
    assert_ne!(of_coded.memory_hash(&coded_region).unwrap(), of_plain.memory_hash(&plain_region).unwrap());
}

#[test]
fn what_gets_no_shorter_leaves_a_pack_as_it_was() {
    let build = |entropy| {
        let mut b = PackBuilder::new();
        b.entropy(entropy);
        let even: Vec<u8> = (0..=255).cycle().take(300_000).collect();
        let form = Form::Plain { dtype: Dtype::U8, shape: vec![even.len()] };
        b.weight("w", Place::Blobs, form, &even).unwrap();
        let model = ModelInfo { name: "m".into(), licence: None };
        b.finish(Manifest { model, ..Manifest::default() }).unwrap()
    };
    assert_eq!(build(true), build(false));
}

#[test]
fn a_coded_pack_streamed_chunk_by_chunk_in_any_order_is_the_same() {
    let (file, (plain, plain_region)) = (pack(true), Pack::open(&pack(false)).unwrap());
    let pack = Pack::parse(&file).unwrap();
    let region = pending(&pack);
    for (index, chunk) in pack.chunks().iter().enumerate().rev() {
        assert_eq!(
            region.wait(chunk.range(), Some(Instant::now())).unwrap_err().kind(),
            ErrorKind::Timeout,
            "chunk {index} was not delivered yet"
        );
        region.deliver(index, &file[at(chunk.stored())]).unwrap();
        region.deliver(index, &file[at(chunk.stored())]).unwrap();
        if chunk.is_coded() {
            // As many bytes as it has in memory are not what the file has.
            assert!(region.deliver(index, &vec![0; chunk.len]).is_err());
        }
    }
    assert_eq!(memory(&pack, &region), memory(&plain, &plain_region));
    pack.verify_content(&region, None).unwrap();
}

#[test]
fn many_threads_read_a_local_coded_pack_while_another_brings_it() {
    let (plain, plain_region) = Pack::open(&pack(false)).unwrap();
    let wanted = memory(&plain, &plain_region);
    for _ in 0..20 {
        let (pack, region) = Pack::open(&pack(true)).unwrap();
        std::thread::scope(|s| {
            s.spawn(|| (0..pack.chunks().len()).for_each(|index| region.bring(index).unwrap()));
            for _ in 0..3 {
                s.spawn(|| assert_eq!(memory(&pack, &region), wanted));
            }
        });
    }
}

#[test]
fn only_what_is_read_is_decoded() {
    let (pack, region) = Pack::open(&pack(true)).unwrap();
    let blobs = pack.header().section(SectionKind::Blobs).unwrap();
    region.wait(blobs.offset..blobs.offset + 1, None).unwrap();
    assert!(format!("{region:?}").contains("1 of 10 chunks"), "{region:?}");
}

#[test]
fn a_coded_pack_is_not_read_in_place() {
    let e = Pack::from_complete(&Region::complete(Buffer::copy_of(&pack(true)).unwrap())).unwrap_err();
    assert!(e.kind() == ErrorKind::Invalid && e.to_string().contains("in place"), "{e}");
}

/// A file whose hashes are right again after `damage` to the bytes of a chunk: what whoever wrote it may have meant.
fn with_right_hashes(index: usize, damage: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut file = pack(true);
    let parsed = Pack::parse(&file).unwrap();
    damage(&mut file[at(parsed.chunks()[index].stored())]);
    let entry = parsed.header().chunk_table().start + 40 * index;
    let hash = blake3::hash(&file[at(parsed.chunks()[index].stored())]);
    file[entry..entry + 32].copy_from_slice(hash.as_bytes());
    let number = parsed.header().sections.iter().position(|s| s.chunks.contains(&index)).unwrap();
    let mut hasher = blake3::Hasher::new();
    for chunk in parsed.header().sections[number].chunks.clone() {
        let entry = parsed.header().chunk_table().start + 40 * chunk;
        hasher.update(&file[entry..entry + 32]);
    }
    let row = 40 + 64 * number + 32;
    file[row..row + 32].copy_from_slice(hasher.finalize().as_bytes());
    file
}

#[test]
fn a_chunk_that_cannot_be_decoded_is_an_error_to_all_who_wait() {
    for (byte, value, kind, text) in [
        (0, 9, ErrorKind::Unsupported, "chunk 5: coding 9"),
        (1, 0xff, ErrorKind::Corrupt, "chunk 5: code lengths of up to 15 bits"),
        (132, 0xff, ErrorKind::Corrupt, "chunk 5: stream 0 of"),
        (129, 0, ErrorKind::Corrupt, "chunk 5: stream 0 of"),
    ] {
        let file = with_right_hashes(5, |bytes| {
            assert_ne!(bytes[byte], value);
            bytes[byte] = value;
        });
        let told = |e: PackError| assert!(e.kind() == kind && e.to_string().contains(text), "{e}");
        let (pack, region) = Pack::open(&file).unwrap();
        let bad = pack.chunks()[5].range();
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| told(region.wait(bad.clone(), None).unwrap_err()));
            }
        });
        told(region.bring(5).unwrap_err());
        told(pack.verify_content(&region, None).unwrap_err());
        // Streamed, it is refused when it comes, and all others are of use.
        let region = pending(&pack);
        for (index, chunk) in pack.chunks().iter().enumerate() {
            let delivered = region.deliver(index, &file[at(chunk.stored())]);
            if index == 5 { told(delivered.unwrap_err()) } else { delivered.unwrap() }
        }
        assert_eq!(region.wait(bad, Some(Instant::now())).unwrap_err().kind(), ErrorKind::Timeout);
        assert!(!region.is_complete());
    }
}

#[test]
fn a_waiter_is_told_when_the_thread_that_was_at_its_chunk_fails() {
    let file = with_right_hashes(4, |bytes| bytes[0] = 0);
    for _ in 0..50 {
        let (pack, region) = Pack::open(&file).unwrap();
        let region = Arc::new(region);
        let others = (0..2).map(|_| {
            let (region, range) = (region.clone(), pack.chunks()[4].range());
            std::thread::spawn(move || region.wait(range, None).map(drop))
        });
        let others: Vec<_> = others.collect();
        // Nothing to do where one of them is at it.
        let _ = region.bring(4);
        assert!(others.into_iter().all(|other| other.join().unwrap().is_err()));
    }
}

/// Sections: manifest, weights, constants, assets, blobs, embeddings, portable.
const BLOBS_ROW: usize = 40 + 4 * 64;

#[test]
fn every_length_of_a_coded_section_is_checked() {
    let file = pack(true);
    let header = Header::parse(&file).unwrap();
    let table = header.chunk_table().start + 4 * 40;
    let u32_of = |n: u32| n.to_le_bytes().to_vec();
    for (name, at, bytes, kind, text) in [
        ("an old version", 8, vec![1], ErrorKind::Corrupt, "unknown coding"),
        ("a new version", 8, vec![3], ErrorKind::Unsupported, "version 3"),
        ("another coding", BLOBS_ROW + 4, vec![2], ErrorKind::Corrupt, "unknown coding"),
        ("no coding", BLOBS_ROW + 4, vec![0], ErrorKind::Corrupt, "unknown coding or reserved"),
        ("a coded manifest", 40 + 4, vec![1], ErrorKind::Corrupt, "section 0 (manifest): unknown coding"),
        ("an empty last chunk", BLOBS_ROW + 28, u32_of(0), ErrorKind::Corrupt, "last chunk has 0 bytes"),
        ("a long last chunk", BLOBS_ROW + 28, u32_of(262_145), ErrorKind::Corrupt, "262145 bytes"),
        (
            "another last chunk",
            BLOBS_ROW + 28,
            u32_of(999),
            ErrorKind::Corrupt,
            "chunk 7: 1000 bytes, expected 999",
        ),
        ("longer coded", BLOBS_ROW + 16, u32_of(800_000), ErrorKind::Corrupt, "expected fewer"),
        ("far too short", BLOBS_ROW + 16, u32_of(90_000), ErrorKind::Corrupt, "not less than an eighth"),
        ("no chunks", BLOBS_ROW + 24, u32_of(0), ErrorKind::Corrupt, "coded, and without chunks"),
        ("chunk too short", table + 32, u32_of(32_767), ErrorKind::Corrupt, "chunk 4: 32767 stored bytes"),
        ("chunk too long", table + 32, u32_of(262_145), ErrorKind::Corrupt, "chunk 4: 262145 stored bytes"),
        ("chunk of no bytes", table + 32, u32_of(0), ErrorKind::Corrupt, "chunk 4: 0 stored bytes"),
        ("decoded length", table + 36, u32_of(5), ErrorKind::Corrupt, "chunk 4: 5 bytes, expected 262144"),
        ("chunks that do not add up", table + 32, u32_of(200_000), ErrorKind::Corrupt, "blobs end at"),
    ] {
        let mut file = file.clone();
        file[at..at + bytes.len()].copy_from_slice(&bytes);
        let e = Pack::open(&file).unwrap_err();
        assert!(e.kind() == kind && e.to_string().contains(text), "{name}: {e}");
    }
    let mut plain = pack(false);
    plain[8] = 2;
    let e = Pack::open(&plain).unwrap_err();
    assert!(e.kind() == ErrorKind::Corrupt && e.to_string().contains("no section is coded"), "{e}");
}

#[test]
fn every_truncation_and_every_flipped_bit_of_the_content_is_found() {
    let file = pack(true);
    let read = |bytes: &[u8]| {
        let (pack, region) = Pack::open(bytes)?;
        pack.verify_content(&region, None)
    };
    read(&file).unwrap();
    for len in (0..2048).chain([file.len() / 2, file.len() - 1]) {
        let e = read(&file[..len]).unwrap_err();
        assert!(matches!(e.kind(), ErrorKind::Truncated | ErrorKind::NotAPack), "{len} bytes: {e}");
    }
    for section in &Header::parse(&file).unwrap().sections {
        for byte in [section.stored.start, section.stored.end - 1] {
            let mut file = file.clone();
            file[usize::try_from(byte).unwrap()] ^= 1;
            let e = read(&file).unwrap_err();
            assert!(e.to_string().contains("the chunk table wants"), "{}: {e}", section.kind.name());
        }
    }
}
