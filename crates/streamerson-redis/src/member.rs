//! Members of consumer groups: what they are given, in which order, and what happens when the group is lost.

mod claims;
mod group;
mod settlement;
mod settler;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use streamerson_core::broker::{Delivery, Member, Membership, Receipt, Settlement, Settler};
use streamerson_core::message::Foreign;
use streamerson_core::{Error, ErrorKind, Message, Position, Result};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::broker::RedisBroker;
use crate::connection::{Arrival, Waiting};
use crate::entry;
use crate::error::GROUP_LOST;
use crate::read;
use crate::script;
use crate::wire::Request;
use claims::{Claimed, Claims};
use settler::{RedisSettler, Seat};

/// The most deliveries asked for at once.
const MOST: usize = 1024;

pub(crate) struct RedisMember {
    settler: Arc<RedisSettler>,
    waiting: Waiting,
    claims: Claims,
    /// Taken, and not answered yet.
    ready: VecDeque<Ready>,
    /// Taken, and no messages: to be moved to the dead letters.
    foreign: Vec<(Receipt, Foreign)>,
    /// The group was created again while a read was under way, whose answer is about the old one.
    stale_read: bool,
    /// The newest position given to this member, or its group before it came.
    cursor: Position,
    departures: watch::Receiver<()>,
    departing: watch::Sender<()>,
}

struct Ready {
    position: Position,
    attempt: u32,
    message: Message,
    since: Instant,
}

enum Event {
    Claimed(Result<Claimed>),
    Read(Result<Arrival>),
    /// A retry was asked for, or a claim is due.
    Woken,
}

pub(crate) async fn join(broker: &RedisBroker, membership: Membership) -> Result<RedisMember> {
    let seat = Seat::new(broker, membership);
    let cursor = group::join(&seat).await?;
    let mut waiting = Waiting::new(broker.connector().clone());
    waiting.connect().await?;
    Ok(RedisMember {
        claims: Claims::new(seat.membership.lease, seat.membership.fence.is_some()),
        settler: Arc::new(RedisSettler::new(seat)),
        waiting,
        ready: VecDeque::new(),
        foreign: Vec::new(),
        stale_read: false,
        cursor,
        departures: broker.departures().subscribe(),
        departing: broker.departures().clone(),
    })
}

impl RedisMember {
    fn seat(&self) -> &Seat {
        self.settler.seat()
    }

    async fn take(&mut self, max: usize) -> Result<Vec<Delivery>> {
        let max = max.clamp(1, MOST);
        loop {
            self.bury().await;
            self.confirm(max).await?;
            if !self.ready.is_empty() {
                self.recall(max).await;
                return Ok(self.answer(max));
            }
            match self.event(max).await {
                Event::Claimed(Ok(claimed)) => self.absorb_claim(claimed),
                Event::Claimed(Err(error)) => self.claim_failed(error).await?,
                Event::Read(Ok(arrival)) => self.absorb_read(arrival)?,
                Event::Read(Err(error)) => self.read_failed(error).await?,
                Event::Woken => {}
            }
        }
    }

    /// Waits for what happens next. Nothing is lost when this is cancelled: the claim under way and the read under way
    /// are kept.
    async fn event(&mut self, max: usize) -> Event {
        let seat = self.settler.seat();
        if let Some(due) = seat.retry_due.lock().take() {
            self.claims.due_by(due);
        }
        if self.departures.has_changed().unwrap_or(false) {
            self.departures.mark_unchanged();
            self.claims.due_by(Instant::now());
        }
        self.claims.start_if_due(seat, max);
        let due = self.claims.due();
        // What others gave up comes first, so a new read waits for the claim.
        let may_read = self.waiting.is_asked() || self.claims.allow_a_read();
        let cursor = self.cursor;
        let claiming = due.is_none();
        tokio::select! {
            biased;
            claimed = self.claims.finished(), if claiming => Event::Claimed(claimed),
            read = self.waiting.ask(&seat.about, || seat.read(max, cursor)), if may_read => Event::Read(read),
            () = seat.retry_asked.notified() => Event::Woken,
            Ok(()) = self.departures.changed() => {
                self.departures.mark_changed();
                Event::Woken
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if !claiming => Event::Woken,
        }
    }

    fn absorb_read(&mut self, arrival: Arrival) -> Result<()> {
        self.stale_read = false;
        let Arrival { mut walk, since } = arrival;
        let is_alone = self.seat().membership.fence.is_some();
        entry::read_stream(&mut walk, |entry| {
            self.cursor = self.cursor.max(entry.position);
            if is_alone {
                // Only a sign that there is something to fetch.
                return self.claims.due_by(since);
            }
            match entry.message {
                Ok(message) => self.ready.push_back(Ready {
                    position: entry.position,
                    attempt: 1,
                    message,
                    since,
                }),
                Err(foreign) => self
                    .foreign
                    .push((Receipt::new(entry.position, 1), foreign)),
            }
        })?;
        Ok(())
    }

    fn absorb_claim(&mut self, claimed: Claimed) {
        for (receipt, message) in claimed.entries {
            self.cursor = self.cursor.max(receipt.position());
            match message {
                Ok(message) => self.ready.push_back(Ready {
                    position: receipt.position(),
                    attempt: receipt.attempt(),
                    message,
                    since: claimed.since,
                }),
                Err(foreign) => self.foreign.push((receipt, foreign)),
            }
        }
        if claimed.lost > 0 {
            let seat = self.settler.seat();
            seat.counts.lost_messages.add(claimed.lost);
            tracing::error!(
                topic = %seat.membership.topic,
                group = %seat.membership.group,
                lost = claimed.lost,
                "messages were removed before this group had processed them"
            );
        }
    }

    async fn claim_failed(&mut self, error: Error) -> Result<()> {
        if error.code() == GROUP_LOST {
            return self.begin_again().await;
        }
        match error.kind() {
            // The next claim finds what this one may have taken. An owner is told: it must not take what is newer before.
            ErrorKind::Unavailable | ErrorKind::Unknown
                if self.seat().membership.fence.is_none() =>
            {
                tracing::warn!(%error, "could not look for what other members gave up");
                Ok(())
            }
            _ => Err(error),
        }
    }

    async fn read_failed(&mut self, error: Error) -> Result<()> {
        if error.code() != GROUP_LOST {
            return Err(error);
        }
        if std::mem::take(&mut self.stale_read) {
            return Ok(());
        }
        self.begin_again().await
    }

    async fn begin_again(&mut self) -> Result<()> {
        self.claims.forget();
        self.stale_read = self.waiting.is_asked();
        self.cursor = group::join_again(self.settler.seat()).await?;
        Ok(())
    }

    /// Moves what is no message to the dead letters. Safe to repeat: the second settlement of a delivery is fenced.
    async fn bury(&mut self) {
        if self.foreign.is_empty() {
            return;
        }
        self.settler.bury(&self.foreign).await;
        self.foreign.clear();
    }

    /// What lay here for long while nobody asked may have been taken over: asks Redis before it is answered.
    async fn confirm(&mut self, max: usize) -> Result<()> {
        let patience = self.seat().membership.lease / 2;
        let is_old = |ready: &Ready| ready.since.elapsed() > patience;
        if !self.ready.iter().take(max).any(is_old) {
            return Ok(());
        }
        let positions: Vec<Position> = self.ready.iter().map(|ready| ready.position).collect();
        let kept = self.settler.still_held(&positions).await?;
        let now = Instant::now();
        let mut kept = kept.into_iter();
        self.ready.retain_mut(|ready| {
            ready.since = now;
            kept.next().unwrap_or(false)
        });
        Ok(())
    }

    /// Takes back a read that still waits while something else is answered: whoever gets that may be busy with it, and what
    /// the read is given meanwhile would lie here unseen. What it was given just before goes back to the group.
    async fn recall(&mut self, max: usize) {
        if !self.waiting.is_asked() || self.seat().membership.fence.is_some() {
            return;
        }
        let seat = self.settler.seat();
        let Some(arrival) = self.waiting.recall(&seat.commands, &seat.about).await else {
            return;
        };
        if let Err(error) = arrival.and_then(|arrival| self.absorb_read(arrival)) {
            // The next call finds out what it means.
            tracing::debug!(%error, "a read was taken back");
        }
        let keep = self.ready.len().min(max);
        let surplus = self.ready.drain(keep..).map(|ready| {
            let receipt = Receipt::new(ready.position, ready.attempt);
            Settlement::retry(receipt, Duration::ZERO)
        });
        let surplus: Vec<Settlement> = surplus.collect();
        if !surplus.is_empty() {
            self.settler.settle(surplus).await;
        }
    }

    fn answer(&mut self, max: usize) -> Vec<Delivery> {
        let count = self.ready.len().min(max);
        let deliver = |ready: Ready| Delivery {
            receipt: Receipt::new(ready.position, ready.attempt),
            message: ready.message,
        };
        self.ready.drain(..count).map(deliver).collect()
    }

    async fn go(self) -> Result<()> {
        // First the read, so that nothing is given to this member after it has left.
        self.waiting.close().await;
        let seat = self.settler.seat();
        let mut call = script::LEAVE.call(2, 2, 256);
        seat.write_keys(&mut call);
        let answer = seat.commands.run(&script::LEAVE, call).await?;
        match answer.into_walk(&seat.about) {
            // There is nothing left to leave.
            Err(error) if error.code() == GROUP_LOST => Ok(()),
            left => {
                self.departing.send_replace(());
                left.map(drop)
            }
        }
    }
}

impl Seat {
    /// A read that waits: of what is new to the group, or, where a fence guards that, of whether there is something.
    fn read(&self, max: usize, cursor: Position) -> Request {
        let Membership {
            group,
            member,
            fence,
            ..
        } = &self.membership;
        if fence.is_some() {
            return read::waiting(&self.stream, cursor, 1);
        }
        let mut request = Request::with_capacity(192 + self.stream.len());
        request.head(11);
        request.arg(b"XREADGROUP");
        request.arg(b"GROUP");
        request.arg(group.as_str().as_bytes());
        request.arg(member.as_str().as_bytes());
        request.arg(b"COUNT");
        request.number(max as u64);
        request.arg(b"BLOCK");
        request.number(Waiting::hold());
        request.arg(b"STREAMS");
        request.arg(self.stream.as_bytes());
        request.arg(b">");
        request
    }
}

impl Member for RedisMember {
    fn next(&mut self, max: usize) -> BoxFuture<'_, Result<Vec<Delivery>>> {
        self.take(max).boxed()
    }

    fn settler(&self) -> Arc<dyn Settler> {
        self.settler.clone()
    }

    fn leave(self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        self.go().boxed()
    }
}
