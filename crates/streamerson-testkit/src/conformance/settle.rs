//! Settling: the acknowledgement and all outputs, or nothing; once.

use futures::future::join_all;
use streamerson_core::{Append, Delivery, ErrorKind, Position, Receipt, Settlement, Topic};

use super::trial::{LAST, LONG, Trial, assert_fenced, forged, numbered, text, texts, to};

fn completed(receipt: Receipt, outputs: &[(&Topic, &str)]) -> Settlement {
    let outputs = outputs.iter().map(|(topic, text)| to(topic, text));
    Settlement::complete_with(receipt, outputs.collect())
}

/// What is settled stays settled when the leases of its batch run out.
pub async fn a_settled_message_does_not_come_again(trial: Trial) {
    let topic = trial.topic();
    trial.send(&topic, &["settled", "held"]).await;
    let mut ada = trial.join_briefly(&topic, "ada").await;
    let mut held = ada.take(2).await;
    ada.complete(held.remove(0)).await;
    let mut bob = trial.join_briefly(&topic, "bob").await;
    let taken = bob.one().await;
    assert_eq!(text(&taken.message), "held");
    bob.complete(taken).await;
    trial.send(&topic, &[LAST]).await;
    assert_eq!(text(&bob.one().await.message), LAST);
}

/// The first settlement of a delivery wins; a repetition is refused.
pub async fn a_second_settlement_is_fenced(trial: Trial) {
    let topic = trial.topic();
    trial.send(&topic, &["work"]).await;
    let mut worker = trial.join(&topic, "workers", "ada").await;
    let delivery = worker.one().await;
    let again = forged(&delivery.receipt);
    worker.complete(delivery).await;
    assert_fenced(&worker.settle_one(Settlement::complete(again)).await);
}

/// Settling what nobody was given is refused, and the message is delivered as if nothing had been.
pub async fn what_was_never_delivered_cannot_be_settled(trial: Trial) {
    let topic = trial.topic();
    let positions = trial.send(&topic, &["a", "b"]).await;
    let mut worker = trial.join(&topic, "workers", "ada").await;
    let first = worker.one().await;
    let invented = Settlement::complete(Receipt::new(positions[1], 1));
    assert_fenced(&worker.settle_one(invented).await);
    worker.complete(first).await;
    let second = worker.one().await;
    assert_eq!(text(&second.message), "b");
    assert_eq!(second.receipt.attempt(), 1);
}

/// After a takeover both the stale and the new holder settle, in any order and at once: one wins, the other is fenced, and
/// one reply and one output appear, those of the winner.
pub async fn of_two_holders_one_settles(trial: Trial) {
    for order in ["stale first", "stale last", "at once"] {
        let (topic, next) = (trial.topic(), trial.topic());
        let (inbox, mut replies) = trial.inbox().await;
        trial.send(&topic, &["request"]).await;
        let mut ada = trial.join_briefly(&topic, "ada").await;
        let mut bob = trial.join_briefly(&topic, "bob").await;
        let stale = ada.one().await.receipt;
        let taken = bob.one().await.receipt;
        assert_eq!(stale.position(), taken.position());

        let by_ada = completed(stale, &[(&inbox, "ada"), (&next, "ada")]);
        let by_bob = completed(taken, &[(&inbox, "bob"), (&next, "bob")]);
        let (ada_won, bob_won) = match order {
            "stale first" => (ada.settle_one(by_ada).await, bob.settle_one(by_bob).await),
            "stale last" => {
                let bob_won = bob.settle_one(by_bob).await;
                (ada.settle_one(by_ada).await, bob_won)
            }
            _ => tokio::join!(ada.settle_one(by_ada), bob.settle_one(by_bob)),
        };
        let winner = if ada_won.is_ok() {
            assert_ne!(order, "stale last");
            assert_fenced(&bob_won);
            "ada"
        } else {
            assert_ne!(order, "stale first");
            assert_fenced(&ada_won);
            bob_won.expect("one of both wins");
            "bob"
        };
        trial.send(&inbox, &[LAST]).await;
        assert_eq!(replies.until_last().await, [winner], "{order}");
        assert_eq!(trial.texts_of(&next).await, [winner], "{order}");
    }
}

/// However many try at the same moment, one settlement wins.
pub async fn of_many_settlements_at_once_one_wins(trial: Trial) {
    let (topic, next) = (trial.topic(), trial.topic());
    trial.send(&topic, &["work"]).await;
    let mut ada = trial.join(&topic, "workers", "ada").await;
    let bob = trial.join(&topic, "workers", "bob").await;
    let receipt = ada.one().await.receipt;
    let attempts = (0..16).map(|n| {
        let settler = if n % 2 == 0 {
            &ada.settler
        } else {
            &bob.settler
        };
        let (settler, receipt) = (settler.clone(), forged(&receipt));
        let settlement = completed(receipt, &[(&next, &format!("{n}"))]);
        tokio::spawn(async move { settler.settle(vec![settlement]).await.remove(0) })
    });
    let results = trial.within("settle", join_all(attempts)).await;
    let mut winners = Vec::new();
    for (n, result) in results.into_iter().enumerate() {
        match result.expect("a settler") {
            Ok(()) => winners.push(n.to_string()),
            fenced => assert_fenced(&fenced),
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(trial.texts_of(&next).await, winners);
}

/// All outputs of a settlement appear with it, each in its topic, in their order.
pub async fn outputs_appear_with_the_settlement(trial: Trial) {
    let (topic, one, two) = (trial.topic(), trial.topic(), trial.topic());
    let (inbox, mut replies) = trial.inbox().await;
    trial.send(&topic, &["work"]).await;
    let mut worker = trial.join(&topic, "workers", "ada").await;
    let receipt = worker.one().await.receipt;
    for topic in [&one, &two, &inbox] {
        trial.send(topic, &["before"]).await;
    }
    let outputs = [(&one, "1"), (&two, "2"), (&inbox, "reply"), (&one, "3")];
    let settled = worker.settle_one(completed(receipt, &outputs)).await;
    settled.expect("the first settlement wins");
    trial.send(&inbox, &[LAST]).await;
    assert_eq!(trial.texts_of(&one).await, ["before", "1", "3"]);
    assert_eq!(trial.texts_of(&two).await, ["before", "2"]);
    assert_eq!(replies.until_last().await, ["before", "reply"]);
}

/// Nothing of a settlement that came too late appears anywhere, nor does it bring a topic into being.
pub async fn a_fenced_settlement_leaves_no_outputs(trial: Trial) {
    let (topic, one, unborn) = (trial.topic(), trial.topic(), trial.topic());
    let (inbox, mut replies) = trial.inbox().await;
    trial.send(&topic, &["work"]).await;
    trial.send(&one, &["before"]).await;
    let mut worker = trial.join(&topic, "workers", "ada").await;
    let delivery = worker.one().await;
    let again = forged(&delivery.receipt);
    worker.complete(delivery).await;

    let outputs = [
        (&one, "late"),
        (&unborn, "late"),
        (&inbox, "late"),
        (&topic, "late"),
    ];
    assert_fenced(&worker.settle_one(completed(again, &outputs)).await);

    trial.send(&inbox, &[LAST]).await;
    assert_eq!(replies.until_last().await, [""; 0]);
    assert_eq!(trial.texts_of(&one).await, ["before"]);
    assert_eq!(trial.texts_of(&topic).await, ["work"]);
    let stats = trial.within("stats", trial.broker.stats(&unborn)).await;
    assert_eq!(
        stats.map_err(|error| error.kind()),
        Err(ErrorKind::NotFound)
    );
}

/// Each delivery of a batch is settled for itself, and answered in the order of the batch.
pub async fn a_batch_is_settled_one_by_one(trial: Trial) {
    let (topic, next) = (trial.topic(), trial.topic());
    trial.send(&topic, &["a", "b", "c"]).await;
    let mut worker = trial.join(&topic, "workers", "ada").await;
    let mut receipts = worker
        .take(3)
        .await
        .into_iter()
        .map(|Delivery { receipt, .. }| receipt);
    let mut take = || receipts.next().expect("three deliveries");
    let (a, b, c) = (take(), take(), take());
    let again = forged(&a);
    let batch = vec![
        completed(a, &[(&next, "a")]),
        completed(again, &[(&next, "a again")]),
        Settlement::retry(b, LONG),
        completed(Receipt::new(Position::new(1, 1), 1), &[(&next, "invented")]),
        completed(c, &[(&next, "c")]),
    ];
    let settled = worker.settle(batch).await;
    for (n, result) in settled.iter().enumerate() {
        match n {
            1 | 3 => assert_fenced(result),
            _ => assert!(result.is_ok(), "settlement {n}: {result:?}"),
        }
    }
    assert_eq!(trial.texts_of(&next).await, ["a", "c"]);
}

/// A large batch is settled whole, its outputs in order.
pub async fn a_batch_of_a_thousand_is_settled(trial: Trial) {
    let (topic, next) = (trial.topic(), trial.topic());
    let expected = numbered(1000);
    let batch = expected.iter().map(|text| to(&topic, text)).collect();
    trial.append(batch).await;
    let mut worker = trial.join(&topic, "workers", "ada").await;
    let deliveries = worker.take(1000).await;
    assert_eq!(texts(&deliveries), expected);
    let settlements = deliveries.into_iter().map(|delivery| {
        let output = Append::new(next.clone(), delivery.message);
        Settlement::complete_with(delivery.receipt, vec![output])
    });
    let settled = worker.settle(settlements.collect()).await;
    assert!(settled.iter().all(Result::is_ok));
    assert_eq!(trial.texts_of(&next).await, expected);
    let stats = trial.broker.stats(&topic).await.expect("stats");
    assert_eq!(stats.groups[0].pending, 0);
}

/// A message may lead to the next one of its own topic.
pub async fn a_settlement_may_feed_its_own_topic(trial: Trial) {
    let topic = trial.topic();
    trial.send(&topic, &["1"]).await;
    let mut worker = trial.join(&topic, "workers", "ada").await;
    for expected in ["1", "2", "3"] {
        let delivery = worker.one().await;
        assert_eq!(text(&delivery.message), expected);
        let next = (expected.parse::<u32>().expect("a number") + 1).to_string();
        let settled = worker
            .settle_one(completed(delivery.receipt, &[(&topic, &next)]))
            .await;
        settled.expect("the first settlement wins");
    }
    assert_eq!(trial.texts_of(&topic).await, ["1", "2", "3", "4"]);
}

/// The dead letters of a topic are a topic: they can be read and worked on.
pub async fn a_dead_letter_can_be_read(trial: Trial) {
    let topic = trial.topic();
    let dead = topic.dead_letters();
    trial.send(&topic, &["poison"]).await;
    let mut worker = trial.join(&topic, "workers", "ada").await;
    let receipt = worker.one().await.receipt;
    let settled = worker
        .settle_one(completed(receipt, &[(&dead, "poison, and why")]))
        .await;
    settled.expect("the first settlement wins");
    let mut undertaker = trial.join(&dead, "undertakers", "bob").await;
    let delivery = undertaker.one().await;
    assert_eq!(text(&delivery.message), "poison, and why");
    undertaker.complete(delivery).await;
    assert_eq!(trial.texts_of(&dead).await, ["poison, and why"]);
    assert_eq!(trial.texts_of(&topic).await, ["poison"]);
}
