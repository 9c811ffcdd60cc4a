//! Where `send` and `request` send to.

use clap::Args;
use streamerson_core::{Name, Topic};

use crate::failure::{Failure, Result};

/// A topic and a message type, as the HTTP edge accepts them too.
#[derive(Debug, Args)]
pub(crate) struct Destination {
    /// Topic to send to
    pub(crate) topic: Topic,

    /// Message type, for example order.create
    #[arg(value_name = "TYPE")]
    pub(crate) kind: String,
}

impl Destination {
    /// Refuses what only the broker's users themselves may write to, and types that are not written like names.
    pub(crate) fn check(&self) -> Result<()> {
        let topic = &self.topic;
        if topic.is_inbox() || topic.is_dead_letters() {
            return Err(Failure::usage(
                "topic-reserved",
                format!("{topic} takes no messages: inboxes hold answers, and dead letters what could not be handled"),
            )
            .with_help("send to the topic that workers read"));
        }
        if Name::new(self.kind.as_str()).is_err() {
            return Err(Failure::usage(
                "invalid-type",
                format!(
                    "{:?} is not a message type: use 1 to 200 of A-Z a-z 0-9 . _ -",
                    self.kind.chars().take(64).collect::<String>()
                ),
            ));
        }
        Ok(())
    }
}
