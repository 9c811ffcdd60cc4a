//! `streamerson chaos`: puts a running system under load and faults, and judges what it did by what it stored.
//!
//! * [`settings`], [`fault`], [`schedule`]: what is to happen, and in which order; the same seed gives the same order.
//! * [`system`], [`child`], [`workers`], [`worker`]: the system, as real processes.
//! * [`load`], [`inject`]: what is sent, and what goes wrong meanwhile.
//! * [`journal`], [`findings`], [`record`]: what workers said, and what the broker holds: what happened.
//! * [`oracle`], [`report`]: whether it was right, and how it is told. The oracle is pure.
//! * [`stage`], [`run`]: all of it, from the first process to the verdict; [`traces`]: and nothing is left of it.

pub(crate) mod child;
mod clock;
pub(crate) mod fault;
mod findings;
mod inject;
mod journal;
mod load;
mod oracle;
mod record;
pub(crate) mod report;
mod resp;
mod run;
mod schedule;
pub(crate) mod settings;
mod stage;
mod system;
mod traces;
pub(crate) mod worker;
mod workers;

pub(crate) use run::{Ended, run};
