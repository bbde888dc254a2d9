//! A model that somebody else runs: its settings, who answers, and how many may ask at once.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate_config::{Model as Spec, Object};
use tollgate_domain::{ChatRequest, Parameters, Share, Shares};
use tollgate_providers::{BreakerState, Provider, ProviderError, RemoteReply};

use crate::{ModelMetrics, defaults};

/// A model of the config whose replies come from a provider. Generations that mean the same one share it, and with it the provider's
/// connections and breaker.
#[derive(Debug)]
pub struct Remote {
    id: String,
    aliases: Vec<String>,
    fallback: Vec<String>,
    created_s: u64,
    deadline: Duration,
    digest: String,
    defaults: Parameters,
    provider: Provider,
    places: Arc<Shares>,
    metrics: Arc<ModelMetrics>,
}

impl Remote {
    /// Makes a client of what `spec` describes; paths in it are relative to `dir`. Nothing is sent. Reads files: not for an async
    /// task.
    ///
    /// # Errors
    /// The provider's key or authorities cannot be used.
    pub fn new(spec: &Object<Spec>, dir: &Path, now_s: u64) -> Result<Arc<Self>, ProviderError> {
        let missing = || ProviderError::Setup("models of the backend `provider` need `[provider]`".to_owned());
        let provider = spec.provider.as_ref().ok_or_else(missing)?;
        Ok(Arc::new(Remote {
            id: spec.id.as_str().to_owned(),
            aliases: spec.aliases.iter().map(|alias| alias.as_str().to_owned()).collect(),
            fallback: spec.fallback.iter().map(|name| name.as_str().to_owned()).collect(),
            created_s: now_s,
            deadline: Duration::from_secs(u64::from(spec.deadline_s)),
            digest: format!("remote:{}", provider.model),
            defaults: defaults(&spec.defaults),
            provider: Provider::new(provider, dir)?,
            places: Shares::new(u64::from(spec.queue)),
            metrics: Arc::new(ModelMetrics::new(spec.id.as_str(), spec.task)),
        }))
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

    /// Models that answer in its place, in order.
    #[must_use]
    pub fn fallback(&self) -> &[String] {
        &self.fallback
    }

    /// Since when it is in the config, in seconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn created_s(&self) -> u64 {
        self.created_s
    }

    /// The longest that a request may take.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// `remote:` and what the provider calls it: nobody here has seen its weights.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Where its replies are counted.
    #[must_use]
    pub fn metrics(&self) -> &Arc<ModelMetrics> {
        &self.metrics
    }

    /// How the provider's breaker is.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.provider.state()
    }

    /// Requests that are on their way to it.
    #[must_use]
    pub fn leases(&self) -> u64 {
        self.places.limit().saturating_sub(self.places.free())
    }

    /// A place among those who may ask it at once; `None` where they are all taken, or the tenant has its share of them.
    #[must_use]
    pub fn reserve(&self, tenant: &str) -> Option<Share> {
        self.places.take(tenant, 1)
    }

    /// Asks for a reply and waits for its first piece.
    ///
    /// # Errors
    /// See [`ProviderError`].
    pub async fn chat(&self, request: &ChatRequest, deadline: Instant) -> Result<RemoteReply, ProviderError> {
        let parameters = request.parameters.clone().or(&self.defaults);
        let request = ChatRequest { parameters, ..request.clone() };
        self.provider.chat(&request, deadline).await
    }
}
