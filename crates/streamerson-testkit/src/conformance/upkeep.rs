//! Upkeep: looking into groups, moving them, and removing what is dead.

use std::pin::pin;
use std::time::Duration;

use futures::future::join_all;
use streamerson_core::{
    ErrorKind, Fence, Name, Pending, Position, Result, Settlement, Start, Topic,
};

use super::lease::settles_into_waiting;
use super::trial::{LAST, LONG, Trial, assert_fenced, forged, name, numbered, text, texts, to};

async fn pending(trial: &Trial, topic: &Topic, after: Position, max: usize) -> Vec<Pending> {
    let group = name("workers");
    let pending = trial.broker.pending(topic, &group, after, max);
    let pending = trial.within("pending", pending).await.expect("pending");
    assert!(pending.len() <= max);
    pending
}

async fn seek(trial: &Trial, topic: &Topic, group: &str, to: Start) {
    let group = name(group);
    let sought = trial.broker.seek(topic, &group, to, None);
    trial.within("seek", sought).await.expect("seek");
}

/// Moves the group `workers`, under the lease `seat` at `epoch`.
async fn seek_at(trial: &Trial, topic: &Topic, to: Start, epoch: u64) -> Result<()> {
    let (workers, lease) = (name("workers"), name("seat"));
    let fence = Fence { lease, epoch };
    let sought = trial.broker.seek(topic, &workers, to, Some(&fence));
    trial.within("seek", sought).await
}

async fn seek_until_refused(trial: &Trial, topic: &Topic, to: Start, epoch: u64) -> Result<()> {
    loop {
        seek_at(trial, topic, to, epoch).await?;
        tokio::task::yield_now().await;
    }
}

async fn cursor(trial: &Trial, topic: &Topic) -> Option<Position> {
    let stats = trial.broker.stats(topic).await.expect("stats");
    stats.groups[0].cursor
}

async fn remove_members(trial: &Trial, topic: &Topic, silent: Duration) -> Vec<String> {
    let group = name("workers");
    let removed = trial.broker.remove_members(topic, &group, silent);
    let removed = trial.within("remove_members", removed).await;
    let removed = removed.expect("remove_members").into_iter();
    removed.map(|name: Name| name.to_string()).collect()
}

async fn members(trial: &Trial, topic: &Topic) -> Vec<String> {
    let stats = trial.broker.stats(topic).await.expect("stats");
    let members = stats.groups[0].members.iter();
    members.map(|member| member.name.clone()).collect()
}

#[track_caller]
fn assert_no_group<T: std::fmt::Debug>(result: Result<T>) {
    let error = result.expect_err("there is no such group");
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::NotFound, "group-not-found")
    );
}

/// What is delivered and not settled is listed: by whom it is held, how often it was delivered, and when it is due again.
pub async fn what_is_pending_is_listed(trial: Trial) {
    let topic = trial.topic();
    let positions = trial.send(&topic, &["a", "b", "c", "d"]).await;
    let mut ada = trial.join(&topic, "workers", "ada").await;
    let mut bob = trial.join(&topic, "workers", "bob").await;
    let mut of_ada = ada.take(3).await;
    let settled = of_ada.remove(1);
    ada.complete(settled).await;
    let of_bob = bob.one().await;
    let retried = Settlement::retry(of_ada.remove(1).receipt, LONG);
    ada.settle_one(retried).await.expect("retried");

    let found = pending(&trial, &topic, Position::ZERO, 100).await;
    let held: Vec<_> = found
        .iter()
        .map(|it| {
            (
                it.position,
                it.member.as_str(),
                it.attempt,
                it.due.is_some(),
            )
        })
        .collect();
    let expected = [
        (positions[0], "ada", 1, false),
        (positions[2], "ada", 1, true),
        (positions[3], "bob", 1, false),
    ];
    assert_eq!(held, expected);
    assert!(
        found[1]
            .due
            .is_some_and(|due| due > LONG / 2 && due <= LONG)
    );
    assert!(found.iter().all(|it| it.idle < LONG));

    let page = pending(&trial, &topic, Position::ZERO, 2).await;
    let positions_of = |page: &[Pending]| page.iter().map(|it| it.position).collect::<Vec<_>>();
    assert_eq!(positions_of(&page), positions_of(&found[..2]));
    let page = pending(&trial, &topic, page[1].position, 2).await;
    assert_eq!(page.len(), 1);
    assert_eq!(page[0].position, positions[3]);
    bob.complete(of_bob).await;
    let nothing = pending(&trial, &topic, positions[2], 2).await;
    assert_eq!(nothing, []);
}

/// The attempts that are listed are those that were made: what takes its holders down shows.
pub async fn pending_tells_the_attempts(trial: Trial) {
    let topic = trial.topic();
    trial.send(&topic, &["poison"]).await;
    for attempt in 1..=3 {
        let mut worker = trial
            .join(&topic, "workers", &format!("worker-{attempt}"))
            .await;
        let delivery = worker.one().await;
        assert_eq!(delivery.receipt.attempt(), attempt);
        let found = pending(&trial, &topic, Position::ZERO, 100).await;
        let found = found.iter().map(|it| (it.member.clone(), it.attempt));
        let expected = (name(&format!("worker-{attempt}")), attempt);
        assert_eq!(found.collect::<Vec<_>>(), [expected]);
        worker.leave().await;
    }
}

/// There is nothing to see of a group that does not exist; looking does not bring it into being.
pub async fn an_unknown_group_is_not_found(trial: Trial) {
    let topic = trial.topic();
    for exists in [false, true] {
        if exists {
            trial.send(&topic, &["a"]).await;
        }
        let group = name("workers");
        let broker = &trial.broker;
        assert_no_group(broker.pending(&topic, &group, Position::ZERO, 10).await);
        assert_no_group(broker.remove_members(&topic, &group, LONG).await);
        assert!(
            !broker
                .remove_group(&topic, &group)
                .await
                .expect("an answer")
        );
        let stats = broker.stats(&topic).await;
        assert_eq!(stats.map(|stats| stats.groups).unwrap_or_default(), []);
    }
}

/// A group that is moved back has everything from there on again, though it was settled; a member that waits wakes for it.
pub async fn a_group_moved_back_has_it_all_again(trial: Trial) {
    let topic = trial.topic();
    let positions = trial.send(&topic, &["a", "b", "c"]).await;
    let mut worker = trial.join(&topic, "workers", "ada").await;
    for delivery in worker.take(3).await {
        worker.complete(delivery).await;
    }
    for (to, expected) in [
        (Start::After(positions[0]), vec!["b", "c"]),
        (Start::Earliest, vec!["a", "b", "c"]),
    ] {
        let again = {
            let mut taking = pin!(worker.take(expected.len()));
            settles_into_waiting(taking.as_mut()).await;
            seek(&trial, &topic, "workers", to).await;
            taking.await
        };
        assert_eq!(texts(&again), expected);
        for delivery in again {
            assert_eq!(delivery.receipt.attempt(), 1);
            worker.complete(delivery).await;
        }
    }
    let stats = trial.broker.stats(&topic).await.expect("stats");
    assert_eq!((stats.groups[0].pending, stats.groups[0].lag), (0, Some(0)));
}

/// A group that is moved forth skips what lies between, but keeps what it holds; one that did not exist begins there.
pub async fn a_group_moved_forth_keeps_what_it_holds(trial: Trial) {
    let topic = trial.topic();
    trial.send(&topic, &["held", "skipped"]).await;
    let mut worker = trial.join(&topic, "workers", "ada").await;
    let held = worker.one().await;
    seek(&trial, &topic, "workers", Start::Latest).await;
    seek(&trial, &topic, "new", Start::Latest).await;
    trial.send(&topic, &["next"]).await;
    assert_eq!(text(&worker.one().await.message), "next");
    worker.complete(held).await;
    let mut new = trial.join(&topic, "new", "ada").await;
    assert_eq!(text(&new.one().await.message), "next");

    let unborn = trial.topic();
    seek(&trial, &unborn, "workers", Start::Earliest).await;
    let stats = trial.broker.stats(&unborn).await.expect("it is there now");
    assert_eq!(stats.groups.len(), 1);
}

/// What a group that is moved back has again is taken from who holds it: that settles nothing, and it comes as if for the
/// first time. What is held before that stays so.
pub async fn moving_back_takes_what_is_held(trial: Trial) {
    let (topic, next) = (trial.topic(), trial.topic());
    let positions = trial.send(&topic, &["before", "held", "later"]).await;
    let mut worker = trial.join(&topic, "workers", "ada").await;
    let mut held = worker.take(3).await;
    let later = Settlement::retry(held.remove(2).receipt, LONG);
    worker.settle_one(later).await.expect("retried");
    let back = Start::After(positions[0]);
    seek(&trial, &topic, "workers", back).await;
    let left = pending(&trial, &topic, Position::ZERO, 10).await;
    let left: Vec<Position> = left.iter().map(|it| it.position).collect();
    assert_eq!(left, positions[..1]);
    let late = Settlement::complete_with(held.remove(1).receipt, vec![to(&next, "late")]);
    assert_fenced(&worker.settle_one(late).await);
    let again = worker.take(2).await;
    assert_eq!(texts(&again), ["held", "later"]);
    for delivery in again {
        assert_eq!(delivery.receipt.attempt(), 1);
        worker.complete(delivery).await;
    }
    worker.complete(held.remove(0)).await;
    assert_eq!(trial.texts_of(&next).await, [""; 0]);
}

/// Under a fence a group is moved, and begun, only while that lease is held at that epoch; else it stays as it is.
pub async fn a_group_is_moved_by_who_holds_the_lease(trial: Trial) {
    let topic = trial.topic();
    assert_fenced(&seek_at(&trial, &topic, Start::Earliest, 1).await);
    let stats = trial.broker.stats(&topic).await;
    assert_eq!(
        stats.map_err(|error| error.kind()),
        Err(ErrorKind::NotFound)
    );
    let positions = trial.send(&topic, &["a", "b"]).await;
    let [a, b] = [0, 1].map(|n| Start::After(positions[n]));
    let first = trial.acquire(&topic, "seat", "ada", LONG).await.epoch;
    // Another lease of the same holder opens nothing, though its epoch is right.
    let chair = trial.acquire(&topic, "chair", "ada", LONG).await.epoch;
    assert_fenced(&seek_at(&trial, &topic, a, chair).await);
    let moved = seek_at(&trial, &topic, a, first).await;
    moved.expect("it begins there");
    let moved = seek_at(&trial, &topic, b, first).await;
    moved.expect("it goes on there");
    let moved = seek_at(&trial, &topic, a, first).await;
    moved.expect("it goes back");

    // The same name, started again, is another one; and nobody is, when the time is over.
    assert!(trial.release(&topic, "seat", "ada").await);
    assert_fenced(&seek_at(&trial, &topic, b, first).await);
    let again = trial.acquire(&topic, "seat", "ada", trial.lease()).await;
    assert_fenced(&seek_at(&trial, &topic, b, first).await);
    assert!(trial.release(&topic, "chair", "ada").await);
    let nobody_has_it = async {
        while !trial.leases(&topic).await.is_empty() {
            trial.a_while().await;
        }
    };
    trial.within("a lease to run out", nobody_has_it).await;
    assert_fenced(&seek_at(&trial, &topic, b, again.epoch).await);
    assert_eq!(cursor(&trial, &topic).await, Some(positions[0]));

    let last = trial.acquire(&topic, "seat", "bob", LONG).await.epoch;
    assert_fenced(&seek_at(&trial, &topic, b, last + 1).await);
    let moved = seek_at(&trial, &topic, b, last).await;
    moved.expect("it goes on there");
    assert_eq!(cursor(&trial, &topic).await, Some(positions[1]));
}

/// The fence is looked up in the step that moves: a move that was asked for before the lease went to another, and comes after
/// that one has moved the group, does not move it back.
pub async fn of_two_who_move_a_group_the_late_one_is_fenced(trial: Trial) {
    let topic = trial.topic();
    let positions = trial.send(&topic, &["a", "b"]).await;
    let [a, b] = [0, 1].map(|n| Start::After(positions[n]));
    let old = trial.acquire(&topic, "seat", "ada", LONG).await.epoch;
    let moved = seek_at(&trial, &topic, b, old).await;
    moved.expect("it begins there");
    let late = (0..16).map(|_| {
        let (trial, topic) = (trial.clone(), topic.clone());
        tokio::spawn(async move { seek_until_refused(&trial, &topic, a, old).await })
    });
    let late: Vec<_> = late.collect();
    let moving = async {
        while cursor(&trial, &topic).await != Some(positions[0]) {
            trial.a_while().await;
        }
    };
    trial.within("a move", moving).await;
    assert!(trial.release(&topic, "seat", "ada").await);
    let new = trial.acquire(&topic, "seat", "bob", LONG).await.epoch;
    let moved = seek_at(&trial, &topic, Start::Latest, new).await;
    moved.expect("it goes on there");
    for moved in trial.within("seek", join_all(late)).await {
        assert_fenced(&moved.expect("an answer"));
    }
    assert_eq!(cursor(&trial, &topic).await, Some(positions[1]));
}

/// Of all who take an entry out, one does, and its outputs appear with it; the entry is neither read nor delivered any more.
pub async fn an_entry_is_taken_once(trial: Trial) {
    let (topic, next) = (trial.topic(), trial.topic());
    let positions = trial.send(&topic, &["before", "taken", "after"]).await;
    let taking = (0..16).map(|n| {
        let (broker, topic, at) = (trial.broker.clone(), topic.clone(), positions[1]);
        let outputs = vec![to(&next, &format!("{n} a")), to(&next, &format!("{n} b"))];
        tokio::spawn(async move { broker.take(&topic, at, outputs).await })
    });
    let mut takers = Vec::new();
    for (n, taken) in trial
        .within("take", join_all(taking))
        .await
        .into_iter()
        .enumerate()
    {
        if taken.expect("a taker").expect("take") {
            takers.push(n);
        }
    }
    assert_eq!(takers.len(), 1, "taken by {takers:?}");
    let expected = [format!("{} a", takers[0]), format!("{} b", takers[0])];
    assert_eq!(trial.texts_of(&next).await, expected);
    assert_eq!(trial.texts_of(&topic).await, ["before", "after"]);
    let mut worker = trial.join(&topic, "workers", "ada").await;
    assert_eq!(texts(&worker.take(3).await), ["before", "after", LAST]);
}

/// What is not there cannot be taken: then nothing appears, and nothing comes into being.
pub async fn what_is_not_there_is_not_taken(trial: Trial) {
    let (topic, next, unborn) = (trial.topic(), trial.topic(), trial.topic());
    let position = trial.send(&topic, &["a"]).await[0];
    let elsewhere = Position::new(position.major(), position.minor() + 1);
    for (topic, position) in [(&topic, elsewhere), (&unborn, position)] {
        let outputs = vec![to(&next, "taken")];
        let taken = trial.broker.take(topic, position, outputs);
        assert!(!trial.within("take", taken).await.expect("take"));
    }
    for topic in [&next, &unborn] {
        let stats = trial.broker.stats(topic).await;
        assert_eq!(
            stats.map_err(|error| error.kind()),
            Err(ErrorKind::NotFound)
        );
    }
    assert_eq!(trial.texts_of(&topic).await, ["a"]);
}

/// What is taken out while a member works on it cannot be settled any more, nor is it given to anybody else.
pub async fn a_taken_delivery_is_fenced(trial: Trial) {
    let (topic, next) = (trial.topic(), trial.topic());
    let positions = trial.send(&topic, &["taken", "kept"]).await;
    let mut worker = trial.join(&topic, "workers", "ada").await;
    let mut held = worker.take(2).await;
    let taken = trial.broker.take(&topic, positions[0], Vec::new());
    assert!(trial.within("take", taken).await.expect("take"));
    let late = Settlement::complete_with(held.remove(0).receipt, vec![to(&next, "late")]);
    assert_fenced(&worker.settle_one(late).await);
    assert_eq!(pending(&trial, &topic, Position::ZERO, 10).await.len(), 1);
    worker.leave().await;
    let mut bob = trial.join(&topic, "workers", "bob").await;
    assert_eq!(text(&bob.one().await.message), "kept");
    assert_eq!(trial.texts_of(&next).await, [""; 0]);
}

/// A group that is removed forgets everything; joined again, it is a new one. The topic and other groups stay.
pub async fn a_removed_group_is_forgotten(trial: Trial) {
    let topic = trial.topic();
    trial.send(&topic, &["a", "b"]).await;
    let mut other = trial.join(&topic, "other", "ada").await;
    let delivery = other.one().await;
    let mut worker = trial.join(&topic, "workers", "ada").await;
    let held = worker.one().await;
    let again = forged(&held.receipt);
    worker.leave().await;
    let group = name("workers");
    for there in [true, false] {
        let removed = trial.broker.remove_group(&topic, &group);
        let removed = trial.within("remove_group", removed).await;
        assert_eq!(removed.expect("remove_group"), there);
    }
    let stats = trial.broker.stats(&topic).await.expect("stats");
    assert_eq!((stats.length, stats.groups.len()), (2, 1));
    let mut anew = trial.join(&topic, "workers", "bob").await;
    assert_fenced(&anew.settle_one(Settlement::complete(again)).await);
    let deliveries = anew.take(2).await;
    assert_eq!(texts(&deliveries), ["a", "b"]);
    assert!(deliveries.iter().all(|it| it.receipt.attempt() == 1));
    other.complete(delivery).await;
}

/// A topic that is removed is gone with all that belongs to it, but for its dead letters; it may begin again.
pub async fn a_removed_topic_is_gone(trial: Trial) {
    let topic = trial.topic();
    let dead = topic.dead_letters();
    let once = || to(&topic, "once").once(streamerson_core::Once::new("a", LONG));
    let due = streamerson_core::time::unix_ms() + LONG.as_millis() as u64;
    trial
        .append(vec![once(), to(&topic, "due").due_at(due)])
        .await;
    trial.send(&dead, &["dead"]).await;
    trial.join(&topic, "workers", "ada").await.leave().await;
    let (seat, ada) = (name("seat"), name("ada"));
    let before = trial.broker.acquire(&topic, &seat, &ada, LONG).await;
    let before = before.expect("acquire");
    trial.broker.divide(&topic, 4).await.expect("divide");

    for there in [true, false] {
        let removed = trial
            .within("remove_topic", trial.broker.remove_topic(&topic))
            .await;
        assert_eq!(removed.expect("remove_topic"), there);
    }
    let stats = trial.broker.stats(&topic).await;
    assert_eq!(
        stats.map_err(|error| error.kind()),
        Err(ErrorKind::NotFound)
    );
    assert!(
        !trial
            .broker
            .topics()
            .await
            .expect("topics")
            .contains(&topic)
    );
    assert_eq!(trial.broker.leases(&topic).await.expect("leases"), []);
    assert_eq!(
        trial.broker.partitions(&topic).await.expect("partitions"),
        0
    );
    assert_eq!(trial.texts_of(&dead).await, ["dead"]);

    trial.append(vec![once()]).await;
    let stats = trial.broker.stats(&topic).await.expect("it is there again");
    assert_eq!((stats.length, stats.scheduled), (1, 0));
    assert_eq!(stats.groups, []);
    let after = trial
        .broker
        .acquire(&topic, &seat, &name("bob"), LONG)
        .await;
    assert!(after.expect("acquire").epoch > before.epoch);
}

/// A member that holds something, be it given back for later, is never removed; one that holds nothing goes when it was
/// silent for long enough; and whoever lives after all works on.
pub async fn only_members_that_hold_nothing_are_removed(trial: Trial) {
    let topic = trial.topic();
    trial.send(&topic, &["held", "later"]).await;
    let mut ada = trial.join(&topic, "workers", "ada").await;
    let mut bob = trial.join(&topic, "workers", "bob").await;
    let mut cyd = trial.join(&topic, "workers", "cyd").await;
    let held = ada.one().await;
    let retried = Settlement::retry(bob.one().await.receipt, LONG);
    bob.settle_one(retried).await.expect("retried");
    assert_eq!(remove_members(&trial, &topic, LONG).await, [""; 0]);
    assert_eq!(members(&trial, &topic).await, ["ada", "bob", "cyd"]);
    assert_eq!(
        remove_members(&trial, &topic, Duration::ZERO).await,
        ["cyd"]
    );
    assert_eq!(members(&trial, &topic).await, ["ada", "bob"]);
    assert_eq!(pending(&trial, &topic, Position::ZERO, 10).await.len(), 2);

    trial.send(&topic, &["next"]).await;
    let delivery = cyd.one().await;
    assert_eq!(text(&delivery.message), "next");
    assert_eq!(members(&trial, &topic).await, ["ada", "bob", "cyd"]);
    ada.complete(held).await;
    cyd.complete(delivery).await;
    let removed = remove_members(&trial, &topic, Duration::ZERO).await;
    assert_eq!(removed, ["ada", "cyd"]);
}

/// Removing members while they work removes no work.
pub async fn removing_members_loses_nothing(trial: Trial) {
    const COUNT: usize = 200;
    let topic = trial.topic();
    let expected = numbered(COUNT);
    let all: Vec<&str> = expected.iter().map(String::as_str).collect();
    let mut worker = trial.join(&topic, "workers", "ada").await;
    let removing = {
        let (trial, topic) = (trial.clone(), topic.clone());
        tokio::spawn(async move {
            loop {
                remove_members(&trial, &topic, Duration::ZERO).await;
                trial.a_while().await;
            }
        })
    };
    for batch in all.chunks(10) {
        trial.send(&topic, batch).await;
        let deliveries = worker.take(batch.len()).await;
        remove_members(&trial, &topic, Duration::ZERO).await;
        for delivery in deliveries {
            worker.complete(delivery).await;
        }
    }
    removing.abort();
    let stats = trial.broker.stats(&topic).await.expect("stats");
    assert_eq!((stats.groups[0].pending, stats.groups[0].lag), (0, Some(0)));
}
