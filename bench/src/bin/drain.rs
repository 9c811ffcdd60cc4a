//! Drains a topic full of messages on Redis, each answered by one output in the step that acknowledges it, and prints how
//! long that took as one line of JSON. Either as a worker of Streamerson, or by a loop written by hand for it.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::streams::StreamReadReply;
use redis::{AsyncConnectionConfig, Client, Pipeline, pipe};
use streamerson::core::{Append, Message, Topic};
use streamerson::{NoReply, Publish, Router, Worker, connect};
use streamerson_bench::{Outcome, arguments};
use tokio::sync::watch;

/// Messages to drain.
const MESSAGES: usize = 100_000;

/// The payload of each, and of each output.
const PAYLOAD: &str = r#"{"order":"0123456789","items":[{"sku":"tea","count":2},{"sku":"cup","count":1}],"total":1250}"#;

/// What is read and settled at once by hand, and how many messages the worker handles at the same time.
const BATCH: usize = 256;

#[tokio::main]
async fn main() -> Outcome {
    let [url, who] = arguments(["REDIS_URL", "worker|loop"])?;
    fill(&url).await?;
    let took = match who.as_str() {
        "worker" => by_worker(&url).await?,
        "loop" => by_hand(&url).await?,
        _ => return Err("the second argument is worker or loop".into()),
    };
    check(&url).await?;
    let micros = took.as_micros();
    #[allow(clippy::print_stdout, reason = "the result of this program")]
    {
        println!(r#"{{"messages":{MESSAGES},"micros":{micros}}}"#);
    }
    Ok(())
}

async fn fill(url: &str) -> Outcome {
    let broker = connect(url).await?;
    let topic = Topic::new("work")?;
    for _ in 0..MESSAGES / 1000 {
        let message = || Append::new(topic.clone(), Message::new("work.do", PAYLOAD));
        let appended = broker.append((0..1000).map(|_| message()).collect()).await;
        appended.into_iter().collect::<Result<Vec<_>, _>>()?;
    }
    Ok(())
}

/// The time until every message is settled, and the worker has left its group: it is asked to when the last handler runs.
async fn by_worker(url: &str) -> Result<Duration, Box<dyn std::error::Error + Send + Sync>> {
    let (started, mut all) = watch::channel(0);
    let work = move || {
        started.send_if_modified(|started| {
            *started += 1;
            *started == MESSAGES
        });
        async {
            let done = Publish::to("done", "work.done").bytes(PAYLOAD.as_bytes());
            (done, NoReply)
        }
    };
    let broker = connect(url).await?;
    let worker = Worker::new(broker)
        .topic("work")
        .group("workers")
        .concurrency(BATCH);
    let begun = Instant::now();
    worker
        .serve(Router::new().on("work.do", work))
        .with_graceful_shutdown(async move {
            // An error is as good: there is no handler any more.
            let _ = all.changed().await;
        })
        .await?;
    Ok(begun.elapsed())
}

/// Reads `BATCH` messages, and sends their outputs and acknowledgements in one pipeline with the next read.
async fn by_hand(url: &str) -> Result<Duration, Box<dyn std::error::Error + Send + Sync>> {
    let mut connection = open(url).await?;
    let begun = Instant::now();
    let group: redis::RedisResult<()> = redis::cmd("XGROUP")
        .arg(&["CREATE", "streamerson:{work}", "by-hand", "0"])
        .query_async(&mut connection)
        .await;
    group?;
    let mut pipeline = pipe();
    read_next(&mut pipeline);
    loop {
        let (read,): (Option<StreamReadReply>,) = pipeline.query_async(&mut connection).await?;
        let entries = read.into_iter().flat_map(|read| read.keys);
        let ids: Vec<String> = entries.flat_map(|key| key.ids).map(|id| id.id).collect();
        if ids.is_empty() {
            return Ok(begun.elapsed());
        }
        pipeline = pipe();
        for id in &ids {
            pipeline
                .cmd("XADD")
                .arg(&["streamerson:{done}", "*", "id", id, "type", "work.done"])
                .arg(&["corr", "", "reply", "", "meta", "", "data", PAYLOAD])
                .ignore();
        }
        pipeline
            .cmd("XACK")
            .arg(&["streamerson:{work}", "by-hand"])
            .arg(&ids)
            .ignore();
        read_next(&mut pipeline);
    }
}

fn read_next(pipeline: &mut Pipeline) {
    pipeline
        .cmd("XREADGROUP")
        .arg(&["GROUP", "by-hand", "me", "COUNT"])
        .arg(BATCH)
        .arg(&["STREAMS", "streamerson:{work}", ">"]);
}

/// Every message has its output, once.
async fn check(url: &str) -> Outcome {
    let mut connection = open(url).await?;
    let outputs: usize = redis::cmd("XLEN")
        .arg("streamerson:{done}")
        .query_async(&mut connection)
        .await?;
    match outputs == MESSAGES {
        true => Ok(()),
        false => Err(format!("{MESSAGES} messages have {outputs} outputs").into()),
    }
}

async fn open(url: &str) -> redis::RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    Client::open(url)?
        .get_multiplexed_async_connection_with_config(&config)
        .await
}
