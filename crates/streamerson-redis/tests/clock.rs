//! A server whose clock is set back by hours: nothing waits for hours.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod support;

use std::time::Duration;

use streamerson_core::time::unix_ms;
use streamerson_core::{Broker, Leases, Settlement, Upkeep};
use streamerson_redis::RedisBroker;
use streamerson_testkit::redis::RedisServer;
use support::{all, connect, eventually, join, name, one, send, text, topic, within};

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(300);

async fn start() -> (RedisServer, RedisBroker) {
    let server = RedisServer::builder().clock().start().await;
    let broker = connect(&server.url()).await;
    (server, broker)
}

#[tokio::test]
async fn what_a_dead_member_held_is_taken_over_within_a_lease() {
    let (server, broker) = start().await;
    let orders = topic("orders");
    send(&broker, &orders, &["a"]).await;
    let mut bob = join(&broker, &orders, "bob", SHORT).await;
    let mut ada = join(&broker, &orders, "ada", SHORT).await;
    let held = one(&mut ada).await;
    // Bob has looked once, so that it is known what the clock said.
    let waiting = tokio::time::timeout(Duration::from_millis(50), bob.next(1)).await;
    assert!(waiting.is_err());
    server.set_clock(-7200);
    let taken = one(&mut bob).await;
    assert_eq!(taken.receipt.position(), held.receipt.position());
    assert_eq!(taken.receipt.attempt(), 2);
}

#[tokio::test]
async fn a_retry_comes_about_when_it_is_due() {
    let (server, broker) = start().await;
    let orders = topic("orders");
    send(&broker, &orders, &["a"]).await;
    let mut ada = join(&broker, &orders, "ada", LONG).await;
    let delivery = one(&mut ada).await;
    let retry = Settlement::retry(delivery.receipt, Duration::from_millis(500));
    let settled = ada.settler().settle(vec![retry]).await;
    assert!(settled[0].is_ok());
    server.set_clock(-7200);
    assert_eq!(text(&one(&mut ada).await.message), "a");
}

#[tokio::test]
async fn many_retries_come_about_when_they_are_due() {
    let (server, broker) = start().await;
    let orders = topic("orders");
    let names: Vec<String> = (0..2_500).map(|n| n.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    send(&broker, &orders, &names).await;
    let mut ada = join(&broker, &orders, "ada", LONG).await;
    for delay in [Duration::from_millis(500), Duration::ZERO] {
        let mut taken = 0;
        while taken < names.len() {
            let deliveries = within(ada.next(1_000)).await.unwrap().into_iter();
            let settlements = deliveries.map(|it| match delay {
                Duration::ZERO => Settlement::complete(it.receipt),
                delay => Settlement::retry(it.receipt, delay),
            });
            let settled = ada.settler().settle(settlements.collect()).await;
            taken += settled.into_iter().map(Result::unwrap).count();
        }
        if !delay.is_zero() {
            server.set_clock(-7200);
        }
    }
}

#[tokio::test]
async fn a_lease_ends_no_later_than_it_was_asked_for() {
    let (server, broker) = start().await;
    let (orders, seat) = (topic("orders"), name("seat"));
    let hers = broker.acquire(&orders, &seat, &name("ada"), LONG).await;
    let hers = hers.unwrap();
    server.set_clock(-7200);
    let seen = broker.leases(&orders).await.unwrap().remove(0);
    assert!(seen.remaining <= LONG, "{seen:?}");
    let brief = broker.acquire(&orders, &seat, &name("ada"), SHORT).await;
    assert_eq!(brief.unwrap().epoch, hers.epoch);
    let his = eventually(async || {
        let lease = broker.acquire(&orders, &seat, &name("bob"), LONG).await;
        lease.ok().filter(|lease| lease.holder == name("bob"))
    })
    .await;
    assert!(his.epoch > hers.epoch);
}

#[tokio::test]
async fn a_holder_that_died_before_the_clock_went_back_loses_its_lease() {
    let (server, broker) = start().await;
    let (orders, seat) = (topic("orders"), name("seat"));
    let hers = broker.acquire(&orders, &seat, &name("ada"), SHORT).await;
    server.set_clock(-7200);
    let his = eventually(async || {
        let lease = broker.acquire(&orders, &seat, &name("bob"), SHORT).await;
        lease.ok().filter(|lease| lease.holder == name("bob"))
    })
    .await;
    assert!(his.epoch > hers.unwrap().epoch);
}

#[tokio::test]
async fn an_epoch_never_goes_back_though_its_lease_is_gone() {
    for removes_topic in [false, true] {
        let (server, broker) = start().await;
        let (orders, seat) = (topic("orders"), name("seat"));
        send(&broker, &orders, &["a"]).await;
        let hers = broker.acquire(&orders, &seat, &name("ada"), LONG).await;
        assert!(match removes_topic {
            true => broker.remove_topic(&orders).await.unwrap(),
            false => broker.release(&orders, &seat, &name("ada")).await.unwrap(),
        });
        server.set_clock(-7200);
        let his = broker.acquire(&orders, &seat, &name("bob"), LONG).await;
        assert!(his.unwrap().epoch > hers.unwrap().epoch, "{removes_topic}");
    }
}

#[tokio::test]
async fn the_time_is_that_of_the_server() {
    let (server, broker) = start().await;
    let minute = 60_000;
    for hours in [-2, 0, 2] {
        server.set_clock(hours * 3600);
        let ours = unix_ms().saturating_add_signed(hours * 3_600_000);
        assert!(broker.time().await.unwrap().abs_diff(ours) < minute);
    }
}

#[tokio::test]
async fn what_is_no_message_dies_by_the_clock_of_the_server() {
    let (server, broker) = start().await;
    let orders = topic("orders");
    server.set_clock(-7200);
    server.cli(&["XADD", "test:{orders}", "*", "hello", "world"]);
    send(&broker, &orders, &["a"]).await;
    let mut ada = join(&broker, &orders, "ada", LONG).await;
    assert_eq!(text(&one(&mut ada).await.message), "a");
    let letter = all(&broker, &orders.dead_letters()).await.remove(0);
    let why = letter.message.unwrap().parse_meta().unwrap().dlq.unwrap();
    let minute = 60_000;
    assert!((why.first..why.first + minute).contains(&why.at), "{why:?}");
}
