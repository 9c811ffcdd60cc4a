//! What is sent during a run: requests, and messages that want no answer, at an even rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytestring::ByteString;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use streamerson::Client;
use streamerson_core::{Error, ErrorKind, Message, Meta, Topic, partition};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::clock;
use super::record::{Call, End, Kind, Place, Turn};
use super::settings::{EFFECT, Names, PARTITIONS, POISON, QUEUE};
use super::worker::{Answer, Payload};

/// How often is looked what is due to be sent.
const TICK: Duration = Duration::from_millis(5);
/// Calls under way at the same time; beyond it the load waits.
const IN_FLIGHT: usize = 8192;
/// Keys at the same time.
const KEYS: usize = 32;
/// So that a message has the size of a small real one.
const PADDING: usize = 150;

/// Sends calls until it is told to stop.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) client: Client,
    pub(crate) names: Names,
    /// Calls per second.
    pub(crate) rate: u32,
    pub(crate) timeout: Duration,
    /// Whether some messages are sent more than once.
    pub(crate) duplicates: bool,
    pub(crate) seed: u64,
    /// Requests begun so far.
    pub(crate) requests: Arc<AtomicUsize>,
    pub(crate) chains: Chains,
}

/// Keys whose messages are sent in order.
#[derive(Debug)]
pub(crate) struct Chains([Mutex<Chain>; KEYS]);

/// Messages of one key, sent one after the other.
#[derive(Debug)]
struct Chain {
    next: Turn,
}

/// What is to be sent next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Request,
    /// The same message, so many times.
    Send(u32),
    /// The next message of this chain.
    Keyed(usize),
}

impl Load {
    /// Sends until `stop`, waits for what is under way, and answers what became of it all.
    pub(crate) async fn run(self, stop: CancellationToken) -> Vec<Call> {
        let mut chance = StdRng::seed_from_u64(self.seed);
        let room = Arc::new(Semaphore::new(IN_FLIGHT));
        let (mut under_way, mut calls) = (JoinSet::new(), Vec::new());
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (begun, mut sent) = (Instant::now(), 0_u64);
        let load = Arc::new(self);
        while !stop.is_cancelled() {
            ticks.tick().await;
            let due = (begun.elapsed().as_secs_f64() * f64::from(load.rate)) as u64;
            while sent < due {
                let Ok(permit) = room.clone().try_acquire_owned() else {
                    // What could not be sent in time is not sent later.
                    sent = due;
                    break;
                };
                sent += 1;
                let (load, next) = (load.clone(), load.next(&mut chance));
                if next == Next::Request {
                    load.requests.fetch_add(1, Ordering::Relaxed);
                }
                let nonce = sent;
                under_way.spawn(async move {
                    let _permit = permit;
                    load.call(next, nonce).await
                });
            }
            while let Some(Ok(call)) = under_way.try_join_next() {
                calls.push(call);
            }
        }
        while let Some(ended) = under_way.join_next().await {
            calls.extend(ended);
        }
        calls
    }

    /// Three of four are requests, one of ten has a key; with duplicates, one of twenty is sent two or three times.
    fn next(&self, chance: &mut StdRng) -> Next {
        match chance.random_range(0..20) {
            0 if self.duplicates => Next::Send(chance.random_range(2..=3)),
            0..3 => Next::Send(1),
            3..5 => Next::Keyed(chance.random_range(0..KEYS)),
            _ => Next::Request,
        }
    }

    async fn call(&self, next: Next, nonce: u64) -> Call {
        match next {
            Next::Request => request(&self.client, &self.names.work, nonce, self.timeout).await,
            Next::Send(times) => {
                let message = Message::new(EFFECT, payload(nonce, None));
                send(
                    &self.client,
                    &self.names.work,
                    message,
                    Kind::Send,
                    nonce,
                    times,
                )
                .await
            }
            Next::Keyed(chain) => self.keyed(&self.chains.0[chain % KEYS], nonce).await,
        }
    }

    /// Sends the next message of a key, once what is known of the one before.
    async fn keyed(&self, chain: &Mutex<Chain>, nonce: u64) -> Call {
        let mut chain = chain.lock().await;
        let turn = chain.next;
        let key = format!("key-{}", turn.key);
        let stream = 1 + partition::of(&key, PARTITIONS);
        let meta = Meta {
            key: Some(key),
            ..Meta::default()
        };
        let message = Message::new(EFFECT, payload(nonce, Some(turn))).with_meta(&meta);
        let call = send(
            &self.client,
            &self.names.keyed,
            message,
            Kind::Send,
            nonce,
            1,
        )
        .await;
        chain.next.number += 1;
        if let End::Unknown(_) = call.end {
            // It may still be stored, after the next one: the key has no order any more.
            chain.next.key += u32::try_from(KEYS).unwrap_or(0);
        }
        let places = call.places.iter();
        Call {
            places: places.map(|place| Place { stream, ..*place }).collect(),
            turn: Some(turn),
            ..call
        }
    }
}

impl Default for Chains {
    fn default() -> Chains {
        Chains(std::array::from_fn(|key| {
            let key = u32::try_from(key).unwrap_or(0);
            Mutex::new(Chain {
                next: Turn { key, number: 0 },
            })
        }))
    }
}

/// Asks, and waits for the answer.
pub(crate) async fn request(client: &Client, topic: &Topic, nonce: u64, timeout: Duration) -> Call {
    let wait = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    let meta = Meta {
        exp: Some(client.broker_unix_ms().saturating_add(wait)),
        ..Meta::default()
    };
    let message = Message::new(EFFECT, payload(nonce, None)).with_meta(&meta);
    let (id, began) = (message.id.clone(), clock::now());
    let reply = client.dispatch(topic.clone(), message, Instant::now() + timeout);
    let end = match reply.await {
        Ok(reply) => answered(&reply),
        Err(error) => unanswered(&error),
    };
    finished(id, nonce, Kind::Request, began, end)
}

/// Sends a message that stops whoever handles it.
pub(crate) async fn poison(client: &Client, topic: &Topic) -> Call {
    let message = Message::new(POISON, "{}");
    send(client, topic, message, Kind::Poison, 0, 1).await
}

/// Sends the same message `times` times.
async fn send(
    client: &Client,
    topic: &Topic,
    message: Message,
    kind: Kind,
    nonce: u64,
    times: u32,
) -> Call {
    let began = clock::now();
    let mut places = Vec::new();
    let mut failed = None;
    for _ in 0..times {
        match client.append(topic.clone(), message.clone()).await {
            Ok(position) => places.push(Place {
                stream: QUEUE,
                position,
            }),
            // Once it may have happened, it may have happened.
            Err(error) => match (&failed, unanswered(&error)) {
                (Some(End::Unknown(_)), _) => (),
                (_, end) => failed = Some(end),
            },
        }
    }
    let end = match places.is_empty() {
        false => End::Stored,
        true => failed.unwrap_or(End::Stored),
    };
    Call {
        places,
        ..finished(message.id, nonce, kind, began, end)
    }
}

fn finished(id: ByteString, nonce: u64, kind: Kind, began: Duration, end: End) -> Call {
    Call {
        id,
        nonce,
        kind,
        began,
        ended: clock::now(),
        end,
        places: Vec::new(),
        turn: None,
    }
}

fn payload(nonce: u64, turn: Option<Turn>) -> Vec<u8> {
    let payload = Payload {
        nonce,
        turn,
        padding: "-".repeat(PADDING),
    };
    // Numbers and text cannot fail to be JSON.
    serde_json::to_vec(&payload).unwrap_or_default()
}

fn answered(reply: &Message) -> End {
    match reply.parse_meta() {
        Ok(meta) if meta.err.is_none() && meta.status.unwrap_or(200) < 400 => {
            let answer = serde_json::from_slice::<Answer>(&reply.data).ok();
            End::Answered(answer.map(|answer| answer.nonce))
        }
        Ok(meta) => End::Failed(meta.err.map_or_else(String::new, |failure| failure.code)),
        Err(error) => End::Failed(error.code().to_owned()),
    }
}

fn unanswered(error: &Error) -> End {
    let code = error.code().to_owned();
    match error.kind() {
        ErrorKind::Unavailable | ErrorKind::Invalid => End::Refused(code),
        _ => End::Unknown(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use streamerson::connect;

    #[tokio::test]
    async fn a_call_says_what_became_of_it() {
        let client = Client::open(connect("memory:").await.unwrap())
            .await
            .unwrap();
        let topic = Topic::new("work").unwrap();
        let call = request(&client, &topic, 7, Duration::from_millis(1)).await;
        assert_eq!(call.end, End::Unknown("no-reply-in-time".into()));
        let call = poison(&client, &topic).await;
        assert_eq!((call.end, call.places.len()), (End::Stored, 1));
    }

    #[test]
    fn a_failed_answer_is_no_answer() {
        let request = Message::new(EFFECT, payload(7, None));
        let good = request.answer(r#"{"nonce":7}"#);
        assert_eq!(answered(&good), End::Answered(Some(7)));
        assert_eq!(answered(&request.answer("7")), End::Answered(None));
        let meta = Meta {
            status: Some(500),
            ..Meta::default()
        };
        let bad = answered(&good.with_meta(&meta));
        assert_eq!(bad, End::Failed(String::new()));
    }
}
