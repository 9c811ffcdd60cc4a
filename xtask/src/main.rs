//! The automation of this repository: `cargo xtask test`, `lint` and `bench`.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line talks to its terminal"
)]

mod bench;
mod command;
mod lint;
mod packages;
mod test;

use std::process::ExitCode;

use clap::Parser;

/// The automation of this repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    /// Run every test and doctest, installing the servers they need.
    Test,
    /// Check formatting, lints, documentation and the dependency tree.
    Lint,
    /// Compare Streamerson with its peers on this machine.
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let outcome = match Task::parse() {
        Task::Test => test::run(),
        Task::Lint => lint::run(),
        Task::Bench(args) => bench::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without the backtrace that RUST_BACKTRACE adds to a returned error: it says nothing here.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
