//! `demo`: builds the command line and the functions, then hands over to `glowplug demo`.

use crate::workspace::{self, PROFILE, WORKSPACE};
use anyhow::Result;

/// Builds and runs the demo; its exit status is the chore's.
///
/// All binaries of the workspace, not only the four that it starts: cargo turns on the features that the
/// selected packages ask for, and another selection than the tests' would compile tokio and the AWS SDK anew.
pub(crate) fn run() -> Result<()> {
    workspace::run(&mut workspace::cargo(
        ["build", "--profile", PROFILE].into_iter().chain(WORKSPACE).chain(["--bins"]),
    )?)?;
    let bin_dir = workspace::bin_dir()?;
    let mut demo = workspace::command(bin_dir.join("glowplug"));
    workspace::run(demo.arg("demo").arg("--functions").arg(&bin_dir).args(["--data", "tests/data"]))
}
