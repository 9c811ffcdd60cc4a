//! The in-memory broker, broken in one way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use streamerson_core::broker::Capabilities;
use streamerson_core::memory::MemoryBroker;
use streamerson_core::retention::{Retention, Trimmed};
use streamerson_core::stats::TopicStats;
use streamerson_core::{
    Append, Broker, Error, ErrorKind, Inbox, Member, Membership, Message, Name, Position, Reader,
    Result, Start, Topic,
};

use crate::defect::Defect;
use crate::member::{BrokenMember, Shared};
use crate::reader::BrokenReader;
use crate::terms;

#[derive(Debug, Clone)]
pub(crate) struct Broken {
    pub(crate) inner: MemoryBroker,
    pub(crate) defect: Defect,
    /// The one connection of [`Defect::WaitersShareAConnection`].
    pub(crate) connection: Arc<tokio::sync::Mutex<()>>,
    slot: Arc<AtomicBool>,
    pub(crate) shared: Shared,
}

impl Broken {
    pub(crate) fn new(defect: Defect) -> Broken {
        Broken {
            inner: MemoryBroker::new(),
            defect,
            connection: Arc::default(),
            slot: Arc::default(),
            shared: Shared::default(),
        }
    }

    async fn append_badly(&self, mut batch: Vec<Append>) -> Vec<Result<Position>> {
        let first = batch.first().map(|append| append.topic.clone());
        for append in &mut batch {
            match (self.defect, &first) {
                (Defect::BatchesGoToOneTopic, Some(first)) => append.topic = first.clone(),
                (Defect::PayloadsAreText, _) => as_text(&mut append.message),
                (Defect::PayloadsAreCut, _) => append.message.data.truncate(64 * 1024),
                (Defect::InboxesAreUnbounded, _) => append.topic = unbounded(&append.topic),
                _ => {}
            }
        }
        terms::damage(self.defect, &mut batch);
        if self.defect == Defect::LargeBatchesAreReversed && batch.len() > 100 {
            batch.reverse();
        }
        if self.defect == Defect::EmptyBatchesAreAnswered && batch.is_empty() {
            return vec![Ok(Position::ZERO)];
        }
        if self.defect == Defect::AppendsShareASlot {
            if self.slot.swap(true, Ordering::SeqCst) {
                return batch.iter().map(|_| Ok(Position::new(1, 1))).collect();
            }
            tokio::task::yield_now().await;
            self.slot.store(false, Ordering::SeqCst);
        }
        let mut answers = self.inner.append(batch).await;
        match self.defect {
            Defect::PositionsAreReversed => answers.reverse(),
            Defect::VanishedInboxesFail => {
                for answer in &mut answers {
                    if matches!(answer, Ok(Position::ZERO)) {
                        *answer = Err(Error::new(ErrorKind::NotFound, "gone", "no such inbox"));
                    }
                }
            }
            _ => {}
        }
        answers
    }
}

/// Between looking and acting, where that is the defect: long enough for others to look too, on a busy machine as well.
pub(crate) async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

/// Inboxes under a name that the inner broker does not bound.
fn unbounded(topic: &Topic) -> Topic {
    match topic.is_inbox() {
        true => Topic::new(format!("unbounded.{topic}")).expect("a valid name"),
        false => topic.clone(),
    }
}

pub(crate) fn as_text(message: &mut Message) {
    message.data = String::from_utf8_lossy(&message.data).into_owned().into();
}

impl Broker for Broken {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn time(&self) -> BoxFuture<'_, Result<u64>> {
        self.inner.time()
    }

    fn append(&self, batch: Vec<Append>) -> BoxFuture<'_, Vec<Result<Position>>> {
        self.append_badly(batch).boxed()
    }

    fn read<'a>(
        &'a self,
        topic: &'a Topic,
        start: Start,
    ) -> BoxFuture<'a, Result<Box<dyn Reader>>> {
        let start = match (self.defect, start) {
            (Defect::LatestIsEarliest, Start::Latest) => Start::Earliest,
            (Defect::AfterIsInclusive, Start::After(at)) if at.minor() > 0 => {
                Start::After(Position::new(at.major(), at.minor() - 1))
            }
            (Defect::AfterIsInclusive, Start::After(at)) => {
                Start::After(Position::new(at.major() - 1, u64::MAX))
            }
            (_, start) => start,
        };
        async move {
            let inner = match self.defect {
                Defect::LatestIsWhenFirstAsked if start == Start::Latest => None,
                _ => Some(self.inner.read(topic, start).await?),
            };
            let (broker, topic) = (self.clone(), topic.clone());
            Ok(Box::new(BrokenReader::new(broker, topic, inner)) as Box<dyn Reader>)
        }
        .boxed()
    }

    fn join(&self, mut membership: Membership) -> BoxFuture<'_, Result<Box<dyn Member>>> {
        let renamed = |suffix: &str| {
            let name = format!("{}.{suffix}", membership.group);
            Name::new(name).expect("a valid name")
        };
        match self.defect {
            Defect::EveryMemberIsAGroup => membership.group = renamed(membership.member.as_str()),
            Defect::AllGroupsAreOne => membership.group = Name::new("one").expect("a valid name"),
            Defect::JoiningMovesTheGroup if membership.start == Start::Latest => {
                membership.group = renamed("moved");
            }
            Defect::GroupsStartAtTheEarliest => membership.start = Start::Earliest,
            Defect::LeasesNeverEnd | Defect::DroppedMembersKeep => {
                membership.lease = Duration::from_secs(3600);
            }
            Defect::LeasesEndEarly => membership.lease /= 10,
            _ => {}
        }
        async move {
            self.damage_fence(&mut membership).await?;
            let inner = self.inner.join(membership.clone()).await?;
            let member = BrokenMember::new(self.clone(), self.shared.clone(), membership, inner);
            Ok(Box::new(member) as Box<dyn Member>)
        }
        .boxed()
    }

    fn inbox(&self) -> BoxFuture<'_, Result<Inbox>> {
        async move {
            let Inbox {
                mut address,
                reader,
            } = self.inner.inbox().await?;
            let inner = match self.defect {
                Defect::InboxesAreOne => {
                    address = Topic::inbox("the-one-and-only-inbox")?;
                    self.inner.read(&address, Start::Earliest).await?
                }
                Defect::InboxesAreUnbounded => {
                    self.inner
                        .read(&unbounded(&address), Start::Earliest)
                        .await?
                }
                _ => reader,
            };
            self.shared.note_inbox(&address);
            let reader = BrokenReader::new(self.clone(), address.clone(), Some(inner));
            Ok(Inbox {
                address,
                reader: Box::new(reader),
            })
        }
        .boxed()
    }

    fn topics(&self) -> BoxFuture<'_, Result<Vec<Topic>>> {
        async move {
            let mut topics = self.inner.topics().await?;
            match self.defect {
                Defect::TopicsAreUnsorted => topics.reverse(),
                Defect::TopicsListEverything => {
                    topics.extend(self.shared.inboxes());
                    topics.sort();
                }
                _ => {}
            }
            Ok(topics)
        }
        .boxed()
    }

    fn stats<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<TopicStats>> {
        async move {
            let stats = self.inner.stats(topic).await;
            if self.defect == Defect::UnknownTopicsAreEmpty && stats.is_err() {
                return Ok(TopicStats::default());
            }
            let mut stats = stats?;
            match self.defect {
                Defect::DividedTopicsAreNotThere if stats.last.is_none() => {
                    return Err(Error::new(ErrorKind::NotFound, "topic-not-found", "empty"));
                }
                Defect::LengthIsOneMore => stats.length += 1,
                Defect::EmptyTopicsForgetTheirEnd if stats.length == 0 => stats.last = None,
                _ => {}
            }
            for group in &mut stats.groups {
                match self.defect {
                    Defect::PendingIsNothing => group.pending = 0,
                    Defect::LagIsWrong => group.lag = Some(stats.length),
                    Defect::NextIsTheFirst => group.next = stats.first,
                    Defect::RetriesAreNotCounted => group.retrying = 0,
                    Defect::WhoWaitsLooksDead => {
                        for member in &mut group.members {
                            member.idle = Duration::from_secs(1);
                        }
                    }
                    _ => {}
                }
            }
            Ok(stats)
        }
        .boxed()
    }

    fn trim<'a>(
        &'a self,
        topic: &'a Topic,
        mut retention: Retention,
    ) -> BoxFuture<'a, Result<Trimmed>> {
        async move {
            match self.defect {
                Defect::TrimKeepsOneMore => {
                    retention.max_len = retention.max_len.map(|keep| keep + 1);
                }
                Defect::TrimIgnoresAge => retention.max_age = None,
                Defect::TrimIgnoresGroups => retention.force = true,
                _ => {}
            }
            let mut trimmed = self.inner.trim(topic, retention).await?;
            if self.defect == Defect::LossesAreHidden {
                trimmed.lost = 0;
            }
            Ok(trimmed)
        }
        .boxed()
    }
}
