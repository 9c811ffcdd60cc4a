//! Dead letters by what they have in common: many letters, few causes.

use std::collections::BTreeMap;

use serde::Serialize;
use streamerson_core::Position;

use super::letter::Letter;
use crate::duration::short;

/// How many causes are told apart; letters of more are counted together.
const MOST: usize = 1000;

/// The columns of [`Cause::row`].
pub(super) const CAUSES: [&str; 7] = [
    "TOPIC",
    "CODE",
    "TYPE",
    "COUNT",
    "FIRST",
    "LAST",
    "FOR EXAMPLE",
];

/// Letters of one code and type.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Cause {
    topic: String,
    code: String,
    #[serde(rename = "type")]
    kind: String,
    count: u64,
    first: String,
    last: String,
    /// The newest reason.
    reason: String,
    #[serde(skip)]
    ends: (Position, Position),
}

/// Counts letters by cause.
#[derive(Debug, Default)]
pub(super) struct Causes {
    found: BTreeMap<(String, String), Cause>,
}

impl Causes {
    /// Adds a letter of `topic`; letters come in order.
    pub(super) fn add(&mut self, topic: &str, letter: &Letter) {
        let mut key = (letter.why.code.clone(), letter.kind().to_owned());
        if self.found.len() >= MOST && !self.found.contains_key(&key) {
            key = ("other".into(), "other".into());
        }
        let position = letter.position;
        let (code, kind) = key.clone();
        let cause = self.found.entry(key).or_insert_with(|| Cause {
            topic: topic.to_owned(),
            code,
            kind,
            count: 0,
            first: position.to_string(),
            last: String::new(),
            reason: String::new(),
            ends: (position, position),
        });
        cause.count += 1;
        cause.last = position.to_string();
        cause.reason.clone_from(&letter.why.reason);
        cause.ends.1 = position;
    }

    /// The causes, the most frequent first.
    pub(super) fn into_causes(self) -> Vec<Cause> {
        let mut causes: Vec<Cause> = self.found.into_values().collect();
        causes.sort_by_key(|cause| std::cmp::Reverse(cause.count));
        causes
    }
}

impl Cause {
    pub(super) fn row(&self, now_unix_ms: u64) -> Vec<String> {
        let ago = |position: Position| format!("{} ago", short(position.age(now_unix_ms)));
        vec![
            self.topic.clone(),
            self.code.clone(),
            self.kind.clone(),
            self.count.to_string(),
            ago(self.ends.0),
            ago(self.ends.1),
            super::ls::cut(&self.reason),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use streamerson_core::meta::DeadLetter;

    fn letter(position: u64, code: &str) -> Letter {
        Letter {
            position: Position::new(position, 0),
            message: None,
            why: DeadLetter {
                code: code.into(),
                ..DeadLetter::default()
            },
        }
    }

    #[test]
    fn letters_of_one_cause_are_one_line() {
        let mut causes = Causes::default();
        for (position, code) in [(1, "busy"), (2, "wrong"), (5, "busy")] {
            causes.add("orders", &letter(position, code));
        }
        let causes = causes.into_causes();
        assert_eq!(causes.len(), 2);
        let busy = &causes[0];
        assert_eq!((busy.code.as_str(), busy.count), ("busy", 2));
        assert_eq!((busy.first.as_str(), busy.last.as_str()), ("1-0", "5-0"));
    }

    #[test]
    fn causes_are_bounded() {
        let mut causes = Causes::default();
        for n in 0..2 * MOST as u64 {
            causes.add("orders", &letter(n, &format!("code-{n}")));
        }
        let causes = causes.into_causes();
        assert_eq!(causes.len(), MOST + 1);
        assert_eq!(
            (causes[0].code.as_str(), causes[0].count),
            ("other", MOST as u64)
        );
    }
}
