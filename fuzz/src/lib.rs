//! What the targets share: small packs, whose weights hostile plans refer to.
#![feature(cfg_sanitize)]

pub mod cost;
pub mod mutate;
pub mod poison;

/// The window of an operator, if it has one: `Some(window)` of whatever reference to an `Op` it is given.
macro_rules! window_of {
    ($op:expr) => {
        match $op {
            Op::Im2col { window, .. }
            | Op::DepthwiseConv { window, .. }
            | Op::DirectConv { window, .. }
            | Op::Col2Im { window }
            | Op::AveragePool { window, .. }
            | Op::MaxPool { window }
            | Op::Int8Conv { window, .. }
            | Op::Int8DepthwiseConv { window, .. }
            | Op::Int8MaxPool { window }
            | Op::BlockedConv { window, .. }
            | Op::BlockedDepthwiseConv { window, .. } => Some(window),
            _ => None,
        }
    };
}
pub(crate) use window_of;

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

/// The golden pack of format 1, and one for every operator that reads weights (docs/fuzzing.md tells how each was made).
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
        "rows-int8" at "../bases/rows-int8.glow",
        "images-in-blocks-int8" at "../bases/images-in-blocks-int8.glow",
        "depthwise-steps-int8" at "../bases/depthwise-steps-int8.glow",
    ];
    let base = |(name, file)| Base { name, file, pack: Pack::parse(file).expect("a base pack parses") };
    files.map(base).into()
});

/// The base that the first byte of an input names, and the plan section behind it.
pub fn base(input: &[u8]) -> Option<(&'static Base, &[u8])> {
    let (first, section) = input.split_first()?;
    Some((BASES.get(usize::from(*first))?, section))
}
