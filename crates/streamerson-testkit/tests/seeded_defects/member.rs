//! A member and its settler, broken in one way.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytestring::ByteString;
use futures::future::{BoxFuture, FutureExt};
use streamerson_core::{
    Append, Broker, Delivery, Error, ErrorKind, Member, Membership, Name, Once, Outcome, Position,
    Receipt, Result, Settlement, Settler, Topic,
};

use crate::broker::{Broken, a_moment, as_text};
use crate::defect::Defect;
use crate::terms;

/// More of what is old than this lets what is new come before the rest, where that is the defect.
const MUCH: usize = 100;

/// What the members of a broken broker know of each other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shared {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    inboxes: Vec<Topic>,
    taken_over: Vec<(Name, Delivery)>,
    /// With the delay of the first.
    retried: HashMap<Position, Duration>,
    settled: HashSet<Position>,
    taken: HashSet<Position>,
    /// The keys of effects, each with the group that used it first.
    effects: HashMap<(Topic, ByteString), Name>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under the lock")
    }

    pub(crate) fn note_inbox(&self, address: &Topic) {
        self.state().inboxes.push(address.clone());
    }

    pub(crate) fn note_taken(&self, position: Position) {
        self.state().taken.insert(position);
    }

    pub(crate) fn inboxes(&self) -> Vec<Topic> {
        self.state().inboxes.clone()
    }
}

pub(crate) struct BrokenMember {
    broker: Broken,
    shared: Shared,
    membership: Membership,
    inner: Option<Box<dyn Member>>,
    /// Taken from the inner broker and not answered yet.
    buffer: Vec<Delivery>,
    settler: Arc<BrokenSettler>,
}

fn copy(delivery: &Delivery) -> Delivery {
    Delivery {
        receipt: again(&delivery.receipt),
        message: delivery.message.clone(),
    }
}

fn again(receipt: &Receipt) -> Receipt {
    Receipt::new(receipt.position(), receipt.attempt())
}

impl BrokenMember {
    pub(crate) fn new(
        broker: Broken,
        shared: Shared,
        membership: Membership,
        inner: Box<dyn Member>,
    ) -> BrokenMember {
        let settler = Arc::new(BrokenSettler {
            inner: inner.settler(),
            broker: broker.clone(),
            shared: shared.clone(),
            membership: membership.clone(),
        });
        BrokenMember {
            broker,
            shared,
            membership,
            inner: Some(inner),
            buffer: Vec::new(),
            settler,
        }
    }

    async fn next_badly(&mut self, max: usize) -> Result<Vec<Delivery>> {
        let defect = self.broker.defect;
        if defect == Defect::TwoTakeOver
            && let Some(of_another) = self.taken_over_by_another()
        {
            return Ok(vec![of_another]);
        }
        let inner = self.inner.as_mut().expect("a member that has not left");
        if defect == Defect::NewComesFirst {
            if self.buffer.is_empty() {
                self.buffer = inner.next(1000).await?;
                self.buffer
                    .sort_by_key(|delivery| delivery.receipt.attempt());
            }
            let answered = max.min(self.buffer.len());
            return Ok(self.buffer.drain(..answered).collect());
        }
        let max = match defect {
            Defect::MaxIsIgnored => 1000,
            _ => max,
        };
        let _shared = match defect {
            Defect::WaitersShareAConnection => Some(self.broker.connection.lock().await),
            _ => None,
        };
        let mut deliveries = match defect {
            Defect::MembersDoNotWake => match inner.next(max).now_or_never() {
                Some(deliveries) => deliveries?,
                None => std::future::pending().await,
            },
            _ => inner.next(max).await?,
        };
        match defect {
            Defect::CancellingLoses => tokio::task::yield_now().await,
            Defect::DeliveriesAreReversed => deliveries.reverse(),
            Defect::AttemptsAreNotCounted => {
                for delivery in &mut deliveries {
                    delivery.receipt = Receipt::new(delivery.receipt.position(), 1);
                }
            }
            Defect::NewComesAmongMuchThatIsOld => {
                let is_old = |it: &&Delivery| it.receipt.attempt() > 1;
                let old = deliveries.iter().filter(is_old).count();
                if old > MUCH {
                    deliveries[MUCH..].rotate_left(old - MUCH);
                }
            }
            Defect::SuspectsComeTogether => {
                let attempts = deliveries.iter().map(|it| it.receipt.attempt());
                if attempts.max() >= Some(3) {
                    deliveries.extend(self.settler.take_as("greedy").await?);
                    deliveries.truncate(max);
                }
            }
            Defect::TwoTakeOver => {
                self.note_taken_over(&deliveries);
                if let Some(of_another) = self.taken_over_by_another() {
                    deliveries.insert(0, of_another);
                    deliveries.truncate(max);
                }
            }
            _ => {}
        }
        Ok(deliveries)
    }

    fn taken_over_by_another(&self) -> Option<Delivery> {
        let taken_over = &mut self.shared.state().taken_over;
        let at = taken_over
            .iter()
            .position(|(member, _)| *member != self.membership.member)?;
        Some(taken_over.swap_remove(at).1)
    }

    fn note_taken_over(&self, deliveries: &[Delivery]) {
        let taken_over = deliveries
            .iter()
            .filter(|delivery| delivery.receipt.attempt() > 1)
            .map(|delivery| (self.membership.member.clone(), copy(delivery)));
        self.shared.state().taken_over.extend(taken_over);
    }
}

impl Member for BrokenMember {
    fn next(&mut self, max: usize) -> BoxFuture<'_, Result<Vec<Delivery>>> {
        self.next_badly(max).boxed()
    }

    fn settler(&self) -> Arc<dyn Settler> {
        self.settler.clone()
    }

    fn leave(mut self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        let inner = self.inner.take().expect("a member that has not left");
        if self.broker.defect == Defect::LeavingKeeps {
            std::mem::forget(inner);
            return std::future::ready(Ok(())).boxed();
        }
        inner.leave()
    }
}

impl Drop for BrokenMember {
    fn drop(&mut self) {
        if self.broker.defect == Defect::DroppedMembersKeep {
            std::mem::forget(self.inner.take());
        }
    }
}

struct BrokenSettler {
    inner: Arc<dyn Settler>,
    broker: Broken,
    shared: Shared,
    membership: Membership,
}

impl BrokenSettler {
    async fn settle_badly(&self, batch: Vec<Settlement>) -> Vec<Result<()>> {
        let mut results = Vec::new();
        for (n, settlement) in batch.into_iter().enumerate() {
            let cut = self.broker.defect == Defect::LargeSettlementsAreCut && n >= 500;
            results.push(match settlement.outcome {
                _ if cut => Ok(()),
                Outcome::Complete { mut outputs, once } => {
                    let once = once.and_then(|once| self.damage_effect(*once, &mut outputs));
                    self.complete(settlement.receipt, outputs, once).await
                }
                Outcome::Retry { after } => self.retry(settlement.receipt, after).await,
            });
        }
        if self.broker.defect == Defect::BatchesAreAnsweredByTheirFirst
            && let Some(first) = results.first().cloned()
        {
            results.fill(first);
        }
        results
    }

    async fn complete(
        &self,
        receipt: Receipt,
        mut outputs: Vec<Append>,
        once: Option<Once>,
    ) -> Result<()> {
        let position = receipt.position();
        let defect = self.broker.defect;
        self.damage(&mut outputs);
        let outputs_again = outputs.clone();
        if defect == Defect::FenceIsCheckedTooEarly {
            return self.check_then_act(receipt, outputs).await;
        }
        if defect == Defect::OutputsComeBeforeTheFence {
            self.broker.inner.append(std::mem::take(&mut outputs)).await;
        }
        let retried = self
            .shared
            .state()
            .retried
            .contains_key(&receipt.position());
        let settlement = match defect {
            Defect::SettledRetriesCome if retried => return Ok(()),
            Defect::SettledComesAgain => Settlement::retry(receipt, Duration::ZERO),
            _ => Settlement::complete_with(receipt, outputs),
        };
        let settlement = match once {
            Some(once) => settlement.once(once),
            None => settlement,
        };
        let settled = self.inner.settle(vec![settlement]).await.remove(0);
        let fenced = settled
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::Fenced);
        match defect {
            Defect::FenceIsIgnored if fenced => {
                self.broker.inner.append(outputs_again).await;
                return Ok(());
            }
            Defect::TakenCanBeSettled if self.shared.state().taken.contains(&position) => {
                self.broker.inner.append(outputs_again).await;
                return Ok(());
            }
            Defect::OutputsAppearTwice if !fenced => {
                self.broker.inner.append(outputs_again).await;
            }
            _ => {}
        }
        settled
    }

    /// Two at once both find the delivery unsettled.
    async fn check_then_act(&self, receipt: Receipt, outputs: Vec<Append>) -> Result<()> {
        let position = receipt.position();
        if self.shared.state().settled.contains(&position) {
            return Err(Error::fenced("settled before"));
        }
        a_moment().await;
        self.shared.state().settled.insert(position);
        self.broker.inner.append(outputs).await;
        self.inner.settle(vec![Settlement::complete(receipt)]).await;
        Ok(())
    }

    /// What is left of the key, when its outputs are damaged accordingly.
    fn damage_effect(&self, once: Once, outputs: &mut Vec<Append>) -> Option<Once> {
        let Membership { topic, group, .. } = &self.membership;
        let effect = (topic.clone(), once.key.clone());
        let first = self.shared.state().effects.get(&effect).cloned();
        let mut state = self.shared.state();
        state.effects.entry(effect).or_insert_with(|| group.clone());
        let is_answer = |output: &Append| output.topic.is_inbox();
        match (self.broker.defect, first) {
            (Defect::EffectsHappenAgain, _) => None,
            (Defect::RepetitionsAnswerForThemselves, Some(_)) => {
                outputs.retain(is_answer);
                None
            }
            (Defect::RepetitionsAnswerNothing, Some(_)) => {
                outputs.clear();
                None
            }
            (Defect::GroupsShareEffects, Some(first)) if first != *group => {
                outputs.retain(is_answer);
                None
            }
            _ => Some(once),
        }
    }

    fn damage(&self, outputs: &mut Vec<Append>) {
        terms::damage(self.broker.defect, outputs);
        match self.broker.defect {
            Defect::OutputsAreText => {
                outputs
                    .iter_mut()
                    .for_each(|output| as_text(&mut output.message));
            }
            Defect::OutputsGoToOneTopic => {
                if let Some(first) = outputs.first().map(|output| output.topic.clone()) {
                    outputs.retain(|output| output.topic == first);
                }
            }
            Defect::OwnTopicIsNoOutput => {
                outputs.retain(|output| output.topic != self.membership.topic);
            }
            Defect::DeadLettersAreDropped => {
                outputs.retain(|output| !output.topic.is_dead_letters());
            }
            _ => {}
        }
    }

    async fn retry(&self, receipt: Receipt, after: Duration) -> Result<()> {
        let defect = self.broker.defect;
        let first = *self
            .shared
            .state()
            .retried
            .entry(receipt.position())
            .or_insert(after);
        let after = match defect {
            Defect::RetriesIgnoreTheDelay => Duration::ZERO,
            Defect::GroupsShareRetries => first,
            Defect::RetriesWaitForTheLease => return Ok(()),
            _ => after,
        };
        let settlement = Settlement::retry(receipt, after);
        let settled = self.inner.settle(vec![settlement]).await.remove(0);
        match defect {
            Defect::StaleRetriesAreAccepted => Ok(()),
            _ => settled,
        }
    }

    /// Takes what is free under another name.
    async fn take_as(&self, member: &str) -> Result<Vec<Delivery>> {
        let other = Membership {
            member: Name::new(member.to_owned())?,
            ..self.membership.clone()
        };
        let mut member = self.broker.inner.join(other).await?;
        let taken = member.next(1000).now_or_never();
        std::mem::forget(member);
        taken.unwrap_or_else(|| Ok(Vec::new()))
    }

    /// Joins once more under its own name and takes everything, whoever holds it.
    async fn take_back(&self) -> Result<()> {
        let greedy = Membership {
            lease: Duration::ZERO,
            ..self.membership.clone()
        };
        let mut member = self.broker.inner.join(greedy).await?;
        let _ = member.next(1000).now_or_never();
        std::mem::forget(member);
        Ok(())
    }
}

impl Settler for BrokenSettler {
    fn settle(&self, batch: Vec<Settlement>) -> BoxFuture<'_, Vec<Result<()>>> {
        self.settle_badly(batch).boxed()
    }

    fn extend<'a>(&'a self, held: &'a [Position]) -> BoxFuture<'a, Result<()>> {
        match self.broker.defect {
            Defect::SignsOfLifeAreIgnored => std::future::ready(Ok(())).boxed(),
            Defect::LateOwnersGiveSignsOfLife => async move {
                let _ = self.inner.extend(held).await;
                Ok(())
            }
            .boxed(),
            Defect::LateSignsOfLifeTakeBack => self.take_back().boxed(),
            _ => self.inner.extend(held),
        }
    }
}
