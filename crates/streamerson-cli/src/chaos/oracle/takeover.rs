//! How long the work of a killed worker waits until another one begins with it.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::{EXAMPLES, Finding, Terms};
use crate::chaos::record::{Handling, Kill, Kind, Place, Record};
use crate::chaos::settings::QUEUE;

/// From the kill of a worker to the moment another one begins with what it had. Left out is what happened near a fault
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

/// The wait of one message, or of one partition, for its next worker.
struct Wait<'a> {
    victim: u32,
    heir: &'a Handling,
    lasted: Duration,
}

/// Of queued work, per message: from the death of who had it to the moment the one it was delivered to next begins with it.
pub(super) fn of_messages(record: &Record, lease: Duration) -> Takeovers {
    let killed: HashMap<u32, Duration> = record.kills.iter().map(|k| (k.worker, k.at)).collect();
    let mut by_place: HashMap<Place, Vec<&Handling>> = HashMap::new();
    for handling in &record.handlings {
        if handling.place.stream == QUEUE {
            by_place.entry(handling.place).or_default().push(handling);
        }
    }
    let mut waits = Vec::new();
    for handlings in by_place.values_mut().filter(|h| h.len() > 1) {
        // Who was stopped may begin with an earlier delivery when all is over.
        handlings.sort_by_key(|handling| (handling.attempt, handling.began));
        for pair in handlings.windows(2) {
            let [victim, heir] = pair else { continue };
            let Some(&at) = killed.get(&victim.worker) else {
                continue;
            };
            if victim.began <= at && at <= heir.began {
                waits.push(Wait {
                    victim: victim.worker,
                    heir,
                    lasted: heir.began - at,
                });
            }
        }
    }
    Takeovers::of(undisturbed(waits, record, lease))
}

/// Of work in the order of keys, per death of an owner: from the death of a partition's owner with work in hand to the moment
/// the next one begins with the partition. Should the next owner die before that, the wait begins anew with its death; should
/// it be unknown whether a dead worker was an owner, it says nothing.
pub(super) fn of_partitions(record: &Record, lease: Duration) -> Takeovers {
    let mut by_stream: HashMap<u32, Vec<&Handling>> = HashMap::new();
    for handling in &record.handlings {
        if handling.place.stream != QUEUE {
            let handlings = by_stream.entry(handling.place.stream).or_default();
            handlings.push(handling);
        }
    }
    let mut waits = Vec::new();
    for (stream, mut handlings) in by_stream {
        handlings.sort_by_key(|handling| handling.began);
        let owner = |kill: &&Kill| {
            kill.owned
                .as_ref()
                .is_none_or(|owned| owned.contains(&stream))
        };
        let mut deaths: Vec<&Kill> = record.kills.iter().filter(owner).collect();
        deaths.sort_by_key(|kill| kill.at);
        // Since a worker died with work in hand nobody has begun.
        let mut is_waiting = false;
        for (n, death) in deaths.iter().enumerate() {
            let had = |h: &&Handling| h.worker == death.worker && h.began <= death.at;
            let in_hand = || handlings.iter().any(|h| had(h) && h.ended.is_none());
            is_waiting = death.owned.is_some() && (is_waiting || in_hand());
            let next_death = deaths.get(n + 1).map_or(Duration::MAX, |next| next.at);
            let heir = handlings.iter().find(|h| h.began > death.at);
            let heir = heir.filter(|heir| is_waiting && heir.began <= next_death);
            if let Some(heir) = heir {
                is_waiting = false;
                waits.push(Wait {
                    victim: death.worker,
                    heir,
                    lasted: heir.began - death.at,
                });
            }
        }
    }
    Takeovers::of(undisturbed(waits, record, lease))
}

/// Leaves out what says nothing about how soon a takeover is.
fn undisturbed<'a>(waits: Vec<Wait<'a>>, record: &Record, lease: Duration) -> Vec<Wait<'a>> {
    let disturbances = disturbances(record, lease);
    let calm = |wait: &Wait<'_>| {
        let (from, to) = (wait.heir.began - wait.lasted, wait.heir.began);
        !disturbances
            .iter()
            .any(|(begins, ends)| *begins <= to && from <= *ends)
    };
    waits.into_iter().filter(calm).collect()
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
pub(super) fn rules(messages: &Takeovers, partitions: &Takeovers, terms: &Terms) -> Vec<Finding> {
    let Some(within) = terms.takeover_within else {
        return Vec::new();
    };
    let rule = |rule, takeovers: &Takeovers| {
        let mut finding = Finding::new(rule);
        finding.check(takeovers.p99 <= within, || {
            format!("p99 {:?} is beyond {within:?}", takeovers.p99)
        });
        finding
    };
    vec![
        rule("99 of 100 messages are taken over in time", messages),
        rule("99 of 100 partitions are taken over in time", partitions),
    ]
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
            "what worker {victim} had waited {lasted:.1?} for worker {}, which began with {} at {:.3?}",
            heir.worker, heir.place, heir.began
        )
    }
}

fn as_ms<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
