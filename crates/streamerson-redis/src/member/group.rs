//! Joining a consumer group, which is created where there is none, and created again when somebody deleted it.
//!
//! A group that is gone although it has a checkpoint was lost. It begins again there: neither at the end (what was
//! pending would be lost) nor at the beginning (everything would be repeated). The checkpoint is written by the members'
//! searches for work, about once a second, so whoever notices the loss, also a member that has just come, knows it.

use streamerson_core::{Position, Result, Start};

use super::settler::Seat;
use crate::entry;
use crate::error;
use crate::script;

/// Makes this member known, and its group; answers up to where the group was delivered.
pub(crate) async fn join(seat: &Seat) -> Result<Position> {
    run(seat, false).await
}

/// The group was deleted, or its topic was: creates it so that nothing unsettled is skipped, unless another member was
/// quicker.
pub(crate) async fn join_again(seat: &Seat) -> Result<Position> {
    run(seat, true).await
}

async fn run(seat: &Seat, known_lost: bool) -> Result<Position> {
    let mut call = script::JOIN.call(2, 6, 512);
    seat.write_keys(&mut call);
    match seat.membership.start {
        Start::Earliest => call.position(Position::ZERO),
        // Resolved once, by Redis, in this very step.
        Start::Latest => call.arg(b"$"),
        Start::After(position) => call.position(position),
    }
    seat.write_fence(&mut call);
    call.arg(if known_lost { b"1" } else { b"0" });
    let answer = seat.commands.run(&script::JOIN, call).await?;
    let mut walk = answer.into_walk(&seat.about)?;
    let mut read = || {
        walk.list()?;
        Ok((walk.number()? == 1, entry::position(&walk.text()?)?))
    };
    let (created_again, last) =
        read().map_err(|_: crate::wire::Malformed| error::unexpected("the join script"))?;
    let membership = &seat.membership;
    if created_again {
        seat.counts.lost_groups.add(1);
        tracing::error!(
            topic = %membership.topic,
            group = %membership.group,
            member = %membership.member,
            position = %last,
            "the consumer group or its topic was deleted: it begins again after this position, and what was pending is delivered again if it still exists"
        );
    } else if known_lost {
        tracing::warn!(
            topic = %membership.topic,
            group = %membership.group,
            member = %membership.member,
            "the consumer group was deleted, and another member has created it again"
        );
    }
    Ok(last)
}
