//! What brokers really store: the golden vectors, looked up by somebody who knows nothing but the protocol.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde_json::Value;
use streamerson_core::{
    Append, Broker, Durability, Membership, Message, Name, Once, Receipt, Settlement, Start, Topic,
};
use streamerson_embedded::port::Port;
use streamerson_embedded::{EmbeddedBroker, Options};
use streamerson_redis::RedisBroker;
use streamerson_testkit::redis::RedisServer;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

fn vectors(file: &str) -> Vec<Value> {
    let path = format!(
        "{}/../../spec/vectors/{file}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let file: Value =
        serde_json::from_str(&fs::read_to_string(path).expect("vectors")).expect("JSON");
    file["vectors"].as_array().expect("a list").clone()
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn binary(base64: &Value) -> Bytes {
    BASE64_STANDARD.decode(text(base64)).expect("base64").into()
}

fn message(vector: &Value) -> Message {
    let message = &vector["message"];
    Message {
        id: text(&message["id"]).into(),
        kind: text(&message["type"]).into(),
        corr: text(&message["corr"]).into(),
        reply: text(&message["reply"]).into(),
        meta: binary(&message["meta"]["base64"]),
        data: binary(&message["data"]["base64"]),
    }
}

/// A client that knows the Redis protocol and nothing of ours.
struct Plain(BufReader<TcpStream>);

#[derive(Debug, PartialEq)]
enum Reply {
    Text(Bytes),
    Number(i64),
    List(Vec<Reply>),
    Nothing,
}

impl Plain {
    async fn connect(address: SocketAddr) -> Plain {
        let stream = TcpStream::connect(address).await;
        Plain(BufReader::new(stream.expect("a server that listens")))
    }

    async fn run(&mut self, command: &[&[u8]]) -> Result<Reply, String> {
        let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
        for argument in command {
            bytes.extend(format!("${}\r\n", argument.len()).into_bytes());
            bytes.extend_from_slice(argument);
            bytes.extend_from_slice(b"\r\n");
        }
        self.0.write_all(&bytes).await.expect("a connection");
        self.reply().await
    }

    async fn reply(&mut self) -> Result<Reply, String> {
        let mut line = String::new();
        self.0.read_line(&mut line).await.expect("a reply");
        let (kind, rest) = line.trim_end().split_at(1);
        Ok(match kind {
            "+" => Reply::Text(rest.to_owned().into()),
            ":" => Reply::Number(rest.parse().expect("a number")),
            "$" | "*" if rest == "-1" => Reply::Nothing,
            "$" => {
                let mut text = vec![0; rest.parse::<usize>().expect("a length") + 2];
                self.0.read_exact(&mut text).await.expect("a text");
                text.truncate(text.len() - 2);
                Reply::Text(text.into())
            }
            "*" => {
                let mut list = Vec::new();
                for _ in 0..rest.parse().expect("a length") {
                    list.push(Box::pin(self.reply()).await?);
                }
                Reply::List(list)
            }
            _ => return Err(line),
        })
    }

    /// The entries of a stream: for each, names and values in the order in which they are stored.
    async fn entries(&mut self, key: &str) -> Vec<Vec<Bytes>> {
        let range = self.run(&[b"XRANGE", key.as_bytes(), b"-", b"+"]).await;
        let range = range.expect("XRANGE");
        let entries = list(range).into_iter().map(|entry| {
            let fields = list(entry).pop().expect("the fields");
            list(fields).into_iter().map(bytes).collect()
        });
        entries.collect()
    }
}

fn list(reply: Reply) -> Vec<Reply> {
    match reply {
        Reply::List(list) => list,
        other => panic!("a list, not {other:?}"),
    }
}

fn bytes(reply: Reply) -> Bytes {
    match reply {
        Reply::Text(bytes) => bytes,
        other => panic!("a text, not {other:?}"),
    }
}

fn topic(name: &str) -> Topic {
    Topic::new(name.to_owned()).expect("a valid name")
}

fn name(name: &str) -> Name {
    Name::new(name.to_owned()).expect("a valid name")
}

fn stored_as(vector: &Value) -> Vec<Bytes> {
    let fields = vector["entry"].as_array().expect("a list").iter();
    let both = fields.flat_map(|field| [text(&field[0]).into(), binary(&field[1])]);
    both.collect()
}

async fn append(broker: &dyn Broker, batch: Vec<Append>) {
    for stored in broker.append(batch).await {
        stored.expect("append");
    }
}

/// Every vector, appended and as the output of a settlement, stands in the stream field by field as it should; and what somebody
/// else writes by a plain XADD is read as the message it is.
async fn entries_are_stored_as_the_vectors_say(
    broker: Arc<dyn Broker>,
    plain: &mut Plain,
    ns: &str,
) {
    let vectors = vectors("messages");
    let messages: Vec<Message> = vectors.iter().map(message).collect();
    let expected: Vec<Vec<Bytes>> = vectors.iter().map(stored_as).collect();

    let (direct, settled, foreign) = (topic("direct"), topic("settled"), topic("by-hand"));
    let to = |topic: &Topic| {
        let appends = messages
            .iter()
            .map(|message| Append::new(topic.clone(), message.clone()));
        appends.collect::<Vec<Append>>()
    };
    append(&*broker, to(&direct)).await;
    assert_eq!(plain.entries(&format!("{ns}:{{direct}}")).await, expected);

    let membership = Membership::new(direct.clone(), name("group"), name("member"));
    let mut member = broker.join(membership).await.expect("join");
    let receipt: Receipt = member.next(1).await.expect("next").remove(0).receipt;
    let settlement = Settlement::complete_with(receipt, to(&settled));
    member
        .settler()
        .settle(vec![settlement])
        .await
        .remove(0)
        .expect("settle");
    assert_eq!(plain.entries(&format!("{ns}:{{settled}}")).await, expected);

    let key = format!("{ns}:{{by-hand}}");
    for fields in &expected {
        xadd(plain, &key, fields).await.expect("XADD");
    }
    let mut reader = broker.read(&foreign, Start::Earliest).await.expect("read");
    let mut found = Vec::new();
    while found.len() < messages.len() {
        let entries = reader.next(100).await.expect("next").into_iter();
        found.extend(entries.map(|entry| entry.message.expect("a message")));
    }
    assert_eq!(found, messages);
}

/// The vectors of entries that are not messages; an entry without fields cannot be written at all.
fn foreign() -> Vec<Value> {
    let vectors = vectors("foreign").into_iter();
    vectors
        .filter(|vector| !foreign_fields(vector).is_empty())
        .collect()
}

fn foreign_fields(vector: &Value) -> Vec<Bytes> {
    let fields = vector["fields"].as_array().expect("a list").iter();
    let both = fields.flat_map(|field| [binary(&field[0]["base64"]), binary(&field[1]["base64"])]);
    both.collect()
}

async fn xadd(plain: &mut Plain, key: &str, fields: &[Bytes]) -> Result<Reply, String> {
    let mut command: Vec<&[u8]> = vec![b"XADD", key.as_bytes(), b"*"];
    command.extend(fields.iter().map(|bytes| &bytes[..]));
    plain.run(&command).await
}

/// Entries that are not messages reach readers whole, with the reason, and groups as dead letters.
async fn foreign_entries_are_set_aside(broker: Arc<dyn Broker>, plain: &mut Plain, ns: &str) {
    let key = format!("{ns}:{{odd}}");
    let vectors = foreign();
    for vector in &vectors {
        xadd(plain, &key, &foreign_fields(vector))
            .await
            .expect("XADD");
    }
    let odd = topic("odd");
    let last = Message::new("last", "message");
    append(&*broker, vec![Append::new(odd.clone(), last.clone())]).await;

    let mut reader = broker.read(&odd, Start::Earliest).await.expect("read");
    let mut entries = Vec::new();
    while entries.len() <= vectors.len() {
        entries.extend(reader.next(100).await.expect("next"));
    }
    for (entry, vector) in entries.iter().zip(&vectors) {
        let foreign = entry.message.as_ref().expect_err("not a message");
        assert_eq!(
            foreign.fields.len(),
            vector["fields"].as_array().expect("a list").len()
        );
    }

    let membership = Membership::new(odd.clone(), name("group"), name("member"));
    let mut member = broker.join(membership).await.expect("join");
    let delivery = member.next(1).await.expect("next").remove(0);
    assert_eq!(delivery.message, last, "only messages are delivered");
    let dead = odd.dead_letters();
    let mut reader = broker.read(&dead, Start::Earliest).await.expect("read");
    let mut letters = Vec::new();
    while letters.len() < vectors.len() {
        letters.extend(reader.next(100).await.expect("next"));
    }
    for (n, letter) in letters.into_iter().enumerate() {
        let letter = letter.message.expect("a dead letter is a message");
        assert_eq!(letter.kind, "streamerson.foreign");
        let why = letter.parse_meta().expect("meta").dlq.expect("the reason");
        assert_eq!(why.code, "foreign-entry");
        assert_eq!((why.topic.as_str(), why.group.as_str()), ("odd", "group"));
        assert_eq!(why.position, entries[n].position.to_string());
    }
    let stats = broker.stats(&odd).await.expect("stats");
    assert_eq!(
        stats.groups[0].pending, 1,
        "only what was delivered is pending"
    );
}

/// A topic is found under the key that the vectors say, its retries too.
async fn keys_are_what_the_vectors_say(address: SocketAddr, plain: &mut Plain, only: Option<&str>) {
    for vector in vectors("keys") {
        let namespace = text(&vector["namespace"]);
        if only.is_some_and(|only| only != namespace) {
            continue;
        }
        let broker = RedisBroker::connect(&format!("redis://{address}"), name(&namespace)).await;
        let broker = broker.expect("a server that answers");
        let topic = topic(&text(&vector["topic"]));
        append(
            &broker,
            vec![Append::new(topic.clone(), Message::new("a", "b"))],
        )
        .await;
        let stream = text(&vector["stream"]);
        assert_eq!(
            plain.run(&[b"XLEN", stream.as_bytes()]).await,
            Ok(Reply::Number(1))
        );
        let (Some(group), Some(delays)) = (vector["group"].as_str(), vector["delays"].as_str())
        else {
            continue;
        };
        let membership = Membership::new(topic, name(group), name("member"));
        let mut member = broker.join(membership).await.expect("join");
        let receipt = member.next(1).await.expect("next").remove(0).receipt;
        let retry = Settlement::retry(receipt, Duration::from_secs(300));
        member
            .settler()
            .settle(vec![retry])
            .await
            .remove(0)
            .expect("settle");
        assert_eq!(
            plain.run(&[b"ZCARD", delays.as_bytes()]).await,
            Ok(Reply::Number(1))
        );
    }
}

async fn redis() -> (SocketAddr, Arc<dyn Broker>, RedisServer) {
    let server = RedisServer::start().await;
    let broker = RedisBroker::connect(&server.url(), name("wire")).await;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, server.port()));
    (
        address,
        Arc::new(broker.expect("a server that answers")),
        server,
    )
}

#[tokio::test]
async fn redis_stores_entries_as_the_vectors_say() {
    let (address, broker, _server) = redis().await;
    let mut plain = Plain::connect(address).await;
    entries_are_stored_as_the_vectors_say(broker, &mut plain, "wire").await;
}

#[tokio::test]
async fn redis_sets_foreign_entries_aside() {
    let (address, broker, _server) = redis().await;
    let mut plain = Plain::connect(address).await;
    foreign_entries_are_set_aside(broker, &mut plain, "wire").await;
}

#[tokio::test]
async fn redis_has_the_keys_of_the_vectors() {
    let (address, _broker, _server) = redis().await;
    let mut plain = Plain::connect(address).await;
    keys_are_what_the_vectors_say(address, &mut plain, None).await;
}

/// The embedded broker and its port; ended with the runtime of the test.
async fn port(namespace: &str) -> (SocketAddr, EmbeddedBroker, tempfile::TempDir) {
    let options = Options {
        durability: Durability::Os,
        ..Options::default()
    };
    port_with(namespace, options).await
}

async fn port_with(
    namespace: &str,
    options: Options,
) -> (SocketAddr, EmbeddedBroker, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let broker = EmbeddedBroker::open(folder.path(), options).expect("a data directory");
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let port = Port::bind(loopback, broker.clone(), name(namespace)).expect("a free port");
    let address = port.local_addr();
    tokio::spawn(port.serve(std::future::pending()));
    (address, broker, folder)
}

#[tokio::test]
async fn the_embedded_broker_shows_entries_as_the_vectors_say() {
    let (address, broker, _folder) = port("wire").await;
    let mut plain = Plain::connect(address).await;
    entries_are_stored_as_the_vectors_say(Arc::new(broker), &mut plain, "wire").await;
}

#[tokio::test]
async fn the_embedded_port_takes_no_foreign_entries() {
    let (address, broker, _folder) = port("wire").await;
    let mut plain = Plain::connect(address).await;
    for vector in foreign() {
        let refused = xadd(&mut plain, "wire:{odd}", &foreign_fields(&vector)).await;
        assert!(
            refused.is_err_and(|error| error.starts_with("-ERR ")),
            "{}",
            vector["name"]
        );
    }
    let stats = broker.stats(&topic("odd")).await;
    assert!(stats.is_err(), "nothing was stored: {stats:?}");
}

#[tokio::test]
async fn the_embedded_port_has_the_keys_of_the_vectors() {
    // A port serves one namespace.
    for namespace in ["streamerson", "shop.eu"] {
        let (address, _broker, _folder) = port(namespace).await;
        let mut plain = Plain::connect(address).await;
        keys_are_what_the_vectors_say(address, &mut plain, Some(namespace)).await;
    }
}

#[tokio::test]
async fn a_batch_that_the_port_stores_in_part_is_answered_one_by_one() {
    let options = Options {
        durability: Durability::Memory,
        memory_bytes: 64 << 10,
        ..Options::default()
    };
    let (address, embedded, _folder) = port_with("wire", options).await;
    let broker = RedisBroker::connect(&format!("redis://{address}"), name("wire")).await;
    let broker = broker.expect("a server that answers");
    let orders = topic("orders");
    let once = |key: &'static str, size: usize| {
        let message = Message::new("test", vec![b'x'; size]);
        Append::new(orders.clone(), message).once(Once::new(key, Duration::from_secs(60)))
    };
    let batch = vec![once("a", 1), once("b", 100 << 10), once("c", 1)];
    let stored = broker.append(batch).await;
    let codes: Vec<_> = stored
        .iter()
        .map(|stored| stored.as_ref().map_err(streamerson_core::Error::code))
        .map(|stored| stored.err())
        .collect();
    assert_eq!(codes, [None, Some("memory-full"), None]);
    assert!(stored[0].as_ref().unwrap() < stored[2].as_ref().unwrap());
    assert_eq!(embedded.stats(&orders).await.expect("stats").length, 2);
}
