//! Outputs, as several scripts take them: number of the key, terms, the six fields of the message. The terms are `0`: none;
//! `1`: the key is an inbox; `2`: due time, key of what is stored once, and how long that is remembered follow, each or empty.

use std::time::Duration;

use streamerson_core::{Append, Message, Once, Topic};

use super::Call;
use crate::port::arguments::Arguments;
use crate::port::failure::Failure;
use crate::port::keys::Keys;

/// The topics that outputs may name, by their numbers among the keys.
pub(super) struct Outputs {
    topics: Vec<Topic>,
    first: usize,
}

impl Outputs {
    /// The keys of `call` from the one with the number `first` on.
    pub(super) fn of(call: &Call, keys: &Keys, first: usize) -> Result<Outputs, Failure> {
        let named = call.keys.iter().skip(first - 1);
        let topics = named
            .map(|key| keys.stream(key))
            .collect::<Result<_, _>>()?;
        Ok(Outputs { topics, first })
    }

    /// The next output among `arguments`.
    pub(super) fn next(&self, arguments: &mut Arguments) -> Result<Append, Failure> {
        let number = arguments.count()?;
        let index = number.checked_sub(self.first);
        let topic = index.and_then(|index| self.topics.get(index));
        let topic = topic.ok_or_else(|| Failure::err("an output names a key that is not there"))?;
        let terms = arguments.next()?;
        let message = Message {
            id: arguments.text()?,
            kind: arguments.text()?,
            corr: arguments.text()?,
            reply: arguments.text()?,
            meta: arguments.next()?,
            data: arguments.next()?,
        };
        let mut append = Append::new(topic.clone(), message);
        if terms == "2" {
            let due = arguments.optional_millis()?;
            let key = arguments.text()?;
            let keep = arguments.optional_millis()?.unwrap_or(0);
            if let Some(due) = due {
                append = append.due_at(due);
            }
            if !key.is_empty() {
                append = append.once(Once::new(key, Duration::from_millis(keep)));
            }
        }
        Ok(append)
    }

    /// All that is left of `arguments`.
    pub(super) fn rest(&self, arguments: &mut Arguments) -> Result<Vec<Append>, Failure> {
        let mut appends = Vec::new();
        while arguments.left() > 0 {
            appends.push(self.next(arguments)?);
        }
        Ok(appends)
    }
}
