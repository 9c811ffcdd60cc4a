//! What happens once: remembered keys, and what a repetition leaves of its outputs.
//!
//! Pure: `now` in, decisions out. The in-memory and the embedded broker drive it; Redis keeps the same rules in scripts.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;

use crate::broker::{Append, Once};
use crate::time::{Millis, millis};
use crate::{Error, Result, Topic};

/// The longest key, in bytes.
pub const LONGEST_KEY: usize = 512;

impl Once {
    /// What a caller means by its idempotency `key` in messages of type `kind`: the same thing only within that type. A key that
    /// is empty or too long is [`Invalid`](crate::ErrorKind::Invalid), code `invalid-idempotency-key`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use streamerson_core::Once;
    ///
    /// let day = Duration::from_secs(24 * 60 * 60);
    /// assert_eq!(Once::of_caller("card.charge", "7f3a", day)?.key, "key:card.charge:7f3a");
    /// # Ok::<(), streamerson_core::Error>(())
    /// ```
    pub fn of_caller(kind: &str, key: &str, keep: Duration) -> Result<Once> {
        let once = Once::new(format!("key:{kind}:{key}"), keep);
        if key.is_empty() || once.check().is_err() {
            return Err(Error::invalid(
                "invalid-idempotency-key",
                format!(
                    "an idempotency key of {} bytes is empty, or too long to be remembered: use 1 to {}, for example a UUID",
                    key.len(),
                    LONGEST_KEY.saturating_sub(kind.len() + "key::".len())
                ),
            ));
        }
        Ok(once)
    }

    /// The message with this `id`, however often it was stored.
    pub fn of_message(id: &str, keep: Duration) -> Once {
        Once::new(format!("id:{id}"), keep)
    }

    /// Refuses a key that is empty or too long: [`Invalid`](crate::ErrorKind::Invalid), code `invalid-once-key`.
    pub fn check(&self) -> Result<()> {
        if (1..=LONGEST_KEY).contains(&self.key.len()) {
            return Ok(());
        }
        Err(Error::invalid(
            "invalid-once-key",
            format!(
                "a key for what is to happen once has {} bytes: use 1 to {LONGEST_KEY}, for example a hash of it",
                self.key.len()
            ),
        ))
    }
}

/// The most keys that are remembered of a topic, and of a group of it: each takes memory, and where it is durable, a line in
/// every checkpoint.
const MOST_KEYS: usize = if cfg!(test) { 1_000 } else { 1_000_000 };

/// Keys, each with what became of its first use, until it is forgotten.
///
/// ```
/// use std::time::Duration;
/// use streamerson_core::Once;
/// use streamerson_core::once::Remembered;
///
/// let mut seen = Remembered::default();
/// seen.remember(&Once::new("order-7", Duration::from_secs(1)), "first", 0);
/// assert_eq!(seen.recall("order-7", 999), Some(&"first"));
/// assert_eq!(seen.recall("order-7", 1000), None);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered<T> {
    keys: HashMap<ByteString, Memory<T>>,
    by_end: BTreeSet<(Millis, ByteString)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Memory<T> {
    of: T,
    until: Millis,
}

impl<T> Default for Remembered<T> {
    fn default() -> Remembered<T> {
        Remembered {
            keys: HashMap::new(),
            by_end: BTreeSet::new(),
        }
    }
}

impl<T> Remembered<T> {
    /// What the first use of `key` was, if it is still remembered.
    pub fn recall(&self, key: &str, now: Millis) -> Option<&T> {
        let memory = self.keys.get(key)?;
        (memory.until > now).then_some(&memory.of)
    }

    /// Notes the first use of a key; what is over is forgotten.
    pub fn remember(&mut self, once: &Once, of: T, now: Millis) {
        self.forget(now);
        self.restore(once.key.clone(), of, now.saturating_add(millis(once.keep)));
    }

    /// Notes that `key` is remembered until a time, for example read from storage.
    pub fn restore(&mut self, key: ByteString, of: T, until: Millis) {
        self.by_end.insert((until, key.clone()));
        if let Some(before) = self.keys.insert(key.clone(), Memory { of, until })
            && before.until != until
        {
            self.by_end.remove(&(before.until, key));
        }
    }

    /// Forgets what is over.
    pub fn forget(&mut self, now: Millis) {
        while let Some((until, _)) = self.by_end.first()
            && *until <= now
            && let Some((_, key)) = self.by_end.pop_first()
        {
            self.keys.remove(&key);
        }
    }

    /// Forgets one key, as if its time were over.
    pub fn remove(&mut self, key: &str) -> Option<T> {
        let (key, memory) = self.keys.remove_entry(key)?;
        self.by_end.remove(&(memory.until, key));
        Some(memory.of)
    }

    /// Refuses a further key when there are a million that are not over; they are those of `topic`, or of a group of it.
    /// [`Unavailable`](crate::ErrorKind::Unavailable), code `too-many-once-keys`.
    pub fn check_room(&self, topic: &Topic, now: Millis) -> Result<()> {
        let is_over = self.by_end.first().is_some_and(|(until, _)| *until <= now);
        if self.keys.len() < MOST_KEYS || is_over {
            return Ok(());
        }
        Err(Error::unavailable(
            "too-many-once-keys",
            format!(
                "{MOST_KEYS} keys of what happens once are remembered in {topic} already: keep them for less long"
            ),
        ))
    }

    /// Everything remembered: key, first use, and until when; those that end first come first.
    pub fn iter(&self) -> impl Iterator<Item = (&ByteString, &T, Millis)> {
        let keys = self.by_end.iter();
        keys.filter_map(|(until, key)| Some((key, &self.keys.get(key)?.of, *until)))
    }

    /// How many keys are remembered; some of them may be over.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

/// What the first completion of a key answered; later ones answer the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The `meta` of the answer.
    pub meta: Bytes,
    /// Its `data`.
    pub data: Bytes,
}

impl Answer {
    /// The first answer to an inbox among `outputs`.
    pub fn among(outputs: &[Append]) -> Option<Answer> {
        let first = outputs.iter().find(|output| output.topic.is_inbox())?;
        Some(Answer {
            meta: first.message.meta.clone(),
            data: first.message.data.clone(),
        })
    }
}

/// What appears of the outputs of a completion whose key was completed before: answers to inboxes, each saying what the
/// `first` one said, if it said anything.
pub fn repeated(mut outputs: Vec<Append>, first: Option<&Answer>) -> Vec<Append> {
    outputs.retain(|output| output.topic.is_inbox());
    if let Some(answer) = first {
        for output in &mut outputs {
            output.message.meta = answer.meta.clone();
            output.message.data = answer.data.clone();
        }
    }
    outputs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Message, Topic};
    use proptest::prelude::*;

    fn keep(key: &str, ms: u64) -> Once {
        Once::new(key.to_owned(), Duration::from_millis(ms))
    }

    #[test]
    fn keys_are_of_1_to_512_bytes() {
        for (length, fits) in [(0, false), (1, true), (512, true), (513, false)] {
            assert_eq!(keep(&"k".repeat(length), 1).check().is_ok(), fits);
        }
    }

    #[test]
    fn what_is_over_takes_no_room() {
        let mut seen = Remembered::default();
        for n in 0..1000 {
            seen.remember(&keep(&n.to_string(), 10), (), n);
        }
        assert!(seen.len() <= 10);
        assert_eq!(seen.keys.len(), seen.by_end.len());
    }

    #[test]
    fn a_key_that_is_removed_can_be_used_again() {
        let mut seen = Remembered::default();
        seen.remember(&keep("a", 10), 1, 0);
        assert_eq!(seen.remove("a"), Some(1));
        assert_eq!((seen.remove("a"), seen.recall("a", 0)), (None, None));
        seen.remember(&keep("a", 20), 2, 0);
        assert_eq!(seen.recall("a", 15), Some(&2));
    }

    #[test]
    fn keeping_for_ever_does_not_overflow() {
        let mut seen = Remembered::default();
        seen.remember(&Once::new("a", Duration::MAX), (), 5);
        assert!(seen.recall("a", u64::MAX - 1).is_some());
    }

    #[test]
    fn a_repetition_answers_what_the_first_answered_and_nothing_else() {
        let (inbox, next) = (Topic::inbox("gw").unwrap(), Topic::new("next").unwrap());
        let to =
            |topic: &Topic, data: &'static str| Append::new(topic.clone(), Message::new("a", data));
        let answer = Answer::among(&[to(&next, "x"), to(&inbox, "first"), to(&inbox, "second")]);
        let later = vec![to(&next, "again"), to(&inbox, "later")];
        let appears = repeated(later.clone(), answer.as_ref());
        assert_eq!(appears.len(), 1);
        assert_eq!(&appears[0].message.data[..], b"first");
        assert_eq!(appears[0].message.id, later[1].message.id);
        assert_eq!(repeated(later.clone(), None), later[1..]);
        assert_eq!(Answer::among(&[to(&next, "x")]), None);
    }

    proptest! {
        /// As a list of uses says, searched from its end.
        #[test]
        fn remembers_as_long_as_asked(
            uses in proptest::collection::vec((0u8..5, 0u64..50, 0u64..20), 0..100)
        ) {
            let mut seen = Remembered::default();
            let mut now = 0;
            let mut log: Vec<(u8, usize, u64)> = Vec::new();
            for (n, (key, ms, pass)) in uses.into_iter().enumerate() {
                now += pass;
                let expected = log.iter().rev().find(|(k, _, _)| *k == key);
                let expected = expected.filter(|(_, _, until)| *until > now).map(|(_, n, _)| *n);
                prop_assert_eq!(seen.recall(&key.to_string(), now).copied(), expected);
                if expected.is_none() {
                    seen.remember(&keep(&key.to_string(), ms), n, now);
                    log.push((key, n, now + ms));
                }
                prop_assert_eq!(seen.keys.len(), seen.by_end.len());
            }
        }
    }
}
