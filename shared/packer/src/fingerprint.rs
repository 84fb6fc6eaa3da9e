//! What tensors that hold the same values in another order have in common.

use glowplug_pack::Dtype;

/// Type, number of values and their sum.
pub(crate) type Fingerprint = (Dtype, usize, u64);

/// A sum over values that does not depend on their order, in which zeros do not count.
pub(crate) fn sum(dtype: Dtype, bytes: &[u8]) -> u64 {
    let value = |chunk: &[u8]| chunk.iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
    bytes.chunks_exact(dtype.size()).map(|c| mixed(value(c))).fold(0, u64::wrapping_add)
}

/// 0 for 0, and for any other number one that differs in half of its bits from those of its neighbours.
fn mixed(value: u64) -> u64 {
    let z = value.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 32)
}
