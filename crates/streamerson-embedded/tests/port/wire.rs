//! A client that speaks the protocol word by word, and shows every byte of an answer.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(String),
    Nil,
    NilList,
    List(Vec<Value>),
    // From here on: RESP3.
    Null,
    Double(String),
    Verbatim(String),
    Set(Vec<Value>),
    Map(Vec<(Value, Value)>),
}

impl Value {
    pub(crate) fn ok() -> Value {
        Value::Simple("OK".into())
    }

    pub(crate) fn list(self) -> Vec<Value> {
        match self {
            Value::List(items) => items,
            other => panic!("not a list: {other:?}"),
        }
    }

    pub(crate) fn text(&self) -> &str {
        match self {
            Value::Simple(text)
            | Value::Error(text)
            | Value::Bulk(text)
            | Value::Verbatim(text) => text,
            other => panic!("not text: {other:?}"),
        }
    }

    pub(crate) fn map(self) -> Vec<(Value, Value)> {
        match self {
            Value::Map(pairs) => pairs,
            other => panic!("not a map: {other:?}"),
        }
    }

    /// Of what kind it is, and what is in it. Sets differ in what is in them, and that is no difference.
    pub(crate) fn form(&self) -> String {
        let all = |items: &[Value]| items.iter().map(Value::form).collect::<String>();
        match self {
            Value::Simple(_) => "+".into(),
            Value::Error(_) => "-".into(),
            Value::Integer(_) => ":".into(),
            Value::Bulk(_) => "$".into(),
            Value::Nil => "$-1".into(),
            Value::NilList => "*-1".into(),
            Value::List(items) => format!("*({})", all(items)),
            Value::Null => "_".into(),
            Value::Double(_) => ",".into(),
            Value::Verbatim(_) => "=".into(),
            Value::Set(_) => "~".into(),
            Value::Map(pairs) => {
                let pairs = pairs.iter();
                let pairs: String = pairs
                    .map(|(key, value)| key.form() + &value.form())
                    .collect();
                format!("%({pairs})")
            }
        }
    }

    pub(crate) fn is_error(&self) -> bool {
        matches!(self, Value::Error(_))
    }
}

pub(crate) struct Wire {
    stream: BufReader<TcpStream>,
}

impl Wire {
    pub(crate) async fn connect(address: SocketAddr) -> Wire {
        let stream = TcpStream::connect(address).await.expect("connect");
        stream.set_nodelay(true).expect("nodelay");
        Wire {
            stream: BufReader::new(stream),
        }
    }

    /// Sends bytes as they are.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).await.expect("write");
    }

    /// The same, where the other side may have hung up already.
    pub(crate) async fn try_write(&mut self, bytes: &[u8]) -> bool {
        self.stream.get_mut().write_all(bytes).await.is_ok()
    }

    pub(crate) async fn send(&mut self, words: &[&str]) {
        self.write(&encode(words)).await;
    }

    pub(crate) async fn call(&mut self, words: &[&str]) -> Value {
        self.send(words).await;
        self.receive().await
    }

    /// Calls with the words of a line; `''` is an empty word.
    pub(crate) async fn line(&mut self, line: &str) -> Value {
        self.call(&words(line)).await
    }

    pub(crate) async fn receive(&mut self) -> Value {
        self.try_receive()
            .await
            .expect("an answer, but the connection was closed")
    }

    /// `None`: the connection was closed.
    pub(crate) async fn try_receive(&mut self) -> Option<Value> {
        let answer = tokio::time::timeout(PATIENCE, self.value()).await;
        answer.expect("no answer in time")
    }

    /// Waits until the other side closes.
    pub(crate) async fn closed(&mut self) {
        while self.try_receive().await.is_some() {}
    }

    async fn value(&mut self) -> Option<Value> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.strip_suffix("\r\n").expect("a line ends with CRLF");
        let (mark, rest) = line.split_at(1);
        Some(match mark {
            "+" => Value::Simple(rest.into()),
            "-" => Value::Error(rest.into()),
            ":" => Value::Integer(rest.parse().expect("a number")),
            "$" if rest == "-1" => Value::Nil,
            "$" => Value::Bulk(self.bytes(rest).await?),
            "*" if rest == "-1" => Value::NilList,
            "*" => Value::List(self.items(rest).await?),
            "_" => Value::Null,
            "," => Value::Double(rest.into()),
            "=" => Value::Verbatim(self.bytes(rest).await?),
            "~" => Value::Set(self.items(rest).await?),
            "%" => {
                let mut pairs = Vec::new();
                for _ in 0..rest.parse().expect("a length") {
                    let key = Box::pin(self.value()).await?;
                    pairs.push((key, Box::pin(self.value()).await?));
                }
                Value::Map(pairs)
            }
            other => panic!("unknown mark {other:?}"),
        })
    }

    async fn bytes(&mut self, length: &str) -> Option<String> {
        let length: usize = length.parse().expect("a length");
        let mut bytes = vec![0; length + 2];
        self.stream.read_exact(&mut bytes).await.ok()?;
        assert!(bytes.ends_with(b"\r\n"));
        bytes.truncate(length);
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn items(&mut self, count: &str) -> Option<Vec<Value>> {
        let mut items = Vec::new();
        for _ in 0..count.parse().expect("a length") {
            items.push(Box::pin(self.value()).await?);
        }
        Some(items)
    }
}

pub(crate) fn encode(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n{word}\r\n", word.len()).bytes());
    }
    bytes
}

pub(crate) fn words(line: &str) -> Vec<&str> {
    line.split_whitespace()
        .map(|word| if word == "''" { "" } else { word })
        .collect()
}

/// The fields of a message with this payload.
pub(crate) fn fields(data: &str) -> String {
    format!("id i-{data} type greet corr '' reply '' meta '' data {data}")
}
