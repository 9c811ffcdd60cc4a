//! `XDEL`: single entries go.

use futures::future::{BoxFuture, FutureExt};

use super::{Answer, Arguments, Command, Run, Session, WRITE};
use crate::port::reply::Reply;

pub(super) static COMMANDS: &[Command] = &[Command::new("xdel", -3, Run::Later(delete))
    .flags(WRITE)
    .keys(1, 1, 1)];

/// `XDEL key id…`: answers how many were there. What somebody holds of them cannot be settled any more.
fn delete(session: &mut Session, mut arguments: Arguments) -> BoxFuture<'_, Answer> {
    async move {
        let topic = session.keys().stream(&arguments.next()?)?;
        let mut positions = Vec::with_capacity(arguments.left());
        while arguments.left() > 0 {
            positions.push(arguments.id(0)?);
        }
        let mut deleted = 0;
        for position in positions {
            let taken = session.engine().take_out(&topic, position, Vec::new());
            deleted += usize::from(taken.await?);
        }
        Ok(Reply::count(deleted))
    }
    .boxed()
}
