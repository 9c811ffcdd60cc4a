//! Inboxes: private addresses for replies.

use streamerson_core::{Settlement, Start};

use super::trial::{LAST, Trial, numbered, to};

/// An inbox is a topic: what is appended there arrives, in order, before and while its owner waits.
pub async fn replies_arrive_in_order(trial: Trial) {
    let (address, mut replies) = trial.inbox().await;
    assert!(address.is_inbox(), "{address}");
    let expected = numbered(300);
    let batch = expected.iter().take(100).map(|text| to(&address, text));
    trial.append(batch.collect()).await;
    assert_eq!(replies.texts(100).await, expected[..100]);
    let sender = {
        let (trial, address, later) = (trial.clone(), address.clone(), expected[100..].to_vec());
        tokio::spawn(async move {
            for text in later {
                trial.send(&address, &[&text]).await;
            }
        })
    };
    assert_eq!(replies.texts(200).await, expected[100..]);
    sender.await.expect("the sender");
}

/// Every inbox has an address of its own that cannot be guessed, and gets only what is sent there.
pub async fn inboxes_are_private(trial: Trial) {
    let (one, mut to_one) = trial.inbox().await;
    let (two, mut to_two) = trial.inbox().await;
    assert_ne!(one, two);
    for address in [&one, &two] {
        let instance = address.as_str().trim_start_matches("inbox.");
        assert!(instance.len() >= 16, "{address} can be guessed");
    }
    trial
        .append(vec![
            to(&one, "1"),
            to(&two, "2"),
            to(&one, LAST),
            to(&two, LAST),
        ])
        .await;
    assert_eq!(to_one.until_last().await, ["1"]);
    assert_eq!(to_two.until_last().await, ["2"]);
    let listed = trial
        .within("topics", trial.broker.topics())
        .await
        .expect("topics");
    assert!(!listed.contains(&one) && !listed.contains(&two));
}

/// An inbox that nobody empties keeps about ten thousand replies, the newest.
pub async fn an_inbox_is_bounded(trial: Trial) {
    const SENT: usize = 25_000;
    let (address, mut replies) = trial.inbox().await;
    let texts = numbered(SENT);
    for texts in texts.chunks(1000) {
        let batch = texts.iter().map(|text| to(&address, text));
        trial.append(batch.collect()).await;
    }
    trial.send(&address, &[LAST]).await;
    let kept = replies.until_last().await;
    assert!(
        (5_000..20_000).contains(&kept.len()),
        "kept {} of {SENT}",
        kept.len()
    );
    assert_eq!(kept, texts[SENT - kept.len()..]);
}

/// Replies to who is gone are lost, and nothing else is: they neither fail nor stay for a later owner.
pub async fn a_reply_to_a_vanished_inbox_harms_nothing(trial: Trial) {
    let (topic, next) = (trial.topic(), trial.topic());
    let (address, replies) = trial.inbox().await;
    drop(replies);
    trial.send(&address, &["too late"]).await;
    trial.send(&topic, &["request"]).await;
    let mut worker = trial.join(&topic, "workers", "ada").await;
    let receipt = worker.one().await.receipt;
    let outputs = vec![to(&address, "too late"), to(&next, "output")];
    let settled = worker
        .settle_one(Settlement::complete_with(receipt, outputs))
        .await;
    settled.expect("the first settlement wins");
    let mut reading = trial.read(&next, Start::Earliest).await;
    assert_eq!(reading.texts(1).await, ["output"]);
}
