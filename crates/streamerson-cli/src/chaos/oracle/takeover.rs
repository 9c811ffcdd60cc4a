//! How long the work of a killed worker waits until another one begins with it.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::{EXAMPLES, Finding, Terms};
use crate::chaos::record::{Handling, Kind, Place, Record};

/// From the kill of a worker to the moment another one begins with what it had in hand. Left out is what happened near a fault
/// that keeps the broker from its work, or while a poisoned message was about, which kills who has just taken over.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Takeovers {
    pub(crate) count: usize,
    #[serde(rename = "p50_ms", serialize_with = "as_ms")]
    pub(crate) p50: Duration,
    #[serde(rename = "p99_ms", serialize_with = "as_ms")]
    pub(crate) p99: Duration,
    #[serde(rename = "max_ms", serialize_with = "as_ms")]
    pub(crate) max: Duration,
    /// The slowest: which message, and who had it.
    pub(crate) slowest: Vec<String>,
}

/// The wait of one message for its next worker.
struct Wait<'a> {
    victim: &'a Handling,
    heir: &'a Handling,
    lasted: Duration,
}

pub(super) fn measure(record: &Record, lease: Duration, of: impl Fn(Place) -> bool) -> Takeovers {
    let killed: HashMap<u32, Duration> = record.kills.iter().map(|k| (k.worker, k.at)).collect();
    let mut by_place: HashMap<Place, Vec<&Handling>> = HashMap::new();
    for handling in record
        .handlings
        .iter()
        .filter(|handling| of(handling.place))
    {
        by_place.entry(handling.place).or_default().push(handling);
    }
    let disturbances = disturbances(record, lease);
    let mut waits = Vec::new();
    for handlings in by_place.values_mut().filter(|h| h.len() > 1) {
        handlings.sort_by_key(|handling| handling.began);
        for pair in handlings.windows(2) {
            let [victim, heir] = pair else { continue };
            let Some(&at) = killed.get(&victim.worker) else {
                continue;
            };
            let disturbed = disturbances
                .iter()
                .any(|(from, to)| *from <= heir.began && at <= *to);
            if victim.began <= at && at <= heir.began && !disturbed {
                waits.push(Wait {
                    victim,
                    heir,
                    lasted: heir.began - at,
                });
            }
        }
    }
    Takeovers::of(waits)
}

/// Times in which a takeover says nothing about how soon it is.
fn disturbances(record: &Record, lease: Duration) -> Vec<(Duration, Duration)> {
    // What was settled before the kill comes again when the group is lost.
    let episodes = record.episodes.iter();
    let episodes = episodes
        .filter(|window| window.fault.excuses_callers())
        .map(|window| (window.from, window.to + lease));
    let poison = record.calls.iter().filter(|call| call.kind == Kind::Poison);
    let poison = poison.map(|call| {
        let handlings = record.handlings.iter();
        let last = handlings
            .filter(|handling| call.places.contains(&handling.place))
            .map(|handling| handling.began)
            .max();
        (call.began, last.unwrap_or(call.ended) + 2 * lease)
    });
    episodes.chain(poison).collect()
}

/// Whether they were soon enough, where that was asked for.
pub(super) fn rule(takeovers: &Takeovers, terms: &Terms) -> Option<Finding> {
    let within = terms.takeover_within?;
    let mut finding = Finding::new("99 of 100 takeovers are soon enough");
    finding.check(takeovers.p99 <= within, || {
        format!("p99 {:?} is beyond {within:?}", takeovers.p99)
    });
    Some(finding)
}

impl Takeovers {
    fn of(mut waits: Vec<Wait<'_>>) -> Takeovers {
        waits.sort_by_key(|wait| wait.lasted);
        let at = |share: f64| {
            let rank = (share * waits.len() as f64).ceil() as usize;
            let wait = waits.get(rank.saturating_sub(1));
            wait.map(|wait| wait.lasted).unwrap_or_default()
        };
        Takeovers {
            count: waits.len(),
            p50: at(0.5),
            p99: at(0.99),
            max: at(1.0),
            slowest: waits.iter().rev().take(EXAMPLES).map(Wait::told).collect(),
        }
    }
}

impl Wait<'_> {
    fn told(&self) -> String {
        let Wait {
            victim,
            heir,
            lasted,
        } = self;
        format!(
            "{} of worker {} waited {lasted:.1?} for worker {}, which began at {:.3?}",
            victim.place, victim.worker, heir.worker, heir.began
        )
    }
}

fn as_ms<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
