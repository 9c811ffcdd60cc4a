//! Connections of other runtimes than the one the broker was connected on.
//!
//! A connection is driven by the runtime it was opened on. Signs of life must not depend on whether that one runs, because
//! handlers may keep all its threads busy: whoever gives them from another runtime has a connection there.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use streamerson_core::Result;
use streamerson_core::stats::IncidentCounts;
use tokio::runtime::{Handle, Id};

use super::{Commands, Connector};

pub(super) struct Abroad {
    home: Id,
    connector: Arc<Connector>,
    counts: Arc<IncidentCounts>,
    opened: Mutex<Vec<(Id, Commands)>>,
}

impl fmt::Debug for Abroad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Abroad").finish_non_exhaustive()
    }
}

impl Abroad {
    /// At home is the present runtime.
    pub(super) fn new(connector: Arc<Connector>, counts: Arc<IncidentCounts>) -> Abroad {
        Abroad {
            home: Handle::current().id(),
            connector,
            counts,
            opened: Mutex::default(),
        }
    }

    /// The connection of the present runtime; `None` at home. It ends with that runtime.
    pub(super) async fn here(&self) -> Result<Option<Commands>> {
        let id = Handle::current().id();
        if id == self.home {
            return Ok(None);
        }
        if let Some(commands) = self.opened(id) {
            return Ok(Some(commands));
        }
        let commands = Commands::connect(self.connector.clone(), self.counts.clone()).await?;
        // Of two opened at the same time, one is used from now on; the other ends when it was.
        Ok(Some(self.opened(id).unwrap_or_else(|| {
            self.opened.lock().push((id, commands.clone()));
            commands
        })))
    }

    fn opened(&self, id: Id) -> Option<Commands> {
        let mut opened = self.opened.lock();
        opened.retain(|(_, commands)| !commands.has_ended());
        let here = opened.iter().find(|(at, _)| *at == id);
        here.map(|(_, commands)| commands.clone())
    }
}
