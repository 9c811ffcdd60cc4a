//! What an effect outside of the broker needs, so that it happens once.

use std::convert::Infallible;
use std::fmt;

use streamerson_core::Position;

use super::FromRequest;
use super::delivery::meta;
use crate::{Problem, Request, dedupe};

/// Names what the caller wants to happen, the same with every attempt: the `Idempotency-Key` of the caller, or else the id of
/// the message. Hand it to a service that takes idempotency keys, or put it under a unique index of your database, in the
/// transaction of the effect.
///
/// Keys of callers are the same thing only within a message type.
///
/// ```
/// use streamerson::{IdempotencyKey, Json};
///
/// async fn charge(IdempotencyKey(key): IdempotencyKey, Json(cents): Json<u64>) {
///     // payments.charge(cents).idempotency_key(key).await
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(pub String);

impl<S: Sync> FromRequest<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request(request: &Request, _: &S) -> Result<IdempotencyKey, Problem> {
        let key = dedupe::key_in(&meta(request)?.hdr);
        Ok(IdempotencyKey(
            key.unwrap_or(&request.message().id).to_owned(),
        ))
    }
}

/// A token that grows with every delivery of one message, so that an outside system can refuse a handler that was taken for
/// dead and acts late: store the token with what it protects, and take only what has a greater or equal one.
///
/// Between messages it compares only where one member at a time owns the topic (ordered topics): there it also grows with
/// every new owner, and within one owner with every message of a key. In a topic whose members share the work, compare tokens of
/// the same message only.
///
/// It is a token to hand on. What the broker itself asks of the owner of a topic is a [`core::Fence`](crate::core::Fence), which the worker
/// sees to.
///
/// As text it is of fixed width, and sorts as it compares:
///
/// ```
/// use streamerson::{Fence, Problem};
///
/// async fn write(fence: Fence) -> Result<(), Problem> {
///     // UPDATE stock SET count = $1, fence = $2 WHERE item = $3 AND fence <= $2
///     let token = fence.to_string();
///     assert_eq!(token.len(), 59);
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence {
    epoch: u64,
    position: Position,
    attempt: u32,
}

impl Fence {
    /// The epoch of the lease under which the topic is owned; 0 when its members share the work.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Where the message stands in its topic.
    pub fn position(&self) -> Position {
        self.position
    }

    /// How often the message has been delivered, this time included.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = (self.position.major(), self.position.minor());
        write!(
            f,
            "{:016x}-{major:016x}-{minor:016x}-{:08x}",
            self.epoch, self.attempt
        )
    }
}

impl<S: Sync> FromRequest<S> for Fence {
    type Rejection = Infallible;

    async fn from_request(request: &Request, _: &S) -> Result<Fence, Infallible> {
        Ok(Fence {
            epoch: request.epoch(),
            position: request.position(),
            attempt: request.attempt(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_sorts_as_text_as_it_compares() {
        let fence = |epoch, major, minor, attempt| Fence {
            epoch,
            position: Position::new(major, minor),
            attempt,
        };
        let grown = [
            fence(0, 9, 0, 1),
            fence(0, 9, 0, 2),
            fence(0, 9, 1, 1),
            fence(0, 10, 0, 1),
            fence(1, 9, 0, 16),
            fence(u64::MAX, u64::MAX, u64::MAX, u32::MAX),
        ];
        assert!(grown.is_sorted());
        assert!(grown.map(|fence| fence.to_string()).is_sorted());
    }
}
