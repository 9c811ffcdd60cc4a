//! What `XREAD` and `XREADGROUP` have in common: which streams, how many entries, how long to wait.

use std::time::Duration;

use bytes::Bytes;
use streamerson_core::{Name, Topic};

use super::Arguments;
use crate::port::failure::Failure;
use crate::port::keys::Keys;
use crate::port::reply::Reply;
use crate::port::waiting::Patience;

/// `[GROUP group consumer] [COUNT count] [BLOCK milliseconds] [NOACK] STREAMS key… id…`
#[derive(Debug)]
pub(super) struct Reading {
    /// Group and member.
    pub(super) group: Option<(Name, Name)>,
    /// Entries of each stream, at most.
    pub(super) count: usize,
    /// How long to wait when there is nothing.
    pub(super) block: Patience,
    /// Whether what is delivered counts as settled.
    pub(super) no_ack: bool,
    /// The streams, each with the id to read after.
    pub(super) streams: Vec<Stream>,
}

/// A stream to read.
#[derive(Debug)]
pub(super) struct Stream {
    key: Bytes,
    /// Its topic.
    pub(super) topic: Topic,
    /// Where to read from.
    pub(super) id: Bytes,
}

impl Stream {
    /// The answer about this stream, for [`Reply::Streams`].
    pub(super) fn reply(&self, entries: Vec<Reply>) -> (Reply, Reply) {
        (Reply::Bulk(self.key.clone()), Reply::List(entries))
    }
}

impl Reading {
    /// Reads the arguments of `XREADGROUP` if `grouped`, else of `XREAD`.
    pub(super) fn parse(
        keys: &Keys,
        mut arguments: Arguments,
        grouped: bool,
    ) -> Result<Reading, Failure> {
        let mut reading = Reading {
            group: None,
            count: usize::MAX,
            block: Patience::None,
            no_ack: false,
            streams: Vec::new(),
        };
        while !arguments.accept("streams") {
            if arguments.accept("count") {
                reading.count = match arguments.count()? {
                    0 => usize::MAX,
                    count => count,
                };
            } else if arguments.accept("block") {
                reading.block = patience(&mut arguments)?;
            } else if arguments.accept("group") {
                if !grouped {
                    return Err(Failure::err(
                        "The GROUP option is only supported by XREADGROUP. You called XREAD instead.",
                    ));
                }
                reading.group = Some((arguments.name()?, arguments.name()?));
            } else if arguments.accept("noack") {
                if !grouped {
                    return Err(Failure::err(
                        "The NOACK option is only supported by XREADGROUP. You called XREAD instead.",
                    ));
                }
                reading.no_ack = true;
            } else {
                return Err(Failure::SYNTAX);
            }
        }
        reading.streams = streams(keys, &arguments)?;
        if grouped && reading.group.is_none() {
            return Err(Failure::err("Missing GROUP option for XREADGROUP"));
        }
        Ok(reading)
    }
}

fn patience(arguments: &mut Arguments) -> Result<Patience, Failure> {
    let millis = arguments
        .integer()
        .map_err(|_| Failure::err("timeout is not an integer or out of range"))?;
    match u64::try_from(millis) {
        Ok(0) => Ok(Patience::Forever),
        Ok(millis) => Ok(Patience::For(Duration::from_millis(millis))),
        Err(_) => Err(Failure::err("timeout is negative")),
    }
}

/// First all keys, then all ids.
fn streams(keys: &Keys, arguments: &Arguments) -> Result<Vec<Stream>, Failure> {
    let words = arguments.rest();
    if words.is_empty() || !words.len().is_multiple_of(2) {
        return Err(Failure::err(
            "Unbalanced XREAD list of streams: for each stream key an ID or '$' must be specified.",
        ));
    }
    let (names, ids) = words.split_at(words.len() / 2);
    let stream = |(key, id): (&Bytes, &Bytes)| {
        Ok(Stream {
            key: key.clone(),
            topic: keys.stream(key)?,
            id: id.clone(),
        })
    };
    names.iter().zip(ids).map(stream).collect()
}
