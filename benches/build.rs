//! Links every measured program as functions are linked (docs/adr/0010-process-start.md), the rivals' too: what
//! helps any Rust binary to start is no merit of an engine.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    // Only for the linker that Rust itself brings: others do not know the second option.
    if variable("TARGET") == "x86_64-unknown-linux-gnu" && variable("RUSTC_LINKER").is_empty() {
        println!("cargo::rustc-link-arg-bins=-no-pie");
        println!("cargo::rustc-link-arg-bins=-Wl,-z,keep-text-section-prefix");
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    }
}
