//! Arithmetic of our own, where tract has none that fits: each function in AVX2 and FMA, chosen when it is called,
//! and in plain Rust, which is what other CPUs run and what the tests hold the vectors to.
//!
//! Vectors come in two ways. `ops::blocked::lanes` is a trait: kernels of images are written once, for AVX2 and for an
//! array, and are unsafe throughout, since a trait's methods cannot carry `target_feature`. [`vector`] is functions of
//! AVX2 alone, safe to call where the feature is, each kernel with a plain twin beside it.

pub(crate) mod activation;
pub(crate) mod columns;
pub(crate) mod expand;
pub(crate) mod int8;
pub(crate) mod product;
pub(crate) mod rows;
#[cfg(target_arch = "x86_64")]
mod vector;

/// Whether this process may use AVX2 and FMA: the CPU has them, and `TRACT_CPU_ISA` does not forbid them.
#[inline]
pub(crate) fn has_avx2() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use std::sync::OnceLock;
        use tract_linalg::isa::{Isa, native};
        static FOUND: OnceLock<bool> = OnceLock::new();
        *FOUND.get_or_init(|| {
            let allowed = native().has(Isa::X86_64Avx2) && native().has(Isa::X86_64Fma);
            allowed
                && std::arch::is_x86_feature_detected!("avx2")
                && std::arch::is_x86_feature_detected!("fma")
        })
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}
