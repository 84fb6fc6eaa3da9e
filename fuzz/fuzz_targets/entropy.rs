//! The decoder of entropy-coded chunks: hostile ones are refused or decoded, and what is coded comes back.
#![no_main]

use glowplug_pack::entropy::{decode, encode};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some(([low, high], chunk)) = bytes.split_first_chunk() else { return };
    let len = usize::from(u16::from_le_bytes([*low, *high]));
    let _ = decode(chunk, &mut vec![0; len]);
    if let Some(coded) = encode(chunk) {
        let mut decoded = vec![0; chunk.len()];
        decode(&coded, &mut decoded).expect("what was coded");
        assert!(decoded == chunk && coded.len() < chunk.len());
        // The last byte of each of four streams has up to seven bits behind its last code, which may look like codes of one bit.
        assert!(decode(&coded, &mut vec![0; chunk.len() + 4 * 7 + 1]).is_err());
    }
});
