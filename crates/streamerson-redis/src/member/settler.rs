//! Settling deliveries and keeping their leases.

use futures::FutureExt;
use futures::future::{BoxFuture, join_all, try_join_all};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use streamerson_core::broker::{Membership, Outcome, Receipt, Settlement, Settler};
use streamerson_core::group::SUSPECT_FROM;
use streamerson_core::message::Foreign;
use streamerson_core::meta::DeadLetter;
use streamerson_core::stats::IncidentCounts;
use streamerson_core::{Error, Position, Result, dead_letter};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::settlement;
use crate::boot;
use crate::broker::RedisBroker;
use crate::connection::{Answer, Commands};
use crate::error;
use crate::keys::Keys;
use crate::script;
use crate::wire::{Item, Malformed, Request};

/// Signs of life in one call of the script.
const MOST_EXTENDED: usize = 256;

/// What every part of a member knows.
pub(crate) struct Seat {
    pub(crate) commands: Commands,
    pub(crate) counts: Arc<IncidentCounts>,
    pub(crate) keys: Keys,
    pub(crate) membership: Membership,
    pub(crate) stream: String,
    pub(crate) delays: String,
    pub(crate) about: String,
    /// The earliest retry that was asked for and that the member has not noted yet.
    pub(crate) retry_due: Mutex<Option<Instant>>,
    /// Wakes the member when a retry was asked for.
    pub(crate) retry_asked: Notify,
}

impl Seat {
    pub(crate) fn new(broker: &RedisBroker, membership: Membership) -> Seat {
        let keys = broker.keys().clone();
        Seat {
            commands: broker.commands().clone(),
            counts: broker.counts().clone(),
            stream: keys.stream(&membership.topic),
            delays: keys.delays(&membership.topic, &membership.group),
            about: format!("group {} of topic {}", membership.group, membership.topic),
            keys,
            membership,
            retry_due: Mutex::new(None),
            retry_asked: Notify::new(),
        }
    }

    /// The stream and the index of retries, then group and member: how most calls begin.
    pub(crate) fn write_keys(&self, call: &mut Request) {
        call.arg(self.stream.as_bytes());
        call.arg(self.delays.as_bytes());
        call.arg(self.membership.group.as_str().as_bytes());
        call.arg(self.membership.member.as_str().as_bytes());
    }

    /// Lease and epoch under which this member owns the topic, or nothing.
    pub(crate) fn write_fence(&self, call: &mut Request) {
        match &self.membership.fence {
            Some(fence) => {
                call.arg(fence.lease.as_str().as_bytes());
                call.number(fence.epoch);
            }
            None => {
                call.arg(b"");
                call.arg(b"");
            }
        }
    }
}

pub(crate) struct RedisSettler {
    seat: Seat,
}

impl RedisSettler {
    pub(crate) fn new(seat: Seat) -> RedisSettler {
        RedisSettler { seat }
    }

    pub(crate) fn seat(&self) -> &Seat {
        &self.seat
    }

    async fn settle_all(&self, batch: Vec<Settlement>) -> Vec<Result<()>> {
        let refusals: Vec<Result<()>> = batch.iter().map(settlement::check).collect();
        if refusals.iter().all(Result::is_ok) {
            return self.settle_checked(batch).await;
        }
        let allowed = batch.into_iter().zip(&refusals);
        let allowed = allowed.filter_map(|(settlement, check)| check.is_ok().then_some(settlement));
        let mut settled = self.settle_checked(allowed.collect()).await.into_iter();
        let merge = |check: Result<()>| check.and_then(|()| settled.next().unwrap_or(Ok(())));
        refusals.into_iter().map(merge).collect()
    }

    async fn settle_checked(&self, batch: Vec<Settlement>) -> Vec<Result<()>> {
        let calls = settlement::calls(batch);
        let results = join_all(calls.iter().map(|call| self.settle_call(call))).await;
        results.into_iter().flatten().collect()
    }

    async fn settle_call(&self, settlements: &[Settlement]) -> Vec<Result<()>> {
        if settlements.is_empty() {
            return Vec::new();
        }
        let request = settlement::request(&self.seat, settlements);
        let answer = self.seat.commands.run(&script::SETTLE, request).await;
        let results = match answer.and_then(|answer| self.results(answer, settlements)) {
            Ok(results) => results,
            Err(error) => vec![Err(error); settlements.len()],
        };
        self.note_retries(settlements, &results);
        results
    }

    fn results(&self, answer: Answer, settlements: &[Settlement]) -> Result<Vec<Result<()>>> {
        let mut walk = answer.into_walk(&self.seat.about)?;
        let mut read = || -> Result<Vec<Result<()>>, Malformed> {
            if walk.list()? != settlements.len() {
                return Err(Malformed);
            }
            let results = settlements.iter().map(|settlement| match walk.item()? {
                Item::Number(0) => Ok(Err(self.fenced(settlement))),
                Item::Number(_) => Ok(Ok(())),
                // The port of the embedded broker refuses one by one.
                Item::Error(refusal) => Ok(Err(error::refused(&refusal, &self.seat.about))),
                _ => Err(Malformed),
            });
            results.collect()
        };
        read().map_err(|_| error::unexpected("the settle script"))
    }

    fn fenced(&self, settlement: &Settlement) -> Error {
        Error::fenced(format!(
            "the delivery of {} to {} in {} was settled or taken over by another member",
            settlement.receipt.position(),
            self.seat.membership.member,
            self.seat.about,
        ))
    }

    /// Wakes the member in time for what it is to try again, and at once for what it may have when this one is settled.
    fn note_retries(&self, settlements: &[Settlement], results: &[Result<()>]) {
        let delays = settlements.iter().zip(results);
        let earliest = delays
            .filter_map(|(settlement, result)| match &settlement.outcome {
                _ if settlement.receipt.attempt() >= SUSPECT_FROM => Some(Duration::ZERO),
                Outcome::Retry { after } if result.is_ok() => Some(*after),
                _ => None,
            })
            .min();
        let Some(earliest) = earliest else {
            return;
        };
        let now = Instant::now();
        let due = now.checked_add(earliest).unwrap_or(now);
        let mut noted = self.seat.retry_due.lock();
        *noted = Some(noted.map_or(due, |earlier| earlier.min(due)));
        drop(noted);
        self.seat.retry_asked.notify_one();
    }

    async fn extend_all(&self, held: &[Position]) -> Result<u64> {
        let calls = held
            .chunks(MOST_EXTENDED)
            .map(|held| self.extend_call(held));
        Ok(try_join_all(calls).await?.into_iter().sum())
    }

    async fn extend_call(&self, held: &[Position]) -> Result<u64> {
        let Seat {
            membership, stream, ..
        } = &self.seat;
        let mut call = script::EXTEND.call(1, 4 + held.len(), 256 + 32 * held.len());
        call.arg(stream.as_bytes());
        call.arg(membership.group.as_str().as_bytes());
        call.arg(membership.member.as_str().as_bytes());
        self.seat.write_fence(&mut call);
        for position in held {
            call.position(*position);
        }
        let commands = self.seat.commands.here().await?;
        let answer = commands.run(&script::EXTEND, call).await?;
        let extended = answer.into_walk(&self.seat.about)?.number();
        let extended = extended.map_err(|_| error::unexpected("the extend script"))?;
        Ok(extended.unsigned_abs())
    }

    /// Which of these are still held by this member; extends their leases.
    pub(crate) async fn still_held(&self, positions: &[Position]) -> Result<Vec<bool>> {
        if self.extend_all(positions).await? == positions.len() as u64 {
            return Ok(vec![true; positions.len()]);
        }
        let one = async |position: &Position| Ok(self.extend_call(&[*position]).await? == 1);
        try_join_all(positions.iter().map(one)).await
    }

    /// Moves entries that are no messages to the dead letters. What fails comes again when its lease has run out.
    pub(crate) async fn bury(&self, foreign: &[(Receipt, Foreign)]) {
        let now = match boot::time(&self.seat.commands).await {
            Ok(now) => now,
            Err(error) => {
                tracing::warn!(%error, "entries that are not messages were left");
                return;
            }
        };
        let letters = foreign.iter().map(|(receipt, foreign)| {
            let topic = &self.seat.membership.topic;
            let letter = dead_letter::foreign_letter(topic, foreign, self.why(receipt, now));
            let receipt = Receipt::new(receipt.position(), receipt.attempt());
            Settlement::complete_with(receipt, vec![letter])
        });
        let results = self.settle_all(letters.collect()).await;
        for ((receipt, foreign), result) in foreign.iter().zip(results) {
            let Seat {
                membership, counts, ..
            } = &self.seat;
            match result {
                Ok(()) => {
                    counts.foreign_entries.add(1);
                    tracing::warn!(
                        topic = %membership.topic,
                        position = %receipt.position(),
                        reason = foreign.reason,
                        "an entry that is not a message was moved to the dead letters"
                    );
                }
                Err(error) => tracing::warn!(%error, "an entry that is not a message was left"),
            }
        }
    }

    fn why(&self, receipt: &Receipt, at: u64) -> DeadLetter {
        let Membership {
            topic,
            group,
            member,
            ..
        } = &self.seat.membership;
        DeadLetter::new(topic, group, member, receipt, at)
    }
}

impl Settler for RedisSettler {
    fn settle(&self, batch: Vec<Settlement>) -> BoxFuture<'_, Vec<Result<()>>> {
        self.settle_all(batch).boxed()
    }

    fn extend<'a>(&'a self, held: &'a [Position]) -> BoxFuture<'a, Result<()>> {
        self.extend_all(held)
            .map(|extended| extended.map(drop))
            .boxed()
    }
}
