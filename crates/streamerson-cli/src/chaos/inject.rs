//! What goes wrong during a run: workers killed at an even pace, and one episode after the other of everything else.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use streamerson::Client;
use streamerson_core::{Broker, Name};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::clock;
use super::fault::Fault;
use super::load;
use super::record::{Call, End, Kill, Window};
use super::resp;
use super::schedule::Schedule;
use super::settings::{Names, Settings};
use super::system::System;
use super::worker::ChaosWorker;
use super::workers::{Hiring, Post};
use crate::failure::{Exit, Failure, Result};
use crate::output::message;

/// How often somebody is looked for who has work in hand: workers do not call when they get some.
const LOOK: Duration = Duration::from_millis(5);
/// How long the broker may take to say who owns what: it may be away.
const ASK: Duration = Duration::from_millis(200);

/// Where faults are injected.
pub(crate) struct Injector<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) names: &'a Names,
    pub(crate) posts: &'a [Post],
    pub(crate) hiring: &'a Hiring,
    pub(crate) client: &'a Client,
    pub(crate) broker: &'a dyn Broker,
    pub(crate) kills: AtomicUsize,
    pub(crate) episodes: AtomicUsize,
}

impl Injector<'_> {
    /// Kills workers until `stop`, those first that have work in hand.
    pub(crate) async fn kill_workers(&self, stop: &CancellationToken) -> Result<Vec<Kill>> {
        let mut kills = Vec::new();
        if !self.settings.faults.contains(&Fault::Kill) {
            return Ok(kills);
        }
        let mut chance = StdRng::seed_from_u64(self.settings.seed);
        let mut ticks = interval(self.settings.kill_every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        // The first one is at once.
        ticks.tick().await;
        loop {
            tokio::select! {
                _ = ticks.tick() => (),
                () = stop.cancelled() => return Ok(kills),
            }
            let posts = self.posts.iter();
            let running: Vec<&Post> = posts.filter(|post| !post.is_stopped()).collect();
            let busy: Vec<&Post> = running
                .iter()
                .copied()
                .filter(|p| p.holding() > 0)
                .collect();
            let candidates = if busy.is_empty() { running } else { busy };
            let Some(victim) = candidates.choose(&mut chance) else {
                continue;
            };
            let owners = self.owners().await;
            let mut kill = victim.kill().await?;
            kill.owned = owners.map(|owners| {
                let name = victim.name(kill.worker);
                let own = owners
                    .into_iter()
                    .filter(|(_, owner)| Some(owner) == name.as_ref());
                own.map(|(stream, _)| stream).collect()
            });
            kills.push(kill);
            self.kills.store(kills.len(), Ordering::Relaxed);
        }
    }

    /// Who owns which partition, by the numbers of their streams; none: the broker does not say so at once.
    async fn owners(&self) -> Option<Vec<(u32, Name)>> {
        let streams = self.names.streams().ok()?;
        let asked = streams.iter().map(async |(stream, topic)| {
            let mut leases = self.broker.leases(topic).await?.into_iter();
            let owner = leases.find(|held| held.name.as_str() == self.names.owner());
            Ok::<_, streamerson_core::Error>(owner.map(|owner| (*stream, owner.holder)))
        });
        let asked = futures::future::try_join_all(asked);
        let owners = timeout(ASK, asked).await.ok()?.ok()?;
        Some(owners.into_iter().flatten().collect())
    }

    /// Lets one episode follow the other until `stop`; what began ends in order. Answers when they were, and what was sent.
    pub(crate) async fn run_episodes(
        &self,
        system: &mut System,
        stop: &CancellationToken,
    ) -> Result<(Vec<Window>, Vec<Call>)> {
        let Settings {
            seed,
            faults,
            lease,
            ..
        } = self.settings;
        let (mut windows, mut sent) = (Vec::new(), Vec::new());
        let mut chance = StdRng::seed_from_u64(*seed);
        for episode in Schedule::new(*seed, faults, *lease) {
            tokio::select! {
                () = sleep(episode.calm) => (),
                () = stop.cancelled() => break,
            }
            let from = clock::now();
            let hit = self
                .inject(episode.fault, system, &mut chance, &mut sent)
                .await?;
            let to = clock::now();
            message(&format!(
                "{}: hit {hit}, over after {:.1} s",
                episode.fault,
                (to - from).as_secs_f64()
            ));
            windows.push(Window {
                fault: episode.fault,
                from,
                to,
                hit,
            });
            self.episodes.store(windows.len(), Ordering::Relaxed);
        }
        Ok((windows, sent))
    }

    async fn inject(
        &self,
        fault: Fault,
        system: &mut System,
        chance: &mut StdRng,
        sent: &mut Vec<Call>,
    ) -> Result<usize> {
        match fault {
            Fault::Zombie => self.stop_a_worker(chance).await,
            Fault::Broker => {
                let pause = Duration::from_millis(chance.random_range(50..500));
                system.crash(pause).await
            }
            Fault::Cut => Ok(system.proxy().cut()),
            Fault::Slow => self.hire_a_slow_one(system).await,
            Fault::Poison => {
                let call = load::poison(self.client, &self.names.work).await;
                let stored = usize::from(call.end == End::Stored);
                sent.push(call);
                Ok(stored)
            }
            Fault::Group => self.destroy_group(system).await,
            // These have no beginning and no end.
            Fault::Kill | Fault::Duplicates => Ok(0),
        }
    }

    /// Stops a worker that has work in hand, for two leases.
    async fn stop_a_worker(&self, chance: &mut StdRng) -> Result<usize> {
        let lease = self.settings.lease;
        let search = async {
            loop {
                let posts = self.posts.iter();
                let busy: Vec<&Post> = posts.filter(|post| post.holding() > 0).collect();
                if let Some(post) = busy.choose(chance) {
                    post.stop().await?;
                    // What it said before it stopped is still to be read.
                    sleep(LOOK).await;
                    if post.holding() > 0 {
                        return Ok::<&Post, Failure>(post);
                    }
                    // It was done, or killed, in this very moment.
                    post.go_on().await?;
                }
                sleep(LOOK).await;
            }
        };
        let Ok(post) = timeout(2 * lease, search).await else {
            // A search given up may have left one stopped.
            for post in self.posts {
                post.go_on().await?;
            }
            return Ok(0);
        };
        let post = post?;
        let holding = post.holding();
        sleep(2 * lease).await;
        post.go_on().await?;
        Ok(holding)
    }

    /// Lets a member join whose handlers take longer than the lease, and lets it finish after a while.
    async fn hire_a_slow_one(&self, system: &System) -> Result<usize> {
        let Settings { lease, .. } = *self.settings;
        let work = lease * 3;
        let worker = ChaosWorker::new(system.url(), self.settings, self.names, work);
        let post = self.hiring.post(&worker);
        sleep(lease * 2).await;
        let holding = post.holding();
        post.finish().await?;
        Ok(holding)
    }

    /// Destroys the consumer group behind everybody's back.
    async fn destroy_group(&self, system: &System) -> Result<usize> {
        let stream = format!("{}:{{{}}}", self.settings.namespace, self.names.work);
        let command = ["XGROUP", "DESTROY", &stream, self.names.group.as_str()];
        let answer = resp::ask(system.proxy().server(), &command).await;
        match answer {
            Ok(reply) if reply == ["1"] => Ok(1),
            Ok(reply) if reply == ["0"] => Ok(0),
            Ok(reply) => Err(not_destroyed(&reply.join(" "))),
            Err(error) => Err(not_destroyed(&error.to_string())),
        }
    }
}

fn not_destroyed(said: &str) -> Failure {
    Failure::new(
        Exit::Failed,
        "fault-not-injected",
        format!("the group could not be destroyed: {said}"),
    )
}
