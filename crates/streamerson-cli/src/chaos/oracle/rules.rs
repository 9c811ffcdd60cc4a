//! The promises, one function each.

use std::collections::{HashMap, HashSet};

use super::index::Index;
use super::{Finding, Terms};
use crate::chaos::fault::Fault;
use crate::chaos::record::{Call, End, Kind, Letter, Place};
use crate::chaos::settings::QUEUE;

/// The share of requests that must be answered while the broker is there.
const ANSWERED: f64 = 0.9;

pub(super) fn all(index: &Index<'_>, terms: &Terms) -> Vec<Finding> {
    vec![
        nothing_lost(index),
        one_effect(index),
        one_end(index),
        own_reply(index),
        order_of_keys(index),
        refused_means_refused(index),
        conservation(index),
        drained(index),
        answered(index, terms),
        bounded_attempts(index, terms),
    ]
}

/// What was acknowledged has its effect, or is a dead letter.
fn nothing_lost(index: &Index<'_>) -> Finding {
    let mut finding = Finding::new("acknowledged work is not lost");
    for call in &index.record.calls {
        let kept = match (&call.end, call.kind) {
            (End::Stored, Kind::Poison) => index.is_dead(&call.id),
            (End::Stored, _) => index.has_effect(&call.id) || index.is_dead(&call.id),
            (End::Answered(_), _) => index.has_effect(&call.id),
            _ => continue,
        };
        finding.check(kept, || {
            format!("{} ended {:?} and left nothing", call.id, call.end)
        });
    }
    finding
}

/// No message has two effects, and none comes from nowhere.
fn one_effect(index: &Index<'_>) -> Finding {
    let mut finding = Finding::new("at most one effect per message");
    for (id, effects) in &index.effects {
        finding.check(effects.len() == 1 && index.calls.contains_key(id), || {
            format!("{id} has {} effects", effects.len())
        });
    }
    finding
}

/// An entry ends once: with an effect or as a dead letter, not both; and as one dead letter. A group that was lost does not
/// know what has ended since its checkpoint: that runs again, without a second effect, and may fail.
fn one_end(index: &Index<'_>) -> Finding {
    let mut finding = Finding::new("an entry ends once");
    let mut seen = HashSet::new();
    for letter in &index.record.letters {
        let id = &*letter.id;
        let sent_once = index
            .entries
            .get(id)
            .is_none_or(|entries| entries.len() == 1);
        let forgotten = index.calls.get(id).is_some_and(|call| {
            let episodes = index.record.episodes.iter();
            let mut groups = episodes.filter(|window| window.fault == Fault::Group);
            groups.any(|window| window.to >= call.began)
        });
        let again = !seen.insert((id, letter.place)) && !forgotten;
        let both = sent_once && index.has_effect(id) && !forgotten;
        finding.check(!again && !both, || match both {
            true => format!("{id} has an effect and is a dead letter"),
            false => format!("{id} is a dead letter twice"),
        });
    }
    finding
}

/// A reply and an effect carry what their own request carried.
fn own_reply(index: &Index<'_>) -> Finding {
    let mut finding = Finding::new("a reply belongs to its request");
    for call in &index.record.calls {
        if let End::Answered(nonce) = call.end {
            finding.check(nonce == Some(call.nonce), || {
                format!("{} asked with {} and got {nonce:?}", call.id, call.nonce)
            });
        }
    }
    for effect in &index.record.effects {
        if let Some(call) = index.calls.get(&*effect.id) {
            let same = effect.nonce == call.nonce && effect.turn == call.turn;
            finding.check(same, || {
                format!(
                    "{} was sent with {} and had effect {}",
                    call.id, call.nonce, effect.nonce
                )
            });
        }
    }
    finding
}

/// Messages of a key have their effects in the order in which they were sent.
fn order_of_keys(index: &Index<'_>) -> Finding {
    let mut finding = Finding::new("the order of each key is kept");
    let mut last: HashMap<u32, u32> = HashMap::new();
    for turn in index.record.effects.iter().filter_map(|effect| effect.turn) {
        let before = last.insert(turn.key, turn.number);
        finding.check(before.is_none_or(|before| before < turn.number), || {
            format!("of key {}, {} came after {before:?}", turn.key, turn.number)
        });
    }
    finding
}

/// Of what the broker refused, nothing happened.
fn refused_means_refused(index: &Index<'_>) -> Finding {
    let mut finding = Finding::new("refused means that nothing happened");
    for call in &index.record.calls {
        if let End::Refused(code) = &call.end {
            let id = &*call.id;
            finding.check(
                !index.entries.contains_key(id) && !index.has_effect(id),
                || format!("{id} was refused as {code}, and is there"),
            );
        }
    }
    finding
}

/// Everything appended has ended, everything acknowledged was appended, and nothing is left.
fn conservation(index: &Index<'_>) -> Finding {
    let mut finding = Finding::new("appended = effective + dead + given up");
    for entry in &index.record.entries {
        finding.check(!index.is_missing(&entry.id), || {
            format!("{} at {} has no end", entry.id, entry.place)
        });
    }
    let there: HashSet<Place> = index.record.entries.iter().map(|e| e.place).collect();
    for call in &index.record.calls {
        for place in &call.places {
            finding.check(there.contains(place), || {
                format!("{} was stored at {place}, and is not there", call.id)
            });
        }
    }
    let rest = index.record.rest;
    finding.check(rest.is_none(), || format!("{rest:?} is left"));
    finding
}

/// Some time after the last fault nothing is left to do.
fn drained(index: &Index<'_>) -> Finding {
    let mut finding = Finding::new("all is done after the last fault");
    finding.check(index.record.drained.is_some(), || {
        format!("left after the time allowed: {:?}", index.record.rest)
    });
    finding
}

/// While the broker is there requests are answered, whatever happens to workers.
fn answered(index: &Index<'_>, terms: &Terms) -> Finding {
    let mut finding = Finding::new("9 of 10 requests are answered in calm times");
    let excused = |call: &Call| {
        let windows = index.record.episodes.iter();
        windows
            .filter(|window| window.fault.excuses_callers())
            .any(|window| window.touches(call.began, call.ended, terms.lease))
    };
    let calls = index.record.calls.iter();
    let mut unanswered = 0;
    for call in calls.filter(|call| call.kind == Kind::Request && !excused(call)) {
        finding.checked += 1;
        if !matches!(call.end, End::Answered(_)) {
            unanswered += 1;
        }
    }
    if f64::from(unanswered) > (1.0 - ANSWERED) * finding.checked as f64 {
        finding.violations = unanswered as usize;
        finding.examples.push(format!(
            "{unanswered} of {} were not answered",
            finding.checked
        ));
    }
    finding
}

/// What stops its workers is not handled for ever. A destroyed group forgets how often it was.
///
/// The attempts of a letter count deliveries. Queued work is given up when it is delivered once too often, unless its worker is
/// killed before that, which does not happen for ever; what waits behind others of its key is delivered to every owner of its
/// partition, and given up when its turn comes.
fn bounded_attempts(index: &Index<'_>, terms: &Terms) -> Finding {
    let mut finding = Finding::new("attempts are bounded");
    let groups = index.record.episodes.iter();
    let groups = groups.filter(|w| w.fault == Fault::Group).count();
    let mut attempts: HashMap<Place, usize> = HashMap::new();
    for handling in &index.record.handlings {
        *attempts.entry(handling.place).or_default() += 1;
    }
    for (place, attempts) in attempts {
        finding.check(attempts <= terms.attempts * (1 + groups), || {
            format!("the message at {place} was handled {attempts} times")
        });
    }
    let queued = |letter: &&Letter| letter.place.is_none_or(|place| place.stream == QUEUE);
    for letter in index.record.letters.iter().filter(queued) {
        let attempts = letter.attempts as usize;
        finding.check(attempts <= 2 * terms.attempts, || {
            format!("{} died after {attempts} attempts", letter.id)
        });
    }
    finding
}
