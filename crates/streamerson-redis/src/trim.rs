//! Trimming: what may go, and then XTRIM MINID.
//!
//! Redis cannot tell the position of the nth newest message without listing messages. So the oldest are listed, page by
//! page: the work is in proportion to what is removed, and bounded per call. A topic that holds far too much is
//! trimmed by several calls.

use streamerson_core::retention::{Retention, Trimmed};
use streamerson_core::{Position, Result, Topic};

use crate::boot;
use crate::broker::RedisBroker;
use crate::entry;
use crate::error;
use crate::wire::{Reply, Request};

const PAGE: u64 = 500;
/// Pages listed by one call: it removes at most this many times [`PAGE`] messages by length.
const MOST_PAGES: u64 = 200;

pub(crate) async fn trim(
    broker: &RedisBroker,
    topic: &Topic,
    retention: Retention,
) -> Result<Trimmed> {
    let oldest = Oldest {
        broker,
        key: broker.keys().stream(topic),
        about: format!("trimming topic {topic}"),
    };
    let (length, first_unprocessed) = oldest.state().await?;
    let bound = match first_unprocessed {
        _ if retention.force => Position::new(u64::MAX, u64::MAX),
        Some(first) => first,
        // Nobody has read it: nothing may go.
        None => return Ok(Trimmed::default()),
    };
    let nth_newest = match retention.max_len {
        Some(keep) if keep > 0 && keep < length => oldest.after(length - keep, bound).await?,
        _ => None,
    };
    // Positions are by the server's clock.
    let now = match retention.max_age {
        Some(_) => boot::time(broker.commands()).await?,
        None => 0,
    };
    let boundary = retention.boundary(now, |_| nth_newest, first_unprocessed);
    match boundary {
        Some(boundary) => oldest.remove_before(boundary, first_unprocessed).await,
        None => Ok(Trimmed::default()),
    }
}

/// The old end of one stream.
struct Oldest<'a> {
    broker: &'a RedisBroker,
    key: String,
    about: String,
}

impl Oldest<'_> {
    /// How many messages there are, and where the first stands that some group has not processed.
    async fn state(&self) -> Result<(u64, Option<Position>)> {
        let mut request = Request::of(&["XLEN", &self.key]);
        request.command(&["XINFO", "GROUPS", &self.key]);
        let mut answer = self.broker.commands().call(request, 2).await?;
        let length = answer.next(&self.about)?.as_number().unwrap_or_default();
        if answer.is_refused_with("ERR no such key") {
            return Ok((0, None));
        }
        let groups = answer.next(&self.about)?;
        let mut first: Option<Position> = None;
        for group in groups.as_list().unwrap_or_default() {
            let begins = self.first_unprocessed(group).await?;
            first = Some(first.map_or(begins, |first| first.min(begins)));
        }
        Ok((length, first))
    }

    async fn first_unprocessed(&self, group: &Reply) -> Result<Position> {
        let name = group.field("name").and_then(Reply::as_text);
        let cursor = group.field("last-delivered-id").and_then(Reply::as_text);
        let (Some(name), Some(cursor)) = (name, cursor) else {
            return Err(error::unexpected("XINFO GROUPS"));
        };
        let request = Request::of(&["XPENDING", &self.key, name]);
        let mut answer = self.broker.commands().call(request, 1).await?;
        let summary = answer.next(&self.about)?;
        let oldest = summary
            .as_list()
            .and_then(|summary| summary.get(1)?.as_text());
        match oldest {
            Some(oldest) => Ok(entry::position(oldest.as_bytes())?),
            None => Ok(entry::position(cursor.as_bytes())?.successor(0)),
        }
    }

    /// The position of the message after the `count` oldest; an earlier one if it stands at or after `bound`, or is
    /// too far to look.
    async fn after(&self, count: u64, bound: Position) -> Result<Option<Position>> {
        let mut passed = 0;
        let mut last = None;
        for _ in 0..MOST_PAGES {
            let want = (count + 1 - passed).min(PAGE);
            let page = self.page(last, want).await?;
            passed += page.len() as u64;
            last = page.last().copied().or(last);
            let ended = (page.len() as u64) < want;
            if ended || passed > count || last.is_some_and(|last| last >= bound) {
                break;
            }
        }
        Ok(last)
    }

    /// Positions from the oldest on, or from `after` on.
    async fn page(&self, after: Option<Position>, count: u64) -> Result<Vec<Position>> {
        let start = after.map_or_else(|| "-".to_owned(), |after| format!("({after}"));
        let request = Request::of(&[
            "XRANGE",
            &self.key,
            &start,
            "+",
            "COUNT",
            &count.to_string(),
        ]);
        let mut walk = self
            .broker
            .commands()
            .call(request, 1)
            .await?
            .into_walk(&self.about)?;
        let mut positions = Vec::new();
        for _ in 0..walk.list()? {
            walk.list()?;
            positions.push(entry::position(&walk.text()?)?);
            entry::message(&mut walk)?;
        }
        Ok(positions)
    }

    async fn remove_before(
        &self,
        boundary: Position,
        first_unprocessed: Option<Position>,
    ) -> Result<Trimmed> {
        // Counted before they are gone: only a forced trim reaches beyond this.
        let safe = first_unprocessed.unwrap_or(Position::ZERO).min(boundary);
        let before = self.trim_to(safe).await?;
        let lost = if boundary > safe {
            self.trim_to(boundary).await?
        } else {
            0
        };
        if lost > 0 {
            tracing::error!(
                about = self.about,
                lost,
                "messages were removed that some group had not processed"
            );
        }
        Ok(Trimmed {
            removed: before + lost,
            lost,
        })
    }

    async fn trim_to(&self, boundary: Position) -> Result<u64> {
        let request = Request::of(&["XTRIM", &self.key, "MINID", "=", &boundary.to_string()]);
        let mut answer = self.broker.commands().call(request, 1).await?;
        let removed = answer.next(&self.about)?.as_number();
        removed.ok_or_else(|| error::unexpected("XTRIM"))
    }
}
