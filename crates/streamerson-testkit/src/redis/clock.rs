//! A wrong clock for one server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = include_str!("clock.c");

/// Makes what is to be preloaded, and a clock that is right as yet.
pub(super) fn prepare(folder: &Path) -> Result<(), String> {
    let source = folder.join("clock.c");
    fs::write(&source, SOURCE).map_err(|error| error.to_string())?;
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]);
    let output = compiler.arg(library(folder)).arg(source).output();
    let output =
        output.map_err(|error| format!("cc: {error}; install it by apt-get install gcc"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    set(folder, 0)
}

/// What a server in `folder` needs to see that clock.
pub(super) fn apply(command: &mut Command, folder: &Path) {
    command
        .env("LD_PRELOAD", library(folder))
        .env("CLOCK_OFFSET", offset(folder));
}

/// The clock is wrong by `seconds` from now on.
pub(super) fn set(folder: &Path, seconds: i64) -> Result<(), String> {
    let aside = folder.join("offset.new");
    let set = fs::write(&aside, seconds.to_string());
    // In one step, so that nobody reads half of it.
    set.and_then(|()| fs::rename(aside, offset(folder)))
        .map_err(|error| error.to_string())
}

fn library(folder: &Path) -> PathBuf {
    folder.join("clock.so")
}

fn offset(folder: &Path) -> PathBuf {
    folder.join("offset")
}
