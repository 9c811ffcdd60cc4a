//! Draining a queue: a worker of ours and a loop written by hand, in turn, each on a fresh Redis.

use std::fmt;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::interrupt::Interrupt;
use super::measurement::{Spread, Workload};
use super::stage::Stage;
use super::system::plain_redis;
use crate::command::output;

/// The least share of the loop's speed that we accept.
const GOAL: f64 = 0.8;

/// Who drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Who {
    Loop,
    Worker,
}

/// How fast a queue of 100,000 messages was drained, in messages a second.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Drain {
    round: u32,
    who: Who,
    messages_per_second: f64,
}

/// What the program prints.
#[derive(Deserialize)]
struct Printed {
    messages: u64,
    micros: u64,
}

/// Drains so many queues each way, in turn.
pub(crate) fn measure(
    workload: &Workload,
    rounds: u32,
    interrupt: &Interrupt,
) -> Result<Vec<Drain>> {
    let mut drains = Vec::new();
    for round in 1..=rounds {
        let mut order = [Who::Loop, Who::Worker];
        if round % 2 == 0 {
            order.reverse();
        }
        for who in order {
            interrupt.check()?;
            let drain = drain(workload, round, who, interrupt)?;
            eprintln!("round {round} of {rounds}: draining by {drain}");
            drains.push(drain);
        }
    }
    Ok(drains)
}

fn drain(workload: &Workload, round: u32, who: Who, interrupt: &Interrupt) -> Result<Drain> {
    let mut stage = Stage::new(&workload.folder, interrupt)?;
    let url = plain_redis(&mut stage)?;
    let mut program = stage.own("drain");
    program.arg(url).arg(who.to_string());
    let printed = output(&mut program)?;
    let result: Printed = serde_json::from_str(printed.trim())
        .with_context(|| format!("drain printed {printed:?}"))?;
    Ok(Drain {
        round,
        who,
        messages_per_second: result.messages as f64 * 1e6 / result.micros as f64,
    })
}

/// A worker's speed against that of the loop.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Comparison {
    pub(crate) by_hand: Spread,
    pub(crate) worker: Spread,
    /// The ratio within each round, of which the median is to reach the goal.
    pub(crate) ratio: Spread,
    pub(crate) goal: f64,
    pub(crate) reached: bool,
}

/// None, when nothing was drained.
pub(crate) fn compare(drains: &[Drain]) -> Option<Comparison> {
    let of = |who| drains.iter().filter(move |drain| drain.who == who);
    let speed = |drain: &Drain| drain.messages_per_second;
    let ratio = Spread::of(of(Who::Worker).filter_map(|worker| {
        let by_hand = of(Who::Loop).find(|by_hand| by_hand.round == worker.round)?;
        Some(speed(worker) / speed(by_hand))
    }))?;
    Some(Comparison {
        by_hand: Spread::of(of(Who::Loop).map(speed))?,
        worker: Spread::of(of(Who::Worker).map(speed))?,
        ratio,
        goal: GOAL,
        reached: ratio.median >= GOAL,
    })
}

impl fmt::Display for Who {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Who::Loop => "loop",
            Who::Worker => "worker",
        })
    }
}

impl fmt::Display for Drain {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{}: {:.0} messages/s",
            self.who, self.messages_per_second
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_the_median_of_those_within_the_rounds() {
        let drain = |round, who, messages_per_second| Drain {
            round,
            who,
            messages_per_second,
        };
        let drains = [
            drain(1, Who::Loop, 100.0),
            drain(1, Who::Worker, 70.0),
            drain(2, Who::Worker, 180.0),
            drain(2, Who::Loop, 200.0),
            drain(3, Who::Loop, 50.0),
            drain(3, Who::Worker, 40.0),
        ];
        let compared = compare(&drains).unwrap();
        assert_eq!(
            compared.ratio,
            Spread {
                min: 0.7,
                median: 0.8,
                max: 0.9
            }
        );
        assert!(compared.reached);
        assert!(compare(&drains[..1]).is_none());
    }
}
