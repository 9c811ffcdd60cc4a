//! What a connection and its server know of each other.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::Context;
use std::time::Instant;

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use streamerson_core::time::Monotonic;

use super::pace::{Due, Pace};
use crate::config::Limits;

/// One connection, seen by its stream, its requests and its server.
#[derive(Debug)]
pub(super) struct Watch {
    pace: Mutex<Pace>,
    clock: Monotonic,
    refused_a_body: AtomicBool,
    order: AtomicU8,
    waker: AtomicWaker,
}

/// What the server wants of a connection. An order is never taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Order {
    /// Go on.
    Serve,
    /// End with the requests in progress.
    Finish,
    /// End now.
    Stop,
}

impl Watch {
    pub(super) fn new(limits: &Limits, clock: Monotonic) -> Watch {
        let pace = Pace::new(limits.header_read_timeout, limits.keep_alive, clock.now());
        Watch {
            pace: Mutex::new(pace),
            clock,
            refused_a_body: AtomicBool::new(false),
            order: AtomicU8::new(Order::Serve as u8),
            waker: AtomicWaker::new(),
        }
    }

    pub(super) fn received(&self) {
        self.pace.lock().received(self.clock.now());
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.pace.lock().sent(bytes, self.clock.now());
    }

    pub(super) fn began(&self, multiplexed: bool) {
        self.pace.lock().began(multiplexed);
    }

    pub(super) fn ended(&self) {
        self.pace.lock().ended(self.clock.now());
    }

    /// Whether the client has had its time, or the instant to look again.
    pub(super) fn overdue(&self) -> Result<(), Instant> {
        match self.pace.lock().due(self.clock.now()) {
            Due::Now => Ok(()),
            Due::At(at) => Err(self.clock.instant(at)),
        }
    }

    pub(super) fn is_multiplexed(&self) -> bool {
        self.pace.lock().is_multiplexed()
    }

    /// Notes whether the last answer may have refused a body that the client is still sending.
    pub(super) fn set_refused_a_body(&self, refused: bool) {
        self.refused_a_body.store(refused, Ordering::Relaxed);
    }

    pub(super) fn refused_a_body(&self) -> bool {
        self.refused_a_body.load(Ordering::Relaxed)
    }

    /// Gives an order, from the server.
    pub(super) fn order(&self, order: Order) {
        self.order.fetch_max(order as u8, Ordering::Release);
        self.waker.wake();
    }

    /// The last order, for the connection; the task is woken when it changes.
    pub(super) fn poll_order(&self, cx: &mut Context<'_>) -> Order {
        self.waker.register(cx.waker());
        match self.order.load(Ordering::Acquire) {
            0 => Order::Serve,
            1 => Order::Finish,
            _ => Order::Stop,
        }
    }
}
