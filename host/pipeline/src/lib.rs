//! The stages of one request, from the head to the last piece.
//!
//! It knows no HTTP: a dialect hands it a head and a request in the words of `domain`, and reads a [`Reply`]. The order of the
//! stages is in [`stages`], nowhere else.

mod authorize;
mod chain;
mod embed;
mod generation;
mod held;
mod identify;
mod record;
mod reply;
mod stages;
mod tokens;
mod trace;
mod turn;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;
use tollgate_domain::{ChatRequest, KeepAlive, Principal, Refusal, RequestHead, Share, Shares};
use tollgate_models::Served;
use tollgate_plugins::PluginHost;

pub use embed::{EmbedInput, EmbedReply, EmbedRequest};
pub use generation::{Generation, Listener, Route, RouteTable};
pub use reply::{Reply, ReplyEvent};
pub use tollgate_models::Embedded;

use chain::Chain;
use record::Timings;

/// Prompts that are encoded, or wait for a thread to do it, at once. One more is refused.
const MAX_ENCODES: usize = 1_024;

/// Serves requests by the generation that is current when they come. Clones share it.
#[derive(Debug, Clone)]
pub struct Pipeline {
    current: Arc<ArcSwap<Generation>>,
    host: PluginHost,
    health: Arc<Health>,
    encoders: Arc<Semaphore>,
    /// Memory for the bodies of requests.
    bodies: Arc<Shares>,
}

#[derive(Debug, Default)]
struct Health {
    ready: AtomicBool,
    degraded: AtomicBool,
    keys_degraded: AtomicBool,
}

/// What a request is known by.
#[derive(Debug, Clone)]
pub struct RequestIds {
    /// Unique; also in the answer.
    pub request_id: Arc<str>,
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub received_at_ms: u64,
    /// W3C trace context, if the client sent one.
    pub traceparent: Option<String>,
    /// The request's span, for what happens in it to be children of; disabled where nobody traces.
    pub span: tracing::Span,
}

/// A request that ended before there was a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// Why.
    pub refusal: Refusal,
    /// By which generation.
    pub generation: u64,
}

/// A model as clients see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// Its id.
    pub id: String,
    /// Its other names.
    pub aliases: Vec<String>,
    /// Since when it is here, in seconds since 1970-01-01T00:00:00Z.
    pub created_s: u64,
    /// SHA-256 of its artifact, 64 hex digits; `None` before a big file was read for the first time.
    pub digest: Option<String>,
    /// Who runs it.
    pub owner: &'static str,
}

/// A request whose sender is known.
#[derive(Debug)]
pub struct Session {
    generation: Arc<Generation>,
    principal: Principal,
    listener: String,
    ids: RequestIds,
    chain: Chain,
    timings: Timings,
    /// Prompts that may be encoded, or wait for it.
    encoders: Arc<Semaphore>,
    bodies: Arc<Shares>,
    /// Of those, what this request's takes.
    memory: Option<Share>,
    /// How long the model that answers is to stay in memory.
    keep_alive: Option<KeepAlive>,
}

impl Pipeline {
    /// Begins with a first generation. `bodies_bytes` is what the bodies of all requests may take in memory together.
    #[must_use]
    pub fn new(first: Generation, host: PluginHost, bodies_bytes: u64) -> Self {
        Pipeline {
            current: Arc::new(ArcSwap::from_pointee(first)),
            host,
            health: Arc::default(),
            encoders: Arc::new(Semaphore::new(MAX_ENCODES)),
            bodies: Shares::new(bodies_bytes),
        }
    }

    /// Whether requests should be sent here.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.health.ready.load(Ordering::Relaxed)
    }

    /// Begins or ends taking requests.
    pub fn set_ready(&self, ready: bool) {
        self.health.ready.store(ready, Ordering::Relaxed);
    }

    /// Whether everything that the config names serves.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        let is_degraded = [&self.health.degraded, &self.health.keys_degraded].iter().any(|flag| flag.load(Ordering::Relaxed));
        !is_degraded && self.current.load().models.iter().all(|model| model.is_healthy())
    }

    /// Says that something of the config is in quarantine, or that nothing is any more.
    pub fn set_degraded(&self, degraded: bool) {
        self.health.degraded.store(degraded, Ordering::Relaxed);
    }

    /// Says that a key file is wrong, or that none is any more.
    pub fn set_keys_degraded(&self, degraded: bool) {
        self.health.keys_degraded.store(degraded, Ordering::Relaxed);
    }

    /// Makes `next` current and returns what was; requests keep the one they started with.
    pub fn swap(&self, next: Generation) -> Arc<Generation> {
        self.current.swap(Arc::new(next))
    }

    /// The current generation.
    #[must_use]
    pub fn current(&self) -> Arc<Generation> {
        self.current.load_full()
    }

    /// The current generation's number.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.current.load().number
    }

    /// Where plugins run.
    #[must_use]
    pub fn plugin_host(&self) -> &PluginHost {
        &self.host
    }

    /// Reserves plugin instances and asks who it is. The body is not read before.
    ///
    /// # Errors
    /// There is no free instance, nobody knows the sender, or an authenticator refused or failed (P-A5: never let in).
    pub async fn identify(&self, head: RequestHead, ids: RequestIds) -> Result<Session, Denied> {
        let generation = self.current.load_full();
        let number = generation.number;
        let denied = |refusal| Denied { refusal, generation: number };
        // What the route needs is reserved when the route is known: a client that is slow with its body holds nothing of it.
        let slots = self.host.slots();
        let reservation =
            slots.reserve(generation.authenticators_of(&head.listener)).ok_or_else(|| denied(chain::overloaded(slots)))?;
        let chain = Chain::new(slots.clone(), reservation, ids.request_id.clone(), ids.received_at_ms);
        let shared = (Arc::clone(&self.encoders), Arc::clone(&self.bodies));
        identify::identify(generation, chain, head, ids, shared).await.map_err(denied)
    }
}

impl Session {
    /// Who asks.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The generation that serves this request.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.number
    }

    /// Whether the sender may ask a model at all, to be known before a body is read.
    ///
    /// # Errors
    /// The scope is missing.
    pub fn may_chat(&self) -> Result<(), Refusal> {
        authorize::may_chat(&self.principal)
    }

    /// Memory for the request's body: nothing yet, to be grown as it comes.
    #[must_use]
    pub fn body(&self) -> Share {
        self.bodies.none(&self.principal.tenant)
    }

    /// Holds the body's memory until the model has its prompt: the text lives as long.
    pub fn hold(&mut self, memory: Share) {
        self.memory = Some(memory);
    }

    /// How long the model that answers is to stay in memory without a request from now on, as far as its config allows; `None`
    /// leaves that as it is.
    pub fn keep_alive(&mut self, asked: Option<KeepAlive>) {
        self.keep_alive = asked;
    }

    /// The models that the sender may use.
    ///
    /// # Errors
    /// The sender has neither the scope `models` nor `chat`.
    pub fn models(&self) -> Result<Vec<ModelInfo>, Refusal> {
        authorize::may_list(&self.principal)?;
        let allowed = |model: &Served| self.principal.may_use(model.names());
        Ok(self.generation.models.iter().filter(|model| allowed(model)).map(info_of).collect())
    }

    /// One model that the sender may use.
    ///
    /// # Errors
    /// There is none of this name, or the sender may not use it: the answer is the same. Or the scope is missing.
    pub fn model(&self, name: &str) -> Result<ModelInfo, Refusal> {
        authorize::may_list(&self.principal)?;
        let model = self.generation.models.find(name).filter(|model| self.principal.may_use(model.names()));
        model.map(info_of).ok_or_else(|| authorize::no_such_model(name))
    }

    /// Runs the request through the stages up to the model.
    ///
    /// # Errors
    /// Any stage's refusal.
    pub async fn chat(self, request: ChatRequest, dialect: &'static str, is_stream: bool) -> Result<Reply, Denied> {
        let generation = self.generation.number;
        stages::run(self, request, dialect, is_stream).await.map_err(|refusal| Denied { refusal, generation })
    }

    /// Runs texts through the stages to the model that embeds or ranks them. Dropping the future ends the work on them.
    ///
    /// # Errors
    /// Any stage's refusal.
    pub async fn embed(self, request: EmbedRequest, dialect: &'static str) -> Result<EmbedReply, Denied> {
        let generation = self.generation.number;
        embed::run(self, request, dialect).await.map_err(|refusal| Denied { refusal, generation })
    }
}

fn info_of(model: &Served) -> ModelInfo {
    ModelInfo {
        id: model.id().to_owned(),
        aliases: model.aliases().to_vec(),
        created_s: model.created_s(),
        digest: model.digest().map(str::to_owned),
        owner: "tollgate",
    }
}
