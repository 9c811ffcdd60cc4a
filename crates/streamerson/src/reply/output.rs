//! What follows from a message besides a reply: the next stage of a pipeline, and further messages.

use bytestring::ByteString;

use super::{IntoReply, Reply, Source};
use crate::draft::{Draft, payload_methods, schedule_methods};

/// The next stage of a pipeline: a handler that returns it does not answer; whoever handles that message does, to the
/// original caller. The deadline and the rest of the meta go along.
///
/// ```
/// use streamerson::{Forward, Json};
///
/// async fn check(Json(order): Json<u32>) -> Forward {
///     Forward::to("pricing", "order.price").json(&order)
/// }
/// ```
#[derive(Debug)]
#[must_use = "a message is forwarded only when a handler returns it"]
pub struct Forward {
    draft: Draft,
}

impl Forward {
    /// A message of type `kind` to `topic`.
    pub fn to(topic: impl Into<ByteString>, kind: impl Into<ByteString>) -> Forward {
        Forward {
            draft: Draft::new(topic, kind),
        }
    }

    payload_methods!();
}

impl IntoReply for Forward {
    fn into_reply(self) -> Reply {
        let mut reply = Reply::new("");
        reply.source = Source::Elsewhere(Box::new(self.draft));
        reply
    }
}

/// No answer, although the caller may wait for one: for a group that watches a topic whose messages another group
/// answers, or that handles only some of its types. The message is done for this group.
///
/// ```
/// use streamerson::{NoReply, Router};
///
/// async fn ignore() -> NoReply {
///     NoReply
/// }
///
/// let router: Router = Router::new().fallback(ignore);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoReply;

impl IntoReply for NoReply {
    fn into_reply(self) -> Reply {
        let mut reply = Reply::new("");
        reply.source = Source::Nowhere;
        reply
    }
}

/// A further message that follows from this one; nobody waits for an answer to it. It appears together with the reply,
/// or not at all.
///
/// ```
/// use streamerson::{Json, Publish};
///
/// async fn create(Json(order): Json<u32>) -> (Publish, Json<u32>) {
///     (Publish::to("audit", "order.created").json(&order), Json(order))
/// }
/// ```
///
/// Scheduled, it is stored with the reply and appears later:
///
/// ```
/// use std::time::Duration;
/// use streamerson::Publish;
///
/// let reminder = Publish::to("mail", "order.remind").delay(Duration::from_secs(3600));
/// ```
#[derive(Debug)]
#[must_use = "a message is published only when a handler returns it"]
pub struct Publish {
    pub(super) draft: Draft,
}

impl Publish {
    /// A message of type `kind` to `topic`.
    pub fn to(topic: impl Into<ByteString>, kind: impl Into<ByteString>) -> Publish {
        Publish {
            draft: Draft::new(topic, kind),
        }
    }

    payload_methods!();
    schedule_methods!();
}
