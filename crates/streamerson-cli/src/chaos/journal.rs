//! What workers say of themselves, line by line, while they work: it is known also of those that are killed.

use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;

use streamerson_core::Name;

use super::record::{Handling, Place};

/// One line of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    /// It is about to serve, under this name.
    Named(Name),
    /// A handler began.
    Began {
        at: Duration,
        place: Place,
        attempt: u32,
    },
    /// It ended.
    Ended { at: Duration, place: Place },
    /// So many results of this worker were refused by now.
    Fenced(u64),
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Line::Named(name) => write!(f, "named {name}"),
            Line::Began { at, place, attempt } => {
                write!(f, "began {} {place} {attempt}", at.as_micros())
            }
            Line::Ended { at, place } => write!(f, "ended {} {place}", at.as_micros()),
            Line::Fenced(count) => write!(f, "fenced {count}"),
        }
    }
}

impl FromStr for Line {
    type Err = ();

    fn from_str(text: &str) -> Result<Line, ()> {
        let mut words = text.split(' ');
        let mut word = || words.next().ok_or(());
        let kind = word()?;
        if kind == "named" {
            let name = Name::new(word()?.to_owned()).map_err(drop)?;
            return Ok(Line::Named(name));
        }
        let number: u64 = word()?.parse().map_err(drop)?;
        if kind == "fenced" {
            return Ok(Line::Fenced(number));
        }
        let at = Duration::from_micros(number);
        let (stream, position) = word()?.split_once(':').ok_or(())?;
        let place = Place {
            stream: stream.parse().map_err(drop)?,
            position: position.parse().map_err(drop)?,
        };
        match kind {
            "began" => Ok(Line::Began {
                at,
                place,
                attempt: word()?.parse().map_err(drop)?,
            }),
            "ended" => Ok(Line::Ended { at, place }),
            _ => Err(()),
        }
    }
}

/// The lines of all workers.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    handlings: Vec<Handling>,
    /// Handlings that did not end yet, by worker.
    in_hand: HashMap<u32, HashMap<Place, usize>>,
    fenced: HashMap<u32, u64>,
    names: HashMap<u32, Name>,
}

impl Journal {
    pub(crate) fn note(&mut self, worker: u32, line: Line) {
        match line {
            Line::Named(name) => {
                self.names.insert(worker, name);
            }
            Line::Began { at, place, attempt } => {
                let hand = self.in_hand.entry(worker).or_default();
                hand.insert(place, self.handlings.len());
                self.handlings.push(Handling {
                    worker,
                    place,
                    attempt,
                    began: at,
                    ended: None,
                });
            }
            Line::Ended { at, place } => {
                let hand = self.in_hand.entry(worker).or_default();
                let handling = hand.remove(&place);
                if let Some(handling) = handling.and_then(|n| self.handlings.get_mut(n)) {
                    handling.ended = Some(at);
                }
            }
            Line::Fenced(count) => {
                self.fenced.insert(worker, count);
            }
        }
    }

    /// How many messages `worker` has in its handlers.
    pub(crate) fn holding(&self, worker: u32) -> usize {
        self.in_hand.get(&worker).map_or(0, HashMap::len)
    }

    /// The name of `worker` in its groups, if it said it.
    pub(crate) fn name(&self, worker: u32) -> Option<Name> {
        self.names.get(&worker).cloned()
    }

    /// The worker is gone.
    pub(crate) fn forget(&mut self, worker: u32) {
        self.in_hand.remove(&worker);
    }

    /// All handlings, and how many results were refused.
    pub(crate) fn close(&mut self) -> (Vec<Handling>, u64) {
        let handlings = std::mem::take(&mut self.handlings);
        (handlings, self.fenced.values().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use streamerson_core::Position;

    const AT: Duration = Duration::from_micros(1_500);

    fn place() -> Place {
        Place {
            stream: 2,
            position: Position::new(1763900000000, 3),
        }
    }

    #[test]
    fn lines_read_as_they_are_written() {
        for line in [
            Line::Named(Name::new("w-7").unwrap()),
            Line::Began {
                at: AT,
                place: place(),
                attempt: 2,
            },
            Line::Ended {
                at: AT,
                place: place(),
            },
            Line::Fenced(7),
        ] {
            assert_eq!(line.to_string().parse().as_ref(), Ok(&line));
        }
        for cut_short in [
            "",
            "named",
            "began",
            "began 12",
            "began x 0:1-1",
            "began 12 1-1",
            "began 12 0:1-1",
            "fenced",
        ] {
            assert_eq!(cut_short.parse::<Line>(), Err(()), "{cut_short:?}");
        }
    }

    #[test]
    fn a_worker_holds_what_began_and_did_not_end() {
        let mut journal = Journal::default();
        journal.note(
            1,
            Line::Began {
                at: AT,
                place: place(),
                attempt: 2,
            },
        );
        assert_eq!((journal.holding(1), journal.holding(2)), (1, 0));
        journal.note(
            1,
            Line::Ended {
                at: 2 * AT,
                place: place(),
            },
        );
        assert_eq!(journal.holding(1), 0);
        assert_eq!(journal.close().0[0].ended, Some(2 * AT));
    }
}
