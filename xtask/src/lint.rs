//! `cargo xtask lint`.

use std::process::Command;

use anyhow::{Result, bail};

use crate::command::{self, cargo};

/// Checks everything that needs no test to run, cheapest first.
pub(crate) fn run() -> Result<()> {
    ensure_components()?;
    command::run(&mut cargo(["fmt", "--all", "--check"]))?;
    one_tls_provider()?;
    command::run(&mut cargo([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    let mut doc = cargo(["doc", "--workspace", "--no-deps"]);
    command::run(doc.env("RUSTDOCFLAGS", "-D warnings"))?;
    eprintln!("cargo xtask lint: clean");
    Ok(())
}

/// The minimal profile of rustup comes without them.
fn ensure_components() -> Result<()> {
    for (subcommand, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if command::output(&mut cargo([subcommand, "--version"])).is_err() {
            command::run(Command::new("rustup").args(["component", "add", component]))?;
        }
    }
    Ok(())
}

/// rustls takes its cryptography from aws-lc-rs. A second provider compiles, and then panics at
/// the first handshake, because rustls refuses to guess between two.
fn one_tls_provider() -> Result<()> {
    let mut tree = cargo([
        "tree",
        "--workspace",
        "--all-features",
        "--edges",
        "normal",
        "--prefix",
        "none",
    ]);
    let tree = command::output(&mut tree)?;
    if !holds(&tree, "aws-lc-rs") {
        bail!("`cargo tree` does not show aws-lc-rs: this check no longer sees the TLS provider");
    }
    if holds(&tree, "ring") {
        let _ = command::run(&mut cargo([
            "tree",
            "--workspace",
            "--all-features",
            "--edges",
            "normal",
            "-i",
            "ring",
        ]));
        bail!(
            "`ring` is in the dependency tree: use the aws-lc-rs feature of the crate that pulls it in"
        );
    }
    Ok(())
}

fn holds(tree: &str, package: &str) -> bool {
    tree.lines()
        .any(|line| line.split(' ').next() == Some(package))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_held_by_its_exact_name() {
        let tree = "streamerson v0.1.0 (/work)\nrustls v0.23.46\nring v0.17.14 (*)\n";
        assert!(holds(tree, "ring"));
        assert!(!holds(tree, "rin"));
        assert!(!holds("string v1.0.0\nring-buffer v1.0.0\n", "ring"));
    }
}
