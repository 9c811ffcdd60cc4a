//! Owns partitions: does what [`Ownership`] decides, and lets each owned partition be worked on.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use streamerson_core::ownership::{Change, Ownership, Step};
use streamerson_core::time::{Millis, millis};
use streamerson_core::{Error, Result, Topic};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tower::Service;

use super::leases::OwnerLeases;
use super::member::Common;
use super::{forward, partition};
use crate::backoff::Backoff;
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
    begun: Instant,
    common: Arc<Common>,
    serving: BTreeMap<u32, Serving>,
    /// How soon to try again what could not be served.
    failures: BTreeMap<u32, Backoff>,
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
    begun: Instant,
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
            begun: Instant::now(),
            common: Arc::new(Common::new(settings)),
            serving: BTreeMap::new(),
            failures: BTreeMap::new(),
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
            if let Some(step) = self.ownership.next(self.now()) {
                self.act(step).await?;
                if step == Step::Leave {
                    return Ok(());
                }
                continue;
            }
            let wake = Duration::from_millis(self.ownership.wake().unwrap_or(0));
            let wake = self.begun + wake;
            tokio::select! {
                () = stop.asked(), if !leaving => (),
                Some(ended) = self.endings.recv() => self.conclude(ended)?,
                () = tokio::time::sleep_until(wake) => (),
            }
        }
    }

    /// The time, as ownership counts it.
    fn now(&self) -> Millis {
        millis(self.begun.elapsed())
    }

    async fn act(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Attend | Step::Look | Step::Acquire(_) if self.pulse.is_gone() => {
                self.miss(&Error::closed("the worker's own runtime does not run"));
                self.ownership.not_attended(self.now());
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
        let asked = self.now();
        match self.leases.seats(renew).await {
            Ok(seats) => {
                self.is_away = false;
                self.ownership.attended(asked, self.now(), &seats);
                self.divide_room();
            }
            Err(error) => {
                self.miss(&error);
                self.ownership.not_attended(self.now());
            }
        }
    }

    async fn acquire(&mut self, partition: u32) -> Result<()> {
        let asked = self.now();
        let lease = match self.leases.acquire(partition).await {
            Ok(lease) => lease,
            Err(error) => {
                self.miss(&error);
                return Ok(());
            }
        };
        let now = self.now();
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
            begun: Instant::now(),
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

    /// The work on a partition ended by itself: it was drained, or it failed. In both cases the lease is given up; whoever wants
    /// the partition acquires it anew, this member after a pause that grows while it fails.
    fn conclude(&mut self, ended: Ended) -> Result<()> {
        let Ended {
            partition,
            epoch,
            stopped,
        } = ended;
        let serving = self.serving.get(&partition);
        let Some(serving) = serving.filter(|serving| serving.epoch == epoch) else {
            return Ok(());
        };
        match stopped {
            Stopped::Failed(error) => return Err(error),
            Stopped::Lost(error) => {
                let backoff = self.failures.entry(partition).or_insert_with(Backoff::new);
                if serving.begun.elapsed() > self.shared.settings.lease {
                    // It was of use for a while: this is not the same trouble again.
                    backoff.reset();
                }
                let pause = backoff.next(rand::random());
                tracing::warn!(topic = %self.topic, partition, ?pause, %error, "the partition cannot be served at the moment");
                self.ownership.failed(partition, self.now() + millis(pause));
            }
            Stopped::Asked => {
                self.failures.remove(&partition);
                self.ownership.drained(partition);
            }
        }
        self.stop(partition);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::{BoxFuture, FutureExt};
    use parking_lot::Mutex;
    use streamerson_core::broker::Capabilities;
    use streamerson_core::memory::MemoryBroker;
    use streamerson_core::retention::{Retention, Trimmed};
    use streamerson_core::stats::TopicStats;
    use streamerson_core::{
        Append, Broker, Delivery, ErrorKind, Inbox, Member, Membership, Position, Reader,
        Settlement, Settler, Start,
    };

    use super::*;
    use crate::{Router, Worker};

    const MINUTE: Duration = Duration::from_secs(60);

    /// The in-memory broker, which can be told to refuse members. Those that it does not refuse have nothing to do until then,
    /// because its own clock would not be that of the test.
    #[derive(Debug, Clone, Default)]
    struct Refusing {
        broker: MemoryBroker,
        refuses: Arc<Mutex<Option<Error>>>,
        joins: Arc<AtomicUsize>,
        refused: Arc<Notify>,
    }

    impl Refusing {
        fn refuse(&self, refuses: bool) {
            let error = || Error::new(ErrorKind::Internal, "broken", "nobody may join");
            *self.refuses.lock() = refuses.then(error);
            if refuses {
                self.refused.notify_waiters();
            }
        }
    }

    impl Member for Refusing {
        fn next(&mut self, _: usize) -> BoxFuture<'_, Result<Vec<Delivery>>> {
            async {
                self.refused.notified().await;
                Err(Error::closed("the group is gone"))
            }
            .boxed()
        }

        fn settler(&self) -> Arc<dyn Settler> {
            Arc::new(self.clone())
        }

        fn leave(self: Box<Self>) -> BoxFuture<'static, Result<()>> {
            std::future::ready(Ok(())).boxed()
        }
    }

    impl Settler for Refusing {
        fn settle(&self, batch: Vec<Settlement>) -> BoxFuture<'_, Vec<Result<()>>> {
            std::future::ready(batch.iter().map(|_| Ok(())).collect()).boxed()
        }

        fn extend<'a>(&'a self, _: &'a [Position]) -> BoxFuture<'a, Result<()>> {
            std::future::ready(Ok(())).boxed()
        }
    }

    streamerson_testkit::pass_on_upkeep!(Refusing, broker);

    impl Broker for Refusing {
        fn capabilities(&self) -> &Capabilities {
            self.broker.capabilities()
        }

        fn time(&self) -> BoxFuture<'_, Result<u64>> {
            self.broker.time()
        }

        fn append(&self, batch: Vec<Append>) -> BoxFuture<'_, Vec<Result<Position>>> {
            self.broker.append(batch)
        }

        fn read<'a>(
            &'a self,
            topic: &'a Topic,
            start: Start,
        ) -> BoxFuture<'a, Result<Box<dyn Reader>>> {
            self.broker.read(topic, start)
        }

        fn join(&self, membership: Membership) -> BoxFuture<'_, Result<Box<dyn Member>>> {
            // What forwards joins the topic as a whole.
            if membership.topic.as_str() == "orders.0" {
                self.joins.fetch_add(1, Ordering::SeqCst);
                if let Some(error) = self.refuses.lock().clone() {
                    return std::future::ready(Err(error)).boxed();
                }
            }
            let joined = self.broker.join(membership);
            async move {
                // There is a group then.
                joined.await?;
                Ok(Box::new(self.clone()) as Box<dyn Member>)
            }
            .boxed()
        }

        fn inbox(&self) -> BoxFuture<'_, Result<Inbox>> {
            self.broker.inbox()
        }

        fn topics(&self) -> BoxFuture<'_, Result<Vec<Topic>>> {
            self.broker.topics()
        }

        fn stats<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<TopicStats>> {
            self.broker.stats(topic)
        }

        fn trim<'a>(
            &'a self,
            topic: &'a Topic,
            retention: Retention,
        ) -> BoxFuture<'a, Result<Trimmed>> {
            self.broker.trim(topic, retention)
        }
    }

    /// An owner at work on the only partition of `orders`, by the paused clock of the test.
    fn owning(broker: &Refusing) -> AbortOnDropHandle<Result<()>> {
        let worker = Worker::new(Arc::new(broker.clone())).group("billing");
        let settings = worker.settings.unwrap();
        let topic = Topic::new("orders").unwrap();
        let leases = OwnerLeases::new(&settings, &topic).unwrap();
        let stop = Stop::new(settings.drain);
        let shared = Arc::new(Shared::new(settings));
        let owner = Owner::new(shared, topic, 1, leases, Router::new(), stop);
        AbortOnDropHandle::new(tokio::spawn(owner.run()))
    }

    /// How often the owner joins within `time`.
    async fn joins(broker: &Refusing, time: Duration) -> usize {
        let before = broker.joins.load(Ordering::SeqCst);
        tokio::time::sleep(time).await;
        broker.joins.load(Ordering::SeqCst) - before
    }

    /// Whether joining is tried several times within a second, and not all the time.
    async fn tried_at_first(broker: &Refusing) -> bool {
        let joins = joins(broker, Duration::from_secs(1)).await;
        (4..=7).contains(&joins)
    }

    #[tokio::test(start_paused = true)]
    async fn a_partition_that_cannot_be_joined_is_tried_again_after_pauses_that_grow() {
        let broker = Refusing::default();
        broker.refuse(true);
        let _owner = owning(&broker);
        assert!(tried_at_first(&broker).await);
        joins(&broker, MINUTE).await;
        let later = joins(&broker, MINUTE).await;
        assert!((10..=30).contains(&later), "{later}");
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_partition_was_served_for_a_while_the_pauses_begin_anew() {
        let broker = Refusing::default();
        broker.refuse(true);
        let _owner = owning(&broker);
        joins(&broker, MINUTE).await;
        broker.refuse(false);
        assert_eq!(joins(&broker, MINUTE).await, 1);
        broker.refuse(true);
        assert!(tried_at_first(&broker).await);
    }
}
