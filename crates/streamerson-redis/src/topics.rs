//! Which topics there are.

use std::collections::BTreeSet;

use streamerson_core::{Result, Topic};

use crate::broker::RedisBroker;
use crate::error;
use crate::wire::{Reply, Request};

/// Looks through the keys with SCAN, in steps that do not hold up Redis.
pub(crate) async fn topics(broker: &RedisBroker) -> Result<Vec<Topic>> {
    // The embedded broker refuses keys of another namespace than its own; a pattern just fits none there.
    let some = broker.keys().stream(&Topic::new("topics")?);
    let asked = broker.commands().call(Request::of(&["EXISTS", &some]), 1);
    asked.await?.next("listing topics")?;
    let pattern = broker.keys().pattern();
    let mut cursor = "0".to_owned();
    let mut found = BTreeSet::new();
    loop {
        let request = Request::of(&[
            "SCAN", &cursor, "MATCH", &pattern, "COUNT", "1000", "TYPE", "stream",
        ]);
        let reply = broker
            .commands()
            .call(request, 1)
            .await?
            .next("listing topics")?;
        let (next, keys) = page(&reply).ok_or_else(|| error::unexpected("SCAN"))?;
        let keys = keys.iter().filter_map(Reply::as_text);
        let topics = keys.filter_map(|key| broker.keys().topic(key));
        found.extend(topics.filter(|topic| !topic.is_inbox() && !topic.is_dead_letters()));
        if next == "0" {
            return Ok(found.into_iter().collect());
        }
        cursor = next.to_owned();
    }
}

fn page(reply: &Reply) -> Option<(&str, &[Reply])> {
    match reply.as_list()? {
        [cursor, keys] => Some((cursor.as_text()?, keys.as_list()?)),
        _ => None,
    }
}
