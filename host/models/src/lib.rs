//! Models: their artifacts, how they are loaded, and the right to use one.
//!
//! It chooses a backend ([`select`]) and hands it to `inference`; it neither decodes nor knows who asks.

mod artifact;
mod metrics;
mod running;
mod select;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate_config::{Model as Spec, Object};
use tollgate_domain::Parameters;
use tollgate_inference::{Engine, Settings};

pub use self::metrics::{Ended, ModelMetrics};
pub use artifact::{Artifact, ArtifactError, Library};
pub use running::Running;
pub use select::LoadError;
pub use tollgate_inference::{
    ChatCodec, EncodeError, Event, Finish, Gauges, GenerateError, Generation, Job, Prompt, SchemaError, SubmitError, Ticket,
    Timing,
};

/// Rows that are left for prompts when every sequence decodes.
const LEAST_PROMPT_ROWS: u32 = 16;

/// A loaded model.
#[derive(Debug)]
pub struct Model {
    id: String,
    aliases: Vec<String>,
    digest: String,
    loaded_s: u64,
    load_time: Duration,
    deadline: Duration,
    engine: Engine,
    metrics: Arc<ModelMetrics>,
}

impl Model {
    /// Loads the model that `spec` describes; takes as long as its file does. `server_secret` salts each tenant's cache;
    /// `running` gets to know its thread.
    ///
    /// # Errors
    /// Its file cannot be used, or there is no memory for it.
    pub fn load(
        spec: &Object<Spec>,
        library: &Library,
        running: &Running,
        server_secret: [u8; 32],
        now_s: u64,
    ) -> Result<Self, LoadError> {
        let began = Instant::now();
        let (backend, digest) = select::load(spec, library)?;
        let sampling = &spec.defaults;
        let settings = Settings {
            queue: spec.queue as usize,
            step_rows: step_rows(spec),
            prefix_cache: spec.prefix_cache,
            deterministic: spec.deterministic,
            deadline: Duration::from_secs(u64::from(spec.deadline_s)),
            server_secret,
            defaults: Parameters {
                max_tokens: sampling.max_tokens,
                temperature: sampling.temperature,
                top_p: sampling.top_p,
                top_k: sampling.top_k,
                min_p: sampling.min_p,
                frequency_penalty: sampling.frequency_penalty,
                presence_penalty: sampling.presence_penalty,
                repeat_penalty: sampling.repeat_penalty,
                ..Parameters::default()
            },
            ..Settings::default()
        };
        let engine = Engine::start(spec.id.as_str(), backend, settings).map_err(|error| LoadError::Start(error.to_string()))?;
        running.add(&engine);
        Ok(Model {
            id: spec.id.as_str().to_owned(),
            aliases: spec.aliases.iter().map(|alias| alias.as_str().to_owned()).collect(),
            digest,
            loaded_s: now_s,
            load_time: began.elapsed(),
            deadline: Duration::from_secs(u64::from(spec.deadline_s)),
            metrics: Arc::new(ModelMetrics::new(spec.id.as_str())),
            engine,
        })
    }

    /// Its id in the config.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its other names.
    #[must_use]
    pub fn aliases(&self) -> &[String] {
        &self.aliases
    }

    /// All its names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.id.as_str()).chain(self.aliases.iter().map(String::as_str))
    }

    /// SHA-256 of the artifact, 64 hex digits.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// When it was loaded, in seconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn loaded_s(&self) -> u64 {
        self.loaded_s
    }

    /// How long loading took.
    #[must_use]
    pub fn load_time(&self) -> Duration {
        self.load_time
    }

    /// The longest that a request may take.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Whether it takes requests; a model whose thread has died has to be loaded again.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.engine.is_alive()
    }

    /// Where its replies are counted.
    #[must_use]
    pub fn metrics(&self) -> &Arc<ModelMetrics> {
        &self.metrics
    }

    /// What decodes.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }
}

/// Rows of a step: what the config says, but enough for a row of every sequence and a piece of a prompt.
fn step_rows(spec: &Spec) -> u32 {
    spec.step_tokens.max(u32::from(spec.sequences) + LEAST_PROMPT_ROWS)
}

impl Drop for Model {
    /// The last handle waits for the step that the model is in. Whoever drops it may be a request's task, which must not wait.
    fn drop(&mut self) {
        let engine = self.engine.clone();
        let unload = std::thread::Builder::new().name(format!("unload-{}", self.id));
        // Without a thread the engine is dropped, and waited for, with this model.
        let _ = unload.spawn(move || engine.shutdown(Instant::now()));
    }
}

/// The right to use a loaded model while a request runs: it is not unloaded before the last lease is gone.
#[derive(Debug, Clone)]
pub struct Lease(Arc<Model>);

impl std::ops::Deref for Lease {
    type Target = Model;

    fn deref(&self) -> &Model {
        &self.0
    }
}

/// The models of one generation.
#[derive(Debug, Default)]
pub struct Models {
    by_name: BTreeMap<String, Arc<Model>>,
}

impl Models {
    /// Names have to be unique; the config's check sees to it.
    #[must_use]
    pub fn new(models: impl IntoIterator<Item = Arc<Model>>) -> Self {
        let named = |model: Arc<Model>| model.names().map(|name| (name.to_owned(), Arc::clone(&model))).collect::<Vec<_>>();
        Models { by_name: models.into_iter().flat_map(named).collect() }
    }

    /// The model of this id or alias, to be used.
    #[must_use]
    pub fn lease(&self, name: &str) -> Option<Lease> {
        self.by_name.get(name).map(|model| Lease(Arc::clone(model)))
    }

    /// The models, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.by_name.iter().filter(|(name, model)| **name == model.id).map(|(_, model)| model)
    }
}
