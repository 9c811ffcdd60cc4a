//! Names: of topics, and of the groups and members that read them.

use std::fmt;
use std::str::FromStr;

use bytestring::ByteString;

use crate::{Error, Result};

const MAX_LENGTH: usize = 200;
const DEAD_LETTERS: &str = ":dlq";
const INBOX: &str = "inbox.";

/// The name of a topic: `[A-Za-z0-9._-]{1,200}`, cheap to clone.
///
/// Two kinds of topic have reserved names: the dead letters of a topic (`orders:dlq`), and inboxes
/// (`inbox.…`), which the broker bounds and expires. Formatted, all inboxes look the same, because whoever knows the name of
/// one can answer in place of others, and logs are read by many; [`Topic::as_str`] has it.
///
/// ```
/// use streamerson_core::Topic;
///
/// let orders = Topic::new("orders")?;
/// assert_eq!(orders.dead_letters().as_str(), "orders:dlq");
/// assert!(Topic::new("orders/eu").is_err());
/// # Ok::<(), streamerson_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(ByteString);

impl Topic {
    /// Checks `name` and makes it a topic. Accepts the dead letters of a topic (`orders:dlq`) too.
    pub fn new(name: impl Into<ByteString>) -> Result<Topic> {
        let name = name.into();
        let base = name.strip_suffix(DEAD_LETTERS).unwrap_or(&name);
        check("topic", base)?;
        Ok(Topic(name))
    }

    /// The inbox of one gateway or client; `instance` must be unguessable, because whoever knows it can answer.
    pub fn inbox(instance: &str) -> Result<Topic> {
        Topic::new(format!("{INBOX}{instance}"))
    }

    /// The topic that keeps what could not be handled.
    pub fn dead_letters(&self) -> Topic {
        if self.is_dead_letters() {
            return self.clone();
        }
        Topic(format!("{}{DEAD_LETTERS}", self.0).into())
    }

    /// Whether this is the dead-letter topic of another.
    pub fn is_dead_letters(&self) -> bool {
        self.0.ends_with(DEAD_LETTERS)
    }

    /// Whether this is an inbox: bounded, expiring, and not for the public.
    pub fn is_inbox(&self) -> bool {
        self.0.starts_with(INBOX) && !self.is_dead_letters()
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as shared text, for the `reply` field of a message.
    pub fn to_byte_string(&self) -> ByteString {
        self.0.clone()
    }
}

impl FromStr for Topic {
    type Err = Error;

    fn from_str(name: &str) -> Result<Topic> {
        Topic::new(name)
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.starts_with(INBOX) {
            true => write!(f, "{INBOX}…"),
            false => f.write_str(&self.0),
        }
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({self})")
    }
}

/// The name of a consumer group or of one of its members: `[A-Za-z0-9._-]{1,200}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(ByteString);

impl Name {
    /// Checks `name`.
    pub fn new(name: impl Into<ByteString>) -> Result<Name> {
        let name = name.into();
        check("name", &name)?;
        Ok(Name(name))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(name: &str) -> Result<Name> {
        Name::new(name)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({})", self.0)
    }
}

fn check(what: &str, name: &str) -> Result<()> {
    let fits = (1..=MAX_LENGTH).contains(&name.len());
    let clean = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if fits && clean {
        return Ok(());
    }
    Err(Error::invalid(
        "invalid-name",
        format!(
            "{what} {:?} is not a valid name: use 1 to {MAX_LENGTH} of A-Z a-z 0-9 . _ -",
            name.chars().take(64).collect::<String>()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_outside_the_alphabet_are_refused() {
        for name in [
            "",
            "a b",
            "a/b",
            "a:b",
            "{a}",
            "ä",
            "a\n",
            "a:dlq:dlq",
            ":dlq",
        ] {
            assert!(Topic::new(name).is_err(), "{name:?}");
        }
        assert!(Topic::new("x".repeat(200)).is_ok());
        assert!(Topic::new("x".repeat(201)).is_err());
    }

    #[test]
    fn the_name_of_an_inbox_is_not_shown() {
        let inbox = Topic::inbox("01a2-secret").unwrap();
        for topic in [inbox.dead_letters(), inbox] {
            assert_eq!(topic.to_string(), "inbox.…");
            assert_eq!(format!("{topic:?}"), "Topic(inbox.…)");
            assert!(topic.as_str().contains("secret"));
        }
    }

    #[test]
    fn dead_letters_of_dead_letters_are_themselves() {
        let topic = Topic::new("a.b").unwrap();
        assert_eq!(topic.dead_letters(), topic.dead_letters().dead_letters());
    }
}
