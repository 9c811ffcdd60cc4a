//! What follows from how a handler ended. Pure: the reply, the delivery, the time and chance in, a settlement out.
//!
//! One rule for failures: who asked is told, at once, and decides about another try, unless it was agreed for the handler that its
//! requests are tried again. A message that nobody waits for is tried again while that may help (the failure is transient,
//! and the retry policy allows it), and then kept as a dead letter.
//!
//! Only a success is an effect that is remembered: after a failure, the same thing may be tried again.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use streamerson_core::meta::DeadLetter;
use streamerson_core::retry::{Decision, RetryPolicy};
use streamerson_core::{
    Append, Message, Meta, Name, Once, Receipt, Result, Settlement, Topic, dead_letter,
};

use super::stats::{Counters, WorkerStats};
use crate::clock::Clock;
use crate::draft::Draft;
use crate::handler::Terms;
use crate::reply::Source;
use crate::router::Agreements;
use crate::{Deadline, Dedupe, IntoReply, Problem, Reply};

/// What the settlements of one membership have in common.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) topic: Topic,
    pub(super) group: Name,
    pub(super) member: Name,
    pub(super) retry: RetryPolicy,
    pub(super) dedupe: Option<Dedupe>,
    pub(super) agreements: Agreements,
    /// Of the lease under which the topic is owned, or 0.
    pub(super) epoch: u64,
    /// Where dead letters are counted by their reason.
    pub(super) counters: Counters,
    /// Ages and deadlines are judged by the broker's clock.
    pub(super) clock: Arc<Clock>,
}

/// Why a message is not handled.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It was delivered more often than it may be, and never came to an end.
    Poison(Problem),
    /// It cannot be handled as was agreed.
    Unfit(Problem),
}

/// The circumstances of a decision.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) unix_ms: u64,
    /// A random number in 0..1.
    pub(super) chance: f64,
}

impl Rules {
    pub(super) fn moment(&self) -> Moment {
        Moment {
            unix_ms: self.clock.broker_unix_ms(),
            chance: rand::random(),
        }
    }

    /// Why `message` must not be handled, looked at before its handler runs: what kills its worker must not do so for ever.
    pub(super) fn refusal(&self, message: &Message, attempt: u32) -> Option<Refusal> {
        let terms = self.terms(message);
        if attempt > self.policy(&terms).max_attempts {
            return Some(Refusal::Poison(too_many(message, attempt)));
        }
        let unfit = self.effect(&terms, message).err()?;
        let problem = Problem::bad_request(unfit.code(), unfit.detail().to_owned());
        Some(Refusal::Unfit(problem))
    }

    /// The settlement of `message`, which is not handled, counted in `stats`. A poisonous one is kept, also when somebody
    /// waits for it: whoever operates this has to see it.
    pub(super) fn refuse(
        &self,
        message: &Message,
        receipt: Receipt,
        refusal: Refusal,
        moment: Moment,
        stats: &mut WorkerStats,
    ) -> Settlement {
        let mut outputs = Vec::new();
        let reply = match refusal {
            Refusal::Unfit(problem) => problem.into_reply(),
            Refusal::Poison(problem) => {
                if message.reply_to().is_some() {
                    stats.dead += 1;
                    outputs.push(self.dead_letter(message, &receipt, &problem, moment));
                }
                problem.permanent().into_reply()
            }
        };
        stats.handled += 1;
        self.conclude(message, receipt, reply, outputs, moment, stats)
    }

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
        // Who waits for the answer of a later stage would not get one, if that stage were not reached.
        let is_passed_on = matches!(source, Source::Elsewhere(_)) && message.reply_to().is_some();
        match outputs(message, source, publish, moment.unix_ms) {
            Ok(outputs) if is_answer => {
                self.conclude(message, receipt, reply, outputs, moment, stats)
            }
            Ok(outputs) if is_passed_on => Settlement::complete_with(receipt, outputs),
            Ok(outputs) => self.complete(message, receipt, outputs),
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
        let inbox = message.reply_to();
        let Some(problem) = reply.problem() else {
            outputs.extend(inbox.map(|inbox| Append::new(inbox, reply.answer(message))));
            return self.complete(message, receipt, outputs);
        };
        stats.failed += 1;
        if let Some(after) = self.again(message, &receipt, &problem, moment) {
            stats.retried += 1;
            return Settlement::retry(receipt, after);
        }
        outputs.push(match inbox {
            Some(inbox) => Append::new(inbox, reply.answer(message)),
            None => {
                stats.dead += 1;
                self.dead_letter(message, &receipt, &problem, moment)
            }
        });
        Settlement::complete_with(receipt, outputs)
    }

    /// The settlement of a success.
    fn complete(&self, message: &Message, receipt: Receipt, outputs: Vec<Append>) -> Settlement {
        let settlement = Settlement::complete_with(receipt, outputs);
        // What has no usable key was refused before it was handled.
        match self.effect(&self.terms(message), message) {
            Ok(Some(effect)) => settlement.once(effect),
            _ => settlement,
        }
    }

    /// When to try again, if that may help and is allowed.
    fn again(
        &self,
        message: &Message,
        receipt: &Receipt,
        problem: &Problem,
        moment: Moment,
    ) -> Option<Duration> {
        let terms = self.terms(message);
        let is_awaited = message.reply_to().is_some();
        if !problem.is_transient() || (is_awaited && !terms.requests) {
            return None;
        }
        let age = moment.unix_ms.saturating_sub(receipt.position().major());
        let policy = self.policy(&terms);
        let age = Duration::from_millis(age);
        let Decision::Retry { after } = policy.decide(receipt.attempt(), age, moment.chance) else {
            return None;
        };
        let after = problem.delay().unwrap_or(after);
        // Nobody would be there to hear how the next attempt ended.
        (!is_awaited || in_time(message, moment, after)).then_some(after)
    }

    pub(super) fn dead_letter(
        &self,
        message: &Message,
        receipt: &Receipt,
        problem: &Problem,
        moment: Moment,
    ) -> Append {
        tracing::warn!(
            topic = %self.topic, position = %receipt.position(), kind = %message.kind, %problem,
            "a message is kept as a dead letter"
        );
        self.counters.dead_letter(problem.code());
        let at = moment.unix_ms;
        let mut why = DeadLetter::new(&self.topic, &self.group, &self.member, receipt, at);
        why.code = problem.code().into();
        why.reason = problem.message().into();
        dead_letter::letter(&self.topic, message, why)
    }

    /// What is agreed for the handler of `message`.
    fn terms(&self, message: &Message) -> Terms {
        self.agreements.get(&message.kind)
    }

    fn policy(&self, terms: &Terms) -> RetryPolicy {
        terms.retry.unwrap_or(self.retry)
    }

    /// The effect that `message` has, where one is to happen once.
    fn effect(&self, terms: &Terms, message: &Message) -> Result<Option<Once>> {
        let dedupe = terms.dedupe.or(self.dedupe);
        dedupe.map(|dedupe| dedupe.effect(message)).transpose()
    }
}

/// Whether the caller still waits when `after` has passed.
fn in_time(message: &Message, moment: Moment, after: Duration) -> bool {
    let after = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
    let next = moment.unix_ms.saturating_add(after);
    let deadline = Meta::deadline(&message.meta).unwrap_or_default();
    !Deadline::from(deadline).has_passed(next)
}

fn too_many(message: &Message, attempt: u32) -> Problem {
    let text = format!(
        "{} was begun {} times without an end, and was not begun again at delivery {attempt}: it may stop its workers, or take longer than they live",
        message.kind,
        attempt - 1
    );
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "too-many-attempts", text)
}

/// The messages that a handler asked for, the one that carries the request on last. `now` is what the broker's clock says.
fn outputs(
    message: &Message,
    source: Source,
    publish: Vec<Draft>,
    now: u64,
) -> Result<Vec<Append>> {
    let mut outputs = Vec::with_capacity(publish.len() + 1);
    for draft in publish {
        outputs.push(draft.compose(now)?);
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
    use streamerson_core::memory::MemoryBroker;
    use streamerson_core::{Outcome, Position};

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
            dedupe: None,
            agreements: Agreements::default(),
            epoch: 0,
            counters: Counters::default(),
            clock: Arc::new(Clock::new(Arc::new(MemoryBroker::new()))),
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

    fn settle_by(rules: &Rules, message: &Message, reply: impl IntoReply) -> Outcome {
        let mut stats = WorkerStats::default();
        let receipt = Receipt::new(Position::new(1000, 0), 1);
        let reply = reply.into_reply();
        let settlement = rules.settlement(message, receipt, reply, MOMENT, &mut stats);
        settlement.outcome
    }

    fn retried(after_ms: u64) -> Outcome {
        Outcome::Retry {
            after: Duration::from_millis(after_ms),
        }
    }

    fn effect(outcome: Outcome) -> Option<String> {
        match outcome {
            Outcome::Complete { once, .. } => once.map(|once| once.key.to_string()),
            Outcome::Retry { .. } => panic!("retried"),
        }
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

    #[test]
    fn a_failure_says_itself_whether_another_try_may_help() {
        let message = Message::new("order.create", "{}");
        let locked = || Problem::conflict("locked", "later");
        let (outcome, _) = settle(&message, 1, locked().transient());
        assert_eq!(outcome, retried(100));
        let never = locked().retry_after(Duration::MAX);
        let year = RetryPolicy::LONGEST_DELAY.as_millis() as u64;
        assert_eq!(settle(&message, 1, never).0, retried(year));
        let (outcome, _) = settle(&message, 1, locked().retry_after(Duration::from_secs(60)));
        assert_eq!(outcome, retried(60_000));
        let broken = Problem::unavailable("broken", "for good").permanent();
        assert_eq!(completed(settle(&message, 1, broken).0).len(), 1);

        // The policy still says how often.
        let (outcome, stats) = settle(&message, 3, locked().retry_after(Duration::ZERO));
        assert_eq!((completed(outcome).len(), stats.dead), (1, 1));
    }

    #[test]
    fn a_message_too_old_is_given_up() {
        let old = RetryPolicy {
            max_age: Some(Duration::from_millis(4000)),
            ..RetryPolicy::default()
        };
        let rules = Rules {
            retry: old,
            ..rules()
        };
        let message = Message::new("order.create", "{}");
        let outcome = settle_by(&rules, &message, Problem::unavailable("busy", "later"));
        assert_eq!(completed(outcome)[0].topic.as_str(), "orders:dlq");
    }

    #[test]
    fn dead_letters_are_counted_by_reason() {
        let rules = rules();
        let message = Message::new("order.create", "{}");
        for code in ["wrong", "late", "wrong"] {
            settle_by(&rules, &message, Problem::bad_request(code, "no"));
        }
        let counted = rules.counters.dead_letters();
        assert_eq!((counted["wrong"], counted["late"]), (2, 1));
    }

    fn agreed(terms: Terms) -> Rules {
        Rules {
            agreements: Agreements::same(terms),
            ..rules()
        }
    }

    #[test]
    fn an_agreed_request_is_tried_again_while_its_caller_waits() {
        let rules = agreed(Terms {
            retry: Some(RetryPolicy {
                jitter: 0.0,
                ..RetryPolicy::default()
            }),
            requests: true,
            ..Terms::default()
        });
        let busy = || Problem::unavailable("busy", "later");
        let until = |exp| {
            let meta = Meta {
                exp: Some(exp),
                ..Meta::default()
            };
            request().with_meta(&meta)
        };
        assert_eq!(settle_by(&rules, &request(), busy()), retried(100));
        assert_eq!(settle_by(&rules, &until(5_101), busy()), retried(100));
        for (request, problem) in [
            (until(5_100), busy()),
            (until(9_000), busy().retry_after(Duration::from_secs(4))),
            (until(9_000), busy().permanent()),
        ] {
            let outputs = completed(settle_by(&rules, &request, problem));
            assert_eq!(outputs[0].topic.as_str(), "inbox.me");
        }
    }

    #[test]
    fn the_handlers_own_policy_says_when_it_is_poison() {
        let rules = agreed(Terms {
            retry: Some(RetryPolicy {
                max_attempts: 7,
                ..RetryPolicy::default()
            }),
            ..Terms::default()
        });
        assert!(rules.refusal(&request(), 7).is_none());
        let refusal = rules.refusal(&request(), 8).unwrap();
        let mut stats = WorkerStats::default();
        let receipt = Receipt::new(Position::new(1000, 0), 8);
        let settlement = rules.refuse(&request(), receipt, refusal, MOMENT, &mut stats);
        // Who waits is told, and who operates this sees it.
        let outputs = completed(settlement.outcome);
        let topics: Vec<&str> = outputs.iter().map(|output| output.topic.as_str()).collect();
        assert_eq!(topics, ["orders:dlq", "inbox.me"]);
        assert_eq!((stats.failed, stats.dead), (1, 1));
    }

    #[test]
    fn only_a_success_is_an_effect_to_be_remembered() {
        let rules = Rules {
            dedupe: Some(Dedupe::by_id(Duration::from_secs(60))),
            ..rules()
        };
        let (asked, told) = (request(), Message::new("order.create", "{}"));
        let bad = || Problem::bad_request("wrong", "no");
        for message in [&asked, &told] {
            let id = Some(format!("id:{}", message.id));
            assert_eq!(effect(settle_by(&rules, message, Json(1))), id);
            assert_eq!(effect(settle_by(&rules, message, NoReply)), id);
            assert_eq!(effect(settle_by(&rules, message, bad())), None);
        }
        // The second of two equal requests must reach who answers it.
        let next = || Forward::to("pricing", "order.price");
        assert_eq!(effect(settle_by(&rules, &asked, next())), None);
        assert!(effect(settle_by(&rules, &told, next())).is_some());
    }

    #[test]
    fn what_has_no_usable_key_is_refused_before_it_is_handled() {
        let rules = agreed(Terms {
            dedupe: Some(Dedupe::by_key(Duration::from_secs(60))),
            ..Terms::default()
        });
        let mut meta = Meta::default();
        meta.hdr.append("idempotency-key", "k".repeat(8000));
        let refusal = rules.refusal(&request().with_meta(&meta), 1);
        let Some(Refusal::Unfit(problem)) = refusal else {
            panic!("{refusal:?}");
        };
        assert_eq!(problem.code(), "invalid-idempotency-key");
    }
}
