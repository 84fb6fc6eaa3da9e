//! Which CPUs a plan fits: `x86_64+avx2+fma`, the architecture and the instruction sets its kernels need.

use tract_linalg::isa::{IsaSet, native};

/// The tract version whose kernels this build has. Plans name kernels, which are not stable between versions.
pub const TRACT_VERSION: &str = "0.23.9";

/// What this process may use: what the CPU has, as edited by `TRACT_CPU_ISA`.
#[must_use]
pub fn host() -> String {
    name(native())
}

/// The name of a set of instruction sets, architecture first.
#[must_use]
pub fn name(set: IsaSet) -> String {
    let names: Vec<_> = set.iter().map(|isa| isa.name()).collect();
    if names.is_empty() { "generic".to_owned() } else { names.join("+") }
}

/// Why a plan for `target` does not run here, if so.
pub(crate) fn missing(target: &str) -> Option<String> {
    let host = native();
    let lacks: Vec<_> = target
        .split('+')
        .filter(|token| *token != "generic" && !host.iter().any(|isa| isa.name() == *token))
        .collect();
    (!lacks.is_empty())
        .then(|| format!("needs {target}, this CPU lacks {} (it has {})", lacks.join(", "), name(host)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_fits_itself_and_no_unknown_target() {
        assert_eq!(missing(&host()), None);
        assert_eq!(missing("generic"), None);
        for target in ["x86_64+avx9", "", "riscv64+rvv"] {
            assert!(missing(target).is_some_and(|text| text.contains(&host())), "{target}");
        }
    }
}
