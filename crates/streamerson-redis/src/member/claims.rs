//! Taking over: when to look for what others gave up, and what was found.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use streamerson_core::broker::Receipt;
use streamerson_core::message::Foreign;
use streamerson_core::{Message, Result};
use tokio::time::Instant;

use super::settler::Seat;
use crate::connection::Answer;
use crate::entry;
use crate::error;
use crate::script;
use crate::wire::{Malformed, Walk};

/// Where a search begins.
const START: &str = "-";
/// No search: only what is due again, and new entries.
const NO_SEARCH: &str = "";

/// The longest time between two searches. Redis wakes no member for what another one gives back, so this is how soon it
/// is noticed that a member in another process left.
const PERIOD: Duration = Duration::from_secs(1);

/// Searches for what other members gave up, one at a time: at once, then every half lease or second, whichever is
/// shorter, and when a retry is due.
///
/// A member that is alone in its group, by a fence, is given new entries by the same call, so that they are given to nobody
/// who has lost the lease. It fetches them more often than it searches.
pub(crate) struct Claims {
    lease: Duration,
    period: Duration,
    alone: bool,
    cursor: String,
    /// What this member holds of what was lost again and again, as the last search told.
    suspect: String,
    due: Instant,
    search_due: Instant,
    running: Option<Running>,
}

struct Running {
    most: usize,
    /// Kept here, not in whoever waits for it: what was claimed must not be lost with a cancelled call.
    answer: BoxFuture<'static, Result<Answer>>,
}

/// What a search found.
pub(crate) struct Claimed {
    pub(crate) entries: Vec<(Receipt, Result<Message, Foreign>)>,
    /// Messages trimmed away unprocessed.
    pub(crate) lost: u64,
    pub(crate) since: Instant,
}

impl Claims {
    pub(crate) fn new(lease: Duration, alone: bool) -> Claims {
        Claims {
            lease,
            period: (lease / 2).min(PERIOD),
            alone,
            cursor: START.to_owned(),
            suspect: String::new(),
            due: Instant::now(),
            search_due: Instant::now(),
            running: None,
        }
    }

    /// When to search next; `None` while a search is under way.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.running.is_none().then_some(self.due)
    }

    /// There may be something to find at `due`.
    pub(crate) fn due_by(&mut self, due: Instant) {
        self.due = self.due.min(due);
    }

    /// Whether a read may begin: not before what others gave up, or what it would only show to be there.
    pub(crate) fn allow_a_read(&self) -> bool {
        match self.running {
            Some(_) => !self.alone && self.cursor != START,
            None => true,
        }
    }

    pub(crate) fn start_if_due(&mut self, seat: &Seat, most: usize) {
        let now = Instant::now();
        if self.running.is_some() || now < self.due {
            return;
        }
        let begins = self.cursor == START;
        let only_fetches = self.alone && begins && now < self.search_due;
        let mut call = script::CLAIM.call(2, 8, 256);
        seat.write_keys(&mut call);
        call.number(self.lease.as_millis() as u64);
        call.number(most as u64);
        if only_fetches {
            call.arg(NO_SEARCH.as_bytes());
        } else {
            call.arg(self.cursor.as_bytes());
            self.search_due = now + self.period;
        }
        seat.write_fence(&mut call);
        call.arg(self.suspect.as_bytes());
        let commands = seat.commands.clone();
        let answer = async move { commands.run(&script::CLAIM, call).await }.boxed();
        // A retry asked for while this runs moves it forward again.
        self.due = now + self.period;
        self.running = Some(Running { most, answer });
    }

    /// Waits for the search under way. Safe to cancel.
    pub(crate) async fn finished(&mut self) -> Result<Claimed> {
        let Some(running) = &mut self.running else {
            return std::future::pending().await;
        };
        let most = running.most;
        let answer = (&mut running.answer).await;
        self.running = None;
        let since = Instant::now();
        let mut walk = answer?.into_walk("taking over")?;
        let found = parse(&mut walk).map_err(|_| error::unexpected("the claim script"))?;
        let more = found.entries.len() >= most || found.cursor != START;
        if more {
            self.due = since;
        } else if let Some(wait) = found.wait {
            self.due_by(since + wait);
        }
        self.cursor = found.cursor;
        self.suspect = found.suspect;
        Ok(Claimed {
            entries: found.entries,
            lost: found.lost,
            since,
        })
    }

    /// Forgets the search under way, and begins anew: the group is another one.
    pub(crate) fn forget(&mut self) {
        self.running = None;
        self.cursor = START.to_owned();
        self.suspect.clear();
        self.search_due = Instant::now();
        self.due = Instant::now()
            + if self.alone {
                Duration::ZERO
            } else {
                self.period
            };
    }
}

struct Found {
    cursor: String,
    entries: Vec<(Receipt, Result<Message, Foreign>)>,
    lost: u64,
    wait: Option<Duration>,
    suspect: String,
}

fn parse(walk: &mut Walk) -> Result<Found, Malformed> {
    if walk.list()? != 5 {
        return Err(Malformed);
    }
    let cursor = String::from_utf8(walk.text()?.into()).map_err(|_| Malformed)?;
    let mut entries = Vec::new();
    for _ in 0..walk.list()? {
        if walk.list()? != 3 {
            return Err(Malformed);
        }
        let position = entry::position(&walk.text()?)?;
        let attempt = u32::try_from(walk.number()?).unwrap_or(u32::MAX);
        if let Some(message) = entry::message(walk)? {
            entries.push((Receipt::new(position, attempt), message));
        }
    }
    let lost = u64::try_from(walk.number()?).unwrap_or(0);
    let wait = u64::try_from(walk.number()?)
        .ok()
        .map(Duration::from_millis);
    let suspect = String::from_utf8(walk.text()?.into()).map_err(|_| Malformed)?;
    Ok(Found {
        cursor,
        entries,
        lost,
        wait,
        suspect,
    })
}
