//! `GET /admin/v1/scale/{topic}/{group}`: how many replicas a consumer group should have, for KEDA and others.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::json;
use streamerson_core::stats::{GroupStats, TopicStats};
use streamerson_core::{Name, Topic};
use tokio::time::{Instant, timeout};

use super::figures;
use crate::gateway::Gateway;
use crate::scale::{Estimate, Sight, Wish};

/// How long the broker may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// A member that was silent for longer is not counted: it is gone, or about to be.
const LATELY: Duration = Duration::from_secs(30);
/// How many groups are remembered; of more, those asked about longest ago are forgotten.
const MOST: usize = 1000;

const DEFAULT: Wish = Wish {
    target: Duration::from_secs(30),
    min: 0,
    max: 100,
};

/// What was learned of the groups that somebody asks about.
#[derive(Debug, Clone)]
pub(super) struct Scale {
    gateway: Gateway,
    began: Instant,
    known: Arc<Mutex<HashMap<(Topic, Name), Estimate>>>,
}

/// The answer.
#[derive(Debug, Serialize)]
struct Advice<'a> {
    topic: &'a str,
    group: &'a str,
    desired_replicas: u32,
    /// Whether there is such a group.
    exists: bool,
    /// Messages not settled, delivered or not.
    backlog: u64,
    lag: Option<u64>,
    pending: u64,
    scheduled: u64,
    lag_seconds: f64,
    oldest_pending_seconds: f64,
    members: u64,
    arrival_rate: Option<f64>,
    settle_rate: Option<f64>,
    per_replica_rate: Option<f64>,
    target_seconds: u64,
    min: u32,
    max: u32,
}

/// Status and JSON of an answer.
pub(super) type Answer = (StatusCode, String);

impl Scale {
    pub(super) fn new(gateway: Gateway) -> Scale {
        Scale {
            gateway,
            began: Instant::now(),
            known: Arc::default(),
        }
    }

    /// Answers for `{topic}/{group}`.
    pub(super) async fn answer(&self, path: &str, query: &str) -> Answer {
        let named = path.split_once('/').and_then(|(topic, group)| {
            Some((
                Topic::new(topic.to_owned()).ok()?,
                Name::new(group.to_owned()).ok()?,
            ))
        });
        let Some((topic, group)) = named else {
            return refused("write /admin/v1/scale/TOPIC/GROUP");
        };
        let wish = match wish(query) {
            Ok(wish) => wish,
            Err(why) => return refused(&why),
        };
        match timeout(PATIENCE, figures::of(&**self.gateway.broker(), &topic)).await {
            Ok(Ok(stats)) => self.advise(topic, group, stats.unwrap_or_default(), wish),
            Ok(Err(error)) => {
                tracing::debug!(%error, "the broker does not tell how a topic stands");
                unavailable()
            }
            Err(_) => unavailable(),
        }
    }

    fn advise(&self, topic: Topic, group: Name, stats: TopicStats, wish: Wish) -> Answer {
        let now = self.gateway.broker_unix_ms();
        let found = stats
            .groups
            .iter()
            .find(|stats| stats.name == group.as_str());
        let seen = sight(&stats, found, now, self.began.elapsed());
        let estimate = self.learn((topic.clone(), group.clone()), seen);
        let advice = Advice {
            topic: topic.as_str(),
            group: group.as_str(),
            desired_replicas: estimate.desired(wish),
            exists: found.is_some(),
            backlog: seen.backlog,
            lag: found.and_then(|group| group.lag),
            pending: found.map_or(0, |group| group.pending),
            scheduled: stats.scheduled,
            lag_seconds: seen.waited.as_secs_f64(),
            oldest_pending_seconds: found
                .map_or(0.0, |group| group.oldest_pending_age(now).as_secs_f64()),
            members: seen.members,
            arrival_rate: estimate.arrival,
            settle_rate: estimate.settle,
            per_replica_rate: estimate.per_replica,
            target_seconds: wish.target.as_secs(),
            min: wish.min,
            max: wish.max,
        };
        match serde_json::to_string(&advice) {
            Ok(advice) => (StatusCode::OK, advice),
            Err(error) => refused(&error.to_string()),
        }
    }

    fn learn(&self, group: (Topic, Name), seen: Sight) -> Estimate {
        let mut known = self.known.lock();
        if known.len() >= MOST && !known.contains_key(&group) {
            let seen_last = |estimate: &Estimate| estimate.seen_at();
            let oldest = known
                .iter()
                .min_by(|a, b| seen_last(a.1).total_cmp(&seen_last(b.1)));
            if let Some(oldest) = oldest.map(|(group, _)| group.clone()) {
                known.remove(&oldest);
            }
        }
        let estimate = known.entry(group).or_default();
        estimate.observe(seen);
        *estimate
    }
}

/// What `stats` show of the group. One that is not there yet would begin with the earliest message.
fn sight(stats: &TopicStats, group: Option<&GroupStats>, now: u64, at: Duration) -> Sight {
    let seen = Sight {
        at: at.as_secs_f64(),
        appended: stats.appended,
        later: stats.scheduled,
        ..Sight::default()
    };
    let Some(group) = group else {
        return Sight {
            backlog: stats.length,
            waited: stats.first.map_or(Duration::ZERO, |first| first.age(now)),
            ..seen
        };
    };
    // A broker that cannot count them can tell whether there are any.
    let lag = group.lag.unwrap_or(u64::from(group.next.is_some()));
    let members = group.members.iter().filter(|member| member.idle < LATELY);
    Sight {
        backlog: lag + group.pending,
        members: members.count() as u64,
        waited: group.lag_age(now),
        ..seen
    }
}

/// Reads `target_seconds=30&min=0&max=20`. What is not known is refused: a setting without effect helps nobody.
fn wish(query: &str) -> Result<Wish, String> {
    let mut wish = DEFAULT;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let number: u32 = value
            .parse()
            .map_err(|_| format!("{name} is not a number: write for example {name}=30"))?;
        match name {
            "target_seconds" if number > 0 => wish.target = Duration::from_secs(number.into()),
            "min" => wish.min = number,
            "max" if number > 0 => wish.max = number,
            "target_seconds" | "max" => return Err(format!("{name} is at least 1")),
            _ => {
                return Err(format!(
                    "there are target_seconds, min and max, and not {name}"
                ));
            }
        }
    }
    match wish.min <= wish.max {
        true => Ok(wish),
        false => Err("min is greater than max".into()),
    }
}

fn refused(detail: &str) -> Answer {
    let problem = json!({ "code": "invalid-scale-request", "detail": detail });
    (StatusCode::BAD_REQUEST, problem.to_string())
}

fn unavailable() -> Answer {
    let detail = "the broker cannot be reached; keep what there is";
    let problem = json!({ "code": "broker-unavailable", "detail": detail });
    (StatusCode::SERVICE_UNAVAILABLE, problem.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_names_what_there_is() {
        let given = wish("target_seconds=5&min=1&max=7").unwrap();
        let expected = Wish {
            target: Duration::from_secs(5),
            min: 1,
            max: 7,
        };
        assert_eq!(given, expected);
        assert_eq!(wish("").unwrap(), DEFAULT);
        for query in [
            "target=5",
            "max=0",
            "max=x",
            "min=-1",
            "min=9&max=3",
            "target_seconds=0",
            "max",
        ] {
            assert!(wish(query).is_err(), "{query}");
        }
    }
}
