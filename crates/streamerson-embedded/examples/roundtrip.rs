//! What a request costs in the embedded broker: append, deliver, settle with a reply, receive. A closed loop in one
//! process, with so many requests in flight.
//!
//! `cargo run --release -p streamerson-embedded --example roundtrip [memory|os|disk] [IN_FLIGHT] [SECONDS] [DIR]`

#![allow(clippy::print_stdout, reason = "prints its findings")]

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use streamerson_core::{
    Append, Broker, Durability, Inbox, Member, Membership, Message, Name, Result, Settlement,
    Topic, message,
};
use streamerson_embedded::{EmbeddedBroker, Options};

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let classes = match arguments.next() {
        Some(class) if class != "all" => vec![class.parse()?],
        _ => vec![Durability::Memory, Durability::Os, Durability::Disk],
    };
    let in_flight = parse(arguments.next(), 256);
    let seconds = parse(arguments.next(), 5);
    let parent = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    for durability in classes {
        let dir = parent.join(format!("streamerson-roundtrip-{}", std::process::id()));
        let options = Options {
            durability,
            ..Options::default()
        };
        let broker = EmbeddedBroker::open(&dir, options)?;
        run(&broker, in_flight, Duration::from_secs(seconds as u64)).await?;
        drop(broker);
        if durability > Durability::Memory {
            let _ = fs::remove_dir_all(&dir);
        }
    }
    Ok(())
}

async fn run(broker: &EmbeddedBroker, in_flight: usize, time: Duration) -> Result<()> {
    let topic = Topic::new("roundtrip")?;
    let membership = Membership::new(topic.clone(), Name::new("workers")?, Name::new("one")?);
    let worker = tokio::spawn(work(broker.join(membership).await?));
    let Inbox {
        address,
        mut reader,
    } = broker.inbox().await?;
    let request = |_| {
        let message = Message::new("greet", format!(r#"{{"name":"{}"}}"#, message::new_id()));
        Append::new(topic.clone(), message.with_reply(&address))
    };
    let begun = (Instant::now(), cpu());
    let (mut done, mut batches) = (0, 0);
    let mut due = in_flight;
    while begun.0.elapsed() < time {
        for stored in broker.append((0..due).map(request).collect()).await {
            stored?;
        }
        due = reader.next(in_flight).await?.len();
        done += due;
        batches += 1;
    }
    let (wall, used) = (begun.0.elapsed(), cpu() - begun.1);
    println!(
        "{:>6}: {in_flight} in flight, {:>7.0} requests/s, {:>5.2} us CPU and {:>5.2} us wall per request, {:.1} per batch",
        broker.capabilities().durability.to_string(),
        done as f64 / wall.as_secs_f64(),
        used.as_secs_f64() * 1e6 / done as f64,
        wall.as_secs_f64() * 1e6 / done as f64,
        done as f64 / batches as f64,
    );
    worker.abort();
    let _ = worker.await;
    Ok(())
}

async fn work(mut member: Box<dyn Member>) -> Result<()> {
    let settler = member.settler();
    loop {
        let deliveries = member.next(256).await?;
        let settlements = deliveries.into_iter().map(|delivery| {
            let reply = delivery.message.answer(r#"{"howdy":"there"}"#);
            let outputs = delivery.message.reply_to().map(|to| Append::new(to, reply));
            Settlement::complete_with(delivery.receipt, outputs.into_iter().collect())
        });
        let settlements = settlements.collect();
        let settler = settler.clone();
        // Not awaited here: while one batch is stored, the next is worked on.
        tokio::spawn(async move { settler.settle(settlements).await });
    }
}

/// User and system time of this process.
fn cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split(' ');
    let ticks: u64 = fields
        .skip(12)
        .take(2)
        .filter_map(|f| f.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 10)
}

fn parse(argument: Option<String>, default: usize) -> usize {
    argument.and_then(|a| a.parse().ok()).unwrap_or(default)
}
