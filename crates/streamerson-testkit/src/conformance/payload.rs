//! What messages carry.

use bytes::Bytes;
use bytestring::ByteString;
use streamerson_core::{Append, Message, Settlement, Start, Topic};

use super::trial::Trial;

/// Messages whose fields are easily damaged on the way.
fn delicate(inbox: &Topic) -> Vec<Message> {
    let plain = Message::new("plain", "text");
    let everything = Message {
        id: "id with spaces, \"quotes\" and \u{1F980}".into(),
        kind: "größe.änderung \u{4f60}\u{597d}".into(),
        corr: "\r\n*3\r\n$5".into(),
        reply: inbox.to_byte_string(),
        meta: Bytes::from_static("{\"sub\":\"\u{e9}\"}".as_bytes()),
        data: Bytes::from((0..=255).collect::<Vec<u8>>()),
    };
    let empty = Message {
        id: ByteString::new(),
        kind: ByteString::new(),
        ..Message::new("", "")
    };
    let damaged_meta = Message {
        meta: Bytes::from_static(b"not json \xff\x00"),
        ..Message::new("raw", "\r\n\0\r\n")
    };
    vec![plain, everything, empty, damaged_meta]
}

/// Empty, binary and non-ASCII fields reach readers and members as they were.
pub async fn every_field_arrives_byte_for_byte(trial: Trial) {
    let topic = trial.topic();
    let (inbox, _reading) = trial.inbox().await;
    let messages = delicate(&inbox);
    let appends = messages.iter().cloned();
    let batch = appends.map(|message| Append::new(topic.clone(), message));
    trial.append(batch.collect()).await;

    let mut reading = trial.read(&topic, Start::Earliest).await;
    assert_eq!(reading.messages(messages.len()).await, messages);
    let mut worker = trial.join(&topic, "workers", "ada").await;
    for expected in messages {
        assert_eq!(worker.one().await.message, expected);
    }
}

/// A large payload arrives whole, also next to small ones.
pub async fn a_megabyte_arrives_whole(trial: Trial) {
    let topic = trial.topic();
    let large: Vec<u8> = (0u32..1 << 20).map(|n| (n % 251) as u8).collect();
    let messages = [
        Message::new("small", "before"),
        Message::new("large", large),
        Message::new("small", "after"),
    ];
    let appends = messages.iter().cloned();
    let batch = appends.map(|message| Append::new(topic.clone(), message));
    trial.append(batch.collect()).await;

    let mut reading = trial.read(&topic, Start::Earliest).await;
    assert!(reading.messages(3).await == messages);
    let mut worker = trial.join(&topic, "workers", "ada").await;
    for expected in messages {
        assert!(worker.one().await.message == expected);
    }
}

/// Outputs of a settlement are messages like any other.
pub async fn outputs_arrive_byte_for_byte(trial: Trial) {
    let (topic, next) = (trial.topic(), trial.topic());
    let (inbox, mut replies) = trial.inbox().await;
    let messages = delicate(&inbox);
    trial.send(&topic, &["request"]).await;
    let mut worker = trial.join(&topic, "workers", "ada").await;
    let delivery = worker.one().await;

    let both = messages
        .iter()
        .flat_map(|message| [&next, &inbox].map(|to| Append::new(to.clone(), message.clone())));
    let settlement = Settlement::complete_with(delivery.receipt, both.collect());
    worker.settle_one(settlement).await.expect("settle");

    let mut reading = trial.read(&next, Start::Earliest).await;
    assert_eq!(reading.messages(messages.len()).await, messages);
    assert_eq!(replies.messages(messages.len()).await, messages);
}
