//! What happens once: appends and effects under a key.

use std::time::{Duration, Instant};

use futures::future::join_all;
use streamerson_core::{
    Append, Delivery, Message, Meta, Once, Outcome, Position, Receipt, Settlement, Topic,
};

use super::lease::SLACK;
use super::trial::{LONG, Trial, Worker, assert_fenced, assert_invalid, forged, name, text, to};

fn kept(key: &str) -> Once {
    Once::new(key.to_owned(), LONG)
}

fn keyed(topic: &Topic, text: &str, key: &str) -> Append {
    to(topic, text).once(kept(key))
}

/// Within a topic, the first message of a key is stored; the others are answered with its position.
pub async fn a_key_is_appended_once(trial: Trial) {
    let (topic, other) = (trial.topic(), trial.topic());
    let batch = vec![
        keyed(&topic, "first", "a"),
        keyed(&topic, "again", "a"),
        keyed(&topic, "another key", "b"),
        keyed(&other, "another topic", "a"),
        to(&topic, "no key"),
    ];
    let first = trial.append(batch).await;
    assert_eq!(first[0], first[1]);
    assert!(first[0] > Position::ZERO && first[2] > first[0]);
    let again = trial.append(vec![keyed(&topic, "once more", "a")]).await;
    assert_eq!(again, first[..1]);
    let texts = trial.texts_of(&topic).await;
    assert_eq!(texts, ["first", "another key", "no key"]);
    assert_eq!(trial.texts_of(&other).await, ["another topic"]);
}

/// However many use a key at the same moment, one message is stored.
pub async fn of_many_appends_of_one_key_one_is_stored(trial: Trial) {
    let topic = trial.topic();
    let appends = (0..16).map(|n| {
        let (trial, append) = (trial.clone(), keyed(&topic, &n.to_string(), "a"));
        tokio::spawn(async move { trial.append(vec![append]).await[0] })
    });
    let positions: Vec<Position> = join_all(appends)
        .await
        .into_iter()
        .map(|position| position.expect("an append"))
        .collect();
    assert!(positions.iter().all(|at| *at == positions[0]));
    assert_eq!(trial.texts_of(&topic).await.len(), 1);
}

/// A key is remembered for as long as the first use of it asked, however often it is used meanwhile.
pub async fn a_key_is_forgotten_in_time(trial: Trial) {
    let topic = trial.topic();
    let keep = trial.lease();
    let brief = || vec![to(&topic, "a").once(Once::new("a", keep))];
    let asked = Instant::now();
    let first = trial.append(brief()).await[0];
    let anew = async {
        loop {
            let position = trial.append(brief()).await[0];
            if position != first {
                return position;
            }
            trial.a_while().await;
        }
    };
    assert!(trial.within("a key to be forgotten", anew).await > first);
    assert!(
        asked.elapsed() + SLACK >= keep,
        "forgotten after {:?}, asked for {keep:?}",
        asked.elapsed()
    );
    assert_eq!(trial.texts_of(&topic).await, ["a", "a"]);
}

/// A scheduled message has a key too: it is kept aside once, and appears once.
pub async fn a_key_is_scheduled_once(trial: Trial) {
    let topic = trial.topic();
    let due = streamerson_core::time::unix_ms() + trial.lease().as_millis() as u64;
    let remind = || keyed(&topic, "remind", "a").due_at(due);
    trial.append(vec![remind(), remind()]).await;
    trial.append(vec![remind()]).await;
    let stats = trial.broker.stats(&topic).await.expect("stats");
    assert!(stats.scheduled <= 1, "{} are kept aside", stats.scheduled);
    let mut worker = trial.join(&topic, "workers", "ada").await;
    let delivery = worker.one().await;
    worker.complete(delivery).await;
    trial.append(vec![remind()]).await;
    assert_eq!(trial.texts_of(&topic).await, ["remind"]);
}

/// A key has 1 to 512 bytes. With another nothing happens, to the delivery neither.
pub async fn a_key_that_is_none_is_refused(trial: Trial) {
    let topic = trial.topic();
    let longest = "k".repeat(512);
    trial.append(vec![keyed(&topic, "work", &longest)]).await;
    let mut worker = trial.join(&topic, "workers", "ada").await;
    let delivery = worker.one().await;
    for key in [String::new(), "k".repeat(513)] {
        let append = trial.broker.append(vec![keyed(&topic, "refused", &key)]);
        assert_invalid(&trial.within("append", append).await.remove(0));
        let output = to(&topic, "refused");
        for settlement in [
            Settlement::complete_with(forged(&delivery.receipt), vec![output]).once(kept(&key)),
            Settlement::complete_with(
                forged(&delivery.receipt),
                vec![to(&topic, "refused"), keyed(&topic, "refused", &key)],
            ),
        ] {
            assert_invalid(&worker.settle_one(settlement).await);
        }
    }
    worker.complete(delivery).await;
    assert_eq!(trial.texts_of(&topic).await, ["work"]);
}

/// Two stages of work on the same thing, and a caller that waits.
struct Stage {
    trial: Trial,
    topic: Topic,
    next: Topic,
    worker: Worker,
}

impl Stage {
    async fn of(trial: &Trial) -> Stage {
        let topic = trial.topic();
        Stage {
            trial: trial.clone(),
            next: trial.topic(),
            worker: trial.join(&topic, "workers", "ada").await,
            topic,
        }
    }

    async fn given(&mut self, count: usize) -> Vec<Delivery> {
        for n in 0..count {
            self.trial.send(&self.topic, &[&n.to_string()]).await;
        }
        self.worker.take(count).await
    }

    async fn given_two(&mut self) -> (Receipt, Receipt) {
        let mut deliveries = self.given(2).await;
        let second = deliveries.remove(1).receipt;
        (deliveries.remove(0).receipt, second)
    }

    /// An effect under the key `order`, with an answer to `inbox` and a next step that both say `says`.
    fn effect(&self, receipt: Receipt, inbox: &Topic, says: &str) -> Settlement {
        let outputs = vec![answer(inbox, says), to(&self.next, says)];
        Settlement::complete_with(receipt, outputs).once(kept("order"))
    }
}

/// An answer whose correlation, meta and data all tell whose it is.
fn answer(inbox: &Topic, says: &str) -> Append {
    let meta = Meta {
        sub: Some(says.to_owned()),
        ..Meta::default()
    };
    let mut append = to(inbox, says);
    append.message.corr = format!("request of {says}").into();
    append.message = append.message.with_meta(&meta);
    append
}

#[track_caller]
fn assert_answers(message: &Message, to: &str, says: &str) {
    assert_eq!(message.corr, format!("request of {to}"));
    assert_eq!(text(message), says);
    let meta = message.parse_meta().expect("meta");
    assert_eq!(meta.sub.as_deref(), Some(says));
}

/// The same thing sent twice has one effect, and each caller gets the answer of the first: whether the two are settled in
/// one batch or later.
pub async fn an_effect_happens_once(trial: Trial) {
    for in_one_batch in [true, false] {
        let mut stage = Stage::of(&trial).await;
        let (inbox, mut replies) = trial.inbox().await;
        let (first, second) = stage.given_two().await;
        let first = stage.effect(first, &inbox, "first");
        let second = stage.effect(second, &inbox, "second");
        let batches = match in_one_batch {
            true => vec![vec![first, second]],
            false => vec![vec![first], vec![second]],
        };
        for batch in batches {
            for settled in stage.worker.settle(batch).await {
                settled.expect("both are settled");
            }
        }
        let answers = replies.messages(2).await;
        assert_answers(&answers[0], "first", "first");
        assert_answers(&answers[1], "second", "first");
        assert_ne!(answers[0].id, answers[1].id);
        assert_eq!(trial.texts_of(&stage.next).await, ["first"]);
        let stats = trial.broker.stats(&stage.topic).await.expect("stats");
        assert_eq!(stats.groups[0].pending, 0);
    }
}

/// Where the first was not asked for an answer, who asks later gets their own.
pub async fn an_effect_without_an_answer_leaves_later_answers(trial: Trial) {
    let mut stage = Stage::of(&trial).await;
    let (inbox, mut replies) = trial.inbox().await;
    let (first, second) = stage.given_two().await;
    let silent = Settlement::complete_with(first, vec![to(&stage.next, "first")]);
    let silent = silent.once(kept("order"));
    let second = stage.effect(second, &inbox, "second");
    for settlement in [silent, second] {
        let settled = stage.worker.settle_one(settlement).await;
        settled.expect("both are settled");
    }
    assert_answers(&replies.messages(1).await[0], "second", "second");
    assert_eq!(trial.texts_of(&stage.next).await, ["first"]);
}

/// A key belongs to a group, and to what was completed: neither other groups, nor other keys, nor appends share it.
pub async fn an_effect_belongs_to_its_group(trial: Trial) {
    let (topic, next) = (trial.topic(), trial.topic());
    trial.append(vec![keyed(&topic, "work", "order")]).await;
    trial.append(vec![keyed(&topic, "more", "other")]).await;
    for group in ["billing", "shipping"] {
        let mut worker = trial.join(&topic, group, "ada").await;
        for delivery in worker.take(2).await {
            let key = match text(&delivery.message).as_str() {
                "work" => "order",
                _ => "another order",
            };
            let outputs = vec![to(&next, &format!("{group} {key}"))];
            let effect = Settlement::complete_with(delivery.receipt, outputs).once(kept(key));
            worker.settle_one(effect).await.expect("settled");
        }
    }
    let expected = [
        "billing order",
        "billing another order",
        "shipping order",
        "shipping another order",
    ];
    assert_eq!(trial.texts_of(&next).await, expected);
}

/// However many complete the same thing at the same moment, each a delivery of their own: one effect.
pub async fn of_many_effects_at_once_one_happens(trial: Trial) {
    let mut stage = Stage::of(&trial).await;
    let (inbox, mut replies) = trial.inbox().await;
    let deliveries = stage.given(16).await;
    let bob = trial.join(&stage.topic, "workers", "bob").await;
    let settling = deliveries.into_iter().enumerate().map(|(n, delivery)| {
        let settlement = stage.effect(delivery.receipt, &inbox, &n.to_string());
        let settler = match n % 2 {
            0 => stage.worker.settler.clone(),
            _ => bob.settler.clone(),
        };
        tokio::spawn(async move { settler.settle(vec![settlement]).await.remove(0) })
    });
    for settled in trial.within("settle", join_all(settling)).await {
        settled.expect("a settler").expect("all are settled");
    }
    let effects = trial.texts_of(&stage.next).await;
    assert_eq!(effects.len(), 1);
    for message in replies.messages(16).await {
        assert_eq!(text(&message), effects[0]);
    }
}

/// After a takeover both holders complete under the same key: the delivery is settled once, the effect happens once, and
/// who sends the same thing later gets the winner's answer.
pub async fn of_two_holders_one_has_the_effect(trial: Trial) {
    for order in ["stale first", "stale last", "at once"] {
        let (topic, next) = (trial.topic(), trial.topic());
        let (inbox, mut replies) = trial.inbox().await;
        trial.send(&topic, &["request"]).await;
        let mut ada = trial.join_briefly(&topic, "ada").await;
        let mut bob = trial.join_briefly(&topic, "bob").await;
        let (stale, taken) = (ada.one().await.receipt, bob.one().await.receipt);
        let effect = |receipt, says: &str| {
            let outputs = vec![answer(&inbox, says), to(&next, says)];
            Settlement::complete_with(receipt, outputs).once(kept("order"))
        };
        let (by_ada, by_bob) = (effect(stale, "ada"), effect(taken, "bob"));
        let (ada_won, bob_won) = match order {
            "stale first" => (ada.settle_one(by_ada).await, bob.settle_one(by_bob).await),
            "stale last" => {
                let bob_won = bob.settle_one(by_bob).await;
                (ada.settle_one(by_ada).await, bob_won)
            }
            _ => tokio::join!(ada.settle_one(by_ada), bob.settle_one(by_bob)),
        };
        let winner = match ada_won {
            Ok(()) => {
                assert_fenced(&bob_won);
                "ada"
            }
            fenced => {
                assert_fenced(&fenced);
                bob_won.expect("one of both wins");
                "bob"
            }
        };
        trial.send(&topic, &["the same request"]).await;
        let again = bob.one().await;
        let repeated = bob.settle_one(effect(again.receipt, "later")).await;
        repeated.expect("the repetition is settled");
        let answers = replies.messages(2).await;
        assert_answers(&answers[0], winner, winner);
        assert_answers(&answers[1], "later", winner);
        assert_eq!(trial.texts_of(&next).await, [winner], "{order}");
    }
}

/// A settlement that is fenced, or that asks for a retry, uses no key up.
pub async fn only_a_completion_uses_a_key(trial: Trial) {
    let mut stage = Stage::of(&trial).await;
    let (inbox, mut replies) = trial.inbox().await;
    let delivery = stage.given(1).await.remove(0);
    let never_delivered = Receipt::new(Position::new(1, 1), 1);
    let fenced = stage.effect(never_delivered, &inbox, "fenced");
    assert_fenced(&stage.worker.settle_one(fenced).await);
    let retry = Settlement::retry(delivery.receipt, Duration::ZERO).once(kept("order"));
    assert!(matches!(retry.outcome, Outcome::Retry { .. }));
    let retried = stage.worker.settle_one(retry).await;
    retried.expect("the holder may ask for a retry");
    let again = stage.worker.one().await;
    let effect = stage.effect(again.receipt, &inbox, "done");
    stage.worker.settle_one(effect).await.expect("settled");
    assert_answers(&replies.messages(1).await[0], "done", "done");
    assert_eq!(trial.texts_of(&stage.next).await, ["done"]);
}

/// An output may have a key of its own topic; what was stored there under it before is not stored again.
pub async fn outputs_may_be_appended_once(trial: Trial) {
    let mut stage = Stage::of(&trial).await;
    for delivery in stage.given(2).await {
        let outputs = vec![keyed(&stage.next, "once", "a"), to(&stage.next, "each")];
        let settlement = Settlement::complete_with(delivery.receipt, outputs);
        stage.worker.settle_one(settlement).await.expect("settled");
    }
    trial.append(vec![keyed(&stage.next, "late", "a")]).await;
    assert_eq!(trial.texts_of(&stage.next).await, ["once", "each", "each"]);
}

/// A group that is removed and begins again has completed nothing.
pub async fn a_new_group_has_completed_nothing(trial: Trial) {
    let (topic, next) = (trial.topic(), trial.topic());
    trial.send(&topic, &["work"]).await;
    for _ in 0..2 {
        let mut worker = trial.join(&topic, "workers", "ada").await;
        let outputs = vec![to(&next, "effect")];
        let receipt = worker.one().await.receipt;
        let effect = Settlement::complete_with(receipt, outputs).once(kept("order"));
        worker.settle_one(effect).await.expect("settled");
        worker.leave().await;
        let group = name("workers");
        let removed = trial.broker.remove_group(&topic, &group);
        assert!(
            trial
                .within("remove_group", removed)
                .await
                .expect("removed")
        );
    }
    assert_eq!(trial.texts_of(&next).await, ["effect", "effect"]);
}
