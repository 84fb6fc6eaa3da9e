//! The `glowplug` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    glowplug_cli::main()
}
