//! Everything that runs, and the acts of a run: load and faults, drain, and what is found afterwards.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use streamerson::client::Options;
use streamerson::{Client, connect_in};
use streamerson_core::{Broker, ErrorKind, message::new_id};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::fault::Fault;
use super::findings;
use super::inject::Injector;
use super::load::{self, Chains, Load};
use super::record::{Call, End, Record, Rest};
use super::settings::{Names, PARTITIONS, Settings, Wanted};
use super::system::{System, unusable};
use super::traces;
use super::worker::ChaosWorker;
use super::workers::{Hiring, Post};
use crate::failure::{Exit, Failure, Result};
use crate::output::message;

/// How long a handler takes at the most: long enough that a killed worker has something in hand.
const WORK: Duration = Duration::from_millis(40);
/// How long the first answer may take, after all has started.
const WARM_UP: Duration = Duration::from_secs(30);
/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Requests under way at the same time.
const IN_FLIGHT: usize = 100_000;
const LOG: &str = "workers.log";

/// The system under test, its workers, and who loads and watches it.
pub(crate) struct Stage {
    settings: Settings,
    names: Names,
    client: Client,
    broker: Arc<dyn Broker>,
    posts: Vec<Post>,
    hiring: Hiring,
    system: System,
    /// Last, so that nobody uses it any more when it goes.
    folder: Folder,
}

/// Where files of the run are.
enum Folder {
    Temporary(TempDir),
    Kept(PathBuf),
}

impl Stage {
    /// Starts the broker, or finds it. All but an inbox, which expires, is made by [`Stage::play`].
    pub(crate) async fn open(settings: Settings) -> Result<Stage> {
        let folder = Folder::of(&settings)?;
        let system = System::open(settings.system, &settings.namespace, folder.path()).await?;
        let broker = connect_in(&system.url(), settings.namespace.clone()).await?;
        let options = Options {
            max_in_flight: IN_FLIGHT,
            ..Options::default()
        };
        Ok(Stage {
            names: Names::new(&new_id())?,
            client: Client::open_with(broker.clone(), options).await?,
            broker,
            posts: Vec::new(),
            hiring: Hiring::new(folder.path().join(LOG)),
            settings,
            system,
            folder,
        })
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn broker(&self) -> &dyn Broker {
        &*self.broker
    }

    /// All acts, and what there was to see.
    pub(crate) async fn play(&mut self) -> Result<Record> {
        message(&self.settings.forecast());
        // Before anybody sends to it, so that all of it goes to partitions.
        self.broker.divide(&self.names.keyed, PARTITIONS).await?;
        let worker = ChaosWorker::new(self.system.url(), &self.settings, &self.names, WORK);
        let posts = 0..self.settings.workers;
        self.posts = posts.map(|_| self.hiring.post(&worker)).collect();
        let warm_up = self.first_answer().await?;
        let mut record = self.load_and_fail().await?;
        record.calls.push(warm_up);
        message("the faults are over; waiting until all is done");
        self.drain(&mut record).await?;
        for post in &self.posts {
            post.finish().await?;
        }
        findings::read(&*self.broker, &self.names, &mut record).await?;
        (record.handlings, record.fenced) = self.hiring.journal.lock().close();
        Ok(record)
    }

    /// Ends all of it, wherever it stands. A broker that somebody else has started has nothing of the run any more.
    pub(crate) async fn strike(self) -> Result<()> {
        let inbox = self.client.address().clone();
        drop((self.posts, self.client, self.broker));
        // From here on nothing that is still under way reaches the broker.
        self.system.close().await;
        let Wanted::Running(server) = self.settings.system else {
            return Ok(());
        };
        traces::remove(server, &self.settings.namespace, &self.names, &inbox).await
    }

    async fn first_answer(&self) -> Result<Call> {
        let call = load::request(&self.client, &self.names.work, 0, WARM_UP).await;
        if let End::Answered(_) = call.end {
            return Ok(call);
        }
        let log = std::fs::read_to_string(self.folder.path().join(LOG)).unwrap_or_default();
        let last = log.lines().last().unwrap_or("nothing");
        let detail = format!(
            "no worker answers ({:?}); the last one said: {last}",
            call.end
        );
        Err(Failure::new(Exit::Failed, "workers-not-ready", detail))
    }

    /// Load and faults, until there was enough of both.
    async fn load_and_fail(&mut self) -> Result<Record> {
        let requests = Arc::new(AtomicUsize::new(0));
        let load = Load {
            client: self.client.clone(),
            names: self.names.clone(),
            chains: Chains::default(),
            rate: self.settings.rate,
            timeout: self.settings.patience(),
            duplicates: self.settings.faults.contains(&Fault::Duplicates),
            seed: self.settings.seed,
            requests: requests.clone(),
        };
        let (calm, quiet) = (CancellationToken::new(), CancellationToken::new());
        let loading = AbortOnDropHandle::new(tokio::spawn(load.run(quiet.clone())));
        let injector = Injector {
            settings: &self.settings,
            names: &self.names,
            posts: &self.posts,
            hiring: &self.hiring,
            client: &self.client,
            broker: &*self.broker,
            kills: AtomicUsize::new(0),
            episodes: AtomicUsize::new(0),
        };
        let enough = async {
            wait_until_enough(&self.settings, &requests, &injector).await;
            calm.cancel();
            Ok(())
        };
        let (kills, (episodes, mut sent), ()) = tokio::try_join!(
            injector.kill_workers(&calm),
            injector.run_episodes(&mut self.system, &calm),
            enough,
        )?;
        quiet.cancel();
        let loaded = loading.await;
        let mut calls = loaded.map_err(|error| unusable(std::io::Error::other(error)))?;
        calls.append(&mut sent);
        Ok(Record {
            calls,
            kills,
            episodes,
            ..Record::default()
        })
    }

    /// Waits until the group has nothing left to do, or ought to.
    async fn drain(&self, record: &mut Record) -> Result<()> {
        let begun = Instant::now();
        loop {
            record.rest = self.rest().await?;
            if record.rest.is_none() {
                record.drained = Some(begun.elapsed());
                return Ok(());
            }
            if begun.elapsed() > self.settings.drain() {
                return Ok(());
            }
            sleep(LOOK).await;
        }
    }

    async fn rest(&self) -> Result<Rest> {
        let mut rest = Rest {
            lag: Some(0),
            ..Rest::default()
        };
        for (_, topic) in self.names.streams()? {
            let stats = match self.broker.stats(&topic).await {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                stats => stats?,
            };
            let mut groups = stats.groups.iter();
            let group = groups.find(|group| group.name == self.names.group.as_str());
            // Where nobody has joined yet, all is still to do.
            let lag = group.map_or(Some(stats.length), |group| group.lag);
            rest.lag = rest.lag.zip(lag).map(|(all, more)| all + more);
            rest.pending += group.map_or(0, |group| group.pending);
            rest.scheduled += stats.scheduled;
        }
        Ok(rest)
    }
}

/// Waits for the numbers asked for, and for one round of episodes.
async fn wait_until_enough(settings: &Settings, requests: &AtomicUsize, injector: &Injector<'_>) {
    let begun = Instant::now();
    let round = settings.faults.iter().filter(|fault| fault.is_episode());
    let round = round.count();
    let is_enough = || {
        requests.load(Ordering::Relaxed) >= settings.requests
            && injector.kills.load(Ordering::Relaxed) >= settings.kills
            && injector.episodes.load(Ordering::Relaxed) >= round
            && begun.elapsed() >= settings.duration
    };
    while !is_enough() {
        sleep(LOOK).await;
    }
}

impl Folder {
    fn of(settings: &Settings) -> Result<Folder> {
        if let Some(files) = &settings.files {
            std::fs::create_dir_all(files).map_err(unusable)?;
            return Ok(Folder::Kept(files.clone()));
        }
        let temporary = tempfile::Builder::new()
            .prefix("streamerson-chaos-")
            .tempdir();
        Ok(Folder::Temporary(temporary.map_err(unusable)?))
    }

    fn path(&self) -> &Path {
        match self {
            Folder::Temporary(folder) => folder.path(),
            Folder::Kept(folder) => folder,
        }
    }
}
