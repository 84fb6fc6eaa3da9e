//! V2 infer documents, JSON and binary, from hostile bytes.
#![no_main]

use glowplug_processing::v2::InferRequest;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = InferRequest::parse(bytes, None);
    if let Some((len, body)) = bytes.split_first() {
        let _ = InferRequest::parse(body, Some(usize::from(*len)));
    }
});
