//! Signs of life, from a thread of their own.
//!
//! Handlers may keep every thread of the runtime busy for longer than a lease; their worker is alive all the same. So the
//! signs of life of a worker do not depend on its runtime, up to [`STUCK`]: whoever does not get to run for so long is
//! not alive in any useful sense, and others may have its messages.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use streamerson_core::Settler;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use super::held::Held;
use super::stats::{Counters, WorkerStats};

/// How long signs of life go on for a worker whose own runtime does not run.
const STUCK: Duration = Duration::from_secs(60);

/// A thread that outlives busy runtimes; it ends with the last clone.
#[derive(Debug, Clone)]
pub(super) struct Heartbeat {
    runtime: Handle,
    _end: Arc<oneshot::Sender<()>>,
}

impl Heartbeat {
    /// Starts the thread. Where the system has none to give, signs of life come from the present runtime.
    pub(super) fn start() -> Heartbeat {
        let (end, ended) = oneshot::channel();
        let runtime = thread(ended).unwrap_or_else(|error| {
            tracing::warn!(%error, "no thread for signs of life; handlers that block may lose their leases");
            Handle::current()
        });
        Heartbeat {
            runtime,
            _end: Arc::new(end),
        }
    }

    /// Runs `future` on the thread, for as long as the answer lives.
    pub(super) fn spawn(
        &self,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> AbortOnDropHandle<()> {
        AbortOnDropHandle::new(self.runtime.spawn(future))
    }

    /// Keeps the leases of everything in `held` for as long as the answer lives.
    pub(super) fn keep(
        &self,
        held: Arc<Held>,
        settler: Arc<dyn Settler>,
        lease: Duration,
        counters: Counters,
    ) -> Keeping {
        let pulse = Arc::new(Mutex::new(Instant::now()));
        let beating = keep(held, settler, lease, pulse.clone(), counters);
        Keeping {
            _beating: self.spawn(beating),
            _pulse: AbortOnDropHandle::new(tokio::spawn(feel(pulse, lease))),
        }
    }
}

/// Dropped, it keeps no more.
pub(super) struct Keeping {
    _beating: AbortOnDropHandle<()>,
    _pulse: AbortOnDropHandle<()>,
}

/// Tells whether the runtime on which it was made still runs.
pub(super) struct Pulse {
    at: Arc<Mutex<Instant>>,
    stuck: Duration,
    _feeling: AbortOnDropHandle<()>,
}

impl Pulse {
    pub(super) fn feel(lease: Duration) -> Pulse {
        let at = Arc::new(Mutex::new(Instant::now()));
        Pulse {
            stuck: stuck(lease),
            _feeling: AbortOnDropHandle::new(tokio::spawn(feel(at.clone(), lease))),
            at,
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.at.lock().elapsed() > self.stuck
    }
}

/// How long a worker with this lease may not get to run.
fn stuck(lease: Duration) -> Duration {
    STUCK.max(lease.saturating_mul(10))
}

fn thread(ended: oneshot::Receiver<()>) -> std::io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new()
        .name("streamerson-leases".into())
        .spawn(move || {
            // Fails when the last clone is dropped, which is the end.
            let _ = runtime.block_on(ended);
        })?;
    Ok(handle)
}

/// Notes that the worker's runtime runs.
async fn feel(pulse: Arc<Mutex<Instant>>, lease: Duration) {
    loop {
        *pulse.lock() = Instant::now();
        tokio::time::sleep(lease / 3).await;
    }
}

/// Extends the leases of everything held, three times within a lease, so that one sign of life may get lost.
async fn keep(
    held: Arc<Held>,
    settler: Arc<dyn Settler>,
    lease: Duration,
    pulse: Arc<Mutex<Instant>>,
    counters: Counters,
) {
    let stuck = stuck(lease);
    loop {
        tokio::time::sleep(lease / 3).await;
        let silent = pulse.lock().elapsed();
        if silent > stuck {
            tracing::error!(
                ?silent,
                "the worker's runtime does not run; its messages go to other members"
            );
            continue;
        }
        let overdue = held.give_up(Instant::now());
        if overdue > 0 {
            tracing::error!(
                overdue,
                "handlers neither ended nor let themselves be stopped at their time limit; their messages go to other members"
            );
            counters.add(&WorkerStats {
                overdue,
                ..WorkerStats::default()
            });
        }
        let positions = held.snapshot();
        if positions.is_empty() {
            continue;
        }
        if let Err(error) = settler.extend(&positions).await {
            tracing::warn!(%error, held = positions.len(), "leases cannot be extended at the moment");
        }
    }
}
