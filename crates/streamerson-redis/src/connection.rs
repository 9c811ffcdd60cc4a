//! Connections to Redis. Commands share one, [`Commands`]; every read that waits has one of its own, [`Waiting`].

mod abroad;
mod answer;
mod commands;
mod connector;
mod driver;
mod live;
mod pace;
mod socket;
mod tls;
mod waiting;

pub(crate) use answer::Answer;
pub(crate) use commands::Commands;
pub(crate) use connector::Connector;
pub(crate) use pace::Pace;
pub(crate) use waiting::{Arrival, Waiting};

use std::time::Duration;

/// How long a call tries to reach Redis before it fails.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a connection may stay silent while an answer is due.
const SILENCE: Duration = Duration::from_secs(10);
