//! Which model answers: the one that is meant, or, where that cannot be used before its first token, the next one that the config
//! names in its place. Every such step is in the log and in a metric, and the last one in the answer.

use std::sync::Arc;
use std::time::Instant;

use tollgate_domain::{KeepAlive, Refusal, RefusalKind, Share};
use tollgate_models::{GenerateError, Lease, LeaseError, ModelMetrics, ProviderError, Remote, Served, SubmitError, Ticket};

use crate::Generation;
use crate::reply::retired_refusal;

/// A client is never told to come back later than this.
const LONGEST_WAIT_S: u32 = 300;

/// Why a model cannot answer.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What the client is told if nobody else answers.
    pub(crate) refusal: Box<Refusal>,
    /// One word for why another may; `None` where it is the request that is wrong, or its time that is over.
    reason: Option<&'static str>,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Failure::new(refusal, None)
    }
}

impl Failure {
    pub(crate) fn new(refusal: Refusal, reason: Option<&'static str>) -> Self {
        Failure { refusal: Box::new(refusal), reason }
    }
}

/// A place in a model, from which a request is taken on.
#[derive(Debug)]
pub(crate) enum Place {
    /// Of one that runs here.
    Local(Lease, Ticket),
    /// Of one that a provider has.
    Remote(Arc<Remote>, Share),
}

/// The model that answers.
#[derive(Debug, Clone)]
pub(crate) enum Answering {
    Local(Lease),
    Remote(Arc<Remote>),
}

impl Place {
    pub(crate) fn answering(&self) -> Answering {
        match self {
            Place::Local(lease, _) => Answering::Local(lease.clone()),
            Place::Remote(remote, _) => Answering::Remote(Arc::clone(remote)),
        }
    }
}

impl Answering {
    pub(crate) fn id(&self) -> &str {
        match self {
            Answering::Local(lease) => lease.id(),
            Answering::Remote(remote) => remote.id(),
        }
    }

    pub(crate) fn digest(&self) -> &str {
        match self {
            Answering::Local(lease) => lease.digest(),
            Answering::Remote(remote) => remote.digest(),
        }
    }

    pub(crate) fn metrics(&self) -> &Arc<ModelMetrics> {
        match self {
            Answering::Local(lease) => lease.metrics(),
            Answering::Remote(remote) => remote.metrics(),
        }
    }
}

/// A request's way along the models that may answer it.
#[derive(Debug)]
pub(crate) struct Turn {
    generation: Arc<Generation>,
    request_id: Arc<str>,
    tenant: String,
    deadline: Instant,
    /// How long the one that answers is to stay in memory.
    keep_alive: Option<KeepAlive>,
    /// Whose turn it is.
    model: Served,
    /// Those after it, the next one last.
    left: Vec<Served>,
    /// What came of the first: it is what the client asked for, and what it hears of where none answers.
    first: Option<Refusal>,
}

impl Turn {
    /// Begins with `model`. A request that names tokens by their numbers goes to no other: they are that model's own.
    pub(crate) fn new(
        generation: &Arc<Generation>,
        model: &Served,
        (request_id, tenant): (&Arc<str>, &str),
        deadline: Instant,
        names_tokens: bool,
    ) -> Self {
        let is_alone = names_tokens || model.fallback().is_empty();
        let mut left = if is_alone { Vec::new() } else { generation.models.fallbacks(model) };
        // One with another task has nothing to say to the request.
        let task = model.task();
        left.retain(|next| next.task() == task);
        left.reverse();
        Turn {
            generation: Arc::clone(generation),
            request_id: Arc::clone(request_id),
            tenant: tenant.to_owned(),
            deadline,
            keep_alive: None,
            model: model.clone(),
            left,
            first: None,
        }
    }

    /// How long the model that answers is to stay in memory, if the request says so.
    pub(crate) fn keep_alive(&mut self, asked: Option<KeepAlive>) {
        self.keep_alive = asked;
    }

    /// Until when the request has to be answered.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether another model is there to answer if this one does not.
    pub(crate) fn has_more(&self) -> bool {
        !self.left.is_empty()
    }

    /// The model that answers in the place of the one that was meant, if it does.
    pub(crate) fn fallback(&self) -> Option<&str> {
        self.first.as_ref().map(|_| self.model.id())
    }

    /// A place in the first of the models that has one.
    pub(crate) async fn place(&mut self) -> Result<Place, Refusal> {
        loop {
            match self.ask().await {
                Ok(place) => return Ok(place),
                Err(failure) => self.pass_on(failure)?,
            }
        }
    }

    /// Goes on to the next model after this one failed.
    ///
    /// # Errors
    /// There is none, no time for it, or the request is wrong.
    pub(crate) fn pass_on(&mut self, failure: Failure) -> Result<(), Refusal> {
        let Failure { refusal, reason } = failure;
        let refusal = *refusal;
        // What a fallback does not take says nothing of the request: it was for another model.
        let reason = reason.or(self.first.is_some().then_some("unfit"));
        let is_in_time = Instant::now() < self.deadline;
        let next = reason.filter(|_| is_in_time).and_then(|reason| Some((reason, self.left.pop()?)));
        let Some((reason, next)) = next else { return Err(self.first.take().unwrap_or(refusal)) };
        let (from, to) = (self.model.id(), next.id());
        let detail = if refusal.detail.is_empty() { &refusal.message } else { &refusal.detail };
        tracing::warn!(target: "reply", request_id = &*self.request_id, from, to, reason, detail, "another model answers in its place");
        self.model.metrics().fell_back(to, reason);
        self.first.get_or_insert(refusal);
        self.model = next;
        Ok(())
    }

    async fn ask(&self) -> Result<Place, Failure> {
        match &self.model {
            Served::Local(slot) => {
                // Who has somebody to answer in its place is waited for half of the time: the other one needs some too.
                let time = self.deadline.saturating_duration_since(Instant::now());
                let time = if self.has_more() { time / 2 } else { time };
                let lease = tokio::select! {
                    lease = slot.lease(Instant::now() + time) => lease.map_err(|error| lease_failure(&error))?,
                    // It would wait for a model that nobody new can ask for.
                    () = self.retired() => return Err(Failure::new(retired_refusal(), None)),
                };
                let ticket = ticket(&lease, &self.tenant).map_err(|error| submit_failure(&error))?;
                if let Some(asked) = self.keep_alive {
                    lease.keep_alive(asked);
                }
                Ok(Place::Local(lease, ticket))
            }
            Served::Remote(remote) => {
                let share = remote.reserve(&self.tenant).ok_or_else(|| {
                    let refusal = Refusal::unavailable("queue_full", "The model has as many requests as it takes.", 1);
                    Failure::new(refusal, Some("queue_full"))
                })?;
                Ok(Place::Remote(Arc::clone(remote), share))
            }
        }
    }

    /// Ends when what runs on this request's generation has to end.
    pub(crate) async fn retired(&self) {
        self.generation.retired.cancelled().await;
    }
}

/// A place in the queue of what is loaded, whichever kind it is.
fn ticket(lease: &Lease, tenant: &str) -> Result<Ticket, SubmitError> {
    match (lease.engine(), lease.embedding()) {
        (Some(engine), _) => engine.reserve(tenant),
        (None, Some(engine)) => engine.reserve(tenant),
        (None, None) => Err(SubmitError::Stopped),
    }
}

/// There is no lease of a model.
fn lease_failure(error: &LeaseError) -> Failure {
    let (refusal, reason) = match error {
        LeaseError::TooLarge { .. } => {
            (Refusal::unavailable("model_too_large", "There is no memory for this model now.", 60), "no_room")
        }
        LeaseError::QueueFull => {
            (Refusal::unavailable("queue_full", "As many requests wait for models as may.", 5), "queue_full")
        }
        LeaseError::Late => (Refusal::unavailable("model_not_loaded", "The model was not ready in time.", 5), "not_loaded"),
        LeaseError::Failed { retry_after_s, .. } => {
            (Refusal::unavailable("model_failed", "The model cannot be loaded.", (*retry_after_s).max(1)), "load_failed")
        }
    };
    Failure::new(refusal.detail(error.to_string()), Some(reason))
}

/// The prompt leaves no room for a reply.
pub(crate) fn too_long(tokens: usize, limit: usize) -> Refusal {
    let over = tokens.saturating_sub(limit);
    let message = format!("The prompt has {tokens} tokens, {over} more than the {limit} that this model takes.");
    Refusal::invalid("context_length_exceeded", message).field("messages")
}

pub(crate) fn submit_failure(error: &SubmitError) -> Failure {
    let refusal = match error {
        SubmitError::QueueFull { retry_after_s } => {
            let refusal = Refusal::unavailable("queue_full", "The model has as many requests as it takes.", *retry_after_s);
            return Failure::new(refusal, Some("queue_full"));
        }
        SubmitError::Stopped => {
            let refusal = Refusal::unavailable("stopping", "The model is being stopped.", 5);
            return Failure::new(refusal, Some("stopped"));
        }
        SubmitError::TooLong { tokens, limit } => too_long(*tokens, *limit),
        SubmitError::Parameter { field, range } => {
            Refusal::invalid("invalid_parameter", format!("`{field}` has to be {range}.")).field(*field)
        }
        SubmitError::UnknownToken { token, tokens } => {
            let last = tokens.saturating_sub(1);
            let message =
                format!("`logit_bias` names the token {token}, which this model does not have: its tokens are 0 to {last}.");
            Refusal::invalid("unknown_token", message).field(format!("logit_bias.{token}"))
        }
    };
    refusal.into()
}

/// A model that runs here failed in a reply.
pub(crate) fn generate_failure(error: &GenerateError) -> Failure {
    let (refusal, reason) = match error {
        GenerateError::Deadline => (Refusal::unavailable("deadline", "The reply took too long.", 1), None),
        GenerateError::Stalled => (Refusal::unavailable("stalled", "The reply was not read.", 1), None),
        GenerateError::Stopped => (Refusal::unavailable("stopping", "The model is being stopped.", 5), Some("stopped")),
        GenerateError::Constraint(_) => {
            (Refusal::invalid("schema_dead_end", "The schema cannot be followed further.").field("response_format"), None)
        }
        GenerateError::Backend(_) | GenerateError::NotANumber => {
            (Refusal::unavailable("model_failed", "The model failed.", 1), Some("failed"))
        }
    };
    Failure::new(refusal.detail(error.to_string()), reason)
}

/// A provider failed, before its reply or in it. The client learns neither where it is nor what it said.
pub(crate) fn provider_failure(error: &ProviderError) -> Failure {
    let after = |seconds: Option<u32>| seconds.unwrap_or(5).clamp(1, LONGEST_WAIT_S);
    let refusal = match error {
        ProviderError::Deadline => Refusal::unavailable("deadline", "The reply took too long.", 1),
        ProviderError::Open { retry_after_s } => {
            Refusal::unavailable("provider_unavailable", "This model is not available now.", after(Some(*retry_after_s)))
        }
        ProviderError::Unsupported { field: field @ "messages" } => {
            Refusal::invalid("unsupported_content", "This model takes text only.").field(*field)
        }
        ProviderError::Unsupported { field } => {
            let message = format!("`{field}` cannot be used with this model: it runs with a provider, which cannot keep it.");
            Refusal::invalid("unsupported_parameter", message).field(*field)
        }
        ProviderError::Status { code: Some(code), .. } if error.is_of_request() && code == "context_length_exceeded" => {
            Refusal::invalid("context_length_exceeded", "The prompt has more tokens than this model takes.").field("messages")
        }
        _ if error.is_of_request() => {
            Refusal::invalid("provider_refused", "The provider of this model does not take this request as it is.")
        }
        ProviderError::Status { status: 429, retry_after_s, .. } => {
            let busy = Refusal::new(RefusalKind::RateLimited, "provider_busy", "The provider of this model takes no more now.");
            Refusal { retry_after: Some(after(*retry_after_s)), ..busy }
        }
        ProviderError::NotJson => Refusal::unavailable(
            "provider_format",
            "The provider of this model did not keep to the format that was asked for.",
            1,
        ),
        ProviderError::Status { retry_after_s, .. } => {
            Refusal::unavailable("provider_failed", "The provider of this model failed.", after(*retry_after_s))
        }
        _ => Refusal::unavailable("provider_failed", "The provider of this model failed.", after(None)),
    };
    let reason = error.may_fall_back().then(|| error.reason());
    Failure::new(refusal.detail(error.to_string()), reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_providers_errors_are_told_without_what_it_said() {
        let status =
            |status, code: Option<&str>| ProviderError::Status { status, code: code.map(str::to_owned), retry_after_s: Some(9) };
        for (error, kind, code, reason) in [
            (status(400, None), RefusalKind::Invalid, "provider_refused", None),
            (status(400, Some("context_length_exceeded")), RefusalKind::Invalid, "context_length_exceeded", None),
            (status(401, None), RefusalKind::Unavailable, "provider_failed", Some("refused")),
            (status(429, None), RefusalKind::RateLimited, "provider_busy", Some("rate_limited")),
            (status(502, None), RefusalKind::Unavailable, "provider_failed", Some("server_error")),
            (ProviderError::Late, RefusalKind::Unavailable, "provider_failed", Some("timeout")),
            (ProviderError::Deadline, RefusalKind::Unavailable, "deadline", None),
            (ProviderError::Unsupported { field: "logprobs" }, RefusalKind::Invalid, "unsupported_parameter", None),
        ] {
            let failure = provider_failure(&error);
            assert_eq!((failure.refusal.kind, failure.refusal.code.as_str(), failure.reason), (kind, code, reason), "{error}");
            assert_eq!(failure.refusal.detail, error.to_string());
        }
        assert_eq!(provider_failure(&status(503, None)).refusal.retry_after, Some(9));
    }
}
