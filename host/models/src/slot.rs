//! A model of the config, whether it is loaded or not, and the right to use it.

mod adapter;

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tollgate_config::{Model as Spec, Object, Task};
use tollgate_domain::{KeepAlive, Parameters};
use tollgate_inference::Adapter as Handle;

use self::adapter::{Adapter, Takes, Worn};
use crate::lifecycle::{Denied, Facts, Incarnation, Key, Loader, Outcome, Refused};
use crate::{Artifact, Library, LoadError, Model, ModelMetrics, Pool, memory, select};

/// A model of the config, or an adapter of one. Generations that mean the same one share it; when the last of them is gone, it is
/// unloaded.
#[derive(Debug)]
pub struct Slot {
    pool: Pool,
    key: Key,
    id: String,
    task: Task,
    aliases: Vec<String>,
    fallback: Vec<String>,
    created_s: u64,
    deadline: Duration,
    predicted: u64,
    was_asked: AtomicBool,
    /// Known before the first load where the artifact says it.
    digest: Arc<OnceLock<String>>,
    metrics: Arc<ModelMetrics>,
    /// What adapters it takes.
    takes: Takes,
    /// What it has if it is an adapter; `key` is then its base's.
    adapter: Option<Arc<Adapter>>,
}

/// A model cannot be used now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// It takes more bytes than there are for it.
    #[error(
        "the model needs {}, the budget of all models is {}, and {} of that is pinned: raise [models] memory_mib in tollgate.toml, use \
         a smaller quantization (q4), or give it less context_tokens",
        memory::shown(*needs), memory::shown(*budget), memory::shown(*pinned)
    )]
    TooLarge {
        /// Bytes that it takes.
        needs: u64,
        /// Bytes for all models.
        budget: u64,
        /// Bytes of that that pinned models hold.
        pinned: u64,
    },
    /// As many requests wait for models as may.
    #[error("as many requests wait for models as may: raise [models] queue in tollgate.toml")]
    QueueFull,
    /// It was not ready in time.
    #[error("the model was not ready in time")]
    Late,
    /// It cannot be loaded.
    #[error("{reason}")]
    Failed {
        /// Why.
        reason: String,
        /// Seconds until it is tried again, 0 to 300.
        retry_after_s: u32,
    },
}

/// How a model is now.
#[derive(Debug, Clone)]
pub struct SlotStatus {
    /// `cold`, `loading`, `ready`, `draining`, `unloading` or `failed`.
    pub state: &'static str,
    /// Requests that use it.
    pub leases: u32,
    /// Whether it stays once it is loaded.
    pub is_pinned: bool,
    /// Bytes that it was predicted to take.
    pub predicted_bytes: u64,
    /// Why it could not be loaded the last time.
    pub error: Option<Arc<str>>,
}

impl Slot {
    /// Finds the model's artifact, reads its header and predicts what it will take. Nothing is loaded. `server_secret` salts each
    /// tenant's cache. Reads files: not for an async task.
    ///
    /// # Errors
    /// Its artifact cannot be used, or can never fit into the budget.
    pub fn new(
        spec: &Object<Spec>,
        library: &Library,
        pool: &Pool,
        server_secret: [u8; 32],
        now_s: u64,
    ) -> Result<Arc<Self>, LoadError> {
        let artifact = select::find(spec, library)?;
        let predicted = memory::predict(spec, artifact.as_ref())?;
        let digest = Arc::new(OnceLock::new());
        if let Some(known) = artifact.as_ref().and_then(|artifact| artifact.digest.clone()) {
            // It was made above.
            let _ = digest.set(known);
        }
        let metrics = Arc::new(ModelMetrics::new(spec.id.as_str(), spec.task));
        let takes = Takes::of(spec, artifact.as_ref());
        let loader = loader(spec, artifact, library, server_secret, (&digest, &metrics), now_s);
        let mut slot = Self::with(spec, pool, (predicted, loader, None), (digest, metrics), now_s);
        slot.takes = takes;
        match slot.pool.beyond_budget(slot.key) {
            Some(why) => Err(LoadError::Start(lease_error(&Denied { why, error: None }).to_string())),
            None => Ok(Arc::new(slot)),
        }
    }

    /// A place for a model that cannot be used for this `reason`, and that requests for it are answered with.
    #[must_use]
    pub fn absent(spec: &Object<Spec>, pool: &Pool, reason: &str, now_s: u64) -> Arc<Self> {
        let said = reason.to_owned();
        let loader: Loader = Arc::new(move || Err(LoadError::Start(said.clone())));
        let metrics = Arc::new(ModelMetrics::new(spec.id.as_str(), spec.task));
        Arc::new(Self::with(spec, pool, (0, loader, Some(reason)), (Arc::default(), metrics), now_s))
    }

    fn with(
        spec: &Object<Spec>,
        pool: &Pool,
        (predicted, loader, error): (u64, Loader, Option<&str>),
        (digest, metrics): (Arc<OnceLock<String>>, Arc<ModelMetrics>),
        now_s: u64,
    ) -> Self {
        let facts = Facts {
            bytes: predicted,
            is_pinned: spec.pin,
            keep_alive_ms: spec.keep_alive_s.map(|seconds| u64::from(seconds) * 1_000),
        };
        let key = pool.add(spec.id.as_str(), facts, loader, error);
        Slot {
            pool: pool.clone(),
            key,
            id: spec.id.as_str().to_owned(),
            task: spec.task,
            aliases: adapter::aliases(spec),
            fallback: spec.fallback.iter().map(|name| name.as_str().to_owned()).collect(),
            created_s: now_s,
            deadline: Duration::from_secs(u64::from(spec.deadline_s)),
            predicted,
            was_asked: AtomicBool::new(false),
            digest,
            metrics,
            takes: Takes::Nothing,
            adapter: None,
        }
    }

    /// Its id in the config.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What it is asked for.
    #[must_use]
    pub fn task(&self) -> Task {
        self.task
    }

    /// Its other names.
    #[must_use]
    pub fn aliases(&self) -> &[String] {
        &self.aliases
    }

    /// Models that answer in its place, in order.
    #[must_use]
    pub fn fallback(&self) -> &[String] {
        &self.fallback
    }

    /// All its names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.id.as_str()).chain(self.aliases.iter().map(String::as_str))
    }

    /// Since when it is in the config, in seconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn created_s(&self) -> u64 {
        self.created_s
    }

    /// SHA-256 of the artifact, 64 hex digits; `None` while nobody has had to take it. Of an adapter, its base's, a `+` and its own.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        self.digest.get().map(String::as_str)
    }

    /// The longest that a request may take, its wait for the model included.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Where its replies are counted.
    #[must_use]
    pub fn metrics(&self) -> &Arc<ModelMetrics> {
        &self.metrics
    }

    /// The model as it is loaded now, to be looked at. Whoever wants to use it takes a lease.
    #[must_use]
    pub fn loaded(&self) -> Option<Arc<Model>> {
        let model = self.pool.loaded(self.key);
        match &self.adapter {
            Some(adapter) => model.filter(|model| adapter.is_on(model)),
            None => model,
        }
    }

    /// How it is now.
    #[must_use]
    pub fn status(&self) -> SlotStatus {
        let (state, leases, is_pinned, error) = self.pool.state(self.key);
        let predicted_bytes = self.predicted.saturating_add(self.pool.adapters(self.key));
        let status = SlotStatus { state, leases, is_pinned, predicted_bytes, error };
        match &self.adapter {
            Some(adapter) => adapter.status(status, self.predicted),
            None => status,
        }
    }

    /// Whether requests for it are served, as far as is known.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.status().error.is_none() && self.loaded().is_none_or(|model| model.is_alive())
    }

    /// Whether anybody ever wanted to use it.
    #[must_use]
    pub fn was_asked(&self) -> bool {
        self.was_asked.load(Ordering::Relaxed)
    }

    /// Whether it is loaded, or would fit beside everything that is.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.pool.has_room(self.key)
    }

    /// The right to use it, at once where it is loaded; else it is loaded first, as soon as there is room. Dropping the future
    /// gives the place in the queue up.
    ///
    /// # Errors
    /// It cannot be loaded, there is no room for it or in the queue, or it is not ready at `deadline`.
    pub async fn lease(self: &Arc<Self>, deadline: Instant) -> Result<Lease, LeaseError> {
        self.was_asked.store(true, Ordering::Relaxed);
        let outcome = match self.pool.ask(self.key) {
            Ok(outcome) => outcome,
            Err(mut waiting) => {
                let outcome = tokio::time::timeout_at(deadline.into(), waiting.outcome()).await;
                outcome.map_err(|_| LeaseError::Late)?
            }
        };
        let mut held = self.taken(outcome)?;
        if let Some(adapter) = &self.adapter {
            let worn = adapter.on(&held.model, deadline).await?;
            self.digest.get_or_init(|| worn.digest.clone());
            held.adapter = Some(worn);
        }
        Ok(Lease(Arc::new(held)))
    }

    /// Whether it stays once it is loaded, until the config says otherwise. Of an adapter: whether its base does.
    pub fn pin(&self, is_pinned: bool) {
        self.pool.pin(self.key, is_pinned);
    }

    /// Unloads it.
    ///
    /// # Errors
    /// So many requests use it.
    pub fn unload(&self) -> Result<(), u32> {
        match &self.adapter {
            Some(adapter) => adapter.unload(),
            None => self.pool.unload(self.key),
        }
    }

    /// Tries again at once what failed the last time.
    pub fn retry(&self) {
        if let Some(adapter) = &self.adapter {
            adapter.wake();
        }
        if self.pool.state(self.key).3.is_some() {
            self.pool.wake(self.key);
            self.pool.warm(self.key);
        }
    }

    fn taken(self: &Arc<Self>, outcome: Outcome) -> Result<Held, LeaseError> {
        let (model, incarnation) = outcome.map_err(|denied| lease_error(&denied))?;
        if let Some(adapter) = &self.adapter {
            adapter.taken();
        }
        Ok(Held { slot: Arc::clone(self), model, incarnation, adapter: None })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.adapter.is_some() {
            self.pool.change_adapters(self.key, self.predicted, false);
        } else {
            self.pool.forget(self.key);
        }
    }
}

fn loader(
    spec: &Object<Spec>,
    artifact: Option<Artifact>,
    library: &Library,
    server_secret: [u8; 32],
    (digest, metrics): (&Arc<OnceLock<String>>, &Arc<ModelMetrics>),
    now_s: u64,
) -> Loader {
    let (spec, library) = (spec.clone(), library.clone());
    let (digest, metrics) = (Arc::clone(digest), Arc::clone(metrics));
    Arc::new(move || {
        let model = Model::load(&spec, artifact.as_ref(), &library, server_secret, (Arc::clone(&metrics), now_s))?;
        let known = digest.get_or_init(|| model.digest().to_owned());
        if known != model.digest() {
            return Err(LoadError::Start(format!("its file has changed: it had the digest {known}, and has {}", model.digest())));
        }
        Ok(model)
    })
}

fn lease_error(denied: &Denied) -> LeaseError {
    let failed = |for_ms: u64| LeaseError::Failed {
        reason: denied.error.as_deref().unwrap_or("the model is gone").to_owned(),
        retry_after_s: u32::try_from(for_ms.div_ceil(1_000)).unwrap_or(u32::MAX),
    };
    match &denied.why {
        Refused::TooLarge { needs, budget, pinned } => LeaseError::TooLarge { needs: *needs, budget: *budget, pinned: *pinned },
        Refused::QueueFull => LeaseError::QueueFull,
        Refused::Resting { for_ms } => failed(*for_ms),
        Refused::LoadFailed | Refused::Unknown => failed(1_000),
    }
}

/// The right to use a loaded model while a request runs: it is not unloaded before the last lease is gone. Clones are the same
/// lease.
#[derive(Debug, Clone)]
pub struct Lease(Arc<Held>);

#[derive(Debug)]
struct Held {
    slot: Arc<Slot>,
    model: Arc<Model>,
    incarnation: Incarnation,
    /// Where the slot is an adapter's.
    adapter: Option<Arc<Worn>>,
}

impl Lease {
    /// Of which model of the config.
    #[must_use]
    pub fn slot(&self) -> &Arc<Slot> {
        &self.0.slot
    }

    /// The id in the config of what answers: the model's, or the adapter's.
    #[must_use]
    pub fn id(&self) -> &str {
        self.0.slot.id()
    }

    /// The digest of what answers: the artifact's, SHA-256 in 64 hex digits, or the base's and the adapter's with a `+` between them.
    #[must_use]
    pub fn digest(&self) -> &str {
        self.0.adapter.as_ref().map_or_else(|| self.0.model.digest(), |worn| worn.digest.as_str())
    }

    /// Where replies are counted.
    #[must_use]
    pub fn metrics(&self) -> &Arc<ModelMetrics> {
        self.0.slot.metrics()
    }

    /// What the model decodes with, for the job.
    #[must_use]
    pub fn adapter(&self) -> Option<Handle> {
        self.0.adapter.as_ref().map(|worn| worn.handle.clone())
    }

    /// How long the model stays in memory without a lease from now on, until that is said again or it is unloaded. Never longer
    /// than its config says; of an adapter it is its base.
    pub fn keep_alive(&self, asked: KeepAlive) {
        let ms = match asked {
            KeepAlive::Seconds(seconds) => Some(u64::from(seconds) * 1_000),
            KeepAlive::Unlimited => None,
        };
        self.0.slot.pool.keep_alive(self.0.slot.key, ms);
    }

    /// How to decode, as far as the request or an adapter says; the rest is the engine's to fill in.
    #[must_use]
    pub fn parameters(&self, asked: Parameters) -> Parameters {
        match &self.0.slot.adapter {
            Some(adapter) => adapter.parameters(asked),
            None => asked,
        }
    }
}

impl Deref for Lease {
    type Target = Model;

    fn deref(&self) -> &Model {
        &self.0.model
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(adapter) = &self.slot.adapter {
            adapter.returned();
        }
        self.slot.pool.returned(self.slot.key, self.incarnation);
    }
}
