//! The Redis protocol (RESP2), as much of it as streams need.
//!
//! Requests are written straight into one buffer, replies are slices of the buffer they arrived in: a message on its
//! way costs no allocation and no copy of its payload. `docs/design/redis-transport.md` has the measurements that led here.

mod reply;
mod request;
mod scan;

pub(crate) use reply::{Item, Malformed, Reply, Walk};
pub(crate) use request::Request;
pub(crate) use scan::{Scan, digits};
