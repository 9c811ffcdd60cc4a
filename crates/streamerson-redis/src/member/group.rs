//! Creating a consumer group, and creating it again when somebody deleted it.

use streamerson_core::{Position, Result, Start};

use super::held::before;
use super::settler::Seat;
use crate::connection::Answer;
use crate::entry;
use crate::error;
use crate::wire::{Reply, Request};

/// Index of the last delayed entry looked at.
const MOST_DELAYED: &str = "9999";

/// Creates the group where there is none, and makes this member known in it.
pub(crate) async fn create(seat: &Seat) -> Result<()> {
    let start = match seat.membership.start {
        Start::Earliest => "0-0".to_owned(),
        // Resolved once, by Redis, in this very step.
        Start::Latest => "$".to_owned(),
        Start::After(position) => position.to_string(),
    };
    let mut request = create_at(seat, &start);
    request.command(&[
        "XGROUP",
        "CREATECONSUMER",
        &seat.stream,
        seat.membership.group.as_str(),
        seat.membership.member.as_str(),
    ]);
    request.command(&["XINFO", "GROUPS", &seat.stream]);
    let mut answer = seat.commands.call(request, 3).await?;
    created(seat, &mut answer)?;
    answer.next(&seat.about)?;
    let cursor = cursor(seat, &mut answer)?;
    seat.held.lock().begin_at(cursor);
    Ok(())
}

/// The group was deleted, or its topic was: creates it so that nothing unsettled is skipped.
///
/// Neither at the end (what was pending would be lost) nor at the beginning (everything would be repeated), but where
/// this member knows that all is settled. When another member was quicker, the group is moved back if it must be.
pub(crate) async fn create_again(seat: &Seat) -> Result<()> {
    let start = start_again(seat).await?;
    let mut request = create_at(seat, &start.to_string());
    request.command(&["XINFO", "GROUPS", &seat.stream]);
    let mut answer = seat.commands.call(request, 2).await?;
    let is_new = created(seat, &mut answer)?;
    if !is_new && cursor(seat, &mut answer)? > start {
        let group = seat.membership.group.as_str();
        let back = Request::of(&["XGROUP", "SETID", &seat.stream, group, &start.to_string()]);
        seat.commands.call(back, 1).await?.next(&seat.about)?;
    }
    seat.held.lock().begin_at(start);
    seat.counts.lost_groups.add(1);
    tracing::error!(
        topic = %seat.membership.topic,
        group = %seat.membership.group,
        member = %seat.membership.member,
        position = %start,
        "the consumer group or its topic was deleted: it begins again after this position, and what was pending is delivered again if it still exists"
    );
    Ok(())
}

async fn start_again(seat: &Seat) -> Result<Position> {
    let mut request = Request::of(&["XINFO", "STREAM", &seat.stream]);
    request.command(&["ZRANGE", &seat.delays, "0", MOST_DELAYED]);
    let mut answer = seat.commands.call(request, 2).await?;
    let stream = answer.next(&seat.about);
    let delayed = answer.next(&seat.about);
    let newest = stream
        .ok()
        .and_then(|stream| position(&stream, "last-generated-id"));
    let held = seat.held.lock();
    if newest.is_none_or(|newest| newest < held.cursor()) {
        // Another stream under the same name: nothing in it was ever delivered.
        return Ok(Position::ZERO);
    }
    // The index of what waits for another try outlives the group.
    let delayed = delayed.unwrap_or(Reply::Nil);
    let delayed = delayed.as_list().unwrap_or_default().iter();
    let first_delayed = delayed
        .filter_map(|id| entry::position(id.as_text()?.as_bytes()).ok())
        .min();
    let settled = held.settled_up_to();
    Ok(first_delayed.map_or(settled, |first| settled.min(before(first))))
}

fn create_at(seat: &Seat, start: &str) -> Request {
    let group = seat.membership.group.as_str();
    Request::of(&["XGROUP", "CREATE", &seat.stream, group, start, "MKSTREAM"])
}

/// Whether the group is new.
fn created(seat: &Seat, answer: &mut Answer) -> Result<bool> {
    let exists = answer.is_refused_with("BUSYGROUP");
    match answer.next(&seat.about) {
        Err(_) if exists => Ok(false),
        created => created.map(|_| true),
    }
}

/// Where the group stands.
fn cursor(seat: &Seat, answer: &mut Answer) -> Result<Position> {
    let groups = answer.next(&seat.about)?;
    let name = seat.membership.group.as_str();
    let mut groups = groups.as_list().unwrap_or_default().iter();
    groups
        .find(|group| group.field("name").and_then(Reply::as_text) == Some(name))
        .and_then(|group| position(group, "last-delivered-id"))
        .ok_or_else(|| error::refused(b"NOGROUP deleted as it was created", &seat.about))
}

fn position(info: &Reply, field: &str) -> Option<Position> {
    let id = info.field(field).and_then(Reply::as_text)?;
    entry::position(id.as_bytes()).ok()
}
