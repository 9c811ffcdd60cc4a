//! The ratios between systems: which we promise, and whether they hold.

use serde::Serialize;

use super::measurement::{Measurement, Spread};
use super::system::System::{self, *};

/// The number of connections at which goals hold.
pub(crate) const CONNECTIONS: u32 = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Figure {
    CpuPerRequest,
    RequestsPerSecond,
}

impl Figure {
    fn of(self, measurement: &Measurement) -> f64 {
        match self {
            Self::CpuPerRequest => measurement.total_cpu(),
            Self::RequestsPerSecond => measurement.requests_per_second,
        }
    }
}

/// How a figure of ours compares with the same figure of a peer.
#[derive(Debug, Clone, Copy)]
struct Goal {
    ours: System,
    peer: System,
    figure: Figure,
    /// The worst ratio we accept: the largest of CPU, the smallest of throughput. None, where the
    /// ratio is only of interest.
    bound: Option<f64>,
}

const fn goal(ours: System, figure: Figure, peer: System, bound: Option<f64>) -> Goal {
    Goal {
        ours,
        peer,
        figure,
        bound,
    }
}

const GOALS: &[Goal] = &[
    goal(
        StreamersonRedis,
        Figure::CpuPerRequest,
        NginxAxum,
        Some(0.95),
    ),
    goal(
        StreamersonRedis,
        Figure::RequestsPerSecond,
        NginxAxum,
        Some(0.9),
    ),
    goal(
        StreamersonEmbeddedOs,
        Figure::CpuPerRequest,
        Axum,
        Some(1.7),
    ),
    goal(
        StreamersonEmbeddedDisk,
        Figure::CpuPerRequest,
        Axum,
        Some(2.0),
    ),
    goal(StreamersonRedis, Figure::CpuPerRequest, AxumNats, None),
    goal(StreamersonRedis, Figure::RequestsPerSecond, AxumNats, None),
    goal(StreamersonRedisAof, Figure::CpuPerRequest, NginxAxum, None),
    goal(
        StreamersonRedisAof,
        Figure::RequestsPerSecond,
        NginxAxum,
        None,
    ),
    goal(
        StreamersonRedisSingle,
        Figure::CpuPerRequest,
        NginxAxum,
        None,
    ),
    goal(
        StreamersonRedisSingle,
        Figure::RequestsPerSecond,
        NginxAxum,
        None,
    ),
    goal(StreamersonEmbeddedOs, Figure::RequestsPerSecond, Axum, None),
    goal(
        StreamersonEmbeddedDisk,
        Figure::RequestsPerSecond,
        Axum,
        None,
    ),
];

/// A ratio that was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Ratio {
    pub(crate) ours: System,
    pub(crate) peer: System,
    pub(crate) figure: Figure,
    /// The ratio within each round. Its median is what a goal is held against: the host's speed drifts
    /// from round to round, and a ratio of two medians would compare different minutes of it.
    pub(crate) rounds: Spread,
    pub(crate) bound: Option<f64>,
    pub(crate) reached: Option<bool>,
}

/// The ratios of all pairs in `measurements`.
pub(crate) fn ratios(measurements: &[Measurement]) -> Vec<Ratio> {
    GOALS
        .iter()
        .filter_map(|goal| goal.measured(measurements))
        .collect()
}

impl Goal {
    fn measured(&self, measurements: &[Measurement]) -> Option<Ratio> {
        let rounds = Spread::of(self.rounds(measurements))?;
        Some(Ratio {
            ours: self.ours,
            peer: self.peer,
            figure: self.figure,
            rounds,
            bound: self.bound,
            reached: self.bound.map(|bound| match self.figure {
                Figure::CpuPerRequest => rounds.median <= bound,
                Figure::RequestsPerSecond => rounds.median >= bound,
            }),
        })
    }

    fn rounds(&self, measurements: &[Measurement]) -> impl Iterator<Item = f64> {
        let of = |system| {
            measurements.iter().filter(move |measurement| {
                measurement.system == system && measurement.connections == CONNECTIONS
            })
        };
        of(self.ours).filter_map(move |ours| {
            let peer = of(self.peer).find(|peer| peer.round == ours.round)?;
            Some(self.figure.of(ours) / self.figure.of(peer))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::measurement::tests::measurement;
    use super::*;

    #[test]
    fn ratio_is_the_median_of_those_within_the_rounds() {
        let rounds = [
            measurement(1, NginxAxum, 100.0, 20.0),
            measurement(1, StreamersonRedis, 100.0, 18.0),
            measurement(2, StreamersonRedis, 80.0, 20.0),
            measurement(2, NginxAxum, 100.0, 40.0),
            measurement(3, NginxAxum, 80.0, 21.0),
            measurement(3, StreamersonRedis, 64.0, 21.0),
        ];

        let [cpu, throughput] = ratios(&rounds).try_into().unwrap();

        // The ratio of the medians, 20 / 21, would be of our second round and the peer's third.
        assert_eq!(
            cpu.rounds,
            Spread {
                min: 0.5,
                median: 0.9,
                max: 1.0
            }
        );
        assert_eq!(cpu.reached, Some(true));
        assert_eq!(throughput.rounds.median, 0.8);
        assert_eq!(throughput.reached, Some(false));
    }

    #[test]
    fn cpu_has_an_upper_bound_and_throughput_a_lower_one() {
        let reached = |requests_per_second, cpu| {
            let rounds = [
                measurement(1, NginxAxum, 100.0, 100.0),
                measurement(1, StreamersonRedis, requests_per_second, cpu),
            ];
            ratios(&rounds)
                .into_iter()
                .map(|ratio| ratio.reached)
                .collect::<Vec<_>>()
        };
        assert_eq!(reached(90.0, 95.0), [Some(true), Some(true)]);
        assert_eq!(reached(89.0, 95.0), [Some(true), Some(false)]);
        assert_eq!(reached(90.0, 96.0), [Some(false), Some(true)]);
    }

    #[test]
    fn a_pair_that_was_not_measured_has_no_ratio() {
        assert_eq!(ratios(&[measurement(1, StreamersonRedis, 1.0, 1.0)]), []);
    }
}
