//! What can be seen of topics and groups.

use std::time::Duration;

use streamerson_core::stats::{GroupStats, TopicStats};
use streamerson_core::{ErrorKind, Fence, Membership, Settlement, Start, Topic};

use super::trial::{LONG, Trial, membership, name, to};

async fn of(trial: &Trial, topic: &Topic) -> TopicStats {
    let stats = trial.within("stats", trial.broker.stats(topic)).await;
    stats.expect("stats")
}

async fn of_group(trial: &Trial, topic: &Topic) -> GroupStats {
    let mut stats = of(trial, topic).await;
    assert_eq!(stats.groups.len(), 1);
    stats.groups.remove(0)
}

fn members(group: &GroupStats) -> Vec<(&str, u64)> {
    let members = group.members.iter();
    members
        .map(|member| (member.name.as_str(), member.pending))
        .collect()
}

/// What a group has before it, and what of what it holds was given back.
pub async fn a_group_tells_what_is_next(trial: Trial) {
    let topic = trial.topic();
    let positions = trial.send(&topic, &["a", "b", "c"]).await;
    let mut worker = trial.join(&topic, "workers", "ada").await;
    let next = |group: GroupStats| (group.next, group.pending, group.retrying);
    assert_eq!(
        next(of_group(&trial, &topic).await),
        (Some(positions[0]), 0, 0)
    );
    let mut held = worker.take(2).await;
    let retry = Settlement::retry(held.remove(0).receipt, LONG);
    worker.settle_one(retry).await.expect("retried");
    assert_eq!(
        next(of_group(&trial, &topic).await),
        (Some(positions[2]), 2, 1)
    );
    worker.complete(held.remove(0)).await;
    let last = worker.one().await;
    assert_eq!(next(of_group(&trial, &topic).await), (None, 2, 1));
    worker.complete(last).await;
    assert_eq!(next(of_group(&trial, &topic).await), (None, 1, 1));
}

/// A topic that nothing was appended to and nobody joined is not found; reading it does not bring it into being.
pub async fn an_unknown_topic_is_not_found(trial: Trial) {
    let topic = trial.topic();
    for read_before in [false, true] {
        let _reading = match read_before {
            true => Some(trial.read(&topic, Start::Earliest).await),
            false => None,
        };
        let stats = trial.within("stats", trial.broker.stats(&topic)).await;
        assert_eq!(
            stats.map_err(|error| error.kind()),
            Err(ErrorKind::NotFound)
        );
        let listed = trial.broker.topics().await.expect("topics");
        assert!(!listed.contains(&topic));
    }
}

/// Length, first and last position follow the appends.
pub async fn a_topic_tells_what_it_holds(trial: Trial) {
    let topic = trial.topic();
    let mut positions = Vec::new();
    for n in 1..=3 {
        positions.extend(trial.send(&topic, &["a", "b"]).await);
        let stats = of(&trial, &topic).await;
        assert_eq!(stats.length, 2 * n);
        assert_eq!(stats.first, positions.first().copied());
        assert_eq!(stats.last, positions.last().copied());
        assert!(stats.appended.is_none_or(|appended| appended == 2 * n));
        assert_eq!(stats.groups, []);
    }
}

/// Place, lag, pending deliveries and members follow what a group does.
pub async fn a_group_tells_how_far_it_is(trial: Trial) {
    let topic = trial.topic();
    let positions = trial.send(&topic, &["a", "b", "c", "d", "e"]).await;
    let mut ada = trial.join(&topic, "workers", "ada").await;
    let group = of_group(&trial, &topic).await;
    assert_eq!(group.name, "workers");
    assert_eq!(
        (group.cursor, group.pending, group.oldest_pending),
        (None, 0, None)
    );
    // A broker that cannot tell the lag says so.
    assert!(group.lag.is_none_or(|lag| lag == 5), "{group:?}");

    let mut held = ada.take(2).await;
    let mut bob = trial.join(&topic, "workers", "bob").await;
    let last = bob.one().await;
    let group = of_group(&trial, &topic).await;
    assert_eq!(group.cursor, Some(positions[2]));
    assert_eq!(
        (group.pending, group.oldest_pending),
        (3, Some(positions[0]))
    );
    assert!(group.lag.is_none_or(|lag| lag == 2), "{group:?}");
    assert_eq!(members(&group), [("ada", 2), ("bob", 1)]);

    ada.complete(held.remove(0)).await;
    bob.complete(last).await;
    let group = of_group(&trial, &topic).await;
    assert_eq!(
        (group.pending, group.oldest_pending),
        (1, Some(positions[1]))
    );
    assert_eq!(members(&group), [("ada", 1), ("bob", 0)]);

    ada.leave().await;
    let group = of_group(&trial, &topic).await;
    assert_eq!(members(&group), [("bob", 0)]);
    assert_eq!(group.pending, 1, "what was given back is still to be done");
    for delivery in bob.take(3).await {
        bob.complete(delivery).await;
    }
    assert_eq!(of_group(&trial, &topic).await.pending, 0);
}

/// Whoever waits for work shows life again and again, owners too, however long there is none: by its silence it would be
/// taken for dead.
pub async fn a_member_that_waits_shows_signs_of_life(trial: Trial) {
    let (shared, owned) = (trial.topic(), trial.topic());
    let member = membership(&shared, "workers", "ada", trial.lease());
    let (lease, ada) = (name("owner"), name("ada"));
    let acquired = trial.broker.acquire(&owned, &lease, &ada, LONG).await;
    let epoch = acquired.expect("acquire").epoch;
    let owner = Membership {
        fence: Some(Fence { lease, epoch }),
        ..membership(&owned, "workers", "ada", trial.lease())
    };
    for (topic, membership) in [(shared, member), (owned, owner)] {
        let mut worker = trial.join_as(membership).await;
        let signs_of_life = async {
            let mut silent = Duration::ZERO;
            for _ in 0..3 {
                loop {
                    let idle = of_group(&trial, &topic).await.members[0].idle;
                    let before = std::mem::replace(&mut silent, idle);
                    if idle < before {
                        break;
                    }
                    assert!(idle < trial.lease() * 10, "silent for {idle:?}");
                    trial.a_while().await;
                }
            }
        };
        tokio::select! {
            delivered = worker.member.next(1) => panic!("there is nothing, but {delivered:?}"),
            () = trial.within("signs of life", signs_of_life) => {}
        }
    }
}

/// Topics with messages or groups are listed, in the order of their names; inboxes and dead letters are not.
pub async fn topics_are_listed_by_name(trial: Trial) {
    let (one, two, joined) = (trial.topic(), trial.topic(), trial.topic());
    let (inbox, _replies) = trial.inbox().await;
    let dead = one.dead_letters();
    let batch = [&two, &one, &inbox, &dead].map(|topic| to(topic, "here"));
    trial.append(batch.into()).await;
    let _worker = trial.join(&joined, "workers", "ada").await;
    let listed = trial
        .within("topics", trial.broker.topics())
        .await
        .expect("topics");
    assert!(listed.is_sorted_by(|a, b| a < b), "{listed:?}");
    for topic in [&one, &two, &joined] {
        assert!(listed.contains(topic), "{topic} is not in {listed:?}");
    }
    assert!(
        !listed
            .iter()
            .any(|topic| topic.is_inbox() || topic.is_dead_letters()),
        "{listed:?}"
    );
}
