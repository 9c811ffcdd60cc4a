//! `streamerson send`: appends a message that wants no answer.

use clap::Args;
use serde::Serialize;
use streamerson_core::{Append, Message, Position};

use crate::destination::Destination;
use crate::endpoint::BrokerArgs;
use crate::failure::Result;
use crate::output::{self, Format};
use crate::payload::PayloadArgs;

/// Append a message to a topic, and print its id and position
#[derive(Debug, Args)]
pub(crate) struct Send {
    #[command(flatten)]
    destination: Destination,

    #[command(flatten)]
    payload: PayloadArgs,

    /// How to print the result
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    broker: BrokerArgs,
}

#[derive(Serialize)]
struct Sent<'a> {
    id: &'a str,
    #[serde(serialize_with = "as_text")]
    position: Position,
}

impl Send {
    pub(crate) async fn run(self) -> Result<()> {
        self.destination.check()?;
        let data = self.payload.read()?;
        let broker = self.broker.connect().await?;
        let message = Message::new(self.destination.kind, data).with_meta(&self.payload.meta());
        let id = message.id.clone();
        let answers = broker
            .append(vec![Append::new(self.destination.topic, message)])
            .await;
        let position = answers.into_iter().next().unwrap_or_else(no_answer)?;
        match self.output {
            Format::Table => output::line(format!("{id} {position}").as_bytes())?,
            Format::Json => output::json(&Sent { id: &id, position })?,
        }
        Ok(())
    }
}

fn no_answer() -> streamerson_core::Result<Position> {
    Err(streamerson_core::Error::unknown(
        "no-position",
        "the broker did not say whether the message is stored",
    ))
}

fn as_text<S: serde::Serializer>(position: &Position, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(position)
}
