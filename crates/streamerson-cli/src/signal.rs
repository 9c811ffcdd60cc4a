//! Ctrl-C and SIGTERM: the first asks to finish, the second ends at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::failure::{Exit, Failure, Result};
use crate::output::message;

/// What a shell reports of a process that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// What the signals ask for.
pub(crate) struct Signals {
    /// Cancelled by the first: to finish.
    pub(crate) finish: CancellationToken,
    /// Cancelled by the second: to [`exit`] at once.
    pub(crate) end: CancellationToken,
}

/// A token that the first signal cancels; the second ends this process.
pub(crate) fn shutdown() -> Result<CancellationToken> {
    let Signals { finish, end } = signals()?;
    tokio::spawn(async move {
        end.cancelled().await;
        exit()
    });
    Ok(finish)
}

/// Ends this process as the second signal asks for.
pub(crate) fn exit() -> ! {
    std::process::exit(INTERRUPTED)
}

/// Both signals, for who has something to do before the end.
pub(crate) fn signals() -> Result<Signals> {
    let failed = |error| {
        Failure::new(
            Exit::Failed,
            "signals-unavailable",
            format!("cannot listen for signals: {error}"),
        )
    };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let (finish, end) = (CancellationToken::new(), CancellationToken::new());
    let signals = Signals {
        finish: finish.clone(),
        end: end.clone(),
    };
    tokio::spawn(async move {
        for token in [&finish, &end] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if !finish.is_cancelled() {
                message("stopping: finishing what is in flight (Ctrl-C again stops at once)");
            }
            token.cancel();
        }
    });
    Ok(signals)
}
