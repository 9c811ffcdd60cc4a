//! Upkeep and leases.

use std::time::Duration;

use crate::lease::{Lease, Leases};
use crate::upkeep::{Pending, Upkeep};
use crate::{Append, Entry, Error, Name, Position, Result, Start, Topic};
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::memory::MemoryBroker;

fn missing<T: Send + 'static>() -> BoxFuture<'static, Result<T>> {
    std::future::ready(Err(Error::invalid("not-built", "not built yet"))).boxed()
}

impl Leases for MemoryBroker {
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

impl Upkeep for MemoryBroker {
    fn range<'a>(
        &'a self,
        topic: &'a Topic,
        after: Position,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<Entry>>> {
        let topics = self.shared.topics.lock();
        let entries = topics.get(topic).into_iter().flat_map(|state| {
            let found = state.after(after).take(max);
            found.map(|(position, message)| Entry {
                position: *position,
                message: Ok(message.clone()),
            })
        });
        std::future::ready(Ok(entries.collect())).boxed()
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
