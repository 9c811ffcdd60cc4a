//! The request: a message on its way through the router.

use std::sync::OnceLock;

use http::Extensions;
use streamerson_core::meta::Http;
use streamerson_core::{Error, Message, Meta, Position, Result, Topic};

use crate::Deadline;

/// A message being handled, as layers and extractors see it.
#[derive(Debug)]
pub struct Request {
    message: Message,
    topic: Topic,
    position: Position,
    attempt: u32,
    epoch: u64,
    deadline: Deadline,
    /// Parsed by the first who needs more of it than the deadline. Boxed, because it is large and most handlers never look.
    meta: OnceLock<Box<Result<Meta>>>,
    extensions: Extensions,
}

impl Request {
    /// The first delivery of `message` from `topic`, for example to test a router without a broker.
    ///
    /// Fails when the `meta` of the message is not a JSON object.
    pub fn new(topic: Topic, message: Message) -> Result<Request> {
        Request::delivered(topic, message, Position::ZERO, 1, 0)
    }

    pub(crate) fn delivered(
        topic: Topic,
        message: Message,
        position: Position,
        attempt: u32,
        epoch: u64,
    ) -> Result<Request> {
        let deadline = Meta::deadline(&message.meta)?.into();
        Ok(Request {
            message,
            topic,
            position,
            attempt,
            epoch,
            deadline,
            meta: OnceLock::new(),
            extensions: Extensions::new(),
        })
    }

    /// The message type, for example `order.create`.
    pub fn kind(&self) -> &str {
        &self.message.kind
    }

    /// The message itself.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The topic it came from.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Where it stands in its topic.
    pub fn position(&self) -> Position {
        self.position
    }

    /// How often it has been delivered, this time included.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The epoch of the lease under which this member owns the topic; 0 when its members share the work.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Until when an answer is of use.
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }

    pub(crate) fn set_deadline(&mut self, deadline: Deadline) {
        self.deadline = deadline;
    }

    /// Everything else, parsed once.
    pub fn meta(&self) -> Result<&Meta> {
        self.meta
            .get_or_init(|| Box::new(self.message.parse_meta()))
            .as_ref()
            .as_ref()
            .map_err(Error::clone)
    }

    /// The HTTP request the message came from, if it came from one.
    pub fn http(&self) -> Result<Option<&Http>> {
        self.meta().map(|meta| meta.http.as_ref())
    }

    /// What layers attach for extractors further in.
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// What layers attach for extractors further in.
    pub fn extensions_mut(&mut self) -> &mut Extensions {
        &mut self.extensions
    }
}
