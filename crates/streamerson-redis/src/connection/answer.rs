//! What came back.

use std::fmt::Display;

use bytes::Bytes;
use streamerson_core::{Error, Result};

use crate::error;
use crate::wire::{Item, Reply, Walk};

/// The replies to one request, as far as they arrived.
#[derive(Debug)]
pub(crate) struct Answer {
    walk: Walk,
    lost: Option<Error>,
}

impl Answer {
    /// All replies.
    pub(crate) fn whole(bytes: Bytes) -> Answer {
        Answer {
            walk: Walk::new(bytes),
            lost: None,
        }
    }

    /// The replies that arrived before the connection was lost; the others are `lost`.
    pub(crate) fn partial(bytes: Bytes, lost: Error) -> Answer {
        Answer {
            walk: Walk::new(bytes),
            lost: Some(lost),
        }
    }

    /// The next reply. Refusals are errors, told about `what`.
    pub(crate) fn next(&mut self, what: impl Display) -> Result<Reply> {
        let mut ahead = self.walk.clone();
        match ahead.reply() {
            Ok(reply) => {
                self.walk = ahead;
                match reply {
                    Reply::Error(refusal) => Err(error::refused(&refusal, what)),
                    reply => Ok(reply),
                }
            }
            Err(_) => Err(self.incomplete(what)),
        }
    }

    /// The next reply, which is a text or a refusal.
    pub(crate) fn next_text(&mut self, what: impl Display) -> Result<Bytes> {
        match self.walk.item() {
            Ok(Item::Text(text)) => Ok(text),
            Ok(Item::Error(refusal)) => Err(error::refused(&refusal, what)),
            _ => Err(self.incomplete(what)),
        }
    }

    /// Whether the next reply is the error `code`.
    pub(crate) fn is_refused_with(&self, code: &str) -> bool {
        match self.walk.clone().item() {
            Ok(Item::Error(refusal)) => refusal.starts_with(code.as_bytes()),
            _ => false,
        }
    }

    /// The only reply, to be walked through, unless it is a refusal.
    pub(crate) fn into_walk(self, what: impl Display) -> Result<Walk> {
        match self.walk.clone().item() {
            Ok(Item::Error(refusal)) => Err(error::refused(&refusal, what)),
            // A lone reply is either here whole or not at all.
            _ => self.lost.map_or(Ok(self.walk), Err),
        }
    }

    fn incomplete(&mut self, what: impl Display) -> Error {
        // What follows a broken reply cannot be told apart any more.
        self.walk = Walk::new(Bytes::new());
        self.lost.clone().unwrap_or_else(|| error::unexpected(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrived_before_the_loss_counts() {
        let lost = Error::unknown("answer-lost", "gone");
        let bytes = Bytes::from_static(b"$3\r\n1-0\r\n-OOM no\r\n$3\r\n1-");
        let mut answer = Answer::partial(bytes, lost);
        assert_eq!(answer.next_text("append").unwrap(), "1-0");
        let code = |result: Result<Bytes>| result.unwrap_err().code();
        assert_eq!(code(answer.next_text("append")), "broker-out-of-memory");
        assert_eq!(code(answer.next_text("append")), "answer-lost");
        assert_eq!(code(answer.next_text("append")), "answer-lost");
    }
}
