//! What a hostile pack gets: an error that names the place, never a panic. And what an honest one gets:
//! itself again. One attack per check, then random damage on top.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails panics")]

use glowplug_pack::header::{ALIGN, CHUNK_BYTES, MAGIC};
use glowplug_pack::manifest::{Axis, InputSpec, Manifest, ModelInfo};
use glowplug_pack::{
    Buffer, Dtype, EncodedPanel, Encoding, ErrorKind, Form, Header, Pack, PackBuilder, Place, Region,
};
use proptest::prelude::*;

fn manifest() -> Manifest {
    let axis = |name: &str, size| Axis { name: name.into(), size, symbolic: false };
    let axes = vec![axis("batch", 1), axis("feature", 4)];
    Manifest {
        model: ModelInfo { name: "m".into(), licence: Some("MIT".into()) },
        inputs: vec![InputSpec { name: "x".into(), dtype: Dtype::F32, axes, pipeline: vec![], pad: None }],
        ..Manifest::default()
    }
}

/// A pack with one weight in every place, blobs of more than one chunk, and an asset.
fn pack() -> Vec<u8> {
    let mut b = PackBuilder::new();
    let plain = |n: usize| Form::Plain { dtype: Dtype::U8, shape: vec![n] };
    b.weight("bias", Place::Constants, plain(10), &[1; 10]).unwrap();
    let panels = Form::Panels { dtype: Dtype::F32, k: 3, mn: 20, r: 16, panel_bytes: 512 };
    b.weight("w", Place::Blobs, panels, &[2; 1024]).unwrap();
    b.weight("big", Place::Blobs, plain(CHUNK_BYTES + 1), &vec![3; CHUNK_BYTES + 1]).unwrap();
    b.weight("rows", Place::Embeddings, plain(100), &[4; 100]).unwrap();
    b.asset("labels.txt", b"a\nb\n".to_vec()).unwrap();
    b.finish(manifest()).unwrap()
}

fn region(bytes: &[u8]) -> Region {
    Region::complete(Buffer::copy_of(bytes).unwrap())
}

/// The error of the file, its front or any of its content.
fn read_all(bytes: &[u8]) -> Result<Pack, glowplug_pack::PackError> {
    let region = region(bytes);
    let pack = Pack::from_complete(&region)?;
    pack.verify_content(&region, None)?;
    Ok(pack)
}

#[test]
fn a_pack_reads_back_as_it_was_written() {
    let bytes = pack();
    let pack = read_all(&bytes).unwrap();
    let region = region(&bytes);
    assert_eq!(pack.manifest().model.name, "m");
    let names: Vec<_> = pack.weights().iter().map(|w| w.name.as_str()).collect();
    assert_eq!(names, ["bias", "w", "big", "rows"]);
    for (id, byte) in [(0, 1u8), (1, 2), (2, 3), (3, 4)] {
        let range = pack.weight_range(glowplug_pack::WeightId(id)).unwrap();
        assert_eq!(range.start % if id == 0 { 64 } else { ALIGN }, 0);
        assert!(region.wait(range, None).unwrap().iter().all(|b| *b == byte));
    }
    assert_eq!(region.wait(pack.asset_range("labels.txt").unwrap(), None).unwrap(), b"a\nb\n");
    assert_eq!(pack.digest().len(), 64);
}

#[test]
fn a_pack_streamed_chunk_by_chunk_in_any_order_is_the_same() {
    let bytes = pack();
    let pack = Pack::parse(&bytes).unwrap();
    let region = Region::pending(Buffer::zeroed(bytes.len()).unwrap(), pack.chunks().to_vec()).unwrap();
    for (i, chunk) in pack.chunks().iter().enumerate().rev() {
        let start = usize::try_from(chunk.offset).unwrap();
        region.deliver(i, &bytes[start..start + chunk.len]).unwrap();
    }
    pack.verify_content(&region, None).unwrap();
}

/// Overwrites bytes of the header and says what the reader must answer.
struct Attack {
    name: &'static str,
    at: usize,
    bytes: &'static [u8],
    kind: ErrorKind,
    text: &'static str,
}

const ROW: usize = 64;
const FIRST_ROW: usize = 40;
/// The blobs section is row 4: manifest, weights, constants, assets, blobs, embeddings.
const BLOBS_ROW: usize = FIRST_ROW + 4 * ROW;

#[test]
fn every_header_field_is_checked() {
    use ErrorKind::{Corrupt, NotAPack, Unsupported};
    let a = |name, at, bytes, kind, text| Attack { name, at, bytes, kind, text };
    let attacks = [
        a("magic", 0, b"\x89PNG\r\n\x1a\n", NotAPack, "expected the magic"),
        a("version", 8, &[9, 0], Unsupported, "version 9"),
        a("flags", 10, &[4], Corrupt, "unknown flags"),
        a("reserved", 32, &[1], Corrupt, "reserved"),
        a("no sections", 12, &[0, 0, 0, 0], Corrupt, "0 sections"),
        a("many sections", 12, &[0xff; 4], Corrupt, "4294967295 sections"),
        a("file length", 16, &[0xff; 8], Corrupt, "file length"),
        a("front length", 24, &[0xff; 8], Corrupt, "front length"),
        a("section kind", FIRST_ROW, &[99], Unsupported, "unknown kind 99"),
        a("repeated section", FIRST_ROW + ROW, &[1], Corrupt, "out of order or repeated"),
        a("coding", FIRST_ROW + 4, &[1], Corrupt, "unknown coding"),
        a("overlapping sections", BLOBS_ROW + 8, &[0; 8], Corrupt, "section 4 (blobs): offset 0"),
        a("offset past the end", BLOBS_ROW + 8, &[0xff; 8], Corrupt, "section 4 (blobs): offset"),
        a("length past the end", BLOBS_ROW + 16, &[0xff; 8], Corrupt, "chunks for"),
        a("too many chunks", BLOBS_ROW + 24, &[0xff; 4], Corrupt, "offset"),
        a("section hash", BLOBS_ROW + 32, &[0; 32], Corrupt, "hash of section blobs"),
    ];
    for attack in attacks {
        let mut bytes = pack();
        bytes[attack.at..attack.at + attack.bytes.len()].copy_from_slice(attack.bytes);
        let e = read_all(&bytes).unwrap_err();
        assert!(e.kind() == attack.kind && e.to_string().contains(attack.text), "{}: {e}", attack.name);
    }
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = pack();
    for len in (0..2048).chain([bytes.len() / 2, bytes.len() - 1]) {
        let e = read_all(&bytes[..len]).unwrap_err();
        assert!(matches!(e.kind(), ErrorKind::Truncated | ErrorKind::NotAPack), "{len} bytes: {e}");
    }
}

#[test]
fn every_flipped_bit_of_the_content_is_found() {
    let bytes = pack();
    let header = Header::parse(&bytes).unwrap();
    for section in &header.sections {
        for at in [section.offset, section.range().end - 1] {
            let mut bytes = bytes.clone();
            bytes[usize::try_from(at).unwrap()] ^= 1;
            let e = read_all(&bytes).unwrap_err();
            assert!(e.to_string().contains("the chunk table wants"), "{}: {e}", section.kind.name());
        }
    }
}

#[test]
fn weights_that_do_not_fit_are_refused_before_they_are_written() {
    let form = Form::Panels { dtype: Dtype::F32, k: 100, mn: 20, r: 16, panel_bytes: 512 };
    let e = PackBuilder::new().weight("w", Place::Blobs, form, &[0; 512]).unwrap_err();
    assert!(e.to_string().contains("panel_bytes 512, expected a multiple of 512 of at least 6400"), "{e}");
    let form = Form::Plain { dtype: Dtype::F32, shape: vec![usize::MAX, 8] };
    assert!(PackBuilder::new().weight("w", Place::Blobs, form, &[]).is_err());
}

#[test]
fn a_form_that_this_reader_does_not_know_is_refused_by_its_tag() {
    use glowplug_pack::wire::{Reader, Writer};
    let known = Writer::encode(&Form::EncodedRows { encoding: Encoding::Int8, shape: vec![2, 3] });
    assert_eq!(known[..2], [3, 1]);
    for (at, tag, text) in [(0, 4, "unknown Form tag 4"), (1, 2, "unknown Encoding tag 2")] {
        let mut bytes = known.clone();
        bytes[at] = tag;
        let e = Reader::decode::<Form>(&bytes).unwrap_err();
        assert!(e.to_string().contains(text), "{e}");
    }
}

#[test]
fn encoded_weights_expand_to_what_was_encoded() {
    let values: Vec<f32> = (0..20i16 * 3).map(|i| f32::from(i - 30) / 8.0).collect();
    for encoding in [Encoding::F16, Encoding::Int8] {
        let rounded: Vec<f32> = values.chunks(3).flat_map(|row| encoding.round(row).unwrap()).collect();
        let rows: Vec<u8> = rounded.chunks(3).flat_map(|row| encoding.encode_row(row).unwrap()).collect();
        let form = Form::EncodedRows { encoding, shape: vec![20, 3] };
        let (plain, bytes) = form.expand(&rows).unwrap();
        assert_eq!(plain, Form::Plain { dtype: Dtype::F32, shape: vec![20, 3] });
        assert_eq!(bytes, rounded.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
        assert!(form.expand(&rows[1..]).is_err());

        // The same as two panels of 16 rows, the last 12 of which are missing.
        let panel = EncodedPanel { encoding, k: 3, r: 16 };
        let form = Form::encoded_panels(panel, 20).unwrap();
        let Form::EncodedPanels { panel_bytes, .. } = form else { panic!("{form:?}") };
        let at = |row: usize, k: usize| rounded.get(row * 3 + k).copied().unwrap_or_default();
        let mut encoded = Vec::new();
        for p in 0..2 {
            let values: Vec<f32> = (0..3).flat_map(|k| (0..16).map(move |i| at(p * 16 + i, k))).collect();
            encoded.extend(panel.encode(&values).unwrap());
            encoded.resize((p + 1) * panel_bytes, 0xff);
        }
        let (panels, bytes) = form.expand(&encoded).unwrap();
        assert_eq!(panels, Form::Panels { dtype: Dtype::F32, k: 3, mn: 20, r: 16, panel_bytes: 512 });
        for (row, k) in (0..32).flat_map(|row| (0..3).map(move |k| (row, k))) {
            let byte = row / 16 * 512 + (k * 16 + row % 16) * 4;
            assert_eq!(bytes[byte..byte + 4], at(row, k).to_le_bytes(), "{encoding} row {row}, depth {k}");
        }
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), magic: bool) {
        let mut bytes = bytes;
        if magic && bytes.len() >= 16 {
            bytes[..8].copy_from_slice(&MAGIC);
            bytes[8..16].copy_from_slice(&[0, 0, 0, 0, 3, 0, 0, 0]);
        }
        prop_assert!(Pack::parse(&bytes).is_err());
    }

    #[test]
    fn random_damage_is_an_error_or_harmless_padding(at in 0usize..4096, byte: u8) {
        let mut bytes = pack();
        let before = bytes[at];
        bytes[at] = byte;
        let header = Header::parse(&pack()).unwrap();
        let covered = at < header.chunk_table().end
            || header.sections.iter().any(|s| s.range().contains(&(at as u64)));
        prop_assert_eq!(read_all(&bytes).is_err(), covered && byte != before);
    }

    #[test]
    fn any_contents_round_trip(
        constants in proptest::collection::vec(any::<u8>(), 0..300),
        blobs in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..2000), 0..6),
    ) {
        let mut b = PackBuilder::new();
        let plain = |n| Form::Plain { dtype: Dtype::U8, shape: vec![n] };
        b.weight("c", Place::Constants, plain(constants.len()), &constants).unwrap();
        for blob in &blobs {
            b.weight("b", Place::Blobs, plain(blob.len()), blob).unwrap();
        }
        let bytes = b.finish(manifest()).unwrap();
        let pack = read_all(&bytes).unwrap();
        for (i, want) in std::iter::once(&constants).chain(&blobs).enumerate() {
            let id = glowplug_pack::WeightId(u32::try_from(i).unwrap());
            let range = pack.weight_range(id).unwrap();
            let found = &bytes[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
            prop_assert_eq!(found, want.as_slice());
        }
    }
}
