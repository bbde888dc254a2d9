//! One provider: its connections, its breaker, and the tries of a request.

use std::error::Error as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Response, Url};
use tollgate_config::{Endpoint, HostPort, Provider as Spec, ProviderKind};
use tollgate_domain::ChatRequest;

use crate::breaker::{Breaker, Ticket};
use crate::key::Key;
use crate::reply::{Reader, Times};
use crate::sse::Events;
use crate::{BreakerState, ProviderError, RemoteReply, ollama, openai, wait};

/// Connections that are kept for the next request.
const IDLE_CONNECTIONS: usize = 32;
/// An answer that is no success is read up to here, to find what it calls its error.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// Answers for a model, somewhere else.
#[derive(Debug)]
pub struct Provider {
    kind: ProviderKind,
    /// For the log.
    to: HostPort,
    url: Url,
    model: String,
    client: Client,
    key: Option<Key>,
    first_token: Duration,
    idle: Duration,
    tries: u32,
    breaker: Mutex<Breaker>,
}

impl Provider {
    /// Makes a client of what `spec` describes; paths in it are relative to `dir`. Nothing is sent. Reads files: not for an async
    /// task.
    ///
    /// # Errors
    /// The key or the authorities cannot be used.
    pub fn new(spec: &Spec, dir: &Path) -> Result<Self, ProviderError> {
        let seconds = |seconds: u32| Duration::from_secs(u64::from(seconds));
        let url = url_of(spec.kind, &spec.endpoint);
        let url = Url::parse(&url).map_err(|error| ProviderError::Setup(format!("the provider's endpoint: {error}")))?;
        let key = spec.key_file.as_ref().map(|path| Key::find(dir.join(path))).transpose()?;
        let builder = Client::builder()
            .user_agent(concat!("tollgate/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(seconds(spec.connect_s))
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            // What was granted is one host: no redirect and no proxy leads to another one.
            .redirect(Policy::none())
            .no_proxy()
            .referer(false);
        let builder = match &spec.ca {
            Some(path) => builder.tls_certs_only(authorities(&dir.join(path))?),
            // Without TLS nobody has to be trusted, and a machine may have no authorities.
            None if !spec.endpoint.is_tls() => builder.tls_certs_only([]),
            None => builder,
        };
        let client = builder.build().map_err(|error| ProviderError::Setup(format!("the provider's client: {}", chain(error))))?;
        Ok(Provider {
            kind: spec.kind,
            to: HostPort::of(&spec.endpoint),
            url,
            model: spec.model.clone(),
            client,
            key,
            first_token: seconds(spec.first_token_s),
            idle: seconds(spec.idle_s),
            tries: spec.tries,
            breaker: Mutex::new(Breaker::new()),
        })
    }

    /// Asks for a reply and waits for its first piece. Failures until then are tried again, as often as the config says and
    /// `deadline` allows.
    ///
    /// # Errors
    /// Why the last try came to nothing, or that the breaker is open.
    pub async fn chat(&self, request: &ChatRequest, deadline: Instant) -> Result<RemoteReply, ProviderError> {
        let body = match self.kind {
            ProviderKind::OpenAi => openai::body(&self.model, request)?,
            ProviderKind::Ollama => ollama::body(&self.model, request)?,
        };
        let (body, is_json) = (Bytes::from(body), request.format.is_some());
        let mut failed = 0;
        loop {
            let pass = self.ask()?;
            let error = match self.once(body.clone(), is_json, deadline).await {
                Ok(reply) => {
                    pass.succeeded();
                    return Ok(reply);
                }
                Err(error) => error,
            };
            pass.ended(&error);
            failed += 1;
            let Some(wait) = wait::before_next(failed, self.tries, &error, wait::chance()) else { return Err(error) };
            if Instant::now() + wait >= deadline {
                return Err(error);
            }
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            tracing::info!(to = %self.to, failed, wait_ms, reason = error.reason(), detail = %error, "the provider is asked again");
            tokio::time::sleep(wait).await;
        }
    }

    /// How its breaker is.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.lock().state(Instant::now())
    }

    fn ask(&self) -> Result<Pass<'_>, ProviderError> {
        let ticket = self.lock().ask(Instant::now()).map_err(|wait| {
            let seconds = wait.as_millis().div_ceil(1_000);
            ProviderError::Open { retry_after_s: u32::try_from(seconds).unwrap_or(u32::MAX).max(1) }
        })?;
        Ok(Pass { provider: self, ticket: Some(ticket) })
    }

    fn lock(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One try, up to the first piece.
    async fn once(&self, body: Bytes, is_json: bool, deadline: Instant) -> Result<RemoteReply, ProviderError> {
        let sent = Instant::now();
        let by = deadline.min(sent + self.first_token);
        let work = async {
            let response = self.send(body).await?;
            let reader = match self.kind {
                ProviderKind::OpenAi => Reader::OpenAi(Events::default()),
                ProviderKind::Ollama => Reader::Ollama,
            };
            let times = Times { idle: self.idle, deadline, sent };
            let mut reply = RemoteReply::new(response, reader, times, is_json);
            reply.begin().await?;
            Ok::<_, ProviderError>(reply)
        };
        match tokio::time::timeout_at(by.into(), work).await {
            Ok(begun) => begun,
            Err(_) if by == deadline => Err(ProviderError::Deadline),
            Err(_) => Err(ProviderError::Late),
        }
    }

    /// Sends the request, and sees that what comes back may be a reply.
    async fn send(&self, body: Bytes) -> Result<Response, ProviderError> {
        let accepted = match self.kind {
            ProviderKind::OpenAi => "text/event-stream",
            ProviderKind::Ollama => "application/x-ndjson",
        };
        let mut request = self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/json").header(ACCEPT, accepted);
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, key.header().await?);
        }
        let sent = request.body(body).send().await;
        let response = sent.map_err(|error| ProviderError::Unreachable(chain(error)))?;
        let status = response.status();
        if !status.is_success() {
            let retry_after_s = text(response.headers(), RETRY_AFTER).and_then(|text| text.trim().parse().ok());
            let code = openai::code_of(&beginning(response).await);
            return Err(ProviderError::Status { status: status.as_u16(), code, retry_after_s });
        }
        check_kind(self.kind, response.headers())?;
        Ok(response)
    }
}

/// A request that the breaker let through. Dropped without a verdict it says nothing of the provider.
struct Pass<'a> {
    provider: &'a Provider,
    ticket: Option<Ticket>,
}

impl Pass<'_> {
    fn succeeded(mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        if self.provider.lock().succeeded(ticket) {
            tracing::info!(to = %self.provider.to, "the provider is back: its breaker closes");
        }
    }

    fn ended(mut self, error: &ProviderError) {
        if error.is_of_request() {
            // Who says that a request is wrong is there.
            return self.succeeded();
        }
        if !says_of_provider(error) {
            return;
        }
        let Some(ticket) = self.ticket.take() else { return };
        let opened = self.provider.lock().failed(ticket, Instant::now());
        if let Some(rest) = opened {
            tracing::warn!(to = %self.provider.to, rest_s = rest.as_secs(), detail = %error, "the provider fails: its breaker opens");
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.provider.lock().abandoned(ticket, Instant::now());
        }
    }
}

/// A request that had no time left, or a key that is not there, says nothing of the provider.
fn says_of_provider(error: &ProviderError) -> bool {
    !matches!(error, ProviderError::Deadline | ProviderError::Key { .. } | ProviderError::Setup(_))
}

fn url_of(kind: ProviderKind, endpoint: &Endpoint) -> String {
    let base = endpoint.to_string();
    let base = base.trim_end_matches('/');
    match kind {
        ProviderKind::OpenAi if endpoint.path().is_empty() => format!("{base}/v1/chat/completions"),
        ProviderKind::OpenAi => format!("{base}/chat/completions"),
        ProviderKind::Ollama => format!("{base}/api/chat"),
    }
}

fn authorities(path: &Path) -> Result<Vec<Certificate>, ProviderError> {
    let wrong = |reason: String| ProviderError::Setup(format!("{}: {reason}", path.display()));
    let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let found = Certificate::from_pem_bundle(&pem).map_err(|error| wrong(chain(error)))?;
    if found.is_empty() { Err(wrong("it holds no certificate in PEM".to_owned())) } else { Ok(found) }
}

/// A login page is no reply, whatever its status.
fn check_kind(kind: ProviderKind, headers: &HeaderMap) -> Result<(), ProviderError> {
    let coding = text(headers, CONTENT_ENCODING).unwrap_or("identity");
    if !coding.eq_ignore_ascii_case("identity") {
        return Err(ProviderError::Malformed("it is compressed, which was not asked for"));
    }
    let media_type = text(headers, CONTENT_TYPE).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match (kind, media_type.as_str()) {
        (ProviderKind::OpenAi, "text/event-stream") => Ok(()),
        (ProviderKind::OpenAi, _) => Err(ProviderError::Malformed("its content-type is not text/event-stream")),
        (ProviderKind::Ollama, "application/x-ndjson" | "application/ndjson" | "application/json") => Ok(()),
        (ProviderKind::Ollama, _) => Err(ProviderError::Malformed("its content-type is not application/x-ndjson")),
    }
}

/// What an answer begins with; empty where it cannot be read. Its time is bounded by that of the try.
async fn beginning(mut response: Response) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Ok(Some(more)) = response.chunk().await {
        if bytes.len() + more.len() > MAX_ERROR_BYTES {
            break;
        }
        bytes.extend_from_slice(&more);
    }
    bytes
}

/// A header as text, where it is ASCII.
fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// An error with its causes and without its address.
pub(crate) fn chain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    // Chains are short; the bound is for one that is not.
    for _ in 0..8 {
        let Some(inner) = cause else { break };
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_added_to_the_endpoint() {
        for (kind, endpoint, url) in [
            (ProviderKind::OpenAi, "https://api.example.com", "https://api.example.com:443/v1/chat/completions"),
            (ProviderKind::OpenAi, "http://10.0.0.5:8000/v1/", "http://10.0.0.5:8000/v1/chat/completions"),
            (ProviderKind::Ollama, "http://[::1]:11434", "http://[::1]:11434/api/chat"),
        ] {
            let endpoint = endpoint.parse::<Endpoint>().expect(endpoint);
            assert_eq!(url_of(kind, &endpoint), url);
            assert!(Url::parse(url).is_ok());
        }
    }
}
