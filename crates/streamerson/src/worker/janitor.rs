//! Keeps topics clean: dead members go, and what was processed long ago; what is lost is told.
//!
//! Every worker is ready to do it, and a lease says who does: once a period for a whole fleet.

use std::sync::Arc;
use std::time::Duration;

use super::settings::Settings;
use super::stats::{Counters, WorkerStats};
use super::stop::Stop;
use streamerson_core::janitor::{Loss, losses};
use streamerson_core::retention::Retention;
use streamerson_core::stats::TopicStats;
use streamerson_core::{Broker, ErrorKind, Name, Result, Topic};

const PERIOD: Duration = Duration::from_secs(30);

/// How long the duty stays with who does not come back to it.
const TERM: Duration = Duration::from_secs(120);

/// A member that was silent for so many leases is not coming back; one that does is a member again.
const SILENT_LEASES: u32 = 20;

/// How long a worker that ends may take to give the duty up.
const FAREWELL: Duration = Duration::from_secs(1);

/// The janitor of one topic, as one worker plays it.
pub(super) struct Janitor {
    broker: Arc<dyn Broker>,
    topic: Topic,
    holder: Name,
    duty: Name,
    retention: Option<Retention>,
    silent: Duration,
    counters: Counters,
    /// The topic at the last round, while the duty is ours.
    before: Option<TopicStats>,
}

impl Janitor {
    pub(super) fn new(settings: &Settings, topic: &Topic) -> Result<Janitor> {
        // Who keeps everything must not keep others from trimming.
        let duty = match settings.retention {
            Some(_) => "janitor",
            None => "janitor.keep",
        };
        Ok(Janitor {
            broker: settings.broker.clone(),
            topic: topic.clone(),
            holder: settings.instance.clone(),
            duty: Name::new(duty)?,
            retention: settings.retention,
            silent: PERIOD.max(settings.lease.saturating_mul(SILENT_LEASES)),
            counters: settings.counters.clone(),
            before: None,
        })
    }

    /// Cleans now and then, until `stop`.
    pub(super) async fn run(mut self, stop: Stop) {
        let mut on_duty = false;
        loop {
            // Spread over the period, so that the workers of a fleet do not ask all at once.
            let pause = PERIOD.mul_f64(0.5 + rand::random::<f64>());
            tokio::select! {
                () = tokio::time::sleep(pause) => (),
                () = stop.asked() => break,
            }
            match self.round().await {
                Ok(was_on_duty) => on_duty = was_on_duty,
                // The topic begins with its first message.
                Err(error) if error.kind() == ErrorKind::NotFound => (),
                Err(error) => {
                    tracing::warn!(topic = %self.topic, %error, "the topic cannot be cleaned at the moment");
                }
            }
        }
        if on_duty {
            let release = self.broker.release(&self.topic, &self.duty, &self.holder);
            // Otherwise it ends with its term.
            let _ = tokio::time::timeout(FAREWELL, release).await;
        }
    }

    /// Answers whether the duty is ours.
    async fn round(&mut self) -> Result<bool> {
        let lease = self
            .broker
            .acquire(&self.topic, &self.duty, &self.holder, TERM)
            .await?;
        if lease.holder != self.holder {
            self.before = None;
            return Ok(false);
        }
        let now = self.broker.stats(&self.topic).await?;
        for loss in losses(self.before.as_ref(), &now) {
            self.tell(&loss);
        }
        for group in &now.groups {
            self.bury(&Name::new(group.name.clone())?).await?;
        }
        self.before = Some(now);
        if let Some(retention) = self.retention {
            self.trim(retention).await?;
        }
        Ok(true)
    }

    /// Removes the members of `group` that are dead.
    async fn bury(&self, group: &Name) -> Result<()> {
        let gone = self
            .broker
            .remove_members(&self.topic, group, self.silent)
            .await?;
        if !gone.is_empty() {
            tracing::info!(topic = %self.topic, %group, members = gone.len(), "members that were silent for long were removed");
        }
        Ok(())
    }

    async fn trim(&mut self, retention: Retention) -> Result<()> {
        let trimmed = self.broker.trim(&self.topic, retention).await?;
        if trimmed.lost > 0 {
            tracing::error!(topic = %self.topic, lost = trimmed.lost, "the retention removed messages that a group had not processed");
            // It is told; the next round must not find it again.
            self.before = None;
        }
        self.counters.add(&WorkerStats {
            trimmed: trimmed.removed,
            lost: trimmed.lost,
            ..WorkerStats::default()
        });
        Ok(())
    }

    fn tell(&self, loss: &Loss) {
        tracing::error!(
            topic = %self.topic, group = loss.group, position = %loss.position, delivered = loss.delivered,
            "messages are gone before the group had processed them: somebody trimmed the topic, or its server did"
        );
        // How many there were, nobody knows.
        self.counters.add(&WorkerStats {
            lost: 1,
            ..WorkerStats::default()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Worker;
    use std::time::Instant;
    use streamerson_core::memory::MemoryBroker;
    use streamerson_core::{Append, Leases, Member, Membership, Message, Settlement};

    fn topic() -> Topic {
        Topic::new("work").unwrap()
    }

    fn janitor(broker: &MemoryBroker, retention: Option<Retention>) -> Janitor {
        let worker = Worker::new(Arc::new(broker.clone()))
            .topic("work")
            .group("workers")
            .retention(retention);
        let mut janitor = Janitor::new(&worker.settings.unwrap(), &topic()).unwrap();
        // Whoever is not heard of in this very millisecond.
        janitor.silent = Duration::from_millis(1);
        janitor
    }

    async fn append(broker: &MemoryBroker, n: usize) {
        let message = || Append::new(topic(), Message::new("a", ""));
        for result in broker.append((0..n).map(|_| message()).collect()).await {
            result.unwrap();
        }
    }

    async fn join(broker: &MemoryBroker, member: &str) -> Box<dyn Member> {
        let (group, member) = (
            Name::new("workers").unwrap(),
            Name::new(member.to_owned()).unwrap(),
        );
        let membership = Membership::new(topic(), group, member);
        broker.join(membership).await.unwrap()
    }

    async fn members(broker: &MemoryBroker) -> Vec<String> {
        let stats = broker.stats(&topic()).await.unwrap();
        let members = stats.groups[0].members.iter();
        members.map(|member| member.name.clone()).collect()
    }

    /// Until the clock shows another millisecond.
    fn a_moment_later() {
        let now = Instant::now();
        while now.elapsed() < Duration::from_millis(3) {
            std::thread::yield_now();
        }
    }

    #[tokio::test]
    async fn one_has_the_duty_until_it_gives_it_up() {
        let broker = MemoryBroker::new();
        append(&broker, 1).await;
        let (mut ada, mut bob) = (janitor(&broker, None), janitor(&broker, None));
        assert!(ada.round().await.unwrap());
        assert!(!bob.round().await.unwrap());
        assert!(ada.round().await.unwrap());
        broker
            .release(&topic(), &ada.duty, &ada.holder)
            .await
            .unwrap();
        assert!(bob.round().await.unwrap());
        // Who trims does so also where another keeps everything.
        let mut trimming = janitor(&broker, Some(Worker::DEFAULT_RETENTION));
        assert!(trimming.round().await.unwrap());
    }

    #[tokio::test]
    async fn dead_members_go_unless_they_hold_something() {
        let broker = MemoryBroker::new();
        append(&broker, 2).await;
        let mut holding = join(&broker, "holding").await;
        assert_eq!(holding.next(1).await.unwrap().len(), 1);
        let mut done = join(&broker, "done").await;
        let delivery = done.next(1).await.unwrap().remove(0);
        let settler = done.settler();
        let settled = settler.settle(vec![Settlement::complete(delivery.receipt)]);
        settled.await.remove(0).unwrap();
        assert_eq!(members(&broker).await, ["done", "holding"]);
        a_moment_later();
        janitor(&broker, None).round().await.unwrap();
        assert_eq!(members(&broker).await, ["holding"]);
    }

    #[tokio::test]
    async fn what_a_forced_retention_took_from_a_group_is_counted_once() {
        let broker = MemoryBroker::new();
        append(&broker, 5).await;
        let _member = join(&broker, "ada").await;
        let keep_two = Retention {
            max_len: Some(2),
            force: true,
            ..Retention::default()
        };
        let mut janitor = janitor(&broker, Some(keep_two));
        for _ in 0..3 {
            assert!(janitor.round().await.unwrap());
        }
        let counted = janitor.counters.read();
        assert_eq!((counted.trimmed, counted.lost), (3, 3));
    }

    #[tokio::test]
    async fn what_somebody_else_took_from_a_group_is_found_once() {
        let broker = MemoryBroker::new();
        append(&broker, 5).await;
        let _member = join(&broker, "ada").await;
        let mut janitor = janitor(&broker, None);
        assert!(janitor.round().await.unwrap());
        let by_hand = Retention {
            max_len: Some(1),
            force: true,
            ..Retention::default()
        };
        broker.trim(&topic(), by_hand).await.unwrap();
        for _ in 0..3 {
            assert!(janitor.round().await.unwrap());
        }
        assert_eq!(janitor.counters.read().lost, 1);
    }
}
