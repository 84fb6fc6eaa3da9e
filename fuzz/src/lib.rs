//! What the targets share: small packs, whose weights hostile plans refer to.
#![feature(cfg_sanitize)]

pub mod cost;
pub mod mutate;
pub mod poison;

use glowplug_pack::Pack;
use std::sync::LazyLock;

/// A pack that plans may be decoded against, or run.
pub struct Base {
    /// The file's name without its ending.
    pub name: &'static str,
    /// The whole file.
    pub file: &'static [u8],
    /// Its front.
    pub pack: Pack,
}

/// The golden pack of format 1, and one for every operator that reads weights. Those were made by
/// `glowplug pack tests/data/ops/NAME.onnx -o fuzz/bases/NAME.glow`.
///
/// Seeds name them by place, so new ones go to the end.
pub static BASES: LazyLock<Vec<Base>> = LazyLock::new(|| {
    macro_rules! files {
        ($($name:literal at $path:literal),* $(,)?) => { [$(($name, include_bytes!($path).as_slice())),*] };
    }
    let files = files![
        "mnist-cnn" at "../../tests/data/1/mnist-cnn.glow",
        "chain" at "../bases/chain.glow",
        "images-in-blocks" at "../bases/images-in-blocks.glow",
        "depthwise-steps" at "../bases/depthwise-steps.glow",
        "squeeze-and-excite" at "../bases/squeeze-and-excite.glow",
        "attention" at "../bases/attention.glow",
        "dense-residual" at "../bases/dense-residual.glow",
        "layer-normalization" at "../bases/layer-normalization.glow",
        "one-hot" at "../bases/one-hot.glow",
        "lstm" at "../bases/lstm.glow",
        "deconv" at "../bases/deconv.glow",
        "fused-conv" at "../bases/fused-conv.glow",
        "fused-operands" at "../bases/fused-operands.glow",
        "conv-groups" at "../bases/conv-groups.glow",
        "gather-rows" at "../bases/gather-rows.glow",
        "gather" at "../bases/gather.glow",
    ];
    let base = |(name, file)| Base { name, file, pack: Pack::parse(file).expect("a base pack parses") };
    files.map(base).into()
});

/// The base that the first byte of an input names, and the plan section behind it.
pub fn base(input: &[u8]) -> Option<(&'static Base, &[u8])> {
    let (first, section) = input.split_first()?;
    Some((BASES.get(usize::from(*first))?, section))
}
