//! Leases on names, as they are stored.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod support;

use std::time::Duration;

use streamerson_core::Leases;
use support::{eventually, name, start, topic};

const LONG: Duration = Duration::from_secs(300);

#[tokio::test]
async fn leases_that_nobody_holds_take_no_room() {
    let (server, broker) = start().await;
    let (orders, ada) = (topic("orders"), name("ada"));
    for n in 0..20 {
        let (brief, released) = (name(&format!("brief-{n}")), name(&format!("released-{n}")));
        let brief = broker.acquire(&orders, &brief, &ada, Duration::from_millis(1));
        brief.await.unwrap();
        broker
            .acquire(&orders, &released, &ada, LONG)
            .await
            .unwrap();
        assert!(broker.release(&orders, &released, &ada).await.unwrap());
    }
    eventually(async || {
        broker
            .leases(&orders)
            .await
            .unwrap()
            .is_empty()
            .then_some(())
    })
    .await;
    broker
        .acquire(&orders, &name("seat"), &ada, LONG)
        .await
        .unwrap();
    let stored = server.cli(&["HKEYS", "test:{orders}:leases"]);
    let mut stored: Vec<&str> = stored.lines().collect();
    stored.sort_unstable();
    assert_eq!(stored, ["seat", "~epoch"]);
}
