//! Taking dead letters out, one step each: what `retry` and `drop` have in common.
//!
//! A letter is taken by its position, together with what follows from it, or not at all. So an interrupt, a crash, or two
//! operators at once neither lose a letter nor act on one twice.

use std::time::Duration;

use clap::Args;
use futures::stream::{FuturesOrdered, StreamExt};
use serde::Serialize;
use streamerson_core::{Append, Broker, Error, Position, Topic};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::filter::Filter;
use super::letter::{Letter, Letters};
use super::pace;
use crate::command::topic::parts;
use crate::failure::{Exit, Failure, Result};
use crate::output::message;

/// How many are on their way at one time.
const AT_ONCE: usize = 32;
/// How often progress is told.
const TELL: Duration = Duration::from_secs(2);
/// How many refused letters are named.
const NAMED: usize = 20;

/// How many letters to take, and how fast.
#[derive(Debug, Args)]
pub(super) struct Pace {
    /// Not faster than this, for example 50/s or 10/m
    #[arg(long, value_name = "N/s", value_parser = pace::rate)]
    rate: Option<Duration>,

    /// So many at most, the oldest first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) max: Option<u64>,
}

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Report {
    pub(super) topic: String,
    /// Letters that are meant, as far as was looked.
    pub(super) matched: u64,
    /// Letters moved by this command.
    pub(super) moved: u64,
    /// Letters that somebody else moved first.
    pub(super) gone: u64,
    /// Letters that cannot be moved.
    pub(super) refused: u64,
    /// Whether nothing was done, because only a look was wanted.
    pub(super) dry_run: bool,
    /// Whether it was broken off: there may be more.
    interrupted: bool,
}

/// Moves the letters of a topic and its partitions.
pub(super) struct Moving<'a> {
    pub(super) broker: &'a dyn Broker,
    pub(super) topic: &'a Topic,
    pub(super) filter: &'a Filter,
    pub(super) pace: &'a Pace,
    /// What it is called, for people: `retried`.
    pub(super) done: &'static str,
    /// What is appended in the step that takes a letter.
    pub(super) outputs: fn(&Letter) -> Result<Vec<Append>, Error>,
}

impl Moving<'_> {
    /// What would be done.
    pub(super) async fn look(&self) -> Result<Report> {
        let mut report = self.report();
        report.dry_run = true;
        for topic in parts(self.broker, self.topic).await? {
            let mut letters = self.letters(&topic).await?;
            loop {
                let page = letters.next().await?;
                if page.is_empty() {
                    break;
                }
                for letter in page.iter().filter(|letter| self.filter.matches(letter)) {
                    if report.chosen() >= self.most() {
                        return Ok(report);
                    }
                    report.matched += 1;
                    if let Err(error) = (self.outputs)(letter) {
                        report.refuse(letter.position, &error);
                    }
                }
            }
        }
        Ok(report)
    }

    /// Does it, until `stop`: what is on its way then is finished. Answers what was done, however it ended.
    pub(super) async fn run(&self, stop: &CancellationToken) -> (Report, Result<()>) {
        let mut work = Work {
            report: self.report(),
            flight: FuturesOrdered::new(),
            ticks: self.pace.rate.map(ticks),
            tell: Instant::now() + TELL,
        };
        let mut outcome = self.walk(&mut work, stop).await;
        // Whatever stopped the walk, what was begun has its outcome.
        while let Some(taken) = work.flight.next().await {
            outcome = outcome.and(work.report.count(taken));
        }
        if outcome.is_ok() && stop.is_cancelled() {
            outcome = Err(Failure::new(Exit::Failed, "interrupted", "interrupted"));
        }
        let outcome = outcome.map_err(|failure| {
            failure.with_help(
                "run the same command again to go on: what was moved is not there any more",
            )
        });
        work.report.interrupted = outcome.is_err();
        (work.report, outcome)
    }

    async fn walk<'w>(&'w self, work: &mut Work<'w>, stop: &CancellationToken) -> Result<()> {
        for topic in parts(self.broker, self.topic).await? {
            let mut letters = self.letters(&topic).await?;
            while !stop.is_cancelled() {
                let page = letters.next().await?;
                if page.is_empty() {
                    break;
                }
                for letter in page.iter().filter(|letter| self.filter.matches(letter)) {
                    if work.report.chosen() >= self.most() {
                        return Ok(());
                    }
                    match (self.outputs)(letter) {
                        Err(error) => {
                            work.report.matched += 1;
                            work.report.refuse(letter.position, &error);
                        }
                        Ok(outputs) => {
                            if !work.room(self.done, stop).await? {
                                return Ok(());
                            }
                            work.report.matched += 1;
                            let source = topic.dead_letters();
                            let taken = self.take(source, letter.position, outputs);
                            work.flight.push_back(taken);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn take(
        &self,
        source: Topic,
        position: Position,
        outputs: Vec<Append>,
    ) -> futures::future::BoxFuture<'_, Taken> {
        let broker = self.broker;
        Box::pin(async move { broker.take(&source, position, outputs).await })
    }

    fn most(&self) -> u64 {
        self.pace.max.unwrap_or(u64::MAX)
    }

    async fn letters(&self, topic: &Topic) -> Result<Letters<'_>> {
        let (after, to) = self.filter.bounds(self.broker.time().await?);
        Letters::of(self.broker, topic, after, to).await
    }

    fn report(&self) -> Report {
        Report {
            topic: self.topic.to_string(),
            ..Report::default()
        }
    }
}

type Taken = streamerson_core::Result<bool>;

/// A walk under way.
struct Work<'w> {
    report: Report,
    flight: FuturesOrdered<futures::future::BoxFuture<'w, Taken>>,
    ticks: Option<Interval>,
    tell: Instant,
}

impl Work<'_> {
    /// Waits until the next letter may be taken; `false`: it must not, because somebody wants to stop.
    async fn room(&mut self, done: &str, stop: &CancellationToken) -> Result<bool> {
        if let Some(ticks) = &mut self.ticks {
            let due = ticks.tick();
            tokio::pin!(due);
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(false),
                    Some(taken) = self.flight.next(), if !self.flight.is_empty() => self.report.count(taken)?,
                    () = sleep_until(self.tell) => {
                        self.report.tell(done);
                        self.tell += TELL;
                    }
                    _ = &mut due => break,
                }
            }
        }
        while self.flight.len() >= AT_ONCE {
            if let Some(taken) = self.flight.next().await {
                self.report.count(taken)?;
            }
        }
        if Instant::now() >= self.tell {
            self.report.tell(done);
            self.tell = Instant::now() + TELL;
        }
        Ok(!stop.is_cancelled())
    }
}

/// Never catches up in a burst: a rate is there to spare what comes after.
fn ticks(between: Duration) -> Interval {
    let mut ticks = interval(between);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

impl Report {
    /// Letters that are to be moved.
    fn chosen(&self) -> u64 {
        self.matched - self.refused
    }

    fn count(&mut self, taken: Taken) -> Result<()> {
        match taken? {
            true => self.moved += 1,
            false => self.gone += 1,
        }
        Ok(())
    }

    fn refuse(&mut self, position: Position, error: &Error) {
        self.refused += 1;
        match self.refused as usize {
            n if n <= NAMED => message(&format!("warning: {position} stays: {error}")),
            n if n == NAMED + 1 => message("warning: more stay, and are only counted"),
            _ => {}
        }
    }

    fn tell(&self, done: &str) {
        message(&format!("{} {done}", self.moved));
    }

    /// The failure of what could not be moved.
    pub(super) fn complete(&self) -> Result<()> {
        if self.refused == 0 || self.dry_run {
            return Ok(());
        }
        Err(Failure::new(
            Exit::Failed,
            "letters-refused",
            format!(
                "{} of {} dead letters stay, because they cannot be retried",
                self.refused, self.matched
            ),
        )
        .with_help("`streamerson dlq show` shows one, `streamerson dlq drop` removes it"))
    }
}
