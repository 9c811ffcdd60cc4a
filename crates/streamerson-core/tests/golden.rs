//! The golden vectors in `spec/vectors`: what other languages hold to, this implementation holds to.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use streamerson_core::{Message, Meta, Name, Position, Start, Topic, partition};

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../spec/vectors"))
}

/// Unknown keys fail: a vector that nobody checks would say nothing.
fn load<T: DeserializeOwned>(name: &str) -> T {
    let file = folder().join(format!("{name}.json"));
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file:?}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file:?}: {error}"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Binary {
    base64: String,
    text: Option<String>,
}

impl Binary {
    fn bytes(&self) -> Bytes {
        let bytes = decode(&self.base64);
        if let Some(text) = &self.text {
            assert_eq!(text.as_bytes(), bytes, "base64 and text say the same");
        }
        bytes
    }
}

fn decode(base64: &str) -> Bytes {
    BASE64_STANDARD.decode(base64).expect("base64").into()
}

#[test]
fn every_file_of_vectors_has_its_test() {
    let mut found: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort_unstable();
    let tested = [
        "correlation.json",
        "foreign.json",
        "keys.json",
        "messages.json",
        "meta.json",
        "names.json",
        "partitions.json",
        "positions.json",
    ];
    assert_eq!(found, tested);
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Messages {
    #[serde(rename = "about")]
    _about: String,
    vectors: Vec<MessageVector>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MessageVector {
    name: String,
    #[serde(rename = "about")]
    _about: String,
    message: MessageForm,
    entry: Vec<(String, String)>,
    also: Option<Vec<(String, String)>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MessageForm {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    corr: String,
    reply: String,
    meta: Binary,
    data: Binary,
}

fn fields(entry: &[(String, String)]) -> Vec<(Bytes, Bytes)> {
    let fields = entry.iter();
    fields
        .map(|(name, value)| (Bytes::from(name.clone()), decode(value)))
        .collect()
}

#[test]
fn messages_are_stored_and_read_as_the_vectors_say() {
    let Messages { vectors, .. } = load("messages");
    assert!(!vectors.is_empty());
    for vector in vectors {
        let form = vector.message;
        let message = Message {
            id: form.id.into(),
            kind: form.kind.into(),
            corr: form.corr.into(),
            reply: form.reply.into(),
            meta: form.meta.bytes(),
            data: form.data.bytes(),
        };
        let stored: Vec<(String, Bytes)> = message
            .fields()
            .map(|(name, value)| (name.to_owned(), Bytes::copy_from_slice(value)))
            .into();
        let expected: Vec<(String, Bytes)> = vector
            .entry
            .iter()
            .map(|(name, value)| (name.clone(), decode(value)))
            .collect();
        assert_eq!(stored, expected, "{}", vector.name);
        for entry in [Some(vector.entry), vector.also].into_iter().flatten() {
            let read = Message::from_fields(fields(&entry));
            assert_eq!(read.as_ref(), Ok(&message), "{}", vector.name);
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metas {
    #[serde(rename = "about")]
    _about: String,
    valid: Vec<ValidMeta>,
    invalid: Vec<InvalidMeta>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ValidMeta {
    name: String,
    encoded: Binary,
    meta: Value,
    canonical: String,
    deadline: Option<u64>,
    headers: Option<Vec<(String, String)>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InvalidMeta {
    name: String,
    encoded: Binary,
    #[serde(rename = "about")]
    _about: String,
}

#[test]
fn meta_is_read_and_written_as_the_vectors_say() {
    let Metas { valid, invalid, .. } = load("meta");
    assert!(!valid.is_empty() && !invalid.is_empty());
    for vector in valid {
        let name = vector.name;
        let encoded = vector.encoded.bytes();
        let meta = Meta::decode(&encoded).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(meta.encode(), vector.canonical, "{name}");
        assert_eq!(Meta::deadline(&encoded).unwrap(), vector.deadline, "{name}");
        assert_eq!(meta.exp, vector.deadline, "{name}");
        assert_eq!(serde_json::to_value(&meta).unwrap(), vector.meta, "{name}");
        let said: Meta = serde_json::from_value(vector.meta).unwrap();
        assert_eq!(meta, said, "{name}");
        if let Some(expected) = vector.headers {
            let headers = meta.hdr.iter();
            let headers: Vec<_> = headers.map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
            assert_eq!(headers, expected, "{name}");
        }
    }
    for vector in invalid {
        let decoded = Meta::decode(&vector.encoded.bytes());
        assert!(decoded.is_err(), "{}: {decoded:?}", vector.name);
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Correlations {
    #[serde(rename = "about")]
    _about: String,
    vectors: Vec<Correlation>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Correlation {
    name: String,
    #[serde(rename = "about")]
    _about: String,
    message: Header,
    correlation: String,
    reply_to: Option<String>,
    answer: Header,
    forward: Header,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    id: Option<String>,
    #[serde(rename = "type")]
    kind: String,
    corr: String,
    reply: String,
    meta: String,
}

/// All but its id, which must be a new one.
fn successor_of(id: &str, next: &Message) -> Header {
    assert_ne!(next.id, id);
    assert_eq!(next.data, "data");
    Header {
        id: None,
        kind: next.kind.to_string(),
        corr: next.corr.to_string(),
        reply: next.reply.to_string(),
        meta: String::from_utf8_lossy(&next.meta).into_owned(),
    }
}

#[test]
fn answers_and_next_stages_carry_what_the_vectors_say() {
    let Correlations { vectors, .. } = load("correlation");
    assert!(!vectors.is_empty());
    for vector in vectors {
        let Header {
            id,
            kind,
            corr,
            reply,
            meta,
        } = vector.message;
        let id = id.expect("an id");
        let message = Message {
            id: id.clone().into(),
            kind: kind.into(),
            corr: corr.into(),
            reply: reply.into(),
            meta: meta.into(),
            data: Bytes::new(),
        };
        let name = vector.name;
        let reply_to = message.reply_to().map(|topic| topic.as_str().to_owned());
        assert_eq!(*message.correlation(), vector.correlation, "{name}");
        assert_eq!(reply_to, vector.reply_to, "{name}");
        let answer = successor_of(&id, &message.answer("data"));
        assert_eq!(answer, vector.answer, "{name}");
        let forward = successor_of(&id, &message.forward("next", "data"));
        assert_eq!(forward, vector.forward, "{name}");
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Foreigns {
    #[serde(rename = "about")]
    _about: String,
    vectors: Vec<ForeignVector>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ForeignVector {
    name: String,
    #[serde(rename = "about")]
    _about: String,
    fields: Vec<(Binary, Binary)>,
    reason: String,
    field: Option<String>,
}

#[test]
fn foreign_entries_are_refused_for_the_reason_the_vectors_say() {
    let Foreigns { vectors, .. } = load("foreign");
    assert!(!vectors.is_empty());
    for vector in vectors {
        let pairs = vector.fields.iter();
        let fields: Vec<_> = pairs.map(|(n, v)| (n.bytes(), v.bytes())).collect();
        let foreign = Message::from_fields(fields.clone()).expect_err(&vector.name);
        assert_eq!(foreign.fields, fields, "kept whole");
        let says = match vector.reason.as_str() {
            "missing-field" => "missing field",
            "unexpected-field" => "unexpected field",
            "not-utf8" => "not UTF-8",
            unknown => panic!("unknown reason {unknown}"),
        };
        assert!(
            foreign.reason.contains(says),
            "{}: {}",
            vector.name,
            foreign.reason
        );
        if let Some(field) = vector.field {
            let named = format!("{field:?}");
            assert!(
                foreign.reason.contains(&named),
                "{}: {}",
                vector.name,
                foreign.reason
            );
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Names {
    #[serde(rename = "about")]
    _about: String,
    topics: Vec<TopicVector>,
    invalid_topics: Vec<String>,
    names: Vec<String>,
    invalid_names: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TopicVector {
    name: String,
    inbox: bool,
    dead_letters_topic: bool,
    dead_letters: String,
}

#[test]
fn names_are_taken_and_refused_as_the_vectors_say() {
    let names: Names = load("names");
    for vector in names.topics {
        let topic = Topic::new(vector.name.clone()).unwrap();
        assert_eq!(topic.is_inbox(), vector.inbox, "{topic}");
        assert_eq!(
            topic.is_dead_letters(),
            vector.dead_letters_topic,
            "{topic}"
        );
        assert_eq!(topic.dead_letters().as_str(), vector.dead_letters);
    }
    for name in names.invalid_topics {
        assert!(Topic::new(name.clone()).is_err(), "{name:?}");
    }
    for name in names.names {
        assert!(Name::new(name.clone()).is_ok(), "{name:?}");
    }
    for name in names.invalid_names {
        assert!(Name::new(name.clone()).is_err(), "{name:?}");
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(rename = "about")]
    _about: String,
    vectors: Vec<KeyVector>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyVector {
    namespace: String,
    topic: String,
    stream: String,
    group: Option<String>,
    delays: Option<String>,
}

/// The keys themselves are for brokers; here, that their parts are valid names and meet in the hash tag.
#[test]
fn keys_are_made_of_valid_names() {
    let Keys { vectors, .. } = load("keys");
    for vector in vectors {
        let namespace = Name::new(vector.namespace).unwrap();
        let topic = Topic::new(vector.topic).unwrap();
        let base = topic.as_str().trim_end_matches(":dlq");
        let tagged = format!("{namespace}:{{{base}}}");
        assert!(vector.stream.starts_with(&tagged), "{}", vector.stream);
        let group = vector.group.map(|group| Name::new(group).unwrap());
        let delays = group.map(|group| format!("{}:delay:{group}", vector.stream));
        assert_eq!(vector.delays, delays);
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Partitions {
    #[serde(rename = "about")]
    _about: String,
    keys: Vec<PartitionKey>,
    messages: Vec<KeyedMessage>,
    topics: Vec<PartitionTopic>,
    indivisible: Vec<Indivisible>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PartitionKey {
    key: String,
    crc32: u32,
    partitions: BTreeMap<u32, u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyedMessage {
    name: String,
    id: String,
    meta: String,
    key: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PartitionTopic {
    topic: String,
    number: u32,
    partition: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Indivisible {
    topic: String,
    partitions: u32,
}

#[test]
fn messages_belong_to_the_partitions_that_the_vectors_say() {
    let vectors: Partitions = load("partitions");
    for vector in vectors.keys {
        for (partitions, number) in vector.partitions {
            assert_eq!(vector.crc32 % partitions, number);
            assert_eq!(partition::of(&vector.key, partitions), number);
        }
    }
    for vector in vectors.messages {
        let mut message = Message::new("a", "");
        message.id = vector.id.into();
        message.meta = vector.meta.into();
        assert_eq!(partition::key(&message), vector.key, "{}", vector.name);
    }
    for vector in vectors.topics {
        let topic = Topic::new(vector.topic).unwrap();
        let part = partition::topic(&topic, vector.number).unwrap();
        assert_eq!(part.as_str(), vector.partition);
        assert!(partition::check(&topic, vector.number + 1).is_ok());
    }
    for vector in vectors.indivisible {
        let topic = Topic::new(vector.topic).unwrap();
        let divided = partition::check(&topic, vector.partitions);
        assert!(divided.is_err(), "{topic} into {}", vector.partitions);
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Positions {
    #[serde(rename = "about")]
    _about: String,
    valid: Vec<PositionVector>,
    invalid: Vec<String>,
    ascending: Vec<String>,
    starts: Vec<BTreeMap<String, String>>,
    invalid_starts: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PositionVector {
    text: String,
    major: String,
    minor: String,
    canonical: String,
}

#[test]
fn positions_are_read_written_and_ordered_as_the_vectors_say() {
    let positions: Positions = load("positions");
    for vector in positions.valid {
        let position: Position = vector.text.parse().unwrap();
        assert_eq!(position.major().to_string(), vector.major);
        assert_eq!(position.minor().to_string(), vector.minor);
        assert_eq!(position.to_string(), vector.canonical);
    }
    for text in positions.invalid {
        assert!(text.parse::<Position>().is_err(), "{text:?}");
    }
    let ascending = positions.ascending.iter().map(|text| text.parse().unwrap());
    let ascending: Vec<Position> = ascending.collect();
    assert!(ascending.is_sorted_by(|a, b| a < b), "{ascending:?}");
    for vector in positions.starts {
        let expected = match vector["start"].as_str() {
            "earliest" => Start::Earliest,
            "latest" => Start::Latest,
            _ => Start::After(vector["after"].parse().unwrap()),
        };
        assert_eq!(vector["text"].parse::<Start>().unwrap(), expected);
    }
    for text in positions.invalid_starts {
        assert!(text.parse::<Start>().is_err(), "{text:?}");
    }
}
