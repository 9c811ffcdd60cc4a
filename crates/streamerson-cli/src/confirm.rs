//! `--yes` and `--dry-run`: what cannot be taken back is shown first, and done only when it was meant.

use clap::Args;

use crate::failure::{Failure, Result};
use crate::output::message;

/// Whether to act.
#[derive(Debug, Args)]
pub(crate) struct Confirm {
    /// Do it, without being asked
    #[arg(long)]
    yes: bool,

    /// Only show what would happen
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
}

impl Confirm {
    /// Whether nothing is to be done.
    pub(crate) fn only_looks(&self) -> bool {
        self.dry_run
    }

    /// Shows `preview`, and answers whether to act: no for a dry run, and an error when nobody has said yes.
    pub(crate) fn decide(&self, preview: &[String]) -> Result<bool> {
        for line in preview {
            message(line);
        }
        match (self.dry_run, self.yes) {
            (true, _) => Ok(false),
            (_, true) => Ok(true),
            _ => Err(Failure::usage(
                "confirmation-missing",
                "nothing was done, because this cannot be taken back",
            )
            .with_help("add --yes to do it, or --dry-run to only look")),
        }
    }
}
