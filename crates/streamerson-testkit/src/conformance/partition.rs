//! Dividing topics.

use futures::future::join_all;
use streamerson_core::ErrorKind;
use streamerson_core::partition::MOST;

use super::trial::{Trial, assert_invalid};

/// A topic is divided once: whoever comes later, or at the same moment with another number, is told what is in force.
pub async fn a_topic_is_divided_once(trial: Trial) {
    let (topic, other) = (trial.topic(), trial.topic());
    let partitions = |topic| {
        let trial = trial.clone();
        async move {
            let partitions = trial.broker.partitions(topic);
            trial
                .within("partitions", partitions)
                .await
                .expect("an answer")
        }
    };
    assert_eq!(partitions(&topic).await, 0);
    let dividing = (1..=16).map(|number| {
        let (broker, topic) = (trial.broker.clone(), topic.clone());
        tokio::spawn(async move { broker.divide(&topic, number).await.expect("divide") })
    });
    let answers: Vec<u32> = join_all(dividing)
        .await
        .into_iter()
        .map(|answer| answer.expect("an answer"))
        .collect();
    let in_force = partitions(&topic).await;
    assert!((1..=16).contains(&in_force));
    assert!(answers.iter().all(|answer| *answer == in_force));
    assert_eq!(
        trial.broker.divide(&topic, 20).await.expect("divide"),
        in_force
    );
    assert_eq!(partitions(&other).await, 0);
    assert_eq!(
        trial.broker.divide(&other, MOST).await.expect("divide"),
        MOST
    );
}

/// A topic that is divided is there, before there is anything in it; one that somebody asked about is not.
pub async fn a_divided_topic_is_there(trial: Trial) {
    let (topic, asked) = (trial.topic(), trial.topic());
    trial.broker.divide(&topic, 4).await.expect("divide");
    trial.broker.partitions(&asked).await.expect("an answer");
    let stats = trial.broker.stats(&topic).await.expect("it is there");
    assert_eq!((stats.length, stats.groups.len()), (0, 0));
    let stats = trial.broker.stats(&asked).await;
    assert_eq!(
        stats.map_err(|error| error.kind()),
        Err(ErrorKind::NotFound)
    );
    let topics = trial.within("topics", trial.broker.topics()).await;
    let topics = topics.expect("topics");
    assert!(topics.contains(&topic) && !topics.contains(&asked));
}

/// Into no partitions, or into too many, nothing is divided; neither are inboxes and dead letters.
pub async fn what_cannot_be_divided_is_refused(trial: Trial) {
    let topic = trial.topic();
    for number in [0, MOST + 1, u32::MAX] {
        let divided = trial.broker.divide(&topic, number);
        assert_invalid(&trial.within("divide", divided).await);
    }
    let dead = topic.dead_letters();
    assert_invalid(&trial.broker.divide(&dead, 4).await);
    let (inbox, _replies) = trial.inbox().await;
    assert_invalid(&trial.broker.divide(&inbox, 4).await);
    assert_eq!(
        trial.broker.partitions(&topic).await.expect("partitions"),
        0
    );
}
