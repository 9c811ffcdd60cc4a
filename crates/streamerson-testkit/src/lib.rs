//! What tests of Streamerson stand on: private servers, injected faults, and the rules every broker keeps.
//!
//! * [`redis`]: a private redis-server on a free port, gone when the test ends, however it ends.
//! * [`proxy`]: a TCP proxy that cuts, refuses, delays and black-holes connections.
//! * [`process`]: a child process that never outlives the test that started it.
//! * [`pass_on_upkeep!`]: for test brokers that wrap another one.
//! * [`conformance`]: the rules every broker keeps, and [`conformance_suite!`] to make tests of them.
//!
//! Fixtures panic where a test could only unwrap; the message says what to do.

pub mod conformance;
mod ports;
pub mod process;
pub mod redis;
mod wrap;

pub use streamerson_proxy as proxy;
