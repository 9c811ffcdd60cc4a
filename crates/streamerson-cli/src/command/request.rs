//! `streamerson request`: sends a message and waits for the answer.

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use streamerson::Client;
use streamerson_core::time::millis;
use streamerson_core::{Message, Meta};
use tokio::time::Instant;

use crate::destination::Destination;
use crate::duration;
use crate::endpoint::BrokerArgs;
use crate::failure::{Exit, Failure, Result};
use crate::output::{self, Format};
use crate::payload::PayloadArgs;
use crate::view::Reply;

/// Send a message, and print the payload of the answer
///
/// The exit code tells the outcome: 0 for an answer, 3 for one with status 404, 4 for 409, 5 for 401 and 403,
/// 1 for any other failure, 6 when nothing was sent, 124 when no answer came in time.
#[derive(Debug, Args)]
pub(crate) struct Request {
    #[command(flatten)]
    destination: Destination,

    #[command(flatten)]
    payload: PayloadArgs,

    /// How long to wait; after that no worker begins with it any more
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration::parse)]
    timeout: Duration,

    /// How to print the answer: its payload, or an object with id, status, meta and payload
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    broker: BrokerArgs,
}

impl Request {
    pub(crate) async fn run(self) -> Result<()> {
        self.destination.check()?;
        let data = self.payload.read()?;
        let client = Client::open(self.broker.connect().await?).await?;
        let deadline = Instant::now() + self.timeout;
        let meta = Meta {
            exp: Some(client.broker_unix_ms().saturating_add(millis(self.timeout))),
            ..self.payload.meta()
        };
        let message = Message::new(self.destination.kind.as_str(), data).with_meta(&meta);
        let reply = client
            .dispatch(self.destination.topic.clone(), message, deadline)
            .await
            .map_err(|error| self.unanswered(error))?;
        let meta = reply.parse_meta()?;
        let status = meta.status.unwrap_or(200);
        match self.output {
            Format::Json => output::json(&Reply {
                message: &reply,
                status,
            })?,
            Format::Table => show(&reply, &meta)?,
        }
        match Exit::of_status(status) {
            None => Ok(()),
            Some(exit) => Err(refused(exit, status, meta)),
        }
    }

    fn unanswered(&self, error: streamerson_core::Error) -> Failure {
        let failure = Failure::from(error);
        match failure.exit() {
            Exit::Timeout => failure.with_help(format!(
                "is a worker running? `streamerson topic show {}` shows the groups that read the topic",
                self.destination.topic
            )),
            _ => failure,
        }
    }
}

/// The payload as it is; only a terminal gets a line feed after JSON that lacks one, and no control characters.
fn show(reply: &Message, meta: &Meta) -> std::io::Result<()> {
    if reply.data.is_empty() {
        return Ok(());
    }
    let is_text = meta.ctype.is_none() || std::io::stdout().is_terminal();
    if is_text {
        return output::text(&reply.data);
    }
    output::bytes(&reply.data)
}

fn refused(exit: Exit, status: u16, meta: Meta) -> Failure {
    let err = meta.err.unwrap_or_default();
    let code = match err.code.is_empty() {
        true => format!("status-{status}"),
        false => err.code,
    };
    let detail = match err.message.is_empty() {
        true => format!("the answer has status {status}"),
        false => format!(
            "the answer has status {status}: {}",
            output::plain(&err.message)
        ),
    };
    Failure::new(exit, code, detail)
}
