//! The Redis-protocol port, from outside: over sockets, with redis-rs, with redis-cli, and against a real Redis.

mod blocking;
mod bounds;
mod cases;
mod cli;
mod client;
mod differential;
mod disconnect;
mod guard;
mod lost_group;
mod malformed;
mod pipeline;
mod protocol;
mod scripts;
mod server;
mod shutdown;
mod wire;
