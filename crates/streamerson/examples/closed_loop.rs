//! What a request costs: so many in flight, in a closed loop, against a worker in the same process.
//!
//! `cargo run --release -p streamerson --example closed_loop -- [IN_FLIGHT] [SECONDS] [BROKER]`; the defaults are 256
//! in flight for 5 seconds over `memory:`. The CPU is that of this process alone, without a Redis server.

#![allow(clippy::print_stdout)] // its output is its purpose

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use streamerson::core::{Broker, Topic};
use streamerson::{Client, Json, Message, Router, Worker, connect};

#[derive(serde::Serialize, serde::Deserialize)]
struct Greeting {
    name: String,
}

async fn greet(Json(greeting): Json<Greeting>) -> Json<Greeting> {
    Json(greeting)
}

/// As [`greet`], but it has to wait once, so that it becomes a task.
async fn greet_later(Json(greeting): Json<Greeting>) -> Json<Greeting> {
    tokio::task::yield_now().await;
    Json(greeting)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let in_flight: usize = arguments.next().map_or(Ok(256), |text| text.parse())?;
    let seconds: u64 = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let broker = connect(arguments.next().as_deref().unwrap_or("memory:")).await?;
    for kind in ["greet", "greet.later"] {
        measure(&broker, kind, in_flight, Duration::from_secs(seconds)).await?;
    }
    Ok(())
}

async fn measure(
    broker: &Arc<dyn Broker>,
    kind: &'static str,
    in_flight: usize,
    period: Duration,
) -> Result<(), Box<dyn std::error::Error>> {
    let router = Router::new()
        .on("greet", greet)
        .on("greet.later", greet_later);
    let worker = Worker::new(broker.clone())
        .topic("hello")
        .group("greeters")
        .concurrency(in_flight);
    let (stop_serving, stopped) = tokio::sync::oneshot::channel();
    let serve = worker.serve(router).with_graceful_shutdown(async {
        let _ = stopped.await;
    });
    let serving = tokio::spawn(serve.into_future());
    let client = Client::open(broker.clone()).await?;
    let topic = Topic::new("hello")?;

    let stop = Arc::new(AtomicBool::new(false));
    let (begun, cpu) = (Instant::now(), cpu_time()?);
    let callers: Vec<_> = (0..in_flight)
        .map(|_| tokio::spawn(call(client.clone(), topic.clone(), kind, stop.clone())))
        .collect();
    tokio::time::sleep(period).await;
    stop.store(true, Ordering::Relaxed);
    let mut requests = 0;
    for caller in callers {
        requests += caller.await??;
    }
    let (cpu, elapsed) = (cpu_time()? - cpu, begun.elapsed());
    println!(
        "{kind}: {in_flight} in flight, {requests} requests, {:.0} per second, {:.2} µs CPU each",
        requests as f64 / elapsed.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / requests as f64,
    );
    let _ = stop_serving.send(());
    serving.await??;
    Ok(())
}

async fn call(
    client: Client,
    topic: Topic,
    kind: &'static str,
    stop: Arc<AtomicBool>,
) -> Result<u64, streamerson::Error> {
    let mut requests = 0;
    while !stop.load(Ordering::Relaxed) {
        let message = Message::new(kind, r#"{"name":"Ada"}"#);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        client.dispatch(topic.clone(), message, deadline).await?;
        requests += 1;
    }
    Ok(requests)
}

/// User and system time of this process so far.
fn cpu_time() -> Result<Duration, Box<dyn std::error::Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').ok_or("unexpected /proc/self/stat")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 10))
}
