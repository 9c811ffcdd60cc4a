//! `cargo xtask test`.

use anyhow::Result;

use crate::command::{self, cargo};
use crate::packages::{self, FAKETIME, PYTHON, REDIS};

/// Runs the tests of every crate. They start private servers on free ports, so nothing that runs
/// on this machine is touched.
pub(crate) fn run() -> Result<()> {
    packages::ensure(&[FAKETIME, PYTHON, REDIS])?;
    command::run(&mut cargo([
        "test",
        "--workspace",
        "--all-features",
        "--no-fail-fast",
    ]))?;
    eprintln!("cargo xtask test: all tests passed");
    Ok(())
}
