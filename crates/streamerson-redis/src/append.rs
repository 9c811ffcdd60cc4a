//! Appending: one pipeline per batch.

use streamerson_core::{Append, Error, ErrorKind, Message, Position, Result, Topic};

use crate::broker::RedisBroker;
use crate::connection::Answer;
use crate::entry;
use crate::keys::Keys;
use crate::wire::Request;

/// How many replies an inbox holds, about; the oldest go first.
pub(crate) const INBOX_BOUND: u64 = 10_000;
/// How long an inbox is kept after the last write.
pub(crate) const INBOX_TTL_MS: u64 = 60_000;
/// Beyond this, Redis would close the connection, for everyone who shares it.
const MAX_MESSAGE: usize = 256 * 1024 * 1024;

pub(crate) async fn append(broker: &RedisBroker, batch: Vec<Append>) -> Vec<Result<Position>> {
    let (request, written) = request(broker.keys(), &batch);
    if written == 0 {
        return batch
            .iter()
            .map(|append| too_large(append).map(|()| Position::ZERO))
            .collect();
    }
    match broker.commands().call(request, written).await {
        Ok(answer) => results(answer, &batch),
        Err(error) => batch.iter().map(|_| Err(error.clone())).collect(),
    }
}

/// The pipeline, and how many commands are in it: one XADD per message, then one PEXPIRE per inbox.
fn request(keys: &Keys, batch: &[Append]) -> (Request, usize) {
    let capacity = batch
        .iter()
        .map(|append| entry::copied(&append.message) + 64)
        .sum();
    let mut request = Request::with_capacity(capacity);
    let mut written = 0;
    let mut inboxes: Vec<&Topic> = Vec::new();
    for append in batch.iter().filter(|append| too_large(append).is_ok()) {
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
            too_large(append)?;
            let id = answer.next_text(format_args!("appending to topic {}", append.topic))?;
            Ok(entry::position(&id)?)
        })
        .collect()
}

/// Refuses what Redis would not take.
pub(crate) fn too_large(append: &Append) -> Result<()> {
    let size = append.message.size();
    if size <= MAX_MESSAGE {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Invalid,
        "message-too-large",
        format!(
            "a message of {size} bytes to topic {} is larger than {MAX_MESSAGE} bytes: store it elsewhere and send its address",
            append.topic
        ),
    ))
}
