//! Tests: what is given and kept is bounded in bytes.

use streamerson_core::time::unix_ms;
use streamerson_core::{
    Append, Durability, Message, Name, Position, Receipt, Settlement, Start, Topic,
};

use super::{Engine, GroupKey, Want, Work};
use crate::Options;

const MIB: usize = 1 << 20;

fn name(name: &str) -> Name {
    Name::new(name.to_owned()).unwrap()
}

fn message(to: &str, size: usize) -> Append {
    let topic = Topic::new(to.to_owned()).unwrap();
    Append::new(topic, Message::new("test", vec![b'x'; size]))
}

async fn send(engine: &Engine, append: Append) -> Position {
    let sent = engine.append_messages(vec![append]).await;
    sent.into_iter().next().unwrap().unwrap()
}

/// A group at the beginning of `orders`.
async fn group(engine: &Engine, group: &str) -> GroupKey {
    let key = GroupKey {
        topic: Topic::new("orders").unwrap(),
        group: name(group),
    };
    engine.create_group(&key, Start::Earliest).await.unwrap();
    key
}

fn bytes(works: &[Work]) -> usize {
    let bodies = works.iter().map(|work| work.body.as_ref().unwrap());
    bodies.map(|body| body.size()).sum()
}

#[tokio::test]
async fn what_is_read_back_for_one_delivery_is_bounded_in_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        durability: Durability::Os,
        cache_bytes: 0,
        ..Options::default()
    };
    let open = || Engine::open(dir.path(), &options).unwrap();
    let engine = open();
    let mut sent = Vec::new();
    for _ in 0..48 {
        sent.push(send(&engine, message("orders", MIB)).await);
    }
    let key = group(&engine, "group").await;
    let lease = 60_000;
    for want in [Want::New, Want::Any { lease }, Want::Owned { lease }] {
        assert_eq!(in_parts(&engine, &key, want).await, sent);
    }
    drop(engine);
    // Now their sizes are those that stand in the log.
    let engine = open();
    let key = group(&engine, "other").await;
    assert_eq!(in_parts(&engine, &key, Want::New).await, sent);
}

/// Takes all there is, in parts that are not too large, and gives it back.
async fn in_parts(engine: &Engine, key: &GroupKey, want: Want) -> Vec<Position> {
    let ada = name("ada");
    let mut given = Vec::new();
    loop {
        let works = engine.take(key, &ada, want, 256).await.unwrap();
        if works.is_empty() {
            break;
        }
        assert!(bytes(&works) <= 16 * MIB, "{} MiB", bytes(&works) / MIB);
        given.extend(works.iter().map(|work| work.grant.position));
    }
    let left = engine.with_group(key, |group, now| group.leave(&ada, now));
    assert!(left.unwrap());
    given
}

/// Beyond appends, so that a full memory is worked off. What is settled without outputs still is.
#[tokio::test]
async fn outputs_have_as_much_memory_again_as_appends() {
    let options = Options {
        memory_bytes: 4 * MIB,
        ..Options::default()
    };
    let engine = Engine::in_memory(&options, unix_ms);
    for _ in 0..10 {
        send(&engine, message("orders", 1)).await;
    }
    while engine
        .append_messages(vec![message("other", MIB)])
        .await
        .remove(0)
        .is_ok()
    {}
    let key = group(&engine, "group").await;
    let ada = name("ada");
    let works = engine.take(&key, &ada, Want::New, 10).await.unwrap();
    let mut refused = Vec::new();
    for work in works {
        let position = work.grant.position;
        let output = vec![message("out", MIB)];
        let settlement = Settlement::complete_with(Receipt::new(position, 1), output);
        let settled = engine.settle(&key, &ada, vec![settlement]).await.remove(0);
        if let Err(error) = settled {
            assert_eq!(error.code(), "memory-full");
            refused.push(position);
        }
    }
    // Of 8 MiB, 3 were taken; what stands around messages takes its part.
    assert_eq!(refused.len(), 6);
    let pending = engine.with_group(&key, |group, _| group.pending());
    assert_eq!(pending.unwrap(), 6);
    for position in refused {
        let settlement = Settlement::complete(Receipt::new(position, 1));
        let settled = engine.settle(&key, &ada, vec![settlement]).await;
        settled.into_iter().for_each(|settled| settled.unwrap());
    }
}
