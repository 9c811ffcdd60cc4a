//! What is remembered of what happens once. It takes memory, and a line in every checkpoint: so it is bounded, over all topics.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytestring::ByteString;
use streamerson_core::once::Answer;
use streamerson_core::{Error, Position, Result};

/// Bytes that may be remembered.
const MOST: usize = 256 << 20;

/// Memory taken by a key beside its text and what was answered.
const OVERHEAD: usize = 256;

/// How much is remembered.
#[derive(Debug, Default)]
pub(crate) struct Room {
    taken: Arc<AtomicUsize>,
}

/// What is remembered under a key. It takes room as long as it is there.
#[derive(Debug)]
pub(crate) struct Kept<T> {
    /// What it is.
    pub(crate) of: T,
    bytes: usize,
    taken: Arc<AtomicUsize>,
}

impl Room {
    /// Whether there is room for `of` under `key`.
    pub(crate) fn check<T: Size>(&self, key: &ByteString, of: &T) -> Result<()> {
        if self.taken.load(Relaxed) + bytes(key, of) <= MOST {
            return Ok(());
        }
        Err(Error::unavailable(
            "too-many-once-keys",
            format!(
                "the {MOST} bytes for keys of what happens once, with what was answered, are in use: keep them for less long, or answer less"
            ),
        ))
    }

    /// Has it take room.
    pub(crate) fn keep<T: Size>(&self, key: &ByteString, of: T) -> Kept<T> {
        let bytes = bytes(key, &of);
        self.taken.fetch_add(bytes, Relaxed);
        Kept {
            of,
            bytes,
            taken: self.taken.clone(),
        }
    }

    /// Whether nothing is remembered.
    pub(crate) fn is_empty(&self) -> bool {
        self.taken.load(Relaxed) == 0
    }
}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.bytes, Relaxed);
    }
}

fn bytes<T: Size>(key: &ByteString, of: &T) -> usize {
    OVERHEAD + key.len() + of.size()
}

/// What takes memory of its own.
pub(crate) trait Size {
    /// Bytes of it.
    fn size(&self) -> usize;
}

impl Size for Position {
    fn size(&self) -> usize {
        0
    }
}

impl Size for Option<Answer> {
    fn size(&self) -> usize {
        self.as_ref()
            .map_or(0, |answer| answer.meta.len() + answer.data.len())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use streamerson_core::{Append, Message, Name, Once, Topic};

    use super::*;
    use crate::engine::GroupKey;
    use crate::engine::op::Pending;
    use crate::engine::state::{Limit, State};
    use crate::engine::terms::{self, Effect};

    fn key() -> GroupKey {
        GroupKey {
            topic: Topic::new("orders").unwrap(),
            group: Name::new("group").unwrap(),
        }
    }

    fn once(name: &str) -> Once {
        Once::new(name.to_owned(), Duration::from_secs(30))
    }

    fn complete(state: &mut State, name: &str, answer: usize, unix_ms: u64) -> Result<()> {
        let inbox = Topic::inbox("caller").unwrap();
        let message = Message::new("test", vec![b'a'; answer]);
        let mut outputs = vec![Pending::of(Append::new(inbox, message))];
        Effect::new(&once(name)).decide(state, &key(), &mut outputs, unix_ms)
    }

    fn append(state: &mut State, name: &str, unix_ms: u64) -> Result<Position> {
        let append = Append::new(key().topic, Message::new("test", "x")).once(once(name));
        terms::place(state, &mut Pending::of(append), unix_ms)
    }

    #[test]
    fn what_is_remembered_is_bounded_in_bytes_over_all_topics() {
        let mut state = State::new(Limit::Cache(1 << 30));
        let large = Some(Answer {
            meta: Bytes::new(),
            data: Bytes::from(vec![0; MOST - 10_000]),
        });
        let other = state.remembered.keep(&"other".into(), large);
        complete(&mut state, "small", 1_000, 0).unwrap();
        let refused = complete(&mut state, "large", 10_000, 0).unwrap_err();
        assert_eq!(refused.code(), "too-many-once-keys");
        let mut appends = (0..1_000).map(|n| append(&mut state, &n.to_string(), 0));
        let refused = appends.find_map(Result::err).unwrap();
        assert_eq!(refused.code(), "too-many-once-keys");
        drop(other);
        // It was not done: nothing stands in the way of another try.
        complete(&mut state, "large", 10_000, 0).unwrap();
    }

    #[test]
    fn what_is_over_takes_no_room_also_where_nothing_happens_any_more() {
        let mut state = State::new(Limit::Cache(1 << 30));
        complete(&mut state, "effect", 1_000, 0).unwrap();
        append(&mut state, "message", 0).unwrap();
        state.forget(29_999);
        assert!(!state.remembered.is_empty());
        state.forget(30_000);
        assert!(state.remembered.is_empty());
        assert!(state.topic(&key().topic).unwrap().effects.is_empty());
    }
}
