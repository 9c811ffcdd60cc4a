//! Appending: one pipeline per batch; what has terms (a due time, or a key) goes through a script.

use streamerson_core::{Append, Error, Message, Position, Result, Topic, dead_letter};

use crate::broker::RedisBroker;
use crate::connection::Answer;
use crate::entry;
use crate::error;
use crate::keys::Keys;
use crate::output::{self, Topics};
use crate::script;
use crate::wire::{Item, Request};

/// How many replies an inbox holds, about; the oldest go first.
pub(crate) const INBOX_BOUND: u64 = 10_000;
/// How long an inbox is kept after the last write.
pub(crate) const INBOX_TTL_MS: u64 = 60_000;
/// The largest message; a dead letter has more room. Beyond 512 MiB in one field Redis would close the connection, for
/// everyone who shares it.
const MAX_MESSAGE: usize = 256 * 1024 * 1024;
/// Messages on terms in one call of the script, and their bytes, so that Redis is not blocked for long.
const MOST_ON_TERMS: usize = 128;
const MOST_BYTES: usize = 1024 * 1024;

pub(crate) async fn append(broker: &RedisBroker, batch: Vec<Append>) -> Vec<Result<Position>> {
    if !batch.iter().any(output::has_terms) {
        return append_plain(broker, &batch).await;
    }
    // One after the other, so that messages of one topic keep their order.
    let mut positions = Vec::with_capacity(batch.len());
    for run in batch.chunk_by(|a, b| output::has_terms(a) == output::has_terms(b)) {
        if output::has_terms(&run[0]) {
            for call in calls(run) {
                positions.extend(append_on_terms(broker, call).await);
            }
        } else {
            positions.extend(append_plain(broker, run).await);
        }
    }
    positions
}

/// Cuts messages on terms into calls.
fn calls(mut rest: &[Append]) -> Vec<&[Append]> {
    let mut calls = Vec::new();
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take(MOST_ON_TERMS).take_while(|append| {
            bytes += output::sent(append);
            bytes <= MOST_BYTES
        });
        let (call, after) = rest.split_at(fits.count().max(1));
        calls.push(call);
        rest = after;
    }
    calls
}

async fn append_plain(broker: &RedisBroker, batch: &[Append]) -> Vec<Result<Position>> {
    let (request, written) = request(broker.keys(), batch);
    if written == 0 {
        return batch
            .iter()
            .map(|append| check(append).map(|()| Position::ZERO))
            .collect();
    }
    match broker.commands().call(request, written).await {
        Ok(answer) => results(answer, batch),
        Err(error) => batch.iter().map(|_| Err(error.clone())).collect(),
    }
}

async fn append_on_terms(broker: &RedisBroker, batch: &[Append]) -> Vec<Result<Position>> {
    let checks: Vec<Result<()>> = batch.iter().map(check).collect();
    let allowed = batch.iter().zip(&checks);
    let allowed: Vec<&Append> = allowed
        .filter_map(|(append, check)| check.is_ok().then_some(append))
        .collect();
    if allowed.is_empty() {
        return checks
            .into_iter()
            .map(|check| check.map(|()| Position::ZERO))
            .collect();
    }
    let mut stored = match call_script(broker, &allowed).await {
        Ok(results) => results,
        Err(error) => vec![Err(error); allowed.len()],
    }
    .into_iter();
    let merge = |check: Result<()>| {
        check?;
        stored
            .next()
            .unwrap_or_else(|| Err(error::unexpected("the append script")))
    };
    checks.into_iter().map(merge).collect()
}

async fn call_script(broker: &RedisBroker, batch: &[&Append]) -> Result<Vec<Result<Position>>> {
    let topics = Topics::of(batch.iter().copied(), 1);
    let arguments = batch.iter().map(|append| output::arguments(append)).sum();
    let bytes: usize = batch.iter().map(|append| output::size(append)).sum();
    let mut call = script::APPEND.call(topics.list().len(), arguments, 256 + bytes);
    for topic in topics.list() {
        broker.keys().write(&mut call, topic);
    }
    for append in batch {
        output::write(&mut call, append, &topics);
    }
    let answer = broker.commands().run(&script::APPEND, call).await?;
    let about = format_args!("appending to topic {}", batch[0].topic).to_string();
    let mut walk = answer.into_walk(&about)?;
    let count = walk.list()?;
    let results = (0..count).map(|_| match walk.item()? {
        Item::Text(id) => Ok(Ok(entry::position(&id)?)),
        // The port of the embedded broker refuses one by one.
        Item::Error(refusal) => Ok(Err(error::refused(&refusal, &about))),
        _ => Err(error::unexpected("the append script")),
    });
    results.collect()
}

/// The pipeline, and how many commands are in it: one XADD per message, then one PEXPIRE per inbox.
fn request(keys: &Keys, batch: &[Append]) -> (Request, usize) {
    let capacity = batch.iter().map(output::size).sum();
    let mut request = Request::with_capacity(capacity);
    let mut written = 0;
    let mut inboxes: Vec<&Topic> = Vec::new();
    for append in batch.iter().filter(|append| check(append).is_ok()) {
        add(&mut request, keys, &append.topic, &append.message);
        written += 1;
        if append.topic.is_inbox() && !inboxes.contains(&&append.topic) {
            inboxes.push(&append.topic);
        }
    }
    for inbox in inboxes {
        request.head(3);
        request.arg(b"PEXPIRE");
        keys.write(&mut request, inbox);
        request.number(INBOX_TTL_MS);
        written += 1;
    }
    (request, written)
}

fn add(request: &mut Request, keys: &Keys, topic: &Topic, message: &Message) {
    if topic.is_inbox() {
        request.head(18);
        request.arg(b"XADD");
        keys.write(request, topic);
        request.arg(b"MAXLEN");
        request.arg(b"~");
        request.number(INBOX_BOUND);
    } else {
        request.verbatim(b"*15\r\n$4\r\nXADD\r\n");
        keys.write(request, topic);
    }
    request.verbatim(b"$1\r\n*\r\n");
    entry::write(request, message);
}

fn results(mut answer: Answer, batch: &[Append]) -> Vec<Result<Position>> {
    batch
        .iter()
        .map(|append| {
            check(append)?;
            let id = answer.next_text(format_args!("appending to topic {}", append.topic))?;
            Ok(entry::position(&id)?)
        })
        .collect()
}

/// Refuses what Redis would not take, and what makes no sense.
pub(crate) fn check(append: &Append) -> Result<()> {
    let (size, largest) = (
        append.message.size(),
        dead_letter::largest(&append.topic, MAX_MESSAGE),
    );
    if size > largest {
        return Err(Error::invalid(
            "message-too-large",
            format!(
                "a message of {size} bytes to topic {} is larger than {largest} bytes: store it elsewhere and send its address",
                append.topic
            ),
        ));
    }
    if append.topic.is_inbox() && output::has_terms(append) {
        return Err(Error::invalid(
            "inbox-terms",
            "a message to an inbox has neither a due time nor a key for once, because an inbox does not last: send it to a topic, or without",
        ));
    }
    append.check()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_on_terms_is_bounded_in_count_and_bytes() {
        let lengths = |sizes: &[usize]| {
            let append = |size: &usize| {
                let message = Message::new("t", vec![0; *size]);
                Append::new(Topic::new("a").unwrap(), message).due_at(1)
            };
            let batch: Vec<Append> = sizes.iter().map(append).collect();
            calls(&batch)
                .into_iter()
                .map(<[Append]>::len)
                .collect::<Vec<_>>()
        };
        assert_eq!(lengths(&[1; 300]), [128, 128, 44]);
        let large = [600_000, 600_000, 2_000_000, 1, 1];
        assert_eq!(lengths(&large), [1, 1, 1, 2]);
        assert_eq!(lengths(&[]), [0; 0]);
    }
}
