//! Logs: on stderr, quiet by default.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::failure::{Failure, Result};

/// What is logged, and how.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// What to log to stderr, for example info, or streamerson=debug
    #[arg(
        long,
        global = true,
        value_name = "FILTER",
        env = "RUST_LOG",
        default_value = "warn",
        help_heading = "Logging"
    )]
    log: String,

    /// How to log
    #[arg(
        long,
        global = true,
        value_enum,
        env = "STREAMERSON_LOG_FORMAT",
        default_value = "text",
        help_heading = "Logging"
    )]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

impl LogArgs {
    /// Starts logging for this process.
    pub(crate) fn start(&self) -> Result<()> {
        let filter = EnvFilter::try_new(&self.log).map_err(|error| {
            Failure::usage(
                "invalid-log-filter",
                format!("--log {:?}: {error}", self.log),
            )
        })?;
        let registry = tracing_subscriber::registry().with(filter);
        let logs = layer().with_writer(std::io::stderr);
        match self.log_format {
            LogFormat::Text => {
                let colour = std::io::stderr().is_terminal()
                    && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
                registry.with(logs.with_ansi(colour)).init();
            }
            LogFormat::Json => registry.with(logs.json()).init(),
        }
        Ok(())
    }
}
