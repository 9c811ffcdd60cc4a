//! What is to be done in a run.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use streamerson_core::{Name, Topic, partition};

use super::fault::Fault;
use super::schedule::Schedule;

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

    /// What takes longest of what was asked for, and how long that is about.
    pub(crate) fn forecast(&self) -> String {
        let (rate, kill_every, lease) = (self.rate, self.kill_every, self.lease);
        let episodes = self.faults.iter().filter(|fault| fault.is_episode());
        let faults = Schedule::new(self.seed, &self.faults, lease).take(episodes.count());
        let faults = faults.map(|episode| match episode.fault {
            // They last.
            Fault::Zombie | Fault::Slow => episode.calm + 2 * lease,
            _ => episode.calm,
        });
        let parts = [
            (
                Duration::from_secs_f64(self.requests as f64 / f64::from(rate)),
                format!("{} requests at {rate} a second", self.requests),
            ),
            (
                kill_every.saturating_mul(u32::try_from(self.kills).unwrap_or(u32::MAX)),
                format!("{} kills, one every {kill_every:?}", self.kills),
            ),
            (
                faults.sum(),
                format!("each kind of fault once, with a calm of two leases ({lease:?}) before it"),
            ),
            (self.duration, "as --duration says".to_owned()),
        ];
        let [first, ..] = &parts;
        let longest = parts.iter().max_by_key(|(time, _)| *time).unwrap_or(first);
        let seconds = longest.0.as_secs_f64().ceil();
        format!(
            "about {seconds} s of load and faults ({}), then until all is done",
            longest.1
        )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forecast_names_what_takes_longest() {
        let settings = Settings {
            system: Wanted::Embedded,
            namespace: Name::new("streamerson").unwrap(),
            faults: vec![Fault::Kill, Fault::Cut, Fault::Zombie],
            requests: 100,
            kills: 4,
            duration: Duration::ZERO,
            kill_every: Duration::from_millis(250),
            lease: Duration::from_secs(5),
            rate: 100,
            workers: 2,
            seed: 1,
            takeover_within: None,
            files: None,
        };
        let forecast = settings.forecast();
        assert!(forecast.contains("each kind of fault once"), "{forecast}");
        let more = Settings {
            requests: 100_000,
            ..settings
        };
        let forecast = more.forecast();
        assert!(forecast.starts_with("about 1000 s of load"), "{forecast}");
        assert!(
            forecast.contains("100000 requests at 100 a second"),
            "{forecast}"
        );
    }
}
