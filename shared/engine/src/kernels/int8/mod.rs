//! Convolutions in bytes: activations u8, weights i8, sums i32, and an f32 tail that every CPU computes alike.
//!
//! *Images* are `[N, H, W, S]` of u8, all channels of a position side by side (`glowplug_pack::int8`). A row of a window is one run of bytes, whatever its width, so that no patches are laid out;
//! four bytes of a position meet four weights of each of eight filters in one instruction. Bytes beyond the channels hold
//! anything: their weights are 0.
//!
//! *Sums.* `vpmaddubsw` adds two products in 16 bits, with saturation, and two such sums are added before they are
//! widened: three multiplications for 64 weights, where f32 takes eight. So that no CPU saturates and all agree, weights
//! are bounded where they are laid out: of every four that are summed up in 16 bits, the positive ones together,
//! and the negative ones, are at most `SUM_LIMIT`, and activations are at most `MOST`. `vpdpbusd`, where there is one, adds four
//! products to 32 bits, of the same operands in the same order: the sums are the same.
//!
//! *The tail* is f32, one rounding for each operation, never fused: `x = sum * multiplier + bias` (a value of each for
//! each channel), `x + residual * scale`, a function, then `x` between two limits and to the nearest whole number, ties
//! to even.

pub(crate) mod conv;
pub(crate) mod depthwise;
pub(crate) mod layout;
pub(crate) mod planes;
pub(crate) mod slide;
mod tail;
#[cfg(test)]
mod tests;

use crate::kernels::has_avx2;
use crate::share;
use std::cell::Cell;
use std::sync::OnceLock;
pub(crate) use tail::{Residual, Tail};

thread_local! {
    static PLAIN: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f` with the convolutions in bytes that it calls on this thread in plain code, whatever the CPU has: what their
/// vectors are held to, for whoever verifies a pack.
pub fn in_plain_code<R>(f: impl FnOnce() -> R) -> R {
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            PLAIN.set(self.0);
        }
    }
    let _before = Before(PLAIN.replace(true));
    f()
}

/// How a convolution's sums are made: in the same whole numbers, whichever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "other CPUs have the plain one"))]
pub(crate) enum Code {
    /// One product after the other.
    Plain,
    /// `vpmaddubsw`.
    Avx2,
    /// `vpdpbusd` of AVX-VNNI, and all of AVX2.
    AvxVnni,
    /// The same of AVX-512.
    Avx512Vnni,
}

impl Code {
    /// Those that this process may use, the best one last.
    fn usable() -> &'static [Code] {
        static FOUND: OnceLock<Vec<Code>> = OnceLock::new();
        FOUND.get_or_init(|| {
            #[cfg_attr(
                not(target_arch = "x86_64"),
                expect(unused_mut, reason = "other CPUs have the plain one")
            )]
            let mut found = vec![Code::Plain];
            #[cfg(target_arch = "x86_64")]
            if has_avx2() {
                use std::arch::is_x86_feature_detected as has;
                use tract_linalg::isa::{Isa, native};
                found.push(Code::Avx2);
                if native().has(Isa::X86_64AvxVnni) && has!("avxvnni") {
                    found.push(Code::AvxVnni);
                }
                let avx512 = native().has(Isa::X86_64Avx512f) && native().has(Isa::X86_64Avx512Vnni);
                if avx512 && has!("avx512vnni") && has!("avx512vl") {
                    found.push(Code::Avx512Vnni);
                }
            }
            found
        })
    }

    /// The best one, or plain code within [`in_plain_code`].
    pub(crate) fn best() -> Code {
        let best = Code::usable().last().copied().filter(|_| !PLAIN.get());
        best.unwrap_or(Code::Plain)
    }
}

/// Whether vectors are used.
pub(crate) fn vectors() -> bool {
    Code::best() != Code::Plain
}

/// Where a kernel's output goes.
pub(crate) enum Output<'a> {
    /// `[N, OH, OW, S]`.
    Bytes(&'a mut [u8]),
    /// `[N, ceil(O / 8), OH, OW, 8]`.
    Floats(&'a mut [f32]),
}

impl Output<'_> {
    fn len(&self) -> usize {
        match self {
            Output::Bytes(to) => to.len(),
            Output::Floats(to) => to.len(),
        }
    }

    fn shared(self) -> Out {
        match self {
            Output::Bytes(to) => Out::Bytes(share::Output(to.as_mut_ptr())),
            Output::Floats(to) => Out::Floats(share::Output(to.as_mut_ptr())),
        }
    }
}

/// The output, written by several threads in places of their own.
#[derive(Clone, Copy)]
enum Out {
    Bytes(share::Output<u8>),
    Floats(share::Output<f32>),
}
