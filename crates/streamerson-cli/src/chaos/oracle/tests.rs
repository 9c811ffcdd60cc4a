//! A run without a fault passes, and each violation is caught.

use std::time::Duration;

use streamerson_core::Position;

use super::*;
use crate::chaos::record::{
    Call, Effect, End, Handling, Kill, Kind, Letter, Place, Rest, Stored, Turn, Window,
};

const LEASE: Duration = Duration::from_millis(100);

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn terms() -> Terms {
    Terms {
        lease: LEASE,
        attempts: 5,
        faults: vec![Fault::Kill],
        kills: 1,
        takeover_within: None,
    }
}

fn call(n: u64, kind: Kind, end: End) -> Call {
    Call {
        id: n.to_string().into(),
        nonce: n,
        kind,
        began: at(n),
        ended: at(n + 1),
        end,
        places: vec![place(n)],
        turn: turn(n),
    }
}

fn place(position: u64) -> Place {
    Place {
        stream: 0,
        position: Position::new(position, 0),
    }
}

/// The last ten are two keys in turns.
fn turn(n: u64) -> Option<Turn> {
    let n = u32::try_from(n).ok().filter(|n| *n > 30)?;
    Some(Turn {
        key: n % 2,
        number: n,
    })
}

/// Of a message in the only partition.
fn in_partition(worker: u32, position: u64, began: u64) -> Handling {
    Handling {
        place: Place {
            stream: 1,
            ..place(position)
        },
        ..handling(worker, position, began)
    }
}

fn kill(worker: u32, ms: u64) -> Kill {
    Kill {
        worker,
        at: at(ms),
        holding: 1,
        owned: Some(vec![1]),
    }
}

fn handling(worker: u32, position: u64, began: u64) -> Handling {
    Handling {
        worker,
        place: place(position),
        attempt: 1,
        began: at(began),
        ended: None,
    }
}

/// Twenty requests, twenty sends, one worker killed with a message in hand and a partition that another one took over.
fn calm() -> Record {
    let request = |n| call(n, Kind::Request, End::Answered(Some(n)));
    let send = |n| call(n, Kind::Send, End::Stored);
    let calls: Vec<Call> = (1..=20).map(request).chain((21..=40).map(send)).collect();
    Record {
        entries: calls
            .iter()
            .map(|call| Stored {
                place: place(call.nonce),
                id: call.id.clone(),
            })
            .collect(),
        effects: calls
            .iter()
            .map(|call| Effect {
                id: call.id.clone(),
                nonce: call.nonce,
                turn: call.turn,
            })
            .collect(),
        calls,
        handlings: vec![
            handling(1, 7, 10),
            handling(2, 7, 70),
            in_partition(1, 7, 12),
            in_partition(2, 7, 90),
        ],
        kills: vec![kill(1, 20)],
        drained: Some(at(5)),
        rest: Rest {
            lag: Some(0),
            ..Rest::default()
        },
        ..Record::default()
    }
}

fn letter(id: &str, position: u64, attempts: u32) -> Letter {
    Letter {
        id: id.to_owned().into(),
        place: Some(place(position)),
        attempts,
    }
}

#[track_caller]
fn caught(rule: &str, harm: impl FnOnce(&mut Record)) {
    let mut record = calm();
    harm(&mut record);
    let verdict = judge(&record, &terms());
    let broken: Vec<&str> = verdict
        .rules
        .iter()
        .filter(|finding| finding.violations > 0)
        .map(|finding| finding.rule)
        .collect();
    assert!(broken.contains(&rule), "{broken:?}");
    assert!(!verdict.holds);
}

#[test]
fn a_calm_run_holds() {
    let verdict = judge(&calm(), &terms());
    assert!(verdict.holds, "{verdict:#?}");
    assert_eq!(verdict.takeovers.count, 1);
    assert_eq!(verdict.takeovers.max, at(50));
    assert_eq!(verdict.ordered_takeovers.count, 1);
    assert_eq!(verdict.ordered_takeovers.max, at(70));
    assert_eq!(verdict.balance.effective, 40);
}

#[test]
fn a_lost_send_is_caught() {
    caught("acknowledged work is not lost", |record| {
        record.effects.retain(|effect| effect.nonce != 30);
    });
}

#[test]
fn an_answer_without_effect_is_caught() {
    caught("acknowledged work is not lost", |record| {
        record.effects.retain(|effect| effect.nonce != 3);
    });
}

#[test]
fn a_second_effect_is_caught() {
    caught("at most one effect per message", |record| {
        record.effects.push(record.effects[4].clone());
    });
}

#[test]
fn an_effect_from_nowhere_is_caught() {
    caught("at most one effect per message", |record| {
        record.effects.push(Effect {
            id: "stranger".into(),
            nonce: 1,
            turn: None,
        });
    });
}

#[test]
fn an_effect_of_a_dead_letter_is_caught() {
    caught("an entry ends once", |record| {
        record.letters.push(letter("30", 30, 5));
    });
}

#[test]
fn a_letter_kept_twice_is_caught() {
    caught("an entry ends once", |record| {
        record.effects.retain(|effect| effect.nonce != 30);
        record.letters = vec![letter("30", 30, 5), letter("30", 30, 5)];
    });
}

#[test]
fn the_reply_of_another_is_caught() {
    caught("a reply belongs to its request", |record| {
        record.calls[3].end = End::Answered(Some(5));
    });
}

#[test]
fn the_effect_of_another_is_caught() {
    caught("a reply belongs to its request", |record| {
        record.effects[3].nonce = 5;
    });
}

#[test]
fn keys_out_of_order_are_caught() {
    caught("the order of each key is kept", |record| {
        record.effects.swap(34, 36);
    });
}

#[test]
fn something_refused_that_happened_is_caught() {
    caught("refused means that nothing happened", |record| {
        record.calls[30].end = End::Refused("broker-unreachable".into());
    });
}

#[test]
fn an_entry_that_vanished_is_caught() {
    caught("appended = effective + dead + given up", |record| {
        record.entries.remove(30);
    });
}

#[test]
fn an_entry_without_an_end_is_caught() {
    caught("appended = effective + dead + given up", |record| {
        record.calls[30].end = End::Unknown("append-unanswered".into());
        record.effects.remove(30);
    });
}

#[test]
fn work_left_over_is_caught() {
    caught("appended = effective + dead + given up", |record| {
        record.rest.pending = 1;
    });
    caught("all is done after the last fault", |record| {
        record.drained = None;
    });
}

#[test]
fn unanswered_requests_are_caught_in_calm_times_only() {
    let silence = |record: &mut Record| {
        for call in &mut record.calls[..5] {
            call.end = End::Unknown("no-reply-in-time".into());
        }
    };
    caught("9 of 10 requests are answered in calm times", silence);

    let mut record = calm();
    silence(&mut record);
    record.episodes.push(Window {
        fault: Fault::Broker,
        from: at(0),
        to: at(6),
        hit: 1,
    });
    let verdict = judge(&record, &terms());
    assert_eq!(verdict.rules.iter().map(|f| f.violations).sum::<usize>(), 0);
}

#[test]
fn attempts_without_end_are_caught() {
    caught("attempts are bounded", |record| {
        record.handlings = (0..6).map(|n| handling(2, 9, 20 + n)).collect();
    });
}

#[test]
fn a_slow_takeover_is_caught_where_it_was_asked_for() {
    let judged = |within, handlings: &[Handling]| {
        let terms = Terms {
            takeover_within: Some(at(within)),
            ..terms()
        };
        let mut record = calm();
        record.handlings.extend_from_slice(handlings);
        judge(&record, &terms).holds
    };
    assert!(judged(70, &[]));
    assert!(!judged(69, &[]), "the partition waited for 70 ms");
    let sooner = in_partition(2, 6, 60);
    assert!(
        judged(50, std::slice::from_ref(&sooner)),
        "all that was its own waited"
    );
    assert!(!judged(49, &[sooner]), "the message waited for 50 ms");
}

#[test]
fn a_late_beginning_of_an_earlier_delivery_is_no_takeover() {
    let waits = |later: &[Handling]| {
        let sleeper = handling(3, 9, 95);
        let victim = Handling {
            attempt: 2,
            ended: Some(at(15)),
            ..handling(1, 9, 12)
        };
        let mut record = calm();
        record.handlings = [&[sleeper, victim], later].concat();
        let takeovers = judge(&record, &terms()).takeovers;
        (takeovers.count, takeovers.max)
    };
    assert_eq!(waits(&[]), (0, at(0)), "the victim had settled it");
    let heir = Handling {
        attempt: 3,
        ..handling(2, 9, 97)
    };
    assert_eq!(waits(&[heir]), (1, at(77)));
}

#[test]
fn a_partition_waits_from_the_death_of_its_last_owner() {
    let waits = |kills: &[Kill], handlings: &[Handling]| {
        let mut record = calm();
        (record.kills, record.handlings) = (kills.to_vec(), handlings.to_vec());
        let takeovers = judge(&record, &terms()).ordered_takeovers;
        (takeovers.count, takeovers.p50, takeovers.max)
    };
    let (first, last) = (in_partition(1, 7, 10), in_partition(3, 7, 90));
    let both = [first.clone(), last.clone()];
    let died_before_it_began = waits(&[kill(1, 20), kill(2, 60)], &both);
    assert_eq!(died_before_it_began, (1, at(30), at(30)));
    let never_owned = Kill {
        owned: Some(vec![2]),
        ..kill(2, 60)
    };
    let waited = waits(&[kill(1, 20), never_owned], &both);
    assert_eq!(waited, (1, at(70), at(70)));
    let unknown = Kill {
        owned: None,
        ..kill(2, 60)
    };
    assert_eq!(waits(&[kill(1, 20), unknown], &both).0, 0);
    let each_death = waits(
        &[kill(1, 20), kill(2, 60)],
        &[first.clone(), in_partition(2, 7, 50), last.clone()],
    );
    assert_eq!(each_death, (2, at(30), at(30)));
    let idle = Handling {
        ended: Some(at(15)),
        ..first
    };
    assert_eq!(waits(&[kill(1, 20)], &[idle, last]).0, 0);
}

#[test]
fn a_run_that_proves_nothing_fails() {
    let mut record = calm();
    record.kills[0].holding = 0;
    assert!(!judge(&record, &terms()).holds, "no kill hit anybody");
    for fault in Fault::all() {
        let terms = Terms {
            faults: vec![*fault],
            kills: 2,
            ..terms()
        };
        assert!(!judge(&calm(), &terms).holds, "{fault:?} did not happen");
    }
}
