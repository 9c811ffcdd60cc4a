//! The conformance suite is itself on trial: for every rule there is a broker that breaks it, and the rule must notice.

mod broker;
mod defect;
mod member;
mod owner;
mod reader;
mod terms;
mod upkeep;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use streamerson_testkit::conformance::{RULES, Rule, Trial, all_at_once};

use broker::Broken;
use defect::{CAUGHT, Defect};

/// Trials at one time: with more, those about time and about races prove nothing on a small machine.
const AT_ONCE: usize = 32;

fn rule(name: &str) -> &'static Rule {
    let found = RULES.iter().find(|rule| rule.name == name);
    found.unwrap_or_else(|| panic!("there is no rule {name}"))
}

/// Whether `rule` notices `defect`.
async fn notices(rule: &Rule, defect: Defect) -> bool {
    // Waits for what never comes are part of it, so they are short here.
    let trial = Trial::new(Arc::new(Broken::new(defect)))
        .with_times(Duration::from_millis(1500), Duration::from_millis(150));
    let outcome = tokio::spawn((rule.run)(trial)).await;
    outcome.is_err_and(|error| error.is_panic())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_seeded_defect_is_noticed() {
    let panics = std::panic::take_hook();
    // The failures are wanted; what they print is not.
    std::panic::set_hook(Box::new(|_| {}));
    let trials = CAUGHT.iter().flat_map(|(defect, rules)| {
        rules.iter().map(move |name| async move {
            let noticed = notices(rule(name), *defect).await;
            (!noticed).then(|| format!("{name} does not notice {defect:?}"))
        })
    });
    let survivors: Vec<String> = stream::iter(trials)
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    std::panic::set_hook(panics);
    assert_eq!(survivors, [""; 0]);
}

#[test]
fn every_rule_can_fail() {
    let failing: BTreeSet<&str> = CAUGHT
        .iter()
        .flat_map(|(_, rules)| *rules)
        .copied()
        .collect();
    let never: Vec<&str> = RULES
        .iter()
        .map(|rule| rule.name)
        .filter(|name| !failing.contains(name))
        .collect();
    assert_eq!(never, [""; 0]);
}

/// What makes rules fail is the defect, not the wrapping.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_defect_all_rules_hold() {
    let trial = Trial::new(Arc::new(Broken::new(Defect::None)));
    assert_eq!(all_at_once(trial).await, [""; 0]);
}
