//! When the operating system asks the process to end.

/// Completes on SIGTERM or Ctrl-C, for [`Serve::with_graceful_shutdown`](crate::worker::Serve::with_graceful_shutdown).
///
/// From the first poll on, these signals no longer end the process by themselves. Workers do not do this on their own,
/// because a process may hold more than workers.
pub async fn shutdown_signal() {
    let interrupt = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    };
    tokio::select! {
        () = interrupt => (),
        () = terminate() => (),
    }
}

#[cfg(unix)]
async fn terminate() {
    use tokio::signal::unix::{SignalKind, signal};

    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            terminate.recv().await;
        }
        Err(error) => {
            tracing::warn!(%error, "SIGTERM cannot be listened to");
            std::future::pending().await
        }
    }
}

#[cfg(not(unix))]
async fn terminate() {
    std::future::pending().await
}
