//! A group that somebody destroyed with a plain command goes on where all was settled; one that was removed on purpose does not.

use std::time::Duration;

use streamerson_core::{Broker, Membership, Name, Start, Topic, Upkeep};
use streamerson_embedded::port::Options;
use streamerson_embedded::{EmbeddedBroker, Options as BrokerOptions};

use crate::server::Server;
use crate::wire::{Value, fields};

const JOIN: &str = include_str!("../../../../spec/scripts/join.lua");
const PATIENCE: Duration = Duration::from_secs(20);

fn topic() -> Topic {
    Topic::new("a").expect("valid")
}

fn group() -> Name {
    Name::new("g").expect("valid")
}

/// Three messages, of which the group has settled the first, and holds the second.
async fn at_work(server: &Server) {
    let mut wire = server.connect().await;
    wire.line("XGROUP CREATE shop:{a} g 0 MKSTREAM").await;
    for n in 1..=3 {
        let append = format!("XADD shop:{{a}} {n}-1 {}", fields("x"));
        assert!(!wire.line(&append).await.is_error());
    }
    wire.line("XREADGROUP GROUP g ada COUNT 2 STREAMS shop:{a} >")
        .await;
    wire.line("XACK shop:{a} g 1-1").await;
}

async fn destroyed(server: &Server) {
    let mut wire = server.connect().await;
    let destroyed = wire.line("XGROUP DESTROY shop:{a} g").await;
    assert!(!destroyed.is_error(), "{destroyed:?}");
}

/// What a member is given that is new to the group, and would begin at the end.
async fn given(broker: &dyn Broker) -> Vec<String> {
    let late = Membership {
        start: Start::Latest,
        ..Membership::new(topic(), group(), Name::new("new").expect("valid"))
    };
    let mut member = broker.join(late).await.expect("a member");
    let given = tokio::time::timeout(PATIENCE, member.next(10)).await;
    let given = given.expect("there is something").expect("deliveries");
    let positions = given.iter().map(|it| it.receipt.position().to_string());
    positions.collect()
}

#[tokio::test]
async fn who_joins_a_destroyed_group_goes_on_where_all_was_settled() {
    let server = Server::start().await;
    at_work(&server).await;
    destroyed(&server).await;
    assert_eq!(given(&server.broker).await, ["2-1", "3-1"]);
    assert_eq!(server.broker.incidents().lost_groups, 1);
}

#[tokio::test]
async fn who_joins_a_destroyed_group_over_the_port_goes_on_too() {
    let server = Server::start().await;
    at_work(&server).await;
    destroyed(&server).await;
    let mut wire = server.connect().await;
    let delays = "shop:{a}:delay:g";
    let join = [
        "EVAL", JOIN, "2", "shop:{a}", delays, "g", "new", "$", "", "", "0",
    ];
    let joined = wire.call(&join).await.list();
    assert_eq!((&joined[0], joined[1].text()), (&Value::Integer(1), "2-0"));
    assert_eq!(server.broker.incidents().lost_groups, 1);
}

#[tokio::test]
async fn a_destroyed_group_is_known_as_lost_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let open = || EmbeddedBroker::open(folder.path(), BrokerOptions::default()).expect("a broker");
    let mut server = Server::on(open(), Options::default()).await;
    at_work(&server).await;
    destroyed(&server).await;
    server.shut_down();
    server.ended().await;
    drop(server);
    let broker = open();
    assert_eq!(given(&broker).await, ["2-1", "3-1"]);
    assert_eq!(broker.incidents().lost_groups, 1);
}

#[tokio::test]
async fn a_group_removed_on_purpose_begins_where_it_is_told() {
    let server = Server::start().await;
    at_work(&server).await;
    assert!(
        server
            .broker
            .remove_group(&topic(), &group())
            .await
            .expect("removed")
    );
    let earliest = Membership::new(topic(), group(), Name::new("new").expect("valid"));
    let mut member = server.broker.join(earliest).await.expect("a member");
    assert_eq!(member.next(10).await.expect("deliveries").len(), 3);
    assert_eq!(server.broker.incidents().lost_groups, 0);
}
