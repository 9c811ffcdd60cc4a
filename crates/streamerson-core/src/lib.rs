//! The vocabulary of Streamerson, and every decision that needs no I/O.
//!
//! * [`message`], [`meta`], [`topic`], [`position`]: what travels, and where it stands.
//! * [`broker`], [`lease`], [`upkeep`]: the contract every backend keeps, small enough to read in one sitting.
//! * [`group`], [`intake`], [`lanes`], [`lease_table`], [`once`], [`ownership`], [`pending`], [`retry`], [`retention`],
//!   [`schedule`], [`janitor`]: pure state machines; inputs and `now` in, decisions out.
//! * [`memory`]: the in-memory broker, the executable specification of the contract.
//! * [`error`]: failures, named by what the caller does next.
//!
//! Nothing here opens a socket or a file. Only [`memory`] waits, and only for other tasks.

pub mod broker;
pub mod dead_letter;
pub mod durability;
pub mod error;
pub mod group;
pub mod intake;
pub mod janitor;
pub mod lanes;
pub mod lease;
pub mod lease_table;
pub mod memory;
pub mod message;
pub mod meta;
pub mod once;
pub mod ownership;
pub mod partition;
pub mod pending;
pub mod position;
pub mod retention;
pub mod retry;
pub mod schedule;
mod sizes;
pub mod stats;
pub mod time;
pub mod topic;
pub mod upkeep;

pub use broker::{
    Append, Broker, Delivery, Entry, Inbox, Member, Membership, Once, Outcome, Reader, Receipt,
    Settlement, Settler,
};
pub use durability::Durability;
pub use error::{Error, ErrorKind, Result};
pub use lease::{Fence, Lease, Leases};
pub use message::Message;
pub use meta::Meta;
pub use position::{Position, Start};
pub use topic::{Name, Topic};
pub use upkeep::{Pending, Upkeep};
