//! Messages as arguments of a script: where each goes, on which terms, and what is in it.

use std::collections::HashMap;

use streamerson_core::Topic;
use streamerson_core::broker::{Append, Once};

use crate::entry;
use crate::wire::Request;

/// Keys are remembered no longer than about 30 years.
const LONGEST_KEEP_MS: u64 = 1 << 40;

/// The topics that outputs go to, each once.
pub(crate) struct Topics<'a> {
    list: Vec<&'a Topic>,
    numbers: HashMap<&'a Topic, u64, ahash::RandomState>,
}

impl<'a> Topics<'a> {
    /// Of these `outputs`; the first has the number `first` among the keys.
    pub(crate) fn of(outputs: impl Iterator<Item = &'a Append>, first: u64) -> Topics<'a> {
        let mut topics = Topics {
            list: Vec::new(),
            numbers: HashMap::default(),
        };
        for output in outputs {
            // Neighbours often go to the same place.
            if topics.list.last() == Some(&&output.topic) {
                continue;
            }
            let next = topics.list.len() as u64 + first;
            topics.numbers.entry(&output.topic).or_insert_with(|| {
                topics.list.push(&output.topic);
                next
            });
        }
        topics
    }

    /// In the order of their numbers.
    pub(crate) fn list(&self) -> &[&'a Topic] {
        &self.list
    }

    fn key(&self, topic: &Topic) -> u64 {
        self.numbers.get(topic).copied().unwrap_or_default()
    }
}

/// Whether `output` has a due time, or a key under which it is stored once.
pub(crate) fn has_terms(output: &Append) -> bool {
    output.due().is_some() || output.only_once().is_some()
}

/// How many arguments [`write`] writes.
pub(crate) fn arguments(output: &Append) -> usize {
    if has_terms(output) { 11 } else { 8 }
}

/// About how many bytes [`write`] copies.
pub(crate) fn size(output: &Append) -> usize {
    entry::copied(&output.message) + 64
}

/// About how many bytes it sends: what Redis has to take in one step.
pub(crate) fn sent(output: &Append) -> usize {
    output.message.size() + 64
}

pub(crate) fn write(call: &mut Request, output: &Append, topics: &Topics<'_>) {
    call.number(topics.key(&output.topic));
    let has_terms = has_terms(output);
    call.arg(match (has_terms, output.topic.is_inbox()) {
        (true, _) => b"2",
        (false, true) => b"1",
        (false, false) => b"0",
    });
    entry::write_values(call, &output.message);
    if !has_terms {
        return;
    }
    match output.due() {
        Some(due) => call.number(due),
        None => call.arg(b""),
    }
    match output.only_once() {
        Some(once) => write_once(call, once),
        None => {
            call.arg(b"");
            call.arg(b"");
        }
    }
}

/// The key, and for how long it is remembered: at least a millisecond, because Redis refuses none.
pub(crate) fn write_once(call: &mut Request, once: &Once) {
    call.arg(once.key.as_bytes());
    let keep = u64::try_from(once.keep.as_millis()).unwrap_or(u64::MAX);
    call.number(keep.clamp(1, LONGEST_KEEP_MS));
}

#[cfg(test)]
mod tests {
    use super::*;
    use streamerson_core::Message;

    #[test]
    fn each_topic_is_a_key_once() {
        let output = |topic: &str| {
            Append::new(
                Topic::new(topic.to_owned()).unwrap(),
                Message::new("t", "d"),
            )
        };
        let outputs = ["a", "b", "b", "a", "c"].map(output);
        let topics = Topics::of(outputs.iter(), 3);
        let names: Vec<&str> = topics.list().iter().map(|topic| topic.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(topics.key(&Topic::new("c").unwrap()), 5);
    }
}
