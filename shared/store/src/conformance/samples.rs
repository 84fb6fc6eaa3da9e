//! Packs to store: valid, and of a wanted size, without a model inside.

use bytes::Bytes;
use glowplug_pack::manifest::ModelInfo;
use glowplug_pack::{Dtype, Form, Manifest, PackBuilder, Place};

/// A valid pack named `name` whose weights take `weight_bytes` bytes, of values that depend on `seed`.
#[must_use]
pub fn sample_pack(name: &str, weight_bytes: usize, seed: u8) -> Bytes {
    pack(name, weight_bytes, seed, false)
}

/// The same of values of about 5 bits each, and entropy-coded.
#[must_use]
pub fn coded_pack(name: &str, weight_bytes: usize, seed: u8) -> Bytes {
    pack(name, weight_bytes, seed, true)
}

fn pack(name: &str, weight_bytes: usize, seed: u8, coded: bool) -> Bytes {
    let mut builder = PackBuilder::new();
    builder.entropy(coded);
    // A multiplicative generator: no two chunks are alike, so none can be taken for another.
    let mut state = u64::from(seed) + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let byte = state.to_le_bytes()[7];
        if coded { byte % 32 } else { byte }
    };
    for (place, share) in [(Place::Blobs {}, 2), (Place::Embeddings {}, 3)] {
        let bytes: Vec<u8> = (0..weight_bytes / 3 * (4 - share)).map(|_| next()).collect();
        let form = Form::Plain { dtype: Dtype::U8, shape: vec![bytes.len()] };
        builder.weight("w", place, form, &bytes).unwrap();
    }
    let model = ModelInfo { name: name.to_owned(), licence: None };
    builder.finish(Manifest { model, ..Manifest::default() }).unwrap().into()
}
