//! When and how often a message appears, broken in one way.

use std::time::Duration;

use streamerson_core::time::unix_ms;
use streamerson_core::{Append, Once};

use crate::defect::Defect;

/// Damages the due times and keys of what is appended together.
pub(crate) fn damage(defect: Defect, appends: &mut [Append]) {
    let latest = appends.iter().filter_map(Append::due).max();
    for append in appends {
        let (due, once) = (append.due(), append.only_once().cloned());
        let (due, once) = match defect {
            Defect::DueTimesAreIgnored => (None, once),
            Defect::DueBatchesWaitForTheLast => (latest.or(due), once),
            Defect::WhatWasDueIsForgotten if due.is_some_and(|due| due <= unix_ms()) => {
                (Some(u64::MAX), once)
            }
            Defect::KeysAreIgnored => (due, None),
            Defect::KeysAreNeverForgotten => (due, once.map(for_ever)),
            _ => continue,
        };
        let mut damaged = Append::new(append.topic.clone(), append.message.clone());
        if let Some(due) = due {
            damaged = damaged.due_at(due);
        }
        if let Some(once) = once {
            damaged = damaged.once(once);
        }
        *append = damaged;
    }
}

fn for_ever(once: Once) -> Once {
    let keep = Duration::from_secs(1_000_000);
    Once { keep, ..once }
}
