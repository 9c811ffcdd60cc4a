//! What must have happened, so that a run proves something.

use super::index::Index;
use super::takeover::Takeovers;
use super::{Guard, Terms};
use crate::chaos::fault::Fault;
use crate::chaos::record::{End, Kind};

/// So many kills are sure to hit an owner of partitions with work of them in hand, too; of forty, none may.
const MANY_KILLS: usize = 100;

/// `takeovers`: of messages, and of partitions.
pub(super) fn all(
    index: &Index<'_>,
    takeovers: (&Takeovers, &Takeovers),
    terms: &Terms,
) -> Vec<Guard> {
    let record = index.record;
    let answered = record.calls.iter();
    let answered = answered.filter(|call| matches!(call.end, End::Answered(_)));
    let in_turn = record.effects.iter().filter(|effect| effect.turn.is_some());
    let mut guards = vec![
        guard("requests answered", 1, answered.count()),
        guard("effects seen", 1, record.effects.len()),
        guard("effects of keys in order", 1, in_turn.count()),
    ];
    for fault in &terms.faults {
        guards.extend(of(*fault, index, takeovers, terms));
    }
    guards
}

fn of(
    fault: Fault,
    index: &Index<'_>,
    takeovers: (&Takeovers, &Takeovers),
    terms: &Terms,
) -> Vec<Guard> {
    let record = index.record;
    let hits = || {
        let episodes = record.episodes.iter();
        episodes
            .filter(|window| window.fault == fault && window.hit > 0)
            .count()
    };
    match fault {
        Fault::Kill => {
            let holding = record.kills.iter().filter(|kill| kill.holding > 0);
            vec![
                guard("workers killed", terms.kills, record.kills.len()),
                guard(
                    "of these with work in hand",
                    terms.kills.div_ceil(2),
                    holding.count(),
                ),
                guard("messages taken over from them", 1, takeovers.0.count),
                guard(
                    "partitions taken over from them",
                    usize::from(terms.kills >= MANY_KILLS),
                    takeovers.1.count,
                ),
            ]
        }
        Fault::Zombie => vec![
            guard("workers stopped with work in hand", 1, hits()),
            guard(
                "late results refused",
                1,
                usize::try_from(record.fenced).unwrap_or(usize::MAX),
            ),
        ],
        Fault::Broker => vec![guard("brokers killed under load", 1, hits())],
        Fault::Cut => vec![guard("times that connections broke", 1, hits())],
        Fault::Slow => {
            let long = record.handlings.iter();
            let long = long.filter(|handling| {
                handling
                    .ended
                    .is_some_and(|ended| ended - handling.began > terms.lease)
            });
            vec![guard("handlers longer than the lease", 1, long.count())]
        }
        Fault::Poison => {
            let poison = record.calls.iter();
            let poison = poison.filter(|call| call.kind == Kind::Poison && index.is_dead(&call.id));
            vec![guard(
                "poisoned messages among the dead letters",
                1,
                poison.count(),
            )]
        }
        Fault::Duplicates => {
            let twice = index.entries.values().filter(|entries| entries.len() > 1);
            vec![guard("messages stored more than once", 1, twice.count())]
        }
        Fault::Group => vec![guard("groups destroyed", 1, hits())],
    }
}

fn guard(what: &'static str, at_least: usize, seen: usize) -> Guard {
    Guard {
        what,
        at_least,
        seen,
    }
}
