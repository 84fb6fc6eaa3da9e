//! Links the binary to fixed addresses, keeps apart what runs once before `main`, and folds functions of equal
//! code: see docs/adr/0010-process-start.md.

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
