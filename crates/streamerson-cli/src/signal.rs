//! Ctrl-C and SIGTERM: the first asks to finish, the second ends at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::failure::{Exit, Failure, Result};
use crate::output::message;

/// What a shell reports of a process that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// A token that the first signal cancels.
pub(crate) fn shutdown() -> Result<CancellationToken> {
    let failed = |error| {
        Failure::new(
            Exit::Failed,
            "signals-unavailable",
            format!("cannot listen for signals: {error}"),
        )
    };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let token = CancellationToken::new();
    let shutdown = token.clone();
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if first {
                message("stopping: finishing what is in flight (Ctrl-C again stops at once)");
                shutdown.cancel();
            }
        }
        std::process::exit(INTERRUPTED);
    });
    Ok(token)
}
