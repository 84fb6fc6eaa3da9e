//! For which CPUs a plan is made.
//!
//! tract decides once per process which kernels it may choose, from the CPU and `TRACT_CPU_ISA`. A pack
//! should run on more CPUs than the one it was made on, so on x86-64 the choice is narrowed to AVX2 and FMA,
//! which every Lambda host and CI runner has, before tract looks at the CPU for the first time.

use crate::error::{ErrorKind, PackerError};
use tract_linalg::isa::{Isa, native};

/// Everything above AVX2 and FMA.
const X86_64_ABOVE_AVX2: [Isa; 6] = [
    Isa::X86_64Avx512f,
    Isa::X86_64Avx512Vnni,
    Isa::X86_64Avx512Fp16,
    Isa::X86_64AvxVnni,
    Isa::X86_64AmxInt8,
    Isa::X86_64AmxBf16,
];

/// Narrows this process to the instruction sets that packs are made for. Other architectures plan for the
/// host's own. A `TRACT_CPU_ISA` in the environment is left to do what it says.
///
/// Errors: tract has chosen already and more widely, because something ran a plan in this process before.
pub(crate) fn narrow() -> Result<(), PackerError> {
    if std::env::var_os("TRACT_CPU_ISA").is_some() || !cfg!(target_arch = "x86_64") {
        return Ok(());
    }
    let without: Vec<_> = X86_64_ABOVE_AVX2.iter().map(|isa| format!("-{isa}")).collect();
    tract_linalg::knobs::TRACT_CPU_ISA.set(Some(without.join(",")));
    match X86_64_ABOVE_AVX2.into_iter().find(|isa| native().has(*isa)) {
        Some(isa) => Err(PackerError::new(
            ErrorKind::Target,
            format!("this process already runs plans with {isa}: pack in a process of its own"),
        )),
        None => Ok(()),
    }
}
