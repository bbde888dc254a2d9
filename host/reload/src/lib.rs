//! From a config directory to what serves: a fallible build, then an infallible swap.
//!
//! What fails leaves the last good generation serving and is put in quarantine with file, stage and reason. One reload at a time;
//! events that come meanwhile are folded into one. Keys are not part of a generation: they apply at once.

mod assemble;
mod keys;
mod links;
mod quarantine;
mod routes;
mod watch;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tollgate_config::{Config, Keys};
use tollgate_models::Served;
use tollgate_pipeline::{Generation, Pipeline};

pub use assemble::{Assembler, Components, limits};
pub use quarantine::Quarantined;

use keys::KeyWatch;

/// Looks at files that never come to rest, before what is there is taken all the same.
const MAX_UNSETTLED: usize = 50;

/// What a generation from `config` is made of, by content, with models from the folder of links `installed`; to be taken before it is
/// built, so that a change meanwhile is seen.
#[must_use]
pub fn fingerprint(config: &Config, installed: &Path) -> [u8; 32] {
    watch::fingerprint(config.hash, config, installed)
}

/// What a reload came to, for the operator.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// What is not serving because it failed; empty when all is well.
    pub quarantined: Vec<Quarantined>,
    /// Key files that are wrong: what they held before is still in use.
    pub wrong_keys: Vec<Quarantined>,
    /// Changed fields that need a restart.
    pub needs_restart: Vec<String>,
    /// Things in the config that are allowed but look wrong.
    pub warnings: Vec<String>,
    /// Reloads that led to a new generation.
    pub reloads: u64,
    /// Reloads that did not: what failed is in quarantine.
    pub failed_reloads: u64,
    /// When the build began that goes on now.
    pub building_since: Option<Instant>,
    /// How long the last build took.
    pub last_build: Duration,
    /// Generations that still serve a request.
    pub live_generations: usize,
}

/// Hears of every change of the keys.
pub type OnKeys = Arc<dyn Fn(&Keys) + Send + Sync>;

/// Takes in changes of a config directory while requests run.
pub struct Reloader {
    assembler: Assembler,
    pipeline: Pipeline,
    dir: PathBuf,
    /// Where the links to installed models are.
    installed: PathBuf,
    /// What the running process was started with, for fields that need a restart.
    started_with: Config,
    current: Config,
    keys: Keys,
    on_keys: OnKeys,
    status: Arc<Mutex<Status>>,
    live: VecDeque<Weak<Generation>>,
    /// What the current generation, or the last attempt at one, was made of.
    seen: [u8; 32],
    /// The config of that, whose files are watched: a plugin that was missing may have arrived.
    attempted: Config,
    tracker: TaskTracker,
    stop: CancellationToken,
    next_number: u64,
}

/// Asks a running [`Reloader`] to look now.
#[derive(Debug, Clone)]
pub struct Trigger(mpsc::Sender<Option<oneshot::Sender<()>>>);

impl Trigger {
    /// Looks soon; a look that is due already is enough.
    pub fn poke(&self) {
        // A full channel means that it will look anyway.
        let _ = self.0.try_send(None);
    }

    /// Looks now and returns when what changed is active or in quarantine.
    pub async fn reload(&self) {
        let (done, waiting) = oneshot::channel();
        if self.0.send(Some(done)).await.is_ok() {
            // An error means that the reloader ended: there is nothing to wait for.
            let _ = waiting.await;
        }
    }
}

/// What a [`Reloader`] tells others.
#[derive(Debug, Clone)]
pub struct StatusHandle(Arc<Mutex<Status>>);

impl StatusHandle {
    /// The present status.
    #[must_use]
    pub fn get(&self) -> Status {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Reloader {
    /// Begins with the config that the first generation was built from, its [`fingerprint`] from before that, and the `keys` in
    /// use. `on_keys` hears of every change of them. Its tasks are spawned on `tracker` and end at `stop`.
    #[must_use]
    pub fn new(
        assembler: Assembler,
        pipeline: Pipeline,
        config: Config,
        seen: [u8; 32],
        (keys, on_keys): (Keys, OnKeys),
        tracker: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let warnings = config.warnings.iter().map(ToString::to_string).collect();
        let status = Status { warnings, live_generations: 1, ..Status::default() };
        Reloader {
            next_number: pipeline.generation() + 1,
            live: VecDeque::from([Arc::downgrade(&pipeline.current())]),
            dir: config.dir.clone(),
            installed: assembler.installed(),
            seen,
            started_with: config.clone(),
            attempted: config.clone(),
            current: config,
            assembler,
            pipeline,
            keys,
            on_keys,
            status: Arc::new(Mutex::new(status)),
            tracker,
            stop,
        }
    }

    /// What it tells others.
    #[must_use]
    pub fn status(&self) -> StatusHandle {
        StatusHandle(Arc::clone(&self.status))
    }

    /// Runs until it is stopped: watches, polls behind the watcher, and takes in what changed.
    ///
    /// # Errors
    /// The directory cannot be watched; polling alone would miss its deadline (P-U2), so that the caller should know.
    pub fn run(mut self) -> Result<Trigger, notify::Error> {
        let (sender, mut looks) = mpsc::channel(16);
        let trigger = Trigger(sender);
        let own = trigger.clone();
        let changed = Arc::new(Notify::new());
        let mut watching = watch::Watching::new(&self.dir, &self.installed, trigger.clone(), Arc::clone(&changed))?;
        let keys = Arc::new(KeyWatch::new(self.dir.clone(), std::mem::take(&mut self.keys), self.on_keys()));
        keys.run(changed, self.current.settings.reload.poll_s, &self.tracker, self.stop.clone());
        let stop = self.stop.clone();
        let tracker = self.tracker.clone();
        tracker.spawn(async move {
            own.poke();
            loop {
                let config = self.attempted.clone();
                let followed = tokio::task::spawn_blocking(move || {
                    watching.follow(&config);
                    watching
                });
                watching = match followed.await {
                    Ok(watching) => watching,
                    Err(error) => return tracing::error!(%error, "changes are not noticed any more"),
                };
                let poll = Duration::from_secs(u64::from(self.current.settings.reload.poll_s));
                let mut waiting = Vec::new();
                tokio::select! {
                    () = stop.cancelled() => return,
                    look = looks.recv() => match look {
                        Some(reply) => waiting.extend(reply),
                        None => return,
                    },
                    () = tokio::time::sleep(poll) => {}
                }
                if waiting.is_empty() {
                    tokio::select! {
                        () = self.settled() => {}
                        () = stop.cancelled() => return,
                    }
                }
                while let Ok(reply) = looks.try_recv() {
                    waiting.extend(reply);
                }
                keys.look().await;
                // Who asks for a reload gets one more attempt at what failed, though no file has changed since.
                let is_asked_again = !waiting.is_empty() && !self.status().get().quarantined.is_empty();
                let now = self.fingerprint().await;
                let work = async {
                    if now != self.seen || is_asked_again {
                        self.seen = now;
                        self.reload().await;
                    }
                    if !waiting.is_empty() {
                        self.pipeline.current().models.iter().for_each(|model| model.retry());
                    }
                };
                tokio::select! {
                    () = work => {}
                    () = stop.cancelled() => return,
                }
                self.count_live();
                for reply in waiting {
                    // Who asked may have gone.
                    let _ = reply.send(());
                }
            }
        });
        Ok(trigger)
    }

    /// Tells those who asked for it, and the status, of a change of the keys.
    fn on_keys(&self) -> OnKeys {
        let (on_keys, pipeline, status) = (Arc::clone(&self.on_keys), self.pipeline.clone(), Arc::clone(&self.status));
        Arc::new(move |keys| {
            on_keys(keys);
            pipeline.set_keys_degraded(!keys.problems.is_empty());
            let wrong = keys.problems.iter().map(Quarantined::of_config).collect();
            status.lock().unwrap_or_else(PoisonError::into_inner).wrong_keys = wrong;
        })
    }

    /// Waits until the files have been the same for the debounce time: an editor that saves by moving files about leaves moments
    /// in which the directory is valid and not what anybody wants.
    async fn settled(&self) {
        let quiet = Duration::from_millis(u64::from(self.current.settings.reload.debounce_ms));
        let mut before = self.fingerprint().await;
        for _ in 0..MAX_UNSETTLED {
            tokio::time::sleep(quiet).await;
            let now = self.fingerprint().await;
            if std::mem::replace(&mut before, now) == now {
                return;
            }
        }
    }

    /// Everything that a generation is made of, by content: config files, and the files that they name.
    async fn fingerprint(&self) -> [u8; 32] {
        let (dir, config, installed) = (self.dir.clone(), self.attempted.clone(), self.installed.clone());
        let look = move || watch::fingerprint(tollgate_config::content_hash(&dir), &config, &installed);
        let hash = tokio::task::spawn_blocking(look).await;
        hash.unwrap_or_default()
    }

    async fn reload(&mut self) {
        let began = Instant::now();
        self.update(|status| status.building_since = Some(began));
        let built = self.build().await;
        self.update(|status| status.building_since = None);
        match built {
            Ok((config, generation)) => {
                self.swap(config, generation, began.elapsed());
                self.pipeline.set_degraded(false);
                self.update(|status| status.quarantined.clear());
            }
            Err(failures) => {
                for failure in &failures {
                    tracing::error!(file = failure.file, stage = failure.stage, reason = failure.reason, "config quarantined");
                }
                self.pipeline.set_degraded(true);
                self.update(|status| {
                    status.quarantined = failures;
                    status.failed_reloads += 1;
                });
            }
        }
    }

    async fn build(&mut self) -> Result<(Config, Generation), Vec<Quarantined>> {
        let (dir, installed) = (self.dir.clone(), self.installed.clone());
        let loaded = tokio::task::spawn_blocking(move || {
            // What it names is watched from before it is built.
            tollgate_config::load(&dir).map(|config| (fingerprint(&config, &installed), config))
        });
        let loaded = loaded.await.map_err(|error| vec![Quarantined::internal(&error.to_string())])?;
        let (seen, config) = loaded.map_err(|problems| problems.0.iter().map(Quarantined::of_config).collect::<Vec<_>>())?;
        self.attempted = config.clone();
        self.seen = seen;
        let generation = self.assembler.build(&config, self.next_number).await?;
        Ok((config, generation))
    }

    fn swap(&mut self, config: Config, generation: Generation, took: Duration) {
        let number = generation.number;
        self.next_number += 1;
        let old = self.pipeline.swap(generation);
        unpin_replaced(&old, &self.pipeline.current());
        self.live.push_back(Arc::downgrade(&self.pipeline.current()));
        self.retire_later(old, &config);
        let needs_restart = watch::needs_restart(&self.started_with, &config);
        for field in &needs_restart {
            tracing::warn!(field, "this change needs a restart");
        }
        tracing::info!(generation = number, build_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX), "generation active");
        let warnings = config.warnings.iter().map(ToString::to_string).collect();
        self.current = config;
        self.update(|status| {
            status.needs_restart = needs_restart;
            status.warnings = warnings;
            status.reloads += 1;
            status.last_build = took;
        });
        self.count_live();
    }

    /// Ends what still runs on an old generation when its time is up, or at once when there are too many.
    fn retire_later(&mut self, old: Arc<Generation>, config: &Config) {
        let reload = &config.settings.reload;
        let (retired, drain) = (old.retired.clone(), Duration::from_secs(u64::from(reload.drain_s)));
        drop(old);
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(drain) => retired.cancel(),
                () = retired.cancelled() => {}
                () = stop.cancelled() => {}
            }
        });
        self.live.retain(|generation| generation.strong_count() > 0);
        while self.live.len() > reload.generations as usize {
            if let Some(oldest) = self.live.pop_front().and_then(|generation| generation.upgrade()) {
                tracing::warn!(generation = oldest.number, "too many generations are live; the oldest ends");
                oldest.retired.cancel();
            }
        }
    }

    fn count_live(&mut self) {
        self.live.retain(|generation| generation.strong_count() > 0);
        let live = self.live.len();
        self.update(|status| status.live_generations = live);
    }

    fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Models that only requests of the old generation can use make room when they are needed no more, pinned or not.
fn unpin_replaced(old: &Generation, new: &Generation) {
    for model in old.models.iter() {
        if let Served::Local(slot) = model
            && !new.models.iter().any(|other| matches!(other, Served::Local(other) if Arc::ptr_eq(slot, other)))
        {
            slot.pin(false);
        }
    }
}
