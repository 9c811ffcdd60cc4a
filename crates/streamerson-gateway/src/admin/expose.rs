//! Figures of topics, groups and workers in the text that Prometheus reads.

use std::collections::BTreeMap;
use std::fmt::Error;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use streamerson::worker::{Counters, WorkerStats};
use streamerson_core::stats::{GroupStats, Incidents};

use super::figures::{Figures, TopicFigures};

/// How many groups have lines of their own; the others are taken together.
const MOST: usize = 1000;
/// The label of what has no line of its own. No name of a topic or group has parentheses.
const OTHER: &str = "(other)";

/// Figures, at one moment.
#[derive(Debug)]
pub(super) struct Exposed {
    pub(super) figures: Arc<Figures>,
    pub(super) incidents: Incidents,
    pub(super) now_unix_ms: u64,
}

/// A group's line.
#[derive(Debug, Clone)]
struct Line {
    topic: String,
    group: String,
    lag: Option<u64>,
    lag_seconds: f64,
    pending: u64,
    retrying: u64,
    oldest_seconds: f64,
    members: u64,
}

impl Line {
    fn of(topic: &TopicFigures, group: &GroupStats, now_unix_ms: u64) -> Line {
        Line {
            topic: topic.name.to_string(),
            group: group.name.clone(),
            lag: group.lag,
            lag_seconds: group.lag_age(now_unix_ms).as_secs_f64(),
            pending: group.pending,
            retrying: group.retrying,
            oldest_seconds: group.oldest_pending_age(now_unix_ms).as_secs_f64(),
            members: group.members.len() as u64,
        }
    }

    /// Takes `more` into this line: numbers add up, of ages the greatest counts.
    fn add(&mut self, more: &Line) {
        self.lag = self.lag.zip(more.lag).map(|(a, b)| a + b);
        self.lag_seconds = self.lag_seconds.max(more.lag_seconds);
        self.pending += more.pending;
        self.retrying += more.retrying;
        self.oldest_seconds = self.oldest_seconds.max(more.oldest_seconds);
        self.members += more.members;
    }
}

/// As many lines as there may be; what is beyond is one line.
fn bounded(lines: Vec<Line>, most: usize) -> Vec<Line> {
    let mut lines = lines.into_iter();
    let mut kept: Vec<Line> = lines.by_ref().take(most).collect();
    if let Some(mut other) = lines.next() {
        (other.topic, other.group) = (OTHER.into(), OTHER.into());
        for more in lines {
            other.add(&more);
        }
        kept.push(other);
    }
    kept
}

impl Exposed {
    fn lines(&self) -> Vec<Line> {
        let topics = self.figures.topics.iter();
        let lines = topics.flat_map(|topic| {
            let groups = topic.stats.groups.iter();
            groups.map(|group| Line::of(topic, group, self.now_unix_ms))
        });
        bounded(lines.collect(), MOST)
    }
}

impl Collector for Exposed {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let Figures {
            broker_up, unseen, ..
        } = *self.figures;
        let singles = [
            (
                "broker_up",
                "Whether the broker answered when this was asked for",
                u64::from(broker_up),
            ),
            (
                "topics_unseen",
                "Topics without figures: there are too many, or the broker took too long",
                unseen as u64,
            ),
        ];
        for (name, help, value) in singles {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)?;
        }
        self.incidents(&mut encoder)?;
        self.topics(&mut encoder)?;
        self.groups(&mut encoder)
    }
}

/// Labels and their values.
type Labels<'a> = Vec<(&'static str, &'a str)>;

impl Exposed {
    fn incidents(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let Incidents {
            reconnects,
            foreign_entries,
            lost_messages,
            lost_groups,
        } = self.incidents;
        let counts = [
            (
                "broker_reconnects",
                "Times that this process lost its connection to the broker",
                reconnects,
            ),
            (
                "broker_foreign_entries",
                "Entries that were not messages, moved to the dead letters by this process",
                foreign_entries,
            ),
            (
                "broker_lost_messages",
                "Messages removed while a group had them pending, as found by this process",
                lost_messages,
            ),
            (
                "broker_lost_groups",
                "Times that a group was removed while a member of this process worked in it",
                lost_groups,
            ),
        ];
        for (name, help, count) in counts {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(count).encode(metric)?;
        }
        Ok(())
    }

    fn topics(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let topics = &self.figures.topics;
        type Figure = fn(&TopicFigures) -> u64;
        let figures: [(&str, &str, Figure); 3] = [
            ("topic_messages", "Messages held", |topic| {
                topic.stats.length
            }),
            (
                "topic_scheduled",
                "Messages kept aside until they are due",
                |topic| topic.stats.scheduled,
            ),
            ("topic_dead_letters", "Dead letters held", |topic| {
                topic.dead_letters
            }),
        ];
        for (name, help, figure) in figures {
            let of = |topic| figure(topic) as f64;
            let lines = topics.iter();
            let lines = lines.map(|topic| (vec![("topic", topic.name.as_str())], of(topic)));
            gauge(encoder, name, help, lines)?;
        }
        Ok(())
    }

    fn groups(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let lines = self.lines();
        type Figure = fn(&Line) -> Option<f64>;
        let figures: [(&str, &str, Figure); 6] = [
            (
                "group_lag_messages",
                "Messages not delivered yet; absent where the broker cannot tell",
                |line| line.lag.map(|lag| lag as f64),
            ),
            (
                "group_lag_seconds",
                "How long the oldest message not delivered yet has waited",
                |line| Some(line.lag_seconds),
            ),
            (
                "group_pending",
                "Messages delivered and not settled",
                |line| Some(line.pending as f64),
            ),
            (
                "group_retrying",
                "Of the pending messages, those given back, to be delivered again",
                |line| Some(line.retrying as f64),
            ),
            (
                "group_oldest_pending_seconds",
                "Age of the oldest message delivered and not settled",
                |line| Some(line.oldest_seconds),
            ),
            ("group_members", "Members", |line| Some(line.members as f64)),
        ];
        for (name, help, figure) in figures {
            let lines = lines.iter().filter_map(|line| {
                let labels = vec![("topic", &*line.topic), ("group", &*line.group)];
                Some((labels, figure(line)?))
            });
            gauge(encoder, name, help, lines)?;
        }
        Ok(())
    }
}

fn gauge<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    lines: impl IntoIterator<Item = (Labels<'a>, f64)>,
) -> Result<(), Error> {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in lines {
        ConstGauge::new(value).encode(metric.encode_family(&labels.as_slice())?)?;
    }
    Ok(())
}

/// What the workers of this process have counted, by the names they were given.
#[derive(Debug)]
pub(super) struct Workers(pub(super) Arc<[(String, Counters)]>);

impl Collector for Workers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        type Figure = fn(&WorkerStats) -> u64;
        let figures: [(&str, &str, Figure); 10] = [
            (
                "handled",
                "Messages whose handling ended, well or not",
                |stats| stats.handled,
            ),
            ("failed", "Messages whose handling failed", |stats| {
                stats.failed
            }),
            (
                "expired",
                "Messages dropped unseen because their deadline had passed",
                |stats| stats.expired,
            ),
            (
                "retried",
                "Messages given back, to be tried again",
                |stats| stats.retried,
            ),
            ("dead", "Messages moved to the dead letters", |stats| {
                stats.dead
            }),
            (
                "fenced",
                "Results discarded because another member settled the message first",
                |stats| stats.fenced,
            ),
            (
                "unsettled",
                "Results that the broker did not take",
                |stats| stats.unsettled,
            ),
            (
                "trimmed",
                "Processed messages removed by the retention",
                |stats| stats.trimmed,
            ),
            (
                "overdue",
                "Messages given up because their handlers did not end in time",
                |stats| stats.overdue,
            ),
            (
                "lost",
                "Messages removed before a group had processed them",
                |stats| stats.lost,
            ),
        ];
        for (name, help, figure) in figures {
            let name = format!("worker_{name}");
            let mut metric = encoder.encode_descriptor(&name, help, None, MetricType::Counter)?;
            for (worker, counters) in &*self.0 {
                let labels = [("worker", worker.as_str())];
                let counter = ConstCounter::new(figure(&counters.read()));
                counter.encode(metric.encode_family(&labels)?)?;
            }
        }
        self.dead_letters(&mut encoder)
    }
}

impl Workers {
    fn dead_letters(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
        for (_, counters) in &*self.0 {
            for (code, count) in counters.dead_letters() {
                *reasons.entry(code).or_default() += count;
            }
        }
        let help = "Messages that workers of this process moved to the dead letters";
        let mut metric =
            encoder.encode_descriptor("dead_letters", help, None, MetricType::Counter)?;
        for (reason, count) in &reasons {
            let labels = [("reason", reason.as_str())];
            ConstCounter::new(*count).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: u64) -> Line {
        Line {
            topic: format!("t{n}"),
            group: "g".into(),
            lag: Some(n),
            lag_seconds: n as f64,
            pending: n,
            retrying: 0,
            oldest_seconds: 0.0,
            members: 1,
        }
    }

    #[test]
    fn what_is_beyond_the_bound_is_one_line() {
        let lines = bounded((1..=5).map(line).collect(), 3);
        assert_eq!(lines.len(), 4);
        let other = &lines[3];
        assert_eq!((&*other.topic, &*other.group), (OTHER, OTHER));
        assert_eq!((other.lag, other.pending, other.members), (Some(9), 9, 2));
        assert_eq!(other.lag_seconds, 5.0);
        assert_eq!(bounded((1..=3).map(line).collect(), 3).len(), 3);
    }
}
