//! For which CPUs a plan is made.
//!
//! tract decides once per process which kernels it may choose, from the CPU and `TRACT_CPU_ISA`. A pack should run on
//! other CPUs than the one it was made on, so the choice is set to a target's instruction sets before tract looks
//! at the CPU for the first time. Plans for several targets are made by a process each, and merged.

use crate::error::{ErrorKind, PackerError};
use std::fmt;
use std::str::FromStr;
use tract_linalg::isa::{Isa, native};

/// The CPUs that a plan is made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// AVX2 and FMA on x86-64, which every Lambda host and CI runner has; on other architectures what the host has.
    #[default]
    Common,
    /// AVX-512 (its foundation, F) on x86-64.
    Avx512,
}

impl Target {
    /// Every target, with the name that the flag takes.
    const NAMES: [(Target, &'static str); 2] = [(Target::Common, "common"), (Target::Avx512, "avx512")];

    /// The instruction sets of x86-64 that its plans leave alone, of those above AVX2.
    fn without(self) -> &'static [Isa] {
        const ABOVE: [Isa; 6] = [
            Isa::X86_64Avx512f,
            Isa::X86_64Avx512Vnni,
            Isa::X86_64Avx512Fp16,
            Isa::X86_64AvxVnni,
            Isa::X86_64AmxInt8,
            Isa::X86_64AmxBf16,
        ];
        match self {
            Target::Common => &ABOVE,
            Target::Avx512 => &ABOVE[1..],
        }
    }

    /// Whether this CPU can run its plans.
    #[must_use]
    pub fn runs_here(self) -> bool {
        match self {
            Target::Common => true,
            #[cfg(target_arch = "x86_64")]
            Target::Avx512 => std::arch::is_x86_feature_detected!("avx512f"),
            #[cfg(not(target_arch = "x86_64"))]
            Target::Avx512 => false,
        }
    }

    /// Sets this process to the target's instruction sets. A `TRACT_CPU_ISA` in the environment is left to do
    /// what it says.
    ///
    /// Errors: tract has chosen already and otherwise, because something ran a plan in this process before; a
    /// target of another architecture.
    pub(crate) fn choose(self) -> Result<(), PackerError> {
        let bad = |text: String| Err(PackerError::new(ErrorKind::Target, text));
        if !cfg!(target_arch = "x86_64") {
            return match self {
                Target::Common => Ok(()),
                Target::Avx512 => bad(format!("plans for {self} are made on x86-64 only")),
            };
        }
        if std::env::var_os("TRACT_CPU_ISA").is_some() {
            return Ok(());
        }
        let mut isa: Vec<_> = self.without().iter().map(|isa| format!("-{isa}")).collect();
        if self == Target::Avx512 {
            isa.push(format!("+{}", Isa::X86_64Avx512f));
        }
        tract_linalg::knobs::TRACT_CPU_ISA.set(Some(isa.join(",")));
        let wider = self.without().iter().find(|isa| native().has(**isa));
        let narrower = self == Target::Avx512 && !native().has(Isa::X86_64Avx512f);
        if let Some(isa) = wider {
            return bad(format!("this process already runs plans with {isa}: pack in a process of its own"));
        }
        if narrower {
            return bad(format!(
                "this process already runs plans without {self}: pack in a process of its own"
            ));
        }
        Ok(())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Target::NAMES.iter().find(|(target, _)| target == self);
        f.write_str(found.map_or("unknown", |(_, name)| name))
    }
}

impl FromStr for Target {
    type Err = PackerError;

    fn from_str(text: &str) -> Result<Target, PackerError> {
        let found = Target::NAMES.iter().find(|(_, name)| *name == text);
        let names: Vec<_> = Target::NAMES.iter().map(|(_, name)| *name).collect();
        let wrong = || format!("--target {text:?}, expected one of {}", names.join(", "));
        found.map(|(target, _)| *target).ok_or_else(|| PackerError::new(ErrorKind::Target, wrong()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_names() {
        for (target, name) in Target::NAMES {
            assert_eq!((name.parse::<Target>().unwrap(), target.to_string()), (target, name.to_owned()));
        }
        let e = "avx9".parse::<Target>().unwrap_err();
        assert!(e.to_string().contains("expected one of common, avx512"), "{e}");
    }
}
