//! Upkeep and leases.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use streamerson_core::lease::{Lease, Leases};
use streamerson_core::upkeep::{Pending, Upkeep};
use streamerson_core::{Append, Entry, Error, Name, Position, Result, Start, Topic};

use crate::broker::EmbeddedBroker;
use crate::reader;

fn missing<T: Send + 'static>() -> BoxFuture<'static, Result<T>> {
    std::future::ready(Err(Error::invalid("not-built", "not built yet"))).boxed()
}

impl Leases for EmbeddedBroker {
    fn acquire<'a>(
        &'a self,
        _: &'a Topic,
        _: &'a Name,
        _: &'a Name,
        _: Duration,
    ) -> BoxFuture<'a, Result<Lease>> {
        missing()
    }
    fn release<'a>(
        &'a self,
        _: &'a Topic,
        _: &'a Name,
        _: &'a Name,
    ) -> BoxFuture<'a, Result<bool>> {
        missing()
    }
    fn leases<'a>(&'a self, _: &'a Topic) -> BoxFuture<'a, Result<Vec<Lease>>> {
        missing()
    }
}

impl Upkeep for EmbeddedBroker {
    fn range<'a>(
        &'a self,
        topic: &'a Topic,
        after: Position,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<Entry>>> {
        reader::range(self.engine(), topic, after, max).boxed()
    }

    fn pending<'a>(
        &'a self,
        _: &'a Topic,
        _: &'a Name,
        _: Position,
        _: usize,
    ) -> BoxFuture<'a, Result<Vec<Pending>>> {
        missing()
    }
    fn seek<'a>(&'a self, _: &'a Topic, _: &'a Name, _: Start) -> BoxFuture<'a, Result<()>> {
        missing()
    }
    fn take<'a>(
        &'a self,
        _: &'a Topic,
        _: Position,
        _: Vec<Append>,
    ) -> BoxFuture<'a, Result<bool>> {
        missing()
    }
    fn remove_group<'a>(&'a self, _: &'a Topic, _: &'a Name) -> BoxFuture<'a, Result<bool>> {
        missing()
    }
    fn remove_topic<'a>(&'a self, _: &'a Topic) -> BoxFuture<'a, Result<bool>> {
        missing()
    }
    fn remove_members<'a>(
        &'a self,
        _: &'a Topic,
        _: &'a Name,
        _: Duration,
    ) -> BoxFuture<'a, Result<Vec<Name>>> {
        missing()
    }
    fn divide<'a>(&'a self, _: &'a Topic, _: u32) -> BoxFuture<'a, Result<u32>> {
        missing()
    }
    fn partitions<'a>(&'a self, _: &'a Topic) -> BoxFuture<'a, Result<u32>> {
        std::future::ready(Ok(0)).boxed()
    }
}
