//! `streamerson chaos-child`: a program that ends with the run which started it.

use clap::Args;

use crate::chaos::child::become_program;
use crate::failure::{Exit, Failure, Result};

/// Become another program, and end with the parent
#[derive(Debug, Args)]
pub(crate) struct ChaosChild {
    #[arg(required = true, last = true)]
    program: Vec<String>,
}

impl ChaosChild {
    pub(crate) fn run(self) -> Result<()> {
        let (program, arguments) = match self.program.split_first() {
            Some((program, arguments)) => (program.as_str(), arguments),
            None => ("", &[][..]),
        };
        let error = become_program(program, arguments);
        let detail = format!("{program}: {error}");
        Err(Failure::new(Exit::Failed, "program-not-started", detail))
    }
}
