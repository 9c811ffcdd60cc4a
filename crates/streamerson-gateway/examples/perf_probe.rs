//! Temporary: measures the gateway alone. MODE = axum | static | null | memory
#[global_allocator]
static ALLOC: mimalloc::MiMalloc = mimalloc::MiMalloc;
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use std::sync::Arc;
use streamerson_core::broker::Capabilities;
use streamerson_core::memory::MemoryBroker;
use streamerson_core::retention::{Retention, Trimmed};
use streamerson_core::stats::TopicStats;
use streamerson_core::*;
use streamerson_gateway::{Config, Gateway, Server};

#[derive(Debug)]
struct Null {
    memory: MemoryBroker,
    tx: parking_lot::Mutex<Option<tokio::sync::mpsc::UnboundedSender<Vec<Entry>>>>,
}
struct NullReader(tokio::sync::mpsc::UnboundedReceiver<Vec<Entry>>);
impl Reader for NullReader {
    fn next(&mut self, _max: usize) -> BoxFuture<'_, Result<Vec<Entry>>> {
        async move {
            match self.0.recv().await {
                Some(v) => Ok(v),
                None => std::future::pending().await,
            }
        }
        .boxed()
    }
}
impl Broker for Null {
    fn capabilities(&self) -> &Capabilities {
        self.memory.capabilities()
    }
    fn append(&self, batch: Vec<Append>) -> BoxFuture<'_, Vec<Result<Position>>> {
        let n = batch.len();
        let replies = batch
            .into_iter()
            .map(|a| Entry {
                position: Position::ZERO,
                message: Ok(a
                    .message
                    .answer(Bytes::from_static(b"{\"howdy\":\"there, Ada\"}"))),
            })
            .collect();
        let _ = self.tx.lock().as_ref().unwrap().send(replies);
        std::future::ready(vec![Ok(Position::ZERO); n]).boxed()
    }
    fn read<'a>(
        &'a self,
        topic: &'a Topic,
        start: Start,
    ) -> BoxFuture<'a, Result<Box<dyn Reader>>> {
        self.memory.read(topic, start)
    }
    fn join(&self, m: Membership) -> BoxFuture<'_, Result<Box<dyn Member>>> {
        self.memory.join(m)
    }
    fn inbox(&self) -> BoxFuture<'_, Result<Inbox>> {
        let (tx, rx) = tokio::sync::mpsc::unbounded_channel();
        *self.tx.lock() = Some(tx);
        async move {
            Ok(Inbox {
                address: Topic::inbox("x").unwrap(),
                reader: Box::new(NullReader(rx)) as Box<dyn Reader>,
            })
        }
        .boxed()
    }
    fn topics(&self) -> BoxFuture<'_, Result<Vec<Topic>>> {
        self.memory.topics()
    }
    fn stats<'a>(&'a self, t: &'a Topic) -> BoxFuture<'a, Result<TopicStats>> {
        self.memory.stats(t)
    }
    fn trim<'a>(&'a self, t: &'a Topic, r: Retention) -> BoxFuture<'a, Result<Trimmed>> {
        self.memory.trim(t, r)
    }
}

#[derive(serde::Deserialize)]
struct Greet {
    name: String,
}
#[derive(serde::Serialize)]
struct Howdy {
    howdy: String,
}
async fn hello(axum::Json(g): axum::Json<Greet>) -> axum::Json<Howdy> {
    axum::Json(Howdy {
        howdy: format!("there, {}", g.name),
    })
}
async fn greet(streamerson::Json(g): streamerson::Json<Greet>) -> streamerson::Json<Howdy> {
    streamerson::Json(Howdy {
        howdy: format!("there, {}", g.name),
    })
}

#[tokio::main]
async fn main() {
    let mode = std::env::args().nth(1).unwrap();
    let port: u16 = std::env::args().nth(2).unwrap().parse().unwrap();
    let addr = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let mut config = Config::default();
    config.serve_every_topic();
    let server = || Server::bind(addr, "", &config.gateway.limits).unwrap();
    let app = axum::Router::new().route("/hello/greet", axum::routing::post(hello));
    match mode.as_str() {
        "axum" => {
            let l = tokio::net::TcpListener::bind(addr).await.unwrap();
            axum::serve(l, app).await.unwrap();
        }
        "static" => {
            server().serve(app, std::future::pending()).await;
        }
        "null" => {
            let gw = Gateway::open(
                Arc::new(Null {
                    memory: MemoryBroker::new(),
                    tx: Default::default(),
                }),
                &config,
            )
            .await
            .unwrap();
            server()
                .counting(gw.connections())
                .serve(gw, std::future::pending())
                .await;
        }
        _ => {
            let broker = Arc::new(MemoryBroker::new());
            let gw = Gateway::open(broker.clone(), &config).await.unwrap();
            let router = streamerson::Router::new().on("greet", greet);
            let worker = streamerson::Worker::new(broker.clone())
                .topic("hello")
                .group("g")
                .serve(router);
            tokio::spawn(std::future::IntoFuture::into_future(worker));
            server()
                .counting(gw.connections())
                .serve(gw, std::future::pending())
                .await;
        }
    }
}
