//! A gateway on a free port over the in-memory broker, a worker that answers what a test wants, and a client that writes
//! bytes, because a proper client would not send what these tests must.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;
use streamerson_core::broker::Capabilities;
use streamerson_core::memory::MemoryBroker;
use streamerson_core::retention::{Retention, Trimmed};
use streamerson_core::stats::TopicStats;
use streamerson_core::{
    Append, Broker, Error, Inbox, Member, Membership, Message, Name, Position, Reader, Result,
    Settlement, Start, Topic,
};
use streamerson_gateway::{Config, Drained, Environment, Gateway, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Everything a test waits for happens within this time, or the test fails.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(SOON, future).await {
        Ok(output) => output,
        Err(_) => panic!("not in time: {what}"),
    }
}

/// Waits until `condition` holds.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    soon(what, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

pub(crate) fn config(toml: &str) -> Config {
    Config::parse("test.toml", toml, &Environment::empty()).unwrap()
}

/// A served gateway.
pub(crate) struct Edge {
    pub(crate) address: SocketAddr,
    pub(crate) gateway: Gateway,
    pub(crate) broker: Arc<TestBroker>,
    stop: CancellationToken,
    server: JoinHandle<Drained>,
}

impl Edge {
    /// Serves `toml`; without routes, every topic.
    pub(crate) async fn serve(toml: &str) -> Edge {
        let mut config = config(toml);
        config.serve_every_topic();
        let broker = Arc::new(TestBroker::default());
        let gateway = Gateway::open(broker.clone(), &config).await.unwrap();
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), "", &config.gateway.limits)
            .unwrap()
            .counting(gateway.connections());
        let stop = CancellationToken::new();
        let overtime = {
            let gateway = gateway.clone();
            move || {
                gateway.give_up();
            }
        };
        Edge {
            address: server.local_addr(),
            server: tokio::spawn(server.serve(
                gateway.clone(),
                stop.clone().cancelled_owned(),
                overtime,
            )),
            gateway,
            broker,
            stop,
        }
    }

    /// Begins the drain.
    pub(crate) fn stop(&self) {
        self.gateway.drain();
        self.stop.cancel();
    }

    /// Waits for the end of the drain.
    pub(crate) async fn drained(self) -> Drained {
        soon("the drain", self.server).await.unwrap()
    }

    /// Answers every message of `topic`, until the test ends. `None`: no reply, but the message is done.
    pub(crate) async fn answer(
        &self,
        topic: &str,
        answer: impl Fn(&Message) -> Option<Message> + Send + 'static,
    ) {
        let membership = Membership::new(
            Topic::new(topic).unwrap(),
            Name::new("workers").unwrap(),
            Name::new("worker").unwrap(),
        );
        let mut member = self.broker.memory.join(membership).await.unwrap();
        tokio::spawn(async move {
            while let Ok(deliveries) = member.next(10).await {
                let settled = deliveries.into_iter().map(|delivery| {
                    let reply = answer(&delivery.message);
                    let outputs = reply.zip(delivery.message.reply_to());
                    let outputs = outputs.map(|(reply, inbox)| Append::new(inbox, reply));
                    Settlement::complete_with(delivery.receipt, outputs.into_iter().collect())
                });
                member.settler().settle(settled.collect()).await;
            }
        });
    }

    /// Answers every message of `topic` with its own payload.
    pub(crate) async fn echo(&self, topic: &str) {
        self.answer(topic, |message| Some(message.answer(message.data.clone())))
            .await;
    }

    /// Answers every message of `topic` with this `meta`.
    pub(crate) async fn answer_with_meta(&self, topic: &str, meta: &'static str) {
        self.answer(topic, move |message| {
            let mut reply = message.answer("{}");
            reply.meta = meta.into();
            Some(reply)
        })
        .await;
    }

    /// What has been written to `topic`, at least one.
    pub(crate) async fn written(&self, topic: &str) -> Message {
        let topic = Topic::new(topic).unwrap();
        let mut reader = self
            .broker
            .memory
            .read(&topic, Start::Earliest)
            .await
            .unwrap();
        let entries = soon("a message on the topic", reader.next(10))
            .await
            .unwrap();
        entries[0].message.clone().unwrap()
    }

    /// Whether anything has been written to `topic`.
    pub(crate) async fn is_untouched(&self, topic: &str) -> bool {
        self.broker
            .memory
            .stats(&Topic::new(topic).unwrap())
            .await
            .is_err()
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection::to(self.address).await
    }

    /// One exchange on a connection of its own.
    pub(crate) async fn send(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut connection = self.connect().await;
        connection.write(request).await;
        connection.answer().await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.send(post(path, body)).await
    }
}

pub(crate) fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")
}

/// A client connection.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    unread: Vec<u8>,
}

/// A response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// The code of a problem document, after checking that it is one.
    pub(crate) fn code(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{self:?}");
        for key in ["type", "title", "detail", "code", "instance"] {
            assert!(problem[key].is_string(), "no {key}: {self:?}");
        }
        problem["code"].as_str().unwrap().to_owned()
    }
}

impl Connection {
    pub(crate) async fn to(address: SocketAddr) -> Connection {
        Connection {
            stream: soon("a connection", TcpStream::connect(address))
                .await
                .unwrap(),
            unread: Vec::new(),
        }
    }

    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        soon("writing", self.stream.write_all(bytes.as_ref()))
            .await
            .unwrap();
    }

    /// Writes, whatever comes of it: the server may have closed already.
    pub(crate) async fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        soon("writing", self.stream.write_all(bytes.as_ref())).await
    }

    /// Reads the next response, to any method but HEAD.
    pub(crate) async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await;
        let length = answer
            .header("content-length")
            .map_or(0, |length| length.parse().unwrap());
        self.fill(|unread| unread.len() >= length).await;
        answer.body = String::from_utf8(self.unread.drain(..length).collect()).unwrap();
        answer
    }

    /// Reads the head of the next response.
    pub(crate) async fn head(&mut self) -> Answer {
        let end = |unread: &[u8]| unread.windows(4).position(|four| four == b"\r\n\r\n");
        self.fill(|unread| end(unread).is_some()).await;
        let head: Vec<u8> = self
            .unread
            .drain(..end(&self.unread).unwrap() + 4)
            .collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.lines();
        let status = lines
            .next()
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        let headers = lines.filter_map(|line| line.split_once(": "));
        Answer {
            status,
            headers: headers
                .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
                .collect(),
            body: String::new(),
        }
    }

    /// What still comes until the server closes.
    pub(crate) async fn rest(&mut self) -> String {
        let mut rest = std::mem::take(&mut self.unread);
        // A reset is an end too.
        let _ = soon(
            "the end of the connection",
            self.stream.read_to_end(&mut rest),
        )
        .await;
        String::from_utf8(rest).unwrap()
    }

    async fn fill(&mut self, enough: impl Fn(&[u8]) -> bool) {
        while !enough(&self.unread) {
            let read = soon("an answer", self.stream.read_buf(&mut self.unread)).await;
            let read = read.unwrap_or_else(|error| panic!("{error} after {:?}", self.unread));
            assert!(
                read > 0,
                "closed after {:?}",
                String::from_utf8_lossy(&self.unread)
            );
        }
    }
}

/// The in-memory broker, with faults on demand.
#[derive(Debug, Default)]
pub(crate) struct TestBroker {
    pub(crate) memory: MemoryBroker,
    fault: Mutex<Option<Fault>>,
}

/// What happens to appends, and to questions about topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// They are not stored.
    Away,
    /// They may have been stored.
    Unclear,
    /// They are refused, with this code.
    Refused(&'static str),
    /// No answer comes.
    Silent,
    /// Each question about a topic takes a hundredth of a second.
    Slow,
}

impl TestBroker {
    pub(crate) fn set(&self, fault: impl Into<Option<Fault>>) {
        *self.fault.lock() = fault.into();
    }
}

streamerson_testkit::pass_on_upkeep!(TestBroker, memory);

impl Broker for TestBroker {
    fn capabilities(&self) -> &Capabilities {
        self.memory.capabilities()
    }

    fn time(&self) -> BoxFuture<'_, Result<u64>> {
        self.memory.time()
    }

    fn append(&self, batch: Vec<Append>) -> BoxFuture<'_, Vec<Result<Position>>> {
        let failed = |error: Error| std::future::ready(vec![Err(error); batch.len()]).boxed();
        let fault = *self.fault.lock();
        match fault {
            None | Some(Fault::Slow) => self.memory.append(batch),
            Some(Fault::Away) => failed(Error::unavailable(
                "broker-unreachable",
                "secret-host:6379 is away",
            )),
            Some(Fault::Unclear) => failed(Error::unknown(
                "append-unanswered",
                "secret-host:6379 is silent",
            )),
            Some(Fault::Refused(code)) => failed(Error::invalid(code, "secret-user may not")),
            Some(Fault::Silent) => std::future::pending().boxed(),
        }
    }

    fn read<'a>(
        &'a self,
        topic: &'a Topic,
        start: Start,
    ) -> BoxFuture<'a, Result<Box<dyn Reader>>> {
        self.memory.read(topic, start)
    }

    fn join(&self, membership: Membership) -> BoxFuture<'_, Result<Box<dyn Member>>> {
        self.memory.join(membership)
    }

    fn inbox(&self) -> BoxFuture<'_, Result<Inbox>> {
        self.memory.inbox()
    }

    fn topics(&self) -> BoxFuture<'_, Result<Vec<Topic>>> {
        self.memory.topics()
    }

    fn stats<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<TopicStats>> {
        let fault = *self.fault.lock();
        match fault {
            None => self.memory.stats(topic),
            Some(Fault::Silent) => std::future::pending().boxed(),
            Some(Fault::Slow) => async move {
                tokio::time::sleep(Duration::from_millis(10)).await;
                self.memory.stats(topic).await
            }
            .boxed(),
            Some(_) => {
                let away = Error::unavailable("broker-unreachable", "secret-host:6379 is away");
                std::future::ready(Err(away)).boxed()
            }
        }
    }

    fn trim<'a>(
        &'a self,
        topic: &'a Topic,
        retention: Retention,
    ) -> BoxFuture<'a, Result<Trimmed>> {
        self.memory.trim(topic, retention)
    }
}

/// The metrics of a gateway, as the admin address shows them.
pub(crate) async fn metrics(edge: &Edge) -> String {
    use http_body_util::BodyExt;
    use tower::ServiceExt;
    let admin = streamerson_gateway::Admin::new(edge.gateway.clone());
    let request = http::Request::get("/metrics").body(()).unwrap();
    let Ok(response) = admin.oneshot(request).await;
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// Requests in progress.
pub(crate) async fn in_flight(edge: &Edge) -> usize {
    let metrics = metrics(edge).await;
    let lines = metrics
        .lines()
        .filter(|line| line.starts_with("strm_gateway_requests_in_flight{"));
    lines
        .map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap())
        .sum()
}
