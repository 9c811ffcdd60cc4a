//! `streamerson dlq`: dead letters, and what becomes of them.

mod drop;
mod filter;
mod letter;
mod ls;
mod moving;
mod pace;
mod retry;
mod show;
mod summary;

use clap::{Args, Subcommand};

use crate::failure::Result;

/// List, show, retry and drop dead letters: messages that could not be handled, kept with the reason
#[derive(Debug, Args)]
pub(crate) struct DlqCommand {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Ls(ls::Ls),
    Show(show::Show),
    Retry(retry::Retry),
    Drop(drop::Drop),
}

impl DlqCommand {
    pub(crate) async fn run(self) -> Result<()> {
        match self.verb {
            Verb::Ls(ls) => ls.run().await,
            Verb::Show(show) => show.run().await,
            Verb::Retry(retry) => retry.run().await,
            Verb::Drop(drop) => drop.run().await,
        }
    }
}
