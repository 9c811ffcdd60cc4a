//! What a message costs on its way through Redis and back: append → take → settle with a reply → read the reply.
//!
//! Run a Redis of your own, then `cargo run --release -p streamerson-redis --example cost -- redis://127.0.0.1:6379`,
//! with the batch size and the number of batches as further arguments. Prints CPU time per message of this process
//! and of the server, as each of them accounts for it.

#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::time::{Duration, Instant};

use streamerson_core::{
    Append, Broker, Error, Inbox, Membership, Message, Name, Result, Settlement, Topic, message,
};
use streamerson_redis::RedisBroker;

#[tokio::main]
async fn main() -> Result<()> {
    // As a task, as in a gateway or worker: the future of `main` itself would be woken across threads.
    tokio::spawn(run())
        .await
        .map_err(|error| Error::unavailable("panicked", error.to_string()))?
}

async fn run() -> Result<()> {
    let mut arguments = std::env::args().skip(1).collect::<Vec<_>>().into_iter();
    let url = arguments
        .next()
        .unwrap_or_else(|| "redis://127.0.0.1:6379".into());
    let batch: usize = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(64);
    let rounds: usize = arguments
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(4000);

    let namespace = Name::new(format!("cost.{}", message::new_id()))?;
    let broker = RedisBroker::connect(&url, namespace).await?;
    let mut server = redis::Client::open(url)
        .and_then(|client| client.get_connection())
        .map_err(foreign)?;
    let topic = Topic::new("orders")?;
    let membership = Membership::new(topic.clone(), Name::new("group")?, Name::new("member")?);
    let mut member = broker.join(membership).await?;
    let settler = member.settler();
    let Inbox {
        address,
        mut reader,
    } = broker.inbox().await?;
    let payload = bytes::Bytes::from(vec![b'x'; 200]);

    let before = (used_here(), used_there(&mut server)?, Instant::now());
    for _ in 0..rounds {
        let request = || {
            let message = Message::new("order.create", payload.clone()).with_reply(&address);
            Append::new(topic.clone(), message)
        };
        for position in broker.append((0..batch).map(|_| request()).collect()).await {
            position?;
        }
        let mut taken = 0;
        while taken < batch {
            let deliveries = member.next(batch).await?;
            taken += deliveries.len();
            let settlements = deliveries.into_iter().map(|delivery| {
                let reply = delivery.message.answer(payload.clone());
                let output = Append::new(address.clone(), reply);
                Settlement::complete_with(delivery.receipt, vec![output])
            });
            for settled in settler.settle(settlements.collect()).await {
                settled?;
            }
        }
        let mut replies = 0;
        while replies < batch {
            replies += reader.next(batch).await?.len();
        }
    }
    let messages = (batch * rounds) as f64;
    let per_message = |spent: Duration| spent.as_secs_f64() * 1e6 / messages;
    println!(
        "batches of {batch}: {:.2} µs here, {:.2} µs in the server, {:.2} µs of wall clock per message",
        per_message(used_here() - before.0),
        per_message(used_there(&mut server)? - before.1),
        per_message(before.2.elapsed()),
    );
    member.leave().await
}

/// User and system time of this process, from `/proc/self/stat`, in hundredths of a second.
fn used_here() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .filter_map(|n| n.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 10)
}

fn used_there(server: &mut redis::Connection) -> Result<Duration> {
    let info: String = redis::cmd("INFO")
        .arg("cpu")
        .query(server)
        .map_err(foreign)?;
    let used = ["used_cpu_sys:", "used_cpu_user:"]
        .iter()
        .filter_map(|key| {
            let line = info.lines().find_map(|line| line.strip_prefix(key))?;
            line.trim().parse::<f64>().ok()
        });
    Ok(Duration::from_secs_f64(used.sum()))
}

fn foreign(error: redis::RedisError) -> Error {
    Error::unavailable("redis", error.to_string())
}
