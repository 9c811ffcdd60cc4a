//! What a program has been asked and has not answered yet, oldest first.

use std::collections::VecDeque;

use bytes::Bytes;
use bytestring::ByteString;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::line::{Answer, Named};

/// The program ended before it answered; the message may be tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Died {
    /// How it ended, for people.
    pub(crate) reason: String,
}

/// One message for a program, and who waits for the answer.
#[derive(Debug)]
pub(crate) struct Job {
    /// The id of the message.
    pub(crate) id: ByteString,
    pub(crate) question: Bytes,
    /// Told when a process is given the message for the first time, which it is not if nobody listens any more: so that
    /// who gives up knows whether it was.
    pub(crate) given: Option<oneshot::Sender<()>>,
    pub(crate) done: oneshot::Sender<Result<Answer, Died>>,
}

impl Job {
    /// Tells that a process is given the message. False when nobody waits for it any more.
    fn give(&mut self) -> bool {
        let heard = self.given.take().is_none_or(|given| given.send(()).is_ok());
        heard && !self.done.is_closed()
    }
}

/// The open questions of one program.
#[derive(Debug)]
pub(crate) struct Queue {
    /// How many the running process is asked before it answers the first.
    depth: usize,
    jobs: VecDeque<Job>,
    /// How many of them the running process has been asked.
    asked: usize,
    /// Whether the running process names the messages it answers.
    names: bool,
    /// When the oldest question that the running process was asked became the oldest.
    since: Option<Instant>,
}

impl Queue {
    /// No questions yet; `depth` is how many a process is asked before it answers the first.
    pub(crate) fn new(depth: usize) -> Queue {
        Queue {
            depth,
            jobs: VecDeque::new(),
            asked: 0,
            names: false,
            since: None,
        }
    }

    /// Adds `job`. What nobody waits for any more goes: while a process hangs, only as many questions are kept beside those it
    /// was asked as there are who wait.
    pub(crate) fn push(&mut self, job: Job) {
        let mut asked = self.asked;
        self.jobs.retain(|job| {
            let was_asked = asked > 0;
            asked = asked.saturating_sub(1);
            was_asked || !job.done.is_closed()
        });
        self.jobs.push_back(job);
    }

    /// The next question for the running process, if it may be asked one, which gets it `now`; what nobody waits for any
    /// more is left out.
    pub(crate) fn ask(&mut self, now: Instant) -> Option<Bytes> {
        if self.asked == self.depth {
            return None;
        }
        while !self.jobs.get_mut(self.asked)?.give() {
            self.jobs.remove(self.asked);
        }
        let job = self.jobs.get(self.asked)?;
        if self.asked == 0 {
            self.since = Some(now);
        }
        self.asked += 1;
        Some(job.question.clone())
    }

    /// Whether the running process owes an answer.
    pub(crate) fn is_waiting(&self) -> bool {
        self.asked > 0
    }

    /// Since when the running process has had the oldest question before it: since it was asked, or since the last one
    /// before it was answered, because a program that answers in order does not begin it earlier. Answers to later
    /// questions must not count: a program that left this one out would never be found out.
    pub(crate) fn waiting_since(&self) -> Option<Instant> {
        self.since.filter(|_| self.is_waiting())
    }

    /// How many bytes the questions have that the running process owes an answer.
    pub(crate) fn owed_bytes(&self) -> usize {
        let owed = self.jobs.iter().take(self.asked);
        owed.map(|job| job.question.len()).sum()
    }

    /// Hands `answer`, which came `now`, to the question it names, or else to the oldest. An error says why the process is out
    /// of step and must go: whose its next line would be, nobody knows. The oldest question then fails with it.
    pub(crate) fn answer(&mut self, answer: Answer, now: Instant) -> Result<(), String> {
        if self.asked == 0 {
            return Err("the program wrote a line that nothing had asked for".into());
        }
        match self.address(answer) {
            (at, Answer::Unusable(why)) => {
                self.take(at, Ok(Answer::Unusable(why.clone())));
                Err(why)
            }
            (at, answer) => {
                self.take(at, Ok(answer));
                if at == 0 {
                    self.since = Some(now);
                }
                Ok(())
            }
        }
    }

    /// Which question `answer` is for. Once a process has named a message, each of its lines must name one that is open;
    /// before, an object that happens to look like that is a payload.
    fn address(&mut self, answer: Answer) -> (usize, Answer) {
        let Answer::Payload(json) = &answer else {
            return (0, answer);
        };
        let named = Named::read(json);
        let mut open = self.jobs.iter().take(self.asked);
        let at = named
            .as_ref()
            .and_then(|named| open.position(|job| *job.id == *named.id));
        match (named, at) {
            (Some(named), Some(at)) => {
                self.names = true;
                (at, named.answer)
            }
            _ if self.names => {
                let why = "the program answered with a line that names no open message";
                (0, Answer::Unusable(why.into()))
            }
            _ => (0, answer),
        }
    }

    fn take(&mut self, at: usize, answer: Result<Answer, Died>) {
        if let Some(job) = self.jobs.remove(at) {
            self.asked -= 1;
            // Nobody listens any more when the worker gave the delivery up.
            let _ = job.done.send(answer);
        }
    }

    /// Charges the end of the running process to the oldest question: programs answer in order, so it was working on that one.
    pub(crate) fn charge(&mut self, died: Died) {
        if self.asked > 0 {
            self.take(0, Err(died));
        }
    }

    /// Another process follows: it will be asked what is open.
    pub(crate) fn replaced(&mut self) {
        (self.asked, self.names) = (0, false);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn queue(questions: &[&'static str]) -> (Queue, Vec<oneshot::Receiver<Result<Answer, Died>>>) {
        let mut queue = Queue::new(3);
        let receivers = questions
            .iter()
            .map(|question| {
                let (done, receiver) = oneshot::channel();
                queue.push(Job {
                    id: ByteString::from_static(question),
                    question: Bytes::from_static(question.as_bytes()),
                    given: None,
                    done,
                });
                receiver
            })
            .collect();
        (queue, receivers)
    }

    fn payload(text: &'static str) -> Answer {
        Answer::Payload(text.into())
    }

    fn died(queue: &mut Queue) {
        queue.charge(Died { reason: "x".into() });
        queue.replaced();
    }

    #[test]
    fn answers_go_to_questions_in_order() {
        let (mut queue, mut waiters) = queue(&["a", "b"]);
        assert_eq!(queue.ask(Instant::now()).unwrap(), "a");
        assert_eq!(queue.ask(Instant::now()).unwrap(), "b");
        assert_eq!(queue.ask(Instant::now()), None);
        assert!(queue.answer(payload("1"), Instant::now()).is_ok());
        assert!(queue.answer(payload("2"), Instant::now()).is_ok());
        assert_eq!(waiters[1].try_recv().unwrap(), Ok(payload("2")));
        assert!(queue.answer(payload("3"), Instant::now()).is_err());
    }

    #[test]
    fn an_answer_that_names_its_question_goes_to_it() {
        let (mut queue, mut waiters) = queue(&["a", "b", "c"]);
        queue.ask(Instant::now());
        queue.ask(Instant::now());
        let foreign = payload(r#"{"id":"c","payload":1}"#);
        assert!(
            queue
                .answer(payload(r#"{"id":"b","payload":2}"#), Instant::now())
                .is_ok()
        );
        assert_eq!(waiters[1].try_recv().unwrap(), Ok(payload("2")));
        assert!(waiters[0].try_recv().is_err(), "a is still open");
        // c has not been asked.
        assert!(queue.answer(foreign, Instant::now()).is_err());
        let failed = waiters[0].try_recv().unwrap().unwrap();
        assert!(matches!(failed, Answer::Unusable(_)));
        queue.replaced();
        assert_eq!(queue.ask(Instant::now()).unwrap(), "c");
    }

    #[test]
    fn what_only_looks_like_a_name_is_a_payload() {
        let (mut queue, mut waiters) = queue(&["a"]);
        queue.ask(Instant::now());
        let order = payload(r#"{"id":"order-7","payload":1}"#);
        assert!(queue.answer(order.clone(), Instant::now()).is_ok());
        assert_eq!(waiters[0].try_recv().unwrap(), Ok(order));
    }

    #[test]
    fn an_unusable_line_fails_the_oldest_question_and_keeps_the_others() {
        let (mut queue, mut waiters) = queue(&["a", "b"]);
        queue.ask(Instant::now());
        queue.ask(Instant::now());
        assert!(
            queue
                .answer(Answer::Unusable("x".into()), Instant::now())
                .is_err()
        );
        queue.replaced();
        assert!(matches!(
            waiters[0].try_recv().unwrap(),
            Ok(Answer::Unusable(_))
        ));
        assert!(waiters[1].try_recv().is_err(), "b is still open");
        assert_eq!(queue.ask(Instant::now()).unwrap(), "b");
    }

    #[test]
    fn only_the_oldest_question_is_blamed_for_a_death() {
        let (mut queue, mut waiters) = queue(&["a", "b", "c"]);
        while queue.ask(Instant::now()).is_some() {}
        assert!(queue.answer(payload("1"), Instant::now()).is_ok());
        died(&mut queue);
        assert!(waiters[1].try_recv().unwrap().is_err());
        assert!(waiters[2].try_recv().is_err(), "c is still open");
        assert_eq!(queue.ask(Instant::now()).unwrap(), "c");
    }

    #[test]
    fn what_nobody_waits_for_is_not_asked_but_keeps_its_place_once_it_was() {
        let (mut queue, mut waiters) = queue(&["a", "b", "c"]);
        queue.ask(Instant::now());
        drop(waiters.remove(0));
        drop(waiters.remove(0));
        assert_eq!(queue.ask(Instant::now()).unwrap(), "c");
        assert!(queue.answer(payload("1"), Instant::now()).is_ok());
        assert!(queue.answer(payload("2"), Instant::now()).is_ok());
        assert_eq!(waiters[0].try_recv().unwrap(), Ok(payload("2")));
    }

    #[test]
    fn who_gives_up_before_a_question_was_given_keeps_it_from_being() {
        let (mut queue, _waiters) = queue(&["a", "b"]);
        let (given, mut first) = oneshot::channel();
        queue.jobs[0].given = Some(given);
        let (given, mut second) = oneshot::channel();
        queue.jobs[1].given = Some(given);
        second.close();
        assert_eq!(queue.ask(Instant::now()).unwrap(), "a");
        assert_eq!(queue.ask(Instant::now()), None);
        first.close();
        assert!(first.try_recv().is_ok());
        assert!(second.try_recv().is_err());
        // Another process is given again what one was given.
        queue.replaced();
        assert_eq!(queue.ask(Instant::now()).unwrap(), "a");
    }

    #[test]
    fn a_process_that_was_not_asked_takes_nothing_with_it() {
        let (mut queue, mut waiters) = queue(&["a"]);
        died(&mut queue);
        assert!(waiters[0].try_recv().is_err());
        assert_eq!(queue.jobs.len(), 1);
    }

    #[test]
    fn a_process_is_asked_no_more_than_it_may_be_and_what_is_given_up_meanwhile_goes() {
        let (mut queue, mut waiters) = queue(&["a", "b", "c", "d", "e"]);
        while queue.ask(Instant::now()).is_some() {}
        assert_eq!(queue.asked, 3);
        // Given up: "a", which was asked, and "d", which was not.
        drop(waiters.remove(3));
        drop(waiters.remove(0));
        let (done, _waiter) = oneshot::channel();
        queue.push(Job {
            id: "f".into(),
            question: "f".into(),
            given: None,
            done,
        });
        let kept: Vec<_> = queue.jobs.iter().map(|job| &*job.id).collect();
        assert_eq!(kept, ["a", "b", "c", "e", "f"]);
    }

    #[test]
    fn what_is_owed_is_what_was_asked_and_not_answered() {
        let (mut queue, _waiters) = queue(&["a", "bb", "cccc"]);
        queue.ask(Instant::now());
        queue.ask(Instant::now());
        assert_eq!(queue.owed_bytes(), 3);
        assert!(queue.answer(payload("1"), Instant::now()).is_ok());
        assert_eq!(queue.owed_bytes(), 2);
    }

    #[test]
    fn an_answer_out_of_order_gives_the_oldest_question_no_more_time() {
        let (mut queue, _waiters) = queue(&["a", "b", "c"]);
        let begun = Instant::now();
        while queue.ask(begun).is_some() {}
        let later = begun + Duration::from_secs(1);
        let b = payload(r#"{"id":"b","payload":2}"#);
        assert!(queue.answer(b, later).is_ok());
        assert_eq!(queue.waiting_since(), Some(begun));
    }

    #[test]
    fn each_question_of_a_backlog_that_is_answered_in_order_has_its_own_time() {
        let (mut queue, _waiters) = queue(&["a", "b", "c"]);
        let begun = Instant::now();
        assert_eq!(queue.waiting_since(), None);
        while queue.ask(begun).is_some() {}
        for n in 1..=2 {
            let now = begun + n * Duration::from_secs(1);
            assert!(queue.answer(payload("1"), now).is_ok());
            assert_eq!(queue.waiting_since(), Some(now));
        }
        assert!(queue.answer(payload("1"), begun).is_ok());
        assert_eq!(queue.waiting_since(), None);
    }

    #[test]
    fn a_new_process_has_its_own_time() {
        let (mut queue, _waiters) = queue(&["a", "b"]);
        let begun = Instant::now();
        queue.ask(begun);
        died(&mut queue);
        assert_eq!(queue.waiting_since(), None);
        let later = begun + Duration::from_secs(1);
        queue.ask(later);
        assert_eq!(queue.waiting_since(), Some(later));
    }
}
