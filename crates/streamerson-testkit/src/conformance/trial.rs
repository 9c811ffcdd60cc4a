//! One broker on trial: fresh topics, and waits that end.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use streamerson_core::{
    Append, Broker, Delivery, Entry, Error, ErrorKind, Inbox, Member, Membership, Message, Name,
    Position, Reader, Receipt, Result, Settlement, Settler, Start, Topic, message,
};

/// A lease that does not run out during a rule.
pub(super) const LONG: Duration = Duration::from_secs(300);

/// A broker, and how long a rule waits for what must come.
#[derive(Debug, Clone)]
pub struct Trial {
    pub(super) broker: Arc<dyn Broker>,
    patience: Duration,
    lease: Duration,
}

impl Trial {
    /// A trial of `broker`: what must come may take 20 seconds, so that a busy machine fails no rule.
    pub fn new(broker: Arc<dyn Broker>) -> Trial {
        Trial {
            broker,
            patience: Duration::from_secs(20),
            lease: Duration::from_millis(500),
        }
    }

    /// The same trial with other bounds: how long to wait for what must come, and the lease of rules about leases.
    pub fn with_times(self, patience: Duration, lease: Duration) -> Trial {
        Trial {
            patience,
            lease,
            ..self
        }
    }

    pub(super) fn for_a_busy_machine(self) -> Trial {
        let (patience, lease) = (self.patience * 4, self.lease * 4);
        self.with_times(patience, lease)
    }

    /// The short lease.
    pub(super) fn lease(&self) -> Duration {
        self.lease
    }

    /// A topic that nobody else uses.
    pub(super) fn topic(&self) -> Topic {
        Topic::new(format!("rule.{}", message::new_id())).expect("a valid name")
    }

    /// What `future` answers, within the patience.
    pub(super) async fn within<T>(&self, what: &str, future: impl Future<Output = T>) -> T {
        match tokio::time::timeout(self.patience, future).await {
            Ok(answer) => answer,
            Err(_) => panic!("{what}: nothing came within {:?}", self.patience),
        }
    }

    /// Between two looks at what only time changes.
    pub(super) async fn a_while(&self) {
        tokio::time::sleep(self.lease / 50).await;
    }

    /// Appends; every append must succeed.
    pub(super) async fn append(&self, batch: Vec<Append>) -> Vec<Position> {
        let size = batch.len();
        let answers = self.within("append", self.broker.append(batch)).await;
        assert_eq!(answers.len(), size, "one answer per append");
        answers
            .into_iter()
            .map(|answer| answer.expect("append"))
            .collect()
    }

    /// Appends a message per text.
    pub(super) async fn send(&self, topic: &Topic, texts: &[&str]) -> Vec<Position> {
        let batch = texts.iter().map(|text| to(topic, text)).collect();
        self.append(batch).await
    }

    pub(super) async fn read(&self, topic: &Topic, start: Start) -> Reading {
        let reader = self.within("read", self.broker.read(topic, start)).await;
        Reading {
            trial: self.clone(),
            reader: reader.expect("read"),
        }
    }

    /// All texts of a topic, the last of which is appended by this: what was not there before it does not come any more.
    pub(super) async fn texts_of(&self, topic: &Topic) -> Vec<String> {
        self.send(topic, &[LAST]).await;
        self.read(topic, Start::Earliest).await.until_last().await
    }

    pub(super) async fn inbox(&self) -> (Topic, Reading) {
        let Inbox { address, reader } = self
            .within("inbox", self.broker.inbox())
            .await
            .expect("inbox");
        let trial = self.clone();
        (address, Reading { trial, reader })
    }

    /// Joins `group` with a lease that does not run out.
    pub(super) async fn join(&self, topic: &Topic, group: &str, member: &str) -> Worker {
        self.join_as(membership(topic, group, member, LONG)).await
    }

    /// Joins the group `workers` with the short lease.
    pub(super) async fn join_briefly(&self, topic: &Topic, member: &str) -> Worker {
        self.join_as(membership(topic, "workers", member, self.lease))
            .await
    }

    pub(super) async fn join_as(&self, membership: Membership) -> Worker {
        let member = self.within("join", self.broker.join(membership)).await;
        let member = member.expect("join");
        Worker {
            trial: self.clone(),
            settler: member.settler(),
            member,
        }
    }
}

/// Ends a topic where a rule must show that nothing else is in it.
pub(super) const LAST: &str = "the last message";

pub(super) fn name(name: &str) -> Name {
    Name::new(name.to_owned()).expect("a valid name")
}

pub(super) fn membership(topic: &Topic, group: &str, member: &str, lease: Duration) -> Membership {
    Membership {
        lease,
        ..Membership::new(topic.clone(), name(group), name(member))
    }
}

/// A message with `text` as its payload, to `topic`.
pub(super) fn to(topic: &Topic, text: &str) -> Append {
    Append::new(
        topic.clone(),
        Message::new("conformance", text.as_bytes().to_vec()),
    )
}

pub(super) fn text(message: &Message) -> String {
    String::from_utf8_lossy(&message.data).into_owned()
}

pub(super) fn texts(deliveries: &[Delivery]) -> Vec<String> {
    deliveries
        .iter()
        .map(|delivery| text(&delivery.message))
        .collect()
}

pub(super) fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("message {n}")).collect()
}

#[track_caller]
pub(super) fn assert_fenced(result: &Result<()>) {
    match result.as_ref().map_err(Error::kind) {
        Err(ErrorKind::Fenced) => {}
        other => panic!("must be fenced, not {other:?}"),
    }
}

#[track_caller]
pub(super) fn assert_invalid<T: std::fmt::Debug>(result: &Result<T>) {
    match result.as_ref().map_err(Error::kind) {
        Err(ErrorKind::Invalid) => {}
        other => panic!("must be refused as invalid, not {other:?}"),
    }
}

/// The same right again: what a stale holder, or a repeated call, comes with.
pub(super) fn forged(receipt: &Receipt) -> Receipt {
    Receipt::new(receipt.position(), receipt.attempt())
}

/// A reader on trial.
pub(super) struct Reading {
    trial: Trial,
    pub(super) reader: Box<dyn Reader>,
}

impl Reading {
    pub(super) async fn next(&mut self, max: usize) -> Vec<Entry> {
        let next = self.reader.next(max);
        let entries = self.trial.within("Reader::next", next).await;
        let entries = entries.expect("Reader::next");
        assert!(
            (1..=max).contains(&entries.len()),
            "asked for up to {max}, got {}",
            entries.len()
        );
        entries
    }

    pub(super) async fn take(&mut self, count: usize) -> Vec<Entry> {
        let mut entries = Vec::new();
        while entries.len() < count {
            entries.extend(self.next(count - entries.len()).await);
        }
        entries
    }

    pub(super) async fn messages(&mut self, count: usize) -> Vec<Message> {
        self.take(count).await.into_iter().map(whole).collect()
    }

    pub(super) async fn texts(&mut self, count: usize) -> Vec<String> {
        self.messages(count).await.iter().map(text).collect()
    }

    /// The texts that come before [`LAST`].
    pub(super) async fn until_last(&mut self) -> Vec<String> {
        let mut texts = Vec::new();
        loop {
            for entry in self.next(1000).await {
                match text(&whole(entry)) {
                    last if last == LAST => return texts,
                    other => texts.push(other),
                }
            }
        }
    }
}

pub(super) fn whole(entry: Entry) -> Message {
    entry.message.expect("a message, as it was appended")
}

/// A member on trial.
pub(super) struct Worker {
    trial: Trial,
    pub(super) member: Box<dyn Member>,
    pub(super) settler: Arc<dyn Settler>,
}

impl Worker {
    pub(super) async fn next(&mut self, max: usize) -> Vec<Delivery> {
        let next = self.member.next(max);
        let deliveries = self.trial.within("Member::next", next).await;
        let deliveries = deliveries.expect("Member::next");
        assert!(
            (1..=max).contains(&deliveries.len()),
            "asked for up to {max}, got {}",
            deliveries.len()
        );
        deliveries
    }

    pub(super) async fn take(&mut self, count: usize) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        while deliveries.len() < count {
            deliveries.extend(self.next(count - deliveries.len()).await);
        }
        deliveries
    }

    pub(super) async fn one(&mut self) -> Delivery {
        self.next(1).await.remove(0)
    }

    pub(super) async fn settle(&mut self, batch: Vec<Settlement>) -> Vec<Result<()>> {
        let size = batch.len();
        let settled = self
            .trial
            .within("settle", self.settler.settle(batch))
            .await;
        assert_eq!(settled.len(), size, "one answer per settlement");
        settled
    }

    pub(super) async fn settle_one(&mut self, settlement: Settlement) -> Result<()> {
        self.settle(vec![settlement]).await.remove(0)
    }

    /// Completes; it must be granted.
    pub(super) async fn complete(&mut self, delivery: Delivery) {
        self.settle_one(Settlement::complete(delivery.receipt))
            .await
            .expect("the first settlement wins");
    }

    pub(super) async fn extend(&mut self, held: &[Position]) {
        let extended = self.trial.within("extend", self.settler.extend(held));
        extended.await.expect("extend");
    }

    pub(super) async fn leave(self) {
        let left = self.trial.within("leave", self.member.leave()).await;
        left.expect("leave");
    }
}
