//! What a program has been asked and has not answered yet, oldest first.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::line::Answer;

/// The program ended before it answered; the message may be tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Died {
    /// How it ended, for people.
    pub(crate) reason: String,
}

/// One message for a program, and who waits for the answer.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) question: Bytes,
    pub(crate) done: oneshot::Sender<Result<Answer, Died>>,
}

/// The open questions of one program.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    jobs: VecDeque<Job>,
    /// How many of them the running process has been asked.
    asked: usize,
}

impl Queue {
    pub(crate) fn push(&mut self, job: Job) {
        self.jobs.push_back(job);
    }

    pub(crate) fn len(&self) -> usize {
        self.jobs.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// The next question for the running process; what nobody waits for any more is left out.
    pub(crate) fn ask(&mut self) -> Option<Bytes> {
        while self.jobs.get(self.asked)?.done.is_closed() {
            self.jobs.remove(self.asked);
        }
        let job = self.jobs.get(self.asked)?;
        self.asked += 1;
        Some(job.question.clone())
    }

    /// Whether the running process owes an answer.
    pub(crate) fn is_waiting(&self) -> bool {
        self.asked > 0
    }

    /// Hands `answer` to the oldest question. False when nothing was asked: the program is out of step.
    pub(crate) fn answer(&mut self, answer: Answer) -> bool {
        if self.asked == 0 {
            return false;
        }
        self.asked -= 1;
        if let Some(job) = self.jobs.pop_front() {
            // Nobody listens any more when the worker gave the delivery up.
            let _ = job.done.send(Ok(answer));
        }
        true
    }

    /// The process died. Only the oldest question is blamed: programs answer in order, so it was working on that one.
    /// The next process is asked the others again.
    pub(crate) fn died(&mut self, died: Died) {
        if self.asked > 0
            && let Some(job) = self.jobs.pop_front()
        {
            let _ = job.done.send(Err(died));
        }
        self.asked = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(questions: &[&'static str]) -> (Queue, Vec<oneshot::Receiver<Result<Answer, Died>>>) {
        let mut queue = Queue::default();
        let receivers = questions
            .iter()
            .map(|question| {
                let (done, receiver) = oneshot::channel();
                queue.push(Job {
                    question: Bytes::from_static(question.as_bytes()),
                    done,
                });
                receiver
            })
            .collect();
        (queue, receivers)
    }

    #[test]
    fn answers_go_to_questions_in_order() {
        let (mut queue, mut waiters) = queue(&["a", "b"]);
        assert_eq!(queue.ask().unwrap(), "a");
        assert_eq!(queue.ask().unwrap(), "b");
        assert_eq!(queue.ask(), None);
        assert!(queue.answer(Answer::Payload("1".into())));
        assert!(queue.answer(Answer::Payload("2".into())));
        assert_eq!(
            waiters[1].try_recv().unwrap(),
            Ok(Answer::Payload("2".into()))
        );
        assert!(!queue.answer(Answer::Payload("3".into())));
    }

    #[test]
    fn only_the_oldest_question_is_blamed_for_a_death() {
        let (mut queue, mut waiters) = queue(&["a", "b"]);
        queue.ask();
        queue.ask();
        queue.died(Died { reason: "x".into() });
        assert!(waiters[0].try_recv().unwrap().is_err());
        assert!(waiters[1].try_recv().is_err(), "b is still open");
        assert_eq!(queue.ask().unwrap(), "b");
    }

    #[test]
    fn what_nobody_waits_for_is_not_asked_but_keeps_its_place_once_it_was() {
        let (mut queue, mut waiters) = queue(&["a", "b", "c"]);
        queue.ask();
        drop(waiters.remove(0));
        drop(waiters.remove(0));
        assert_eq!(queue.ask().unwrap(), "c");
        assert!(queue.answer(Answer::Payload("1".into())));
        assert!(queue.answer(Answer::Payload("2".into())));
        assert_eq!(
            waiters[0].try_recv().unwrap(),
            Ok(Answer::Payload("2".into()))
        );
    }

    #[test]
    fn a_process_that_was_not_asked_takes_nothing_with_it() {
        let (mut queue, mut waiters) = queue(&["a"]);
        queue.died(Died { reason: "x".into() });
        assert!(waiters[0].try_recv().is_err());
        assert_eq!(queue.len(), 1);
    }
}
