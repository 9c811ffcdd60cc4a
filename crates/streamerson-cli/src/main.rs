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

use failure::{Exit, Failure};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A thread looks at the queue shared by all after so many tasks of its own. One batch of replies wakes more tasks than a
/// thread's own queue holds, and the rest goes to the shared one: at Tokio's default of up to a hundred times as many, those
/// callers wait for tens of milliseconds while others are served again and again.
const FAIRNESS: u32 = 7;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .global_queue_interval(FAIRNESS)
        .enable_all()
        .build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(cli.run()),
        Err(error) => Err(Failure::new(
            Exit::Failed,
            "no-threads",
            format!("the system gives no threads to work with: {error}"),
        )),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
