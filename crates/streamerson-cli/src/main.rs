//! The `streamerson` command. [`cli`] lists what there is to call, [`command`] holds one file per command.

mod chaos;
mod cli;
mod command;
mod confirm;
mod demo;
mod destination;
mod duration;
mod edge;
mod endpoint;
mod failure;
mod figures;
mod log;
mod output;
mod payload;
mod program;
mod signal;
mod storage;
mod template;
mod view;

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match cli::Cli::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
