//! Dedupe: which messages are the same thing, of which only the first is to have an effect.

use std::time::Duration;

use serde::Deserialize;
use streamerson_core::meta::{Headers, IDEMPOTENCY_KEY};
use streamerson_core::{Error, Message, Once, Result};

/// Which messages are the same thing to a consumer group, and for how long: of these, only the first that succeeds has an
/// effect in the broker. What follows from a later one is discarded in the step that settles it, and whoever asked gets the
/// answer of the first. A failure is no effect, and is not remembered.
///
/// A group remembers a million of them in a topic at a time on the embedded broker. With more, completions wait until the oldest
/// are forgotten, and with a thousand of these the worker takes nothing more: keep them no longer than the rate of messages allows.
///
/// The handler may still run more than once, so that an effect outside of the broker needs the
/// [`IdempotencyKey`](crate::IdempotencyKey) or [`Fence`](crate::Fence) too.
///
/// Set it with [`Worker::dedupe`](crate::Worker::dedupe), or for one handler:
///
/// ```
/// use std::time::Duration;
/// use streamerson::{Dedupe, Handler, Json, Router};
///
/// async fn charge(Json(cents): Json<u64>) -> Json<u64> {
///     Json(cents)
/// }
///
/// let day = Duration::from_secs(24 * 60 * 60);
/// let router: Router = Router::new().on("card.charge", charge.dedupe(Dedupe::by_key(day)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dedupe {
    by_key: bool,
    keep: Duration,
}

impl Dedupe {
    /// Messages with the same id are the same: whatever wrote one twice. Remembered for `keep`.
    pub const fn by_id(keep: Duration) -> Dedupe {
        Dedupe {
            by_key: false,
            keep,
        }
    }

    /// Messages of the same type with the same `Idempotency-Key` of their callers are the same; without a key, those with
    /// the same id. Remembered for `keep`.
    ///
    /// A caller who knows the key of another gets the other's answer: keys are to be unguessable, for example UUIDs.
    pub const fn by_key(keep: Duration) -> Dedupe {
        Dedupe { by_key: true, keep }
    }

    /// The effect that `message` has.
    pub(crate) fn effect(self, message: &Message) -> Result<Once> {
        let key = match self.by_key.then(|| caller_key(&message.meta)) {
            Some(key) => key?,
            None => None,
        };
        let Some(key) = key else {
            let once = Once::of_message(&message.id, self.keep);
            return once.check().map(|()| once);
        };
        Once::of_caller(&message.kind, &key, self.keep)
    }
}

/// The caller's key, without building the rest of `meta`.
fn caller_key(meta: &[u8]) -> Result<Option<String>> {
    #[derive(Deserialize)]
    struct Part {
        #[serde(default)]
        hdr: Headers,
    }
    if meta.is_empty() {
        return Ok(None);
    }
    let part: Part = serde_json::from_slice(meta)
        .map_err(|error| Error::invalid("invalid-meta", format!("meta is not valid: {error}")))?;
    Ok(key_in(&part.hdr).map(str::to_owned))
}

/// The caller's key, if there is one.
pub(crate) fn key_in(headers: &Headers) -> Option<&str> {
    headers.get(IDEMPOTENCY_KEY).filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use streamerson_core::Meta;

    const KEEP: Duration = Duration::from_secs(60);

    fn message(kind: &'static str, key: &str) -> Message {
        let mut meta = Meta::default();
        meta.hdr.append("Idempotency-Key", key);
        Message::new(kind, "").with_meta(&meta)
    }

    fn effect(dedupe: Dedupe, message: &Message) -> String {
        dedupe.effect(message).unwrap().key.to_string()
    }

    #[test]
    fn a_key_means_the_same_thing_only_within_a_type() {
        let by_key = Dedupe::by_key(KEEP);
        let first = effect(by_key, &message("pay", "k"));
        assert_eq!(first, effect(by_key, &message("pay", "k")));
        assert_ne!(first, effect(by_key, &message("refund", "k")));
        assert_eq!(
            Once::of_caller("pay", "k", KEEP).unwrap().key,
            first.as_str()
        );
    }

    #[test]
    fn without_a_key_and_by_id_the_id_counts() {
        let keyed = message("pay", "k");
        let id = format!("id:{}", keyed.id);
        assert_eq!(effect(Dedupe::by_id(KEEP), &keyed), id);
        let empty = message("pay", "");
        assert_eq!(
            effect(Dedupe::by_key(KEEP), &empty),
            format!("id:{}", empty.id)
        );
    }

    #[test]
    fn no_key_of_a_caller_looks_like_an_id() {
        let other = Message::new("pay", "");
        let forged = message("id", &other.id);
        assert_ne!(
            effect(Dedupe::by_key(KEEP), &forged),
            effect(Dedupe::by_key(KEEP), &other)
        );
    }

    #[test]
    fn a_key_too_long_for_a_broker_is_refused() {
        let long = message("pay", &"k".repeat(600));
        let error = Dedupe::by_key(KEEP).effect(&long).unwrap_err();
        assert_eq!(error.code(), "invalid-idempotency-key");
        assert!(Dedupe::by_id(KEEP).effect(&long).is_ok());
    }
}
