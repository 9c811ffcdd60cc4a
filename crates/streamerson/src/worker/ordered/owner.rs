//! Owns partitions: does what [`Ownership`] decides, and lets each owned partition be worked on.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use streamerson_core::ownership::{Change, Ownership, Step};
use streamerson_core::time::{Monotonic, millis};
use streamerson_core::{Error, Result, Topic};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tower::Service;

use super::leases::OwnerLeases;
use super::member::Common;
use super::{forward, partition};
use crate::worker::heartbeat::Pulse;
use crate::worker::janitor::Janitor;
use crate::worker::running::Stopped;
use crate::worker::serve::Shared;
use crate::worker::stop::Stop;
use crate::{Reply, Request};

/// One member's part of an ordered topic.
pub(super) struct Owner<S> {
    /// Where handlers run.
    runtime: Handle,
    pulse: Pulse,
    shared: Arc<Shared>,
    topic: Topic,
    partitions: u32,
    leases: OwnerLeases,
    service: S,
    ownership: Ownership,
    stop: Stop,
    clock: Monotonic,
    common: Arc<Common>,
    serving: BTreeMap<u32, Serving>,
    /// Of the topic as a whole: forwarding what is sent there, and cleaning.
    whole: Option<[AbortOnDropHandle<()>; 2]>,
    /// The broker did not answer of late; it was told.
    is_away: bool,
    ended: mpsc::UnboundedSender<Ended>,
    endings: mpsc::UnboundedReceiver<Ended>,
}

/// A partition being served. Dropped, all work on it stops at once.
struct Serving {
    epoch: u64,
    drain: Stop,
    renewed: Arc<Notify>,
    _work: AbortOnDropHandle<()>,
    _cleaning: AbortOnDropHandle<()>,
}

/// The work on a partition came to an end by itself.
struct Ended {
    partition: u32,
    epoch: u64,
    stopped: Stopped,
}

impl<S> Owner<S>
where
    S: Service<Request, Response = Reply, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    pub(super) fn new(
        shared: Arc<Shared>,
        topic: Topic,
        partitions: u32,
        leases: OwnerLeases,
        service: S,
        stop: Stop,
    ) -> Owner<S> {
        let settings = &shared.settings;
        let (ended, endings) = mpsc::unbounded_channel();
        Owner {
            runtime: Handle::current(),
            pulse: Pulse::feel(settings.lease),
            topic,
            partitions,
            ownership: Ownership::new(leases.me().clone(), partitions, millis(settings.lease)),
            leases,
            service,
            stop,
            clock: Monotonic::start(),
            common: Arc::new(Common::new(settings)),
            serving: BTreeMap::new(),
            whole: None,
            is_away: false,
            ended,
            endings,
            shared,
        }
    }

    /// Owns its share of the partitions until it is to stop; then hands all over, in order.
    pub(super) async fn run(mut self) -> Result<()> {
        let stop = self.stop.clone();
        let mut leaving = false;
        loop {
            // Between the steps, too: with many partitions there is always one that is due.
            if !leaving && stop.is_asked() {
                leaving = true;
                self.ownership.leave();
            }
            while let Ok(ended) = self.endings.try_recv() {
                self.conclude(ended)?;
            }
            if let Some(step) = self.ownership.next(self.clock.now()) {
                self.act(step).await?;
                if step == Step::Leave {
                    return Ok(());
                }
                continue;
            }
            let wake = self.ownership.wake().map(|at| self.clock.instant(at));
            let wake = wake.map_or_else(Instant::now, Instant::from);
            tokio::select! {
                () = stop.asked(), if !leaving => (),
                Some(ended) = self.endings.recv() => self.conclude(ended)?,
                () = tokio::time::sleep_until(wake) => (),
            }
        }
    }

    async fn act(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Attend | Step::Look | Step::Acquire(_) if self.pulse.is_gone() => {
                self.miss(&Error::closed("the worker's own runtime does not run"));
                self.ownership.not_attended(self.clock.now());
            }
            Step::Attend | Step::Look => self.attend(step == Step::Attend).await,
            Step::Acquire(partition) => self.acquire(partition).await?,
            Step::Drain(partition) => self.drain(partition),
            Step::Release(partition) => self.release(partition).await,
            Step::Stop(partition) => self.lose(partition),
            Step::Leave => {
                if let Err(error) = self.leases.leave().await {
                    tracing::debug!(topic = %self.topic, %error, "the seat could not be left in order; it runs out");
                }
            }
        }
        Ok(())
    }

    /// Looks who has a seat, and renews the own one first if it is to be.
    async fn attend(&mut self, renew: bool) {
        let asked = self.clock.now();
        match self.leases.seats(renew).await {
            Ok(seats) => {
                self.is_away = false;
                self.ownership.attended(asked, self.clock.now(), &seats);
                self.divide_room();
            }
            Err(error) => {
                self.miss(&error);
                self.ownership.not_attended(self.clock.now());
            }
        }
    }

    async fn acquire(&mut self, partition: u32) -> Result<()> {
        let asked = self.clock.now();
        let lease = match self.leases.acquire(partition).await {
            Ok(lease) => lease,
            Err(error) => {
                self.miss(&error);
                return Ok(());
            }
        };
        let now = self.clock.now();
        let change = if lease.holder == *self.leases.me() {
            self.ownership.granted(partition, lease.epoch, asked, now)
        } else {
            self.ownership
                .refused(partition, millis(lease.remaining), now)
        };
        match change {
            Change::None => {
                if let Some(serving) = self.serving.get(&partition) {
                    serving.renewed.notify_one();
                }
            }
            Change::Gained { epoch } => self.gain(partition, epoch)?,
            Change::Regained { epoch } => {
                self.lose(partition);
                self.gain(partition, epoch)?;
            }
            Change::Lost => self.lose(partition),
        }
        Ok(())
    }

    /// Tells that leases cannot be renewed: once, because it is tried again soon.
    fn miss(&mut self, error: &Error) {
        if !std::mem::replace(&mut self.is_away, true) {
            tracing::warn!(topic = %self.topic, %error, "leases cannot be renewed at the moment; partitions are lost when they run out");
        }
    }

    fn drain(&mut self, partition: u32) {
        tracing::info!(topic = %self.topic, partition, "handing a partition over");
        match self.serving.get(&partition) {
            Some(serving) => serving.drain.ask(),
            None => self.ownership.drained(partition),
        }
    }

    async fn release(&mut self, partition: u32) {
        self.stop(partition);
        if partition == 0
            && let Err(error) = self.leases.stop_forwarding().await
        {
            tracing::debug!(topic = %self.topic, %error, "forwarding could not be given up in order; its lease runs out");
        }
        match self.leases.release(partition).await {
            Ok(_) => tracing::info!(topic = %self.topic, partition, "gave up a partition"),
            Err(error) => {
                tracing::warn!(topic = %self.topic, partition, %error, "the lease of a partition could not be released; it runs out");
            }
        }
    }

    fn gain(&mut self, partition: u32, epoch: u64) -> Result<()> {
        tracing::info!(topic = %self.topic, partition, epoch, "gained a partition");
        let settings = &self.shared.settings;
        let membership = self.leases.membership(settings, partition, epoch)?;
        let drain = self.stop.child();
        let renewed = Arc::new(Notify::new());
        let cleaning = Janitor::new(settings, &membership.topic)?.run(drain.clone());
        let work = partition::serve(
            self.shared.clone(),
            membership,
            self.service.clone(),
            self.common.clone(),
            drain.clone(),
            renewed.clone(),
        );
        let ended = self.ended.clone();
        let work = self.runtime.spawn(async move {
            let stopped = work.await;
            // Nobody hears it when the whole topic has ended.
            let _ = ended.send(Ended {
                partition,
                epoch,
                stopped,
            });
        });
        let serving = Serving {
            epoch,
            drain,
            renewed,
            _work: AbortOnDropHandle::new(work),
            _cleaning: AbortOnDropHandle::new(self.runtime.spawn(cleaning)),
        };
        self.serving.insert(partition, serving);
        self.divide_room();
        if partition == 0 {
            self.forward()?;
        }
        Ok(())
    }

    fn forward(&mut self) -> Result<()> {
        let settings = &self.shared.settings;
        let forwarding = forward::run(
            settings.broker.clone(),
            self.topic.clone(),
            self.leases.me().clone(),
            self.partitions,
            settings.lease,
        );
        let cleaning = Janitor::new(settings, &self.topic)?.run(self.stop.child());
        self.whole = Some([
            AbortOnDropHandle::new(self.runtime.spawn(forwarding)),
            AbortOnDropHandle::new(self.runtime.spawn(cleaning)),
        ]);
        Ok(())
    }

    /// Stops at once: what runs is discarded, and the broker takes nothing of it any more.
    fn lose(&mut self, partition: u32) {
        if self.stop(partition) {
            tracing::warn!(topic = %self.topic, partition, "lost a partition: its lease ran out, or is another member's");
        }
    }

    fn stop(&mut self, partition: u32) -> bool {
        if partition == 0 {
            self.whole = None;
        }
        let was_served = self.serving.remove(&partition).is_some();
        self.divide_room();
        was_served
    }

    /// Gives each partition its part of the room in bytes; also those that are still to come, so that the first do not take it
    /// all.
    fn divide_room(&self) {
        self.common
            .divide(self.serving.len().max(self.ownership.share()));
    }

    /// The work on a partition ended by itself: it was drained, or its membership is gone. In both cases the lease is
    /// given up; whoever wants the partition acquires it anew.
    fn conclude(&mut self, ended: Ended) -> Result<()> {
        let Ended {
            partition,
            epoch,
            stopped,
        } = ended;
        if self
            .serving
            .get(&partition)
            .is_none_or(|serving| serving.epoch != epoch)
        {
            return Ok(());
        }
        match stopped {
            Stopped::Failed(error) => return Err(error),
            Stopped::Lost(error) => {
                tracing::warn!(topic = %self.topic, partition, %error, "the membership was lost; joining again");
            }
            Stopped::Asked => (),
        }
        self.stop(partition);
        self.ownership.drained(partition);
        Ok(())
    }
}
