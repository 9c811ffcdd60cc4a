//! What follows from how a handler ended. Pure: the reply, the delivery, the time and chance in, a settlement out.
//!
//! One rule for failures: who asked is told, at once, and decides about another try. A message that nobody waits for is
//! tried again while that may help (status 500 and above, within the retry policy), and then kept as a dead letter.

use streamerson_core::meta::DeadLetter;
use streamerson_core::retry::{Decision, RetryPolicy};
use streamerson_core::time::unix_ms;
use streamerson_core::{Append, Message, Name, Receipt, Result, Settlement, Topic, dead_letter};

use super::stats::WorkerStats;
use crate::draft::Draft;
use crate::reply::Source;
use crate::{IntoReply, Problem, Reply};

/// What the settlements of one membership have in common.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) topic: Topic,
    pub(super) group: Name,
    pub(super) member: Name,
    pub(super) retry: RetryPolicy,
}

/// The circumstances of a decision.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) unix_ms: u64,
    /// A random number in 0..1.
    pub(super) chance: f64,
}

impl Moment {
    pub(super) fn now() -> Moment {
        Moment {
            unix_ms: unix_ms(),
            chance: rand::random(),
        }
    }
}

impl Rules {
    /// The settlement of `message`, whose handling ended with `reply`, counted in `stats`.
    pub(super) fn settlement(
        &self,
        message: &Message,
        receipt: Receipt,
        mut reply: Reply,
        moment: Moment,
        stats: &mut WorkerStats,
    ) -> Settlement {
        stats.handled += 1;
        let (source, publish) = reply.take_outputs();
        let is_answer = matches!(source, Source::Here);
        match outputs(message, source, publish) {
            Ok(outputs) if is_answer => {
                self.conclude(message, receipt, reply, outputs, moment, stats)
            }
            Ok(outputs) => Settlement::complete_with(receipt, outputs),
            Err(error) => {
                let reply = Problem::from(error).into_reply();
                self.conclude(message, receipt, reply, Vec::new(), moment, stats)
            }
        }
    }

    /// The settlement when the work ends here.
    fn conclude(
        &self,
        message: &Message,
        receipt: Receipt,
        reply: Reply,
        mut outputs: Vec<Append>,
        moment: Moment,
        stats: &mut WorkerStats,
    ) -> Settlement {
        let problem = reply.problem();
        stats.failed += u64::from(problem.is_some());
        if let Some(inbox) = message.reply_to() {
            outputs.push(Append::new(inbox, reply.answer(message)));
            return Settlement::complete_with(receipt, outputs);
        }
        let Some(problem) = problem else {
            return Settlement::complete_with(receipt, outputs);
        };
        if let Some(settlement) = self.again(&receipt, &problem, moment) {
            stats.retried += 1;
            return settlement;
        }
        stats.dead += 1;
        outputs.push(self.dead_letter(message, &receipt, &problem, moment));
        Settlement::complete_with(receipt, outputs)
    }

    /// Another try, if that may help.
    fn again(&self, receipt: &Receipt, problem: &Problem, moment: Moment) -> Option<Settlement> {
        if !problem.status().is_server_error() {
            return None;
        }
        let position = receipt.position();
        let age = std::time::Duration::from_millis(moment.unix_ms.saturating_sub(position.major()));
        match self.retry.decide(receipt.attempt(), age, moment.chance) {
            Decision::Retry { after } => Some(Settlement::retry(
                Receipt::new(position, receipt.attempt()),
                after,
            )),
            Decision::GiveUp => None,
        }
    }

    fn dead_letter(
        &self,
        message: &Message,
        receipt: &Receipt,
        problem: &Problem,
        moment: Moment,
    ) -> Append {
        tracing::warn!(
            topic = %self.topic, position = %receipt.position(), kind = %message.kind, %problem,
            "a message that nobody waits for failed, and is kept as a dead letter"
        );
        let at = moment.unix_ms;
        let mut why = DeadLetter::new(&self.topic, &self.group, &self.member, receipt, at);
        why.code = problem.code().into();
        why.reason = problem.message().into();
        dead_letter::letter(&self.topic, message, why)
    }
}

/// The messages that a handler asked for, the one that carries the request on last.
fn outputs(message: &Message, source: Source, publish: Vec<Draft>) -> Result<Vec<Append>> {
    let mut outputs = Vec::with_capacity(publish.len() + 1);
    for draft in publish {
        outputs.push(draft.compose()?);
    }
    if let Source::Elsewhere(draft) = source {
        outputs.push(draft.forward(message)?);
    }
    Ok(outputs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Forward, Json, NoReply, Publish};
    use http::StatusCode;
    use std::time::Duration;
    use streamerson_core::{Meta, Outcome, Position};

    const MOMENT: Moment = Moment {
        unix_ms: 5_000,
        chance: 0.0,
    };

    fn rules() -> Rules {
        Rules {
            topic: Topic::new("orders").unwrap(),
            group: Name::new("billing").unwrap(),
            member: Name::new("ada").unwrap(),
            retry: RetryPolicy {
                max_attempts: 3,
                jitter: 0.0,
                ..RetryPolicy::default()
            },
        }
    }

    fn request() -> Message {
        Message::new("order.create", "{}").with_reply(&Topic::inbox("me").unwrap())
    }

    fn settle(message: &Message, attempt: u32, reply: impl IntoReply) -> (Outcome, WorkerStats) {
        let mut stats = WorkerStats::default();
        let receipt = Receipt::new(Position::new(1000, 0), attempt);
        let settlement =
            rules().settlement(message, receipt, reply.into_reply(), MOMENT, &mut stats);
        (settlement.outcome, stats)
    }

    fn completed(outcome: Outcome) -> Vec<Append> {
        match outcome {
            Outcome::Complete { outputs, .. } => outputs,
            Outcome::Retry { .. } => panic!("retried"),
        }
    }

    #[test]
    fn who_asked_is_answered_also_with_a_failure() {
        let request = request();
        let (outcome, stats) = settle(&request, 1, Problem::unavailable("busy", "later"));
        let outputs = completed(outcome);
        assert_eq!(outputs.len(), 1);
        assert_eq!(outputs[0].topic.as_str(), "inbox.me");
        assert_eq!(outputs[0].message.corr, request.id);
        assert_eq!(outputs[0].message.parse_meta().unwrap().status, Some(503));
        assert_eq!((stats.handled, stats.failed, stats.dead), (1, 1, 0));
    }

    #[test]
    fn a_failure_nobody_waits_for_is_tried_again_and_then_kept() {
        let message = Message::new("order.create", "{}");
        let busy = || Problem::unavailable("busy", "later");
        let (outcome, stats) = settle(&message, 2, busy());
        assert_eq!(
            outcome,
            Outcome::Retry {
                after: Duration::from_millis(200)
            }
        );
        assert_eq!(stats.retried, 1);

        let (outcome, stats) = settle(&message, 3, busy());
        let outputs = completed(outcome);
        assert_eq!(outputs[0].topic.as_str(), "orders:dlq");
        let why = outputs[0].message.parse_meta().unwrap().dlq.unwrap();
        assert_eq!(
            (why.code.as_str(), why.reason.as_str(), why.group.as_str()),
            ("busy", "later", "billing")
        );
        assert_eq!(
            (why.position.as_str(), why.member.as_str()),
            ("1000-0", "ada")
        );
        assert_eq!((why.attempts, why.first, why.at), (3, 1000, 5000));
        assert_eq!(stats.dead, 1);
    }

    #[test]
    fn what_cannot_become_right_is_kept_at_once() {
        let message = Message::new("order.create", "{}");
        for reply in [
            Problem::bad_request("wrong", "no").into_reply(),
            StatusCode::NOT_FOUND.into_reply(),
        ] {
            assert_eq!(
                completed(settle(&message, 1, reply).0)[0].topic.as_str(),
                "orders:dlq"
            );
        }
    }

    #[test]
    fn a_success_nobody_waits_for_leaves_nothing() {
        let (outcome, stats) = settle(&Message::new("a", ""), 1, Json(1));
        assert_eq!(completed(outcome), []);
        assert_eq!((stats.handled, stats.failed), (1, 0));
    }

    #[test]
    fn who_answers_nothing_still_completes_and_publishes() {
        let publish = Publish::to("audit", "order.seen").text("x");
        let (outcome, stats) = settle(&request(), 1, (publish, NoReply));
        let outputs = completed(outcome);
        assert_eq!(outputs.len(), 1);
        assert_eq!(outputs[0].topic.as_str(), "audit");
        assert_eq!((stats.handled, stats.failed), (1, 0));
    }

    #[test]
    fn a_forwarded_request_is_not_answered_here() {
        let meta = Meta {
            exp: Some(9_000),
            ..Meta::default()
        };
        let request = request().with_meta(&meta);
        let next = Forward::to("pricing", "order.price").json(&7);
        let publish = Publish::to("audit", "order.seen").text("x");
        let outputs = completed(settle(&request, 1, (publish, next)).0);
        assert_eq!(outputs.len(), 2);
        assert_eq!(
            (outputs[0].topic.as_str(), outputs[0].message.reply.len()),
            ("audit", 0)
        );
        let forwarded = &outputs[1].message;
        assert_eq!(outputs[1].topic.as_str(), "pricing");
        assert_eq!(
            (&forwarded.corr, &forwarded.reply),
            (&request.id, &request.reply)
        );
        assert_eq!(forwarded.parse_meta().unwrap().exp, Some(9_000));
    }

    #[test]
    fn an_output_to_no_topic_is_a_failure_of_the_handler() {
        let outputs = completed(settle(&request(), 1, Forward::to("no topic", "x")).0);
        let meta = outputs[0].message.parse_meta().unwrap();
        assert_eq!(
            (meta.status, meta.err.unwrap().code.as_str()),
            (Some(500), "invalid-name")
        );
    }
}
