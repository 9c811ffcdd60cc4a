//! The connection that all commands share.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use streamerson_core::stats::IncidentCounts;
use streamerson_core::{Error, Result};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::abroad::Abroad;
use super::driver::Driver;
use super::live::Outgoing;
use super::{Answer, Connector, PATIENCE};
use crate::error;
use crate::script::Script;
use crate::wire::Request;

const QUEUE: usize = 256;

/// Sends commands. Cheap to clone; what is called meanwhile is written together, in one go.
#[derive(Debug, Clone)]
pub(crate) struct Commands {
    queue: mpsc::Sender<Outgoing>,
    connector: Arc<Connector>,
    abroad: Arc<Abroad>,
}

impl Commands {
    /// Connects, and keeps connected from then on.
    pub(crate) async fn connect(
        connector: Arc<Connector>,
        counts: Arc<IncidentCounts>,
    ) -> Result<Commands> {
        let socket = connector.open().await?;
        let (queue, requests) = mpsc::channel(QUEUE);
        let driver = Driver {
            connector: connector.clone(),
            requests,
            counts: counts.clone(),
            unsent: VecDeque::new(),
            closing: false,
        };
        // Ends by itself when the last clone is gone and all is answered.
        tokio::spawn(driver.run(socket));
        Ok(Commands {
            queue,
            abroad: Arc::new(Abroad::new(connector.clone(), counts)),
            connector,
        })
    }

    /// The same, over a connection that does not need the runtime of this one to run; opened with the first use from there.
    pub(crate) async fn here(&self) -> Result<Commands> {
        // Boxed, because opening one goes through here again.
        let abroad: BoxFuture<'_, _> = Box::pin(self.abroad.here());
        Ok(abroad.await?.unwrap_or_else(|| self.clone()))
    }

    /// Whether the runtime it was opened on is gone.
    pub(super) fn has_ended(&self) -> bool {
        self.queue.is_closed()
    }

    /// Sends `request` and waits for its `replies`. Never sent twice.
    ///
    /// `Unavailable`: nothing was sent. Whatever is lost later is `Unknown`, reply by reply. Once queued, the request
    /// is sent even if this future is dropped.
    pub(crate) async fn call(&self, request: Request, replies: usize) -> Result<Answer> {
        self.submit(request.into_chunks(), replies).await
    }

    /// Runs `script`, with the keys and arguments in `call` (made by [`Script::call`]).
    pub(crate) async fn run(&self, script: &Script, call: Request) -> Result<Answer> {
        let chunks = call.into_chunks();
        let answer = self.submit(chunks.clone(), 1).await?;
        if !answer.is_refused_with("NOSCRIPT") {
            return Ok(answer);
        }
        // Redis was restarted or flushed its scripts. Nothing has run, so this is no repetition.
        let mut again = Request::of(&["SCRIPT", "LOAD", script.text()]).into_chunks();
        again.extend(chunks);
        let mut answer = self.submit(again, 2).await?;
        answer.next_text("SCRIPT LOAD")?;
        Ok(answer)
    }

    async fn submit(&self, chunks: Vec<Bytes>, replies: usize) -> Result<Answer> {
        let give_up = Instant::now() + PATIENCE;
        let (request, answer) = Outgoing::new(chunks, replies, give_up);
        match self.queue.try_send(request) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(request)) => {
                let room = timeout_at(give_up, self.queue.reserve()).await;
                match room {
                    Ok(Ok(room)) => room.send(request),
                    Ok(Err(_)) => return Err(self.ended()),
                    Err(_) => return Err(self.overloaded()),
                }
            }
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(self.ended()),
        }
        answer.await.unwrap_or_else(|_| {
            Err(error::lost(
                self.connector.target(),
                "its runtime has ended",
            ))
        })
    }

    fn overloaded(&self) -> Error {
        Error::unavailable(
            "broker-overloaded",
            format!(
                "{QUEUE} requests wait for {}, and none has left for 1 s",
                self.connector.target()
            ),
        )
    }

    fn ended(&self) -> Error {
        Error::closed(format!(
            "the connection to {} ended with the runtime it was opened on",
            self.connector.target()
        ))
    }
}
