//! Reading a segment from its beginning, and telling the end, a torn tail and damage apart.
//!
//! After the last whole frame come zeros: the end. Anything else is the rest of a write that was interrupted, if it is
//! in the last segment and no whole frame follows: the next write only begins when the one before was answered. If a
//! frame does follow, something that was acknowledged is damaged, and nothing may be dropped.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use streamerson_core::Result;

use super::frame::{HEADER, Header};
use super::segment::{Blocks, HEAD, Segment, damaged, unreadable};

const AHEAD: usize = 1 << 20;

/// How a segment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tail {
    /// Where the last whole frame ends.
    pub(crate) end: u64,
    /// Bytes after it, up to the last that is not zero.
    pub(crate) torn: u64,
}

/// Shows every frame of `segment`, in order, with its offset, to `visit`.
pub(crate) fn scan(
    segment: &Arc<Segment>,
    mut visit: impl FnMut(u64, &Bytes) -> Result<()>,
) -> Result<Tail> {
    let failed = |error: io::Error| unreadable(segment.path(), &error);
    let mut blocks = Blocks::new(segment.clone(), AHEAD);
    let mut end = HEAD;
    while let Some((body, next)) = blocks.frame(end).map_err(failed)? {
        visit(end, &body)?;
        end = next;
    }
    let torn = match last_written(&mut blocks, segment.size(), end).map_err(failed)? {
        Some(last) => last + 1 - end,
        None => 0,
    };
    if let Some(follows) = frame_after(&mut blocks, segment, end, torn).map_err(failed)? {
        let why = format!("no whole record stands there, but one follows at byte {follows}");
        return Err(damaged(segment.path(), end, &why));
    }
    Ok(Tail { end, torn })
}

/// Where the last byte that is not zero stands, at or after `from`.
fn last_written(blocks: &mut Blocks, size: u64, from: u64) -> io::Result<Option<u64>> {
    let mut last = None;
    let mut at = from;
    while at < size {
        let block = blocks.bytes(at, AHEAD.min((size - at) as usize))?;
        if block.is_empty() {
            break;
        }
        if let Some(found) = block.iter().rposition(|byte| *byte != 0) {
            last = Some(at + found as u64);
        }
        at += block.len() as u64;
    }
    Ok(last)
}

/// Where a whole frame stands within `torn` bytes after `end`.
fn frame_after(
    blocks: &mut Blocks,
    segment: &Arc<Segment>,
    end: u64,
    torn: u64,
) -> io::Result<Option<u64>> {
    let limit = end + torn;
    let mut at = end + 1;
    while at < limit {
        let window = blocks.bytes(at, AHEAD.min((limit - at) as usize + HEADER))?;
        let heads = window.windows(HEADER).enumerate();
        for (ahead, head) in heads {
            let offset = at + ahead as u64;
            // The mark is tried first: it costs no reading.
            if Header::read(head, segment.salt(), offset).is_some()
                && Blocks::new(segment.clone(), 0).frame(offset)?.is_some()
            {
                return Ok(Some(offset));
            }
        }
        match window.len().checked_sub(HEADER - 1) {
            Some(tried) if tried > 0 => at += tried as u64,
            _ => break,
        }
    }
    Ok(None)
}
