//! Arithmetic of our own, where tract has none that fits: each function in AVX2 and FMA, chosen when it is called,
//! and in plain Rust, which is what other CPUs run and what the tests hold the vectors to.

pub(crate) mod activation;
pub(crate) mod columns;
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
