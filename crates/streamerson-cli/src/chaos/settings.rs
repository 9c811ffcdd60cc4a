//! What is to be done in a run.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use streamerson_core::{Name, Topic, partition};

use super::fault::Fault;

/// The settings of a run.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) system: Wanted,
    pub(crate) namespace: Name,
    pub(crate) faults: Vec<Fault>,
    /// The least number of requests.
    pub(crate) requests: usize,
    /// The least number of workers killed.
    pub(crate) kills: usize,
    /// The least time under load.
    pub(crate) duration: Duration,
    pub(crate) kill_every: Duration,
    pub(crate) lease: Duration,
    /// Requests per second.
    pub(crate) rate: u32,
    pub(crate) workers: usize,
    pub(crate) seed: u64,
    pub(crate) takeover_within: Option<Duration>,
    /// Where files of the run are kept; none: in a temporary folder that goes with it.
    pub(crate) files: Option<PathBuf>,
}

impl Settings {
    /// How long a caller waits for an answer: long enough for a message whose worker was lost twice.
    pub(crate) fn patience(&self) -> Duration {
        2 * self.lease + Duration::from_secs(5)
    }

    /// How long the rest of the work may take after the last fault: what stops its workers needs every attempt it has.
    pub(crate) fn drain(&self) -> Duration {
        8 * self.lease + Duration::from_secs(20)
    }
}

/// The system that the run is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// A private `streamerson dev`.
    Embedded,
    /// A private redis-server.
    Redis,
    /// One that runs already.
    Running(SocketAddr),
}

/// The topics and the group of one run. They are its own: what others have on the same broker is not touched.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    /// What the names of all topics begin with.
    pub(crate) prefix: String,
    pub(crate) work: Topic,
    /// Work in the order of keys, in partitions.
    pub(crate) keyed: Topic,
    pub(crate) effects: Topic,
    pub(crate) group: Name,
}

impl Names {
    /// The names of the run with this id.
    pub(crate) fn new(run: &str) -> streamerson_core::Result<Names> {
        let prefix = format!("chaos-{run}-");
        Ok(Names {
            work: Topic::new(format!("{prefix}work"))?,
            keyed: Topic::new(format!("{prefix}keyed"))?,
            effects: Topic::new(format!("{prefix}effects"))?,
            prefix,
            group: Name::new("workers")?,
        })
    }

    /// The name of the lease of whoever owns a partition.
    pub(crate) fn owner(&self) -> String {
        format!("owner.{}", self.group)
    }

    /// Every stream that workers read, by its number: queued work, and the partitions of the rest.
    pub(crate) fn streams(&self) -> streamerson_core::Result<Vec<(u32, Topic)>> {
        let partition = |n| partition::topic(&self.keyed, n).map(|topic| (n + 1, topic));
        let mut streams = vec![(QUEUE, self.work.clone())];
        for n in 0..PARTITIONS {
            streams.push(partition(n)?);
        }
        Ok(streams)
    }

    /// Every topic of the run.
    pub(crate) fn all(&self) -> streamerson_core::Result<Vec<Topic>> {
        let streams = self.streams()?.into_iter().map(|(_, topic)| topic);
        let others = [self.keyed.clone(), self.effects.clone()];
        Ok(streams.chain(others).collect())
    }
}

/// The number of the stream of queued work.
pub(crate) const QUEUE: u32 = 0;
/// Partitions of the topic whose keys keep their order.
pub(crate) const PARTITIONS: u32 = 4;
/// The type of a message that is to have an effect.
pub(crate) const EFFECT: &str = "chaos.effect";
/// The type of a message that stops whoever handles it.
pub(crate) const POISON: &str = "chaos.poison";
