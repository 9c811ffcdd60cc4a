//! How much an acknowledgement promises.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// What an acknowledged append survives. Later classes include the earlier ones.
///
/// ```
/// use streamerson_core::Durability;
///
/// assert!(Durability::Disk > Durability::Os);
/// assert_eq!("disk".parse::<Durability>()?, Durability::Disk);
/// # Ok::<(), streamerson_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// Lost when the broker's process ends.
    Memory,
    /// Survives the death of the broker's process; an operating system crash or power loss may lose the last writes.
    Os,
    /// On the disk before it is acknowledged.
    Disk,
    /// Stored by this many further nodes before it is acknowledged.
    Replicated(u8),
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Durability::Memory => f.write_str("memory"),
            Durability::Os => f.write_str("os"),
            Durability::Disk => f.write_str("disk"),
            Durability::Replicated(n) => write!(f, "replicated({n})"),
        }
    }
}

impl FromStr for Durability {
    type Err = Error;

    /// Parses `memory`, `os` or `disk`: the classes a single node can be asked for.
    fn from_str(text: &str) -> Result<Durability, Error> {
        match text {
            "memory" => Ok(Durability::Memory),
            "os" => Ok(Durability::Os),
            "disk" => Ok(Durability::Disk),
            other => Err(Error::invalid(
                "unknown-durability",
                format!("durability {other:?} is not one of memory, os, disk"),
            )),
        }
    }
}
