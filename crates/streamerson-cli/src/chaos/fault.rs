//! What can go wrong.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Fault {
    /// A worker is killed (SIGKILL), again and again
    Kill,
    /// A worker is stopped for two leases, and goes on (SIGSTOP, SIGCONT)
    Zombie,
    /// The broker is killed (SIGKILL) and started again
    Broker,
    /// Every connection to the broker breaks
    Cut,
    /// A member joins whose handlers take longer than the lease
    Slow,
    /// A message that stops every process which handles it
    Poison,
    /// The same message is sent several times
    Duplicates,
    /// The consumer group is destroyed under its members
    Group,
}

impl fmt::Display for Fault {
    /// As `--faults` names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

impl Fault {
    /// All of them.
    pub(crate) fn all() -> &'static [Fault] {
        Fault::value_variants()
    }

    /// Whether it comes as an episode, with a beginning and an end. The others go on all the time.
    pub(crate) fn is_episode(self) -> bool {
        !matches!(self, Fault::Kill | Fault::Duplicates)
    }

    /// Whether callers may be left without an answer because of it: they may when the broker is away or forgets who
    /// works for it, and may not when a worker is lost.
    pub(crate) fn excuses_callers(self) -> bool {
        matches!(self, Fault::Broker | Fault::Cut | Fault::Group)
    }
}
