//! Models: their artifacts, how they come and go within a budget of bytes, and the right to use one.
//!
//! It chooses a backend ([`select`]) and hands it to `inference`; it neither decodes nor knows who asks. A model of the config is a
//! [`Slot`]; who wants to use it takes a [`Lease`], and the [`Pool`] loads and unloads what lies behind. One that somebody else runs is
//! a [`Remote`].

mod artifact;
mod convert;
mod lifecycle;
mod memory;
mod metrics;
mod probe;
mod remote;
mod runner;
mod running;
mod select;
mod served;
mod slot;
mod tune;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tollgate_config::{Model as Spec, Object, Sampling};
use tollgate_domain::Parameters;
use tollgate_inference::{EmbeddingSettings, Settings, StartError};

pub use self::metrics::{Ended, ModelMetrics, operation};
use artifact::Artifact;
pub use artifact::{ArtifactError, Library};
pub use convert::{ConvertRefusal, ConvertReport, ConvertRequest, Quantization, convert};
pub use lifecycle::{Pool, PoolStatus};
pub use memory::default_budget;
pub use probe::{ProbeReport, ProbeRequest, probe};
pub use remote::Remote;
use runner::Runner;
pub use running::Running;
pub use select::LoadError;
use select::Loaded;
pub use served::{Models, Served};
pub use slot::{Lease, LeaseError, Slot, SlotStatus};
pub use tollgate_config::Task;
pub use tollgate_inference::{
    ChatCodec, EmbedError, EmbedJob, EmbedWork, Embedded, Embedding, EmbeddingEngine, EncodeError, Engine, Event, Finish, Gauges,
    GenerateError, Generation, Job, Prompt, SchemaError, SubmitError, Ticket, Timing,
};
pub use tollgate_providers::{BreakerState, ProviderError, RemoteEvent, RemoteReply};
pub use tune::{Candidate, Measured, TuneError, TuneLine, TuneReport, TuneRequest, Tuned, Tuner, tune, tune_again};

/// Rows that are left for prompts when every sequence decodes.
const LEAST_PROMPT_ROWS: u32 = 16;

/// One model is loaded at a time: two would share the disk and the cores, and neither could be weighed.
static LOADING: Mutex<()> = Mutex::new(());

/// A loaded model.
#[derive(Debug)]
pub struct Model {
    id: String,
    aliases: Vec<String>,
    digest: String,
    loaded_s: u64,
    load_time: Duration,
    measuring: Duration,
    grown: u64,
    runner: Runner,
    metrics: Arc<ModelMetrics>,
}

impl Model {
    /// Loads the model that `spec` describes; takes as long as its file does. `server_secret` salts each tenant's cache.
    ///
    /// # Errors
    /// Its file cannot be used, or there is no memory for it.
    fn load(
        spec: &Object<Spec>,
        artifact: Option<&Artifact>,
        library: &Library,
        server_secret: [u8; 32],
        (metrics, now_s): (Arc<ModelMetrics>, u64),
    ) -> Result<Self, LoadError> {
        let _one = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
        let (began, before) = (Instant::now(), memory::resident().unwrap_or(0));
        let (chosen, measuring) = tune::at_load(spec, artifact, library);
        let (loaded, digest) = select::load(spec, artifact, library, &chosen)?;
        let runner = start(spec, loaded, server_secret).map_err(|error| LoadError::Start(error.to_string()))?;
        Ok(Model {
            id: spec.id.as_str().to_owned(),
            aliases: spec.aliases.iter().map(|alias| alias.as_str().to_owned()).collect(),
            digest,
            loaded_s: now_s,
            load_time: began.elapsed().saturating_sub(measuring),
            measuring,
            grown: memory::resident().unwrap_or(0).saturating_sub(before),
            metrics,
            runner,
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

    /// How long loading took, without measuring how it is computed best.
    #[must_use]
    pub fn load_time(&self) -> Duration {
        self.load_time
    }

    /// How long it took to measure how it is computed best: nothing but for its first load on this machine.
    pub(crate) fn measuring(&self) -> Duration {
        self.measuring
    }

    /// Bytes by which the process grew while it was loaded.
    #[must_use]
    pub fn grown(&self) -> u64 {
        self.grown
    }

    /// Bytes that it takes: what its backend says, or what was seen if that is more.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.runner.memory().total().max(self.grown)
    }

    /// Whether it takes requests; a model whose thread has died has to be loaded again.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.runner.is_alive()
    }

    /// Where its replies are counted.
    #[must_use]
    pub fn metrics(&self) -> &Arc<ModelMetrics> {
        &self.metrics
    }

    /// What decodes, of a model that generates.
    #[must_use]
    pub fn engine(&self) -> Option<&Engine> {
        match &self.runner {
            Runner::Generates(engine) => Some(engine),
            Runner::Embeds(_) => None,
        }
    }

    /// What computes, of a model that embeds or ranks.
    #[must_use]
    pub fn embedding(&self) -> Option<&EmbeddingEngine> {
        match &self.runner {
            Runner::Embeds(engine) => Some(engine),
            Runner::Generates(_) => None,
        }
    }

    /// Its thread, of either kind.
    pub(crate) fn runner(&self) -> &Runner {
        &self.runner
    }
}

/// Gives what was loaded to a thread. `server_secret` salts each tenant's cache.
fn start(spec: &Object<Spec>, loaded: Loaded, server_secret: [u8; 32]) -> Result<Runner, StartError> {
    let (name, queue) = (spec.id.as_str(), spec.queue as usize);
    let deadline = Duration::from_secs(u64::from(spec.deadline_s));
    match loaded {
        Loaded::Backend(backend) => {
            let settings = Settings {
                queue,
                step_rows: step_rows(spec),
                prefix_cache: spec.prefix_cache,
                deterministic: spec.deterministic,
                deadline,
                server_secret,
                defaults: defaults(&spec.defaults),
                ..Settings::default()
            };
            Engine::start(name, backend, settings).map(Runner::Generates)
        }
        Loaded::Embedder(embedder) => {
            let settings = EmbeddingSettings { queue, batch_tokens: step_rows(spec), batch_texts: spec.sequences, deadline };
            EmbeddingEngine::start(name, embedder, settings).map(Runner::Embeds)
        }
    }
}

/// How to decode where a request does not say.
fn defaults(sampling: &Sampling) -> Parameters {
    Parameters {
        max_tokens: sampling.max_tokens,
        temperature: sampling.temperature,
        top_p: sampling.top_p,
        top_k: sampling.top_k,
        min_p: sampling.min_p,
        frequency_penalty: sampling.frequency_penalty,
        presence_penalty: sampling.presence_penalty,
        repeat_penalty: sampling.repeat_penalty,
        ..Parameters::default()
    }
}

/// Rows of a step: what the config says, but enough for a row of every sequence and a piece of a prompt.
fn step_rows(spec: &Spec) -> u32 {
    spec.step_tokens.max(u32::from(spec.sequences) + LEAST_PROMPT_ROWS)
}
