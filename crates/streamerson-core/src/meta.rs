//! The `meta` field: everything about a message that is neither address nor payload.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Error, Result};

/// The header in which a caller's idempotency key travels.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The parsed `meta` of a message. Every key is optional; unknown keys are kept.
///
/// ```
/// use streamerson_core::Meta;
///
/// let meta = Meta { exp: Some(1763900000000), ..Meta::default() };
/// assert_eq!(&meta.encode()[..], br#"{"exp":1763900000000}"#);
/// assert_eq!(Meta::decode(b"")?, Meta::default());
/// # Ok::<(), streamerson_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Meta {
    /// Producer (CloudEvents `source`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src: Option<String>,
    /// Subject (CloudEvents `subject`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// Partition and ordering key (CloudEvents `partitionkey`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Deadline in milliseconds since 1970 (CloudEvents `expirytime`): after it nobody waits, and the message is not handled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exp: Option<u64>,
    /// Content type of the payload; `application/json` when absent (CloudEvents `datacontenttype`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ctype: Option<String>,
    /// W3C `traceparent` of this hop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// Place of this chunk in a streamed reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// Whether this chunk is the last of a streamed reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<bool>,
    /// HTTP status of a reply; 200 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// HTTP headers of a reply, or the allow-listed headers of a request.
    #[serde(skip_serializing_if = "Headers::is_empty")]
    pub hdr: Headers,
    /// The HTTP request this message came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<Http>,
    /// What went wrong, on a failed reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub err: Option<Failure>,
    /// Why this message is a dead letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dlq: Option<DeadLetter>,
    /// Keys this version does not know.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// The HTTP request a message came from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Http {
    /// Method, upper case.
    pub method: String,
    /// Path as the gateway matched it, percent-encoded.
    pub path: String,
    /// Path parameters by name, decoded.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, String>,
    /// Query string without `?`, percent-encoded.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub query: String,
}

/// What went wrong, for the caller.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Failure {
    /// Stable code, for programs.
    pub code: String,
    /// Detail, for people.
    pub message: String,
    /// Whether another try may help; when absent, the status says it: from 500 on it may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transient: Option<bool>,
}

/// Why, when and by whom a message was given up.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DeadLetter {
    /// Stable code of the reason.
    pub code: String,
    /// The error as text.
    pub reason: String,
    /// Topic it came from.
    pub topic: String,
    /// Group that gave it up.
    pub group: String,
    /// Its position in that topic.
    pub position: String,
    /// How often it was delivered.
    pub attempts: u32,
    /// When it was given up, in milliseconds since 1970.
    pub at: u64,
    /// Member that gave it up.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub member: String,
    /// When it was first stored in that topic, in milliseconds since 1970; 0 when nobody knows.
    #[serde(skip_serializing_if = "is_zero")]
    pub first: u64,
    /// The `meta` it came with, in base64, when that could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta: Option<String>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Meta {
    /// The JSON form; empty when there is nothing to say.
    pub fn encode(&self) -> Bytes {
        if *self == Meta::default() {
            return Bytes::new();
        }
        // Every key is a string and no map key can fail, so encoding cannot fail.
        serde_json::to_vec(self).map_or_else(|_| Bytes::new(), Bytes::from)
    }

    /// Reads `meta`. Empty is the default.
    pub fn decode(meta: &[u8]) -> Result<Meta> {
        if meta.is_empty() {
            return Ok(Meta::default());
        }
        serde_json::from_slice(meta).map_err(invalid)
    }

    /// The deadline alone, without building the rest: the one key a worker reads on every message.
    pub fn deadline(meta: &[u8]) -> Result<Option<u64>> {
        #[derive(Deserialize)]
        struct Deadline {
            #[serde(default)]
            exp: Option<u64>,
        }
        if meta.is_empty() {
            return Ok(None);
        }
        if meta.trim_ascii_start().first() != Some(&b'{') {
            // The derived reader would take an array for the object.
            return Err(invalid(serde::de::Error::custom("not an object")));
        }
        serde_json::from_slice(meta)
            .map(|deadline: Deadline| deadline.exp)
            .map_err(invalid)
    }
}

fn invalid(error: serde_json::Error) -> Error {
    Error::invalid(
        "invalid-meta",
        format!("meta is not a valid JSON object: {error}"),
    )
}

/// Header names and values in order; a name may repeat. Stored as a JSON object whose values are text, or lists of text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// No headers.
    pub fn new() -> Headers {
        Headers::default()
    }

    /// Adds a header, after any of the same name.
    pub fn append(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push((name.into(), value.into()));
    }

    /// Sets a header, in place of all of the same name, in any case.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let name = name.into();
        self.0
            .retain(|(header, _)| !header.eq_ignore_ascii_case(&name));
        self.append(name, value);
    }

    /// The first value of `name`, in any case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(header, _)| header.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Headers {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut grouped: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, value) in self.iter() {
            grouped.entry(name).or_default().push(value);
        }
        serializer.collect_map(grouped.into_iter().map(|(name, values)| {
            let value = match values.as_slice() {
                [single] => Value::from(*single),
                many => Value::from(many.to_vec()),
            };
            (name, value)
        }))
    }
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Headers, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum OneOrMany {
            One(String),
            Many(Vec<String>),
        }
        let map = BTreeMap::<String, OneOrMany>::deserialize(deserializer)?;
        let mut headers = Headers::new();
        for (name, values) in map {
            match values {
                OneOrMany::One(value) => headers.append(name, value),
                OneOrMany::Many(values) => {
                    for value in values {
                        headers.append(name.clone(), value);
                    }
                }
            }
        }
        Ok(headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn meta_round_trips(
            key in proptest::option::of(".*"),
            exp in proptest::option::of(any::<u64>()),
            status in proptest::option::of(any::<u16>()),
            path in ".*",
            params in proptest::collection::btree_map(".*", ".*", 0..4),
            // Ordered and grouped by name, as the stored form keeps them.
            headers in proptest::collection::btree_map("[a-z-]{1,8}", proptest::collection::vec(".*", 1..3), 0..4),
            code in ".*",
            transient in proptest::option::of(any::<bool>()),
        ) {
            let mut hdr = Headers::new();
            for (name, values) in headers {
                for value in values {
                    hdr.append(name.clone(), value);
                }
            }
            let meta = Meta {
                key, exp, status, hdr,
                http: Some(Http { method: "GET".into(), path, params, query: "a=b".into() }),
                err: Some(Failure { code, message: String::new(), transient }),
                ..Meta::default()
            };
            let encoded = meta.encode();
            prop_assert_eq!(Meta::deadline(&encoded).unwrap(), meta.exp);
            prop_assert_eq!(Meta::decode(&encoded).unwrap(), meta);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Meta::decode(&bytes);
            let _ = Meta::deadline(&bytes);
        }
    }

    #[test]
    fn a_deadline_is_read_from_an_object_only() {
        assert!(Meta::deadline(b"[5]").is_err());
        assert_eq!(Meta::deadline(b" {\"exp\":5}").unwrap(), Some(5));
    }

    #[test]
    fn unknown_keys_survive() {
        let meta = Meta::decode(br#"{"exp":1,"later":{"a":[1]}}"#).unwrap();
        assert_eq!(&meta.encode()[..], br#"{"exp":1,"later":{"a":[1]}}"#);
    }
}
