//! What operators and janitors do, and leases: one script call each.

use std::fmt::Display;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use streamerson_core::lease::{Fence, Lease, Leases};
use streamerson_core::upkeep::{Pending, Upkeep};
use streamerson_core::{
    Append, Entry, Error, ErrorKind, Name, Position, Result, Start, Topic, partition,
};

use crate::append::{self, INBOX_BOUND, INBOX_TTL_MS};
use crate::broker::RedisBroker;
use crate::entry;
use crate::error::{self, GROUP_LOST};
use crate::output::{self, Topics};
use crate::read;
use crate::script::{self, Script};
use crate::wire::{Item, Malformed, Walk};

/// The most deliveries listed at once.
const MOST: usize = 1000;
/// Leases are no longer than about 30 years.
const LONGEST_MS: u64 = 1 << 40;

impl RedisBroker {
    /// Calls `script` about the stream of `topic`.
    async fn ask(
        &self,
        script: &Script,
        topic: &Topic,
        arguments: &[&str],
        about: impl Display,
    ) -> Result<Walk> {
        let call = script.with(&[&self.keys().stream(topic)], arguments);
        // Leases are signs of life too.
        let commands = self.commands().here().await?;
        commands.run(script, call).await?.into_walk(about)
    }

    async fn list_pending(
        &self,
        topic: &Topic,
        group: &Name,
        after: Position,
        max: usize,
    ) -> Result<Vec<Pending>> {
        let keys = [self.keys().stream(topic), self.keys().delays(topic, group)];
        let first = after.successor(0).to_string();
        let most = max.min(MOST).to_string();
        let call = script::PENDING.with(&[&keys[0], &keys[1]], &[group.as_str(), &first, &most]);
        let answer = self.commands().run(&script::PENDING, call).await?;
        let about = format!("looking at group {group} of topic {topic}");
        let mut walk = answer
            .into_walk(about)
            .map_err(|error| no_group(error, topic, group))?;
        let count = walk.list()?;
        (0..count).map(|_| pending(&mut walk)).collect()
    }

    async fn take_out(
        &self,
        topic: &Topic,
        position: Position,
        outputs: Vec<Append>,
    ) -> Result<bool> {
        outputs.iter().try_for_each(append::check)?;
        let topics = Topics::of(outputs.iter(), 2);
        let arguments: usize = outputs.iter().map(output::arguments).sum();
        let bytes: usize = outputs.iter().map(output::size).sum();
        let mut call = script::TAKE.call(1 + topics.list().len(), 3 + arguments, 256 + bytes);
        self.keys().write(&mut call, topic);
        for topic in topics.list() {
            self.keys().write(&mut call, topic);
        }
        call.position(position);
        call.number(INBOX_BOUND);
        call.number(INBOX_TTL_MS);
        for output in &outputs {
            output::write(&mut call, output, &topics);
        }
        let answer = self.commands().run(&script::TAKE, call).await?;
        let mut walk = answer.into_walk(format_args!("taking {position} out of topic {topic}"))?;
        Ok(walk.number()? == 1)
    }

    async fn remove(&self, topic: &Topic, arguments: &[&str]) -> Result<Walk> {
        let about = format_args!("removing {} of topic {topic}", arguments.join(" ")).to_string();
        self.ask(&script::REMOVE, topic, arguments, about).await
    }

    async fn divide_into(&self, topic: &Topic, partitions: u32) -> Result<u32> {
        let about = format!("partitions of topic {topic}");
        let asked = partitions.to_string();
        let mut walk = self.ask(&script::DIVIDE, topic, &[&asked], about).await?;
        u32::try_from(walk.number()?).map_err(|_| error::unexpected("the divide script"))
    }

    async fn lease(&self, topic: &Topic, arguments: &[&str]) -> Result<Walk> {
        let about = format!("leases of topic {topic}");
        self.ask(&script::LEASE, topic, arguments, about).await
    }
}

impl Leases for RedisBroker {
    fn acquire<'a>(
        &'a self,
        topic: &'a Topic,
        name: &'a Name,
        holder: &'a Name,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Lease>> {
        async move {
            let ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
            if ms == 0 {
                return Err(Error::invalid(
                    "invalid-lease",
                    format!("a lease of {ttl:?} is none: give {name} at least a millisecond"),
                ));
            }
            let ttl = ms.min(LONGEST_MS).to_string();
            let arguments = ["acquire", name.as_str(), holder.as_str(), &ttl];
            lease(&mut self.lease(topic, &arguments).await?)
        }
        .boxed()
    }

    fn release<'a>(
        &'a self,
        topic: &'a Topic,
        name: &'a Name,
        holder: &'a Name,
    ) -> BoxFuture<'a, Result<bool>> {
        async move {
            let arguments = ["release", name.as_str(), holder.as_str()];
            Ok(self.lease(topic, &arguments).await?.number()? == 1)
        }
        .boxed()
    }

    fn leases<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<Vec<Lease>>> {
        async move {
            let mut walk = self.lease(topic, &["list"]).await?;
            let count = walk.list()?;
            (0..count).map(|_| lease(&mut walk)).collect()
        }
        .boxed()
    }
}

impl Upkeep for RedisBroker {
    fn range<'a>(
        &'a self,
        topic: &'a Topic,
        after: Position,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<Entry>>> {
        read::range(self, topic, after, max).boxed()
    }

    fn pending<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Name,
        after: Position,
        max: usize,
    ) -> BoxFuture<'a, Result<Vec<Pending>>> {
        self.list_pending(topic, group, after, max).boxed()
    }

    fn seek<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Name,
        to: Start,
        fence: Option<&'a Fence>,
    ) -> BoxFuture<'a, Result<()>> {
        async move {
            let to = match to {
                Start::Earliest => Position::ZERO.to_string(),
                Start::Latest => "$".to_owned(),
                Start::After(position) => position.to_string(),
            };
            let about = format!("moving group {group} of topic {topic}");
            let (lease, epoch) = match fence {
                Some(fence) => (fence.lease.as_str(), fence.epoch.to_string()),
                None => ("", String::new()),
            };
            let arguments = [group.as_str(), &to, lease, &epoch];
            self.ask(&script::SEEK, topic, &arguments, about)
                .await
                .map(drop)
        }
        .boxed()
    }

    fn take<'a>(
        &'a self,
        topic: &'a Topic,
        position: Position,
        outputs: Vec<Append>,
    ) -> BoxFuture<'a, Result<bool>> {
        self.take_out(topic, position, outputs).boxed()
    }

    fn remove_group<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Name,
    ) -> BoxFuture<'a, Result<bool>> {
        async move {
            let mut walk = self.remove(topic, &["group", group.as_str()]).await?;
            Ok(walk.number()? == 1)
        }
        .boxed()
    }

    fn remove_topic<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<bool>> {
        async move { Ok(self.remove(topic, &["topic"]).await?.number()? == 1) }.boxed()
    }

    fn remove_members<'a>(
        &'a self,
        topic: &'a Topic,
        group: &'a Name,
        silent: Duration,
    ) -> BoxFuture<'a, Result<Vec<Name>>> {
        async move {
            let silent = silent.as_millis().to_string();
            let removed = self
                .remove(topic, &["members", group.as_str(), &silent])
                .await;
            let mut walk = removed.map_err(|error| no_group(error, topic, group))?;
            let count = walk.list()?;
            (0..count).map(|_| name(&mut walk)).collect()
        }
        .boxed()
    }

    fn divide<'a>(&'a self, topic: &'a Topic, partitions: u32) -> BoxFuture<'a, Result<u32>> {
        async move {
            partition::check(topic, partitions)?;
            self.divide_into(topic, partitions).await
        }
        .boxed()
    }

    fn partitions<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<u32>> {
        self.divide_into(topic, 0).boxed()
    }
}

fn lease(walk: &mut Walk) -> Result<Lease> {
    walk.list()?;
    Ok(Lease {
        name: name(walk)?,
        holder: name(walk)?,
        epoch: text(walk)?.parse().map_err(|_| Malformed)?,
        remaining: millis(walk)?,
    })
}

fn pending(walk: &mut Walk) -> Result<Pending> {
    walk.list()?;
    let position = entry::position(&walk.text()?)?;
    let member = text(walk)?;
    // What a member that left gave back belongs to nobody.
    let member = Name::new(if member == crate::stats::RELEASED {
        "-"
    } else {
        &member
    });
    Ok(Pending {
        position,
        member: member?,
        idle: millis(walk)?,
        attempt: u32::try_from(walk.number()?).unwrap_or(u32::MAX),
        due: match walk.number()? {
            ..0 => None,
            due => Some(Duration::from_millis(due.unsigned_abs())),
        },
    })
}

fn name(walk: &mut Walk) -> Result<Name> {
    Name::new(text(walk)?)
}

fn text(walk: &mut Walk) -> Result<String, Malformed> {
    match walk.item()? {
        Item::Text(text) => String::from_utf8(text.into()).map_err(|_| Malformed),
        _ => Err(Malformed),
    }
}

fn millis(walk: &mut Walk) -> Result<Duration, Malformed> {
    let ms = u64::try_from(walk.number()?).map_err(|_| Malformed)?;
    Ok(Duration::from_millis(ms))
}

/// There is no group here that anyone has lost.
fn no_group(error: Error, topic: &Topic, group: &Name) -> Error {
    if error.code() != GROUP_LOST && !error.detail().contains("no such key") {
        return error;
    }
    Error::new(
        ErrorKind::NotFound,
        "group-not-found",
        format!("there is no group {group} of topic {topic}; a group begins with its first member"),
    )
}
