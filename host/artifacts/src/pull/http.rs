//! One GET, and when to try it again. What a file's bytes mean is not known here.

use std::error::Error as _;
use std::time::Duration;

use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    LINK, RETRY_AFTER,
};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};

use super::error::{Fault, PullError};
use super::{PullSettings, Token};

/// A server's wish to wait is followed up to here.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);
const MAX_REDIRECTS: usize = 10;
/// A document (a listing, a manifest) has this many stall times to arrive whole.
const DOCUMENT_STALLS: u32 = 10;

/// The client and its rules.
pub(crate) struct Http {
    client: Client,
    settings: PullSettings,
}

/// A small answer, whole.
pub(crate) struct Document {
    /// The body.
    pub(crate) bytes: Vec<u8>,
    /// The address of the next page, where the answer names one.
    pub(crate) next: Option<Url>,
}

impl Http {
    pub(crate) fn new(settings: PullSettings) -> Result<Http, PullError> {
        let loopback = matches!(settings.hub.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        if settings.token.is_some() && settings.hub.scheme() != "https" && !loopback {
            return Err(PullError::TokenInClear { hub: shown(&settings.hub) });
        }
        let client = Client::builder()
            .user_agent(concat!("tollgate/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(settings.connect)
            .redirect(redirects())
            .referer(false)
            .build()
            .map_err(|error| PullError::Client(chain(error)))?;
        Ok(Http { client, settings })
    }

    pub(crate) fn settings(&self) -> &PullSettings {
        &self.settings
    }

    /// One request, until the head of its answer is here, redirects followed.
    pub(crate) async fn send(&self, url: &Url, mut headers: HeaderMap) -> Result<Response, Fault> {
        // Positions and digests are those of the file itself.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(Token(bearer)) = &self.settings.token
            && url.origin() == self.settings.hub.origin()
        {
            // reqwest drops it when a redirect leaves this scheme, host and port.
            headers.insert(AUTHORIZATION, bearer.clone());
        }
        let deadline = self.settings.connect.saturating_add(self.settings.stall);
        match tokio::time::timeout(deadline, self.client.get(url.clone()).headers(headers).send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) if error.is_redirect() => Err(PullError::Redirect { url: shown(url), why: chain(error) }.into()),
            Ok(Err(error)) => Err(Fault::retry(format!("cannot be asked: {}", chain(error)))),
            Err(_) => Err(Fault::retry(format!("does not answer within {deadline:?}"))),
        }
    }

    /// A small document, at most `limit` bytes. `accept` is the media type that is asked for.
    pub(crate) async fn document(&self, url: &Url, accept: &'static str, limit: u64) -> Result<Document, PullError> {
        let mut attempts = Attempts::new(&self.settings, url);
        loop {
            let once = self.document_once(url, accept, limit);
            let fault = match tokio::time::timeout(self.settings.stall.saturating_mul(DOCUMENT_STALLS), once).await {
                Ok(Ok(document)) => return Ok(document),
                Ok(Err(fault)) => fault,
                Err(_) => Fault::retry("does not end its answer in time"),
            };
            match fault {
                Fault::Fatal(error) => return Err(error),
                Fault::Retry { why, after } => attempts.pause(why, after, false).await?,
            }
        }
    }

    async fn document_once(&self, url: &Url, accept: &'static str, limit: u64) -> Result<Document, Fault> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        let mut response = self.send(url, headers).await?;
        if response.status() != StatusCode::OK {
            return Err(status_fault(url, response.status(), response.headers()));
        }
        check_body_kind(response.headers(), false)?;
        let too_big = |bytes| Fault::Fatal(PullError::TooBig { what: shown(url), bytes, limit });
        if let Some(length) = content_length(response.headers())
            && length > limit
        {
            return Err(too_big(length));
        }
        let next = next_page(response.headers(), url);
        let mut bytes = Vec::new();
        while next_piece(&mut response, self.settings.stall, &mut bytes).await.map_err(Fault::retry)?.is_some() {
            let length = crate::digest::len(&bytes);
            if length > limit {
                return Err(too_big(length));
            }
        }
        Ok(Document { bytes, next })
    }
}

/// Appends the next bytes of a body to `buffer` and answers how many they were, or `None` at its end. The error says what became
/// of it.
pub(crate) async fn next_piece(response: &mut Response, stall: Duration, buffer: &mut Vec<u8>) -> Result<Option<u64>, String> {
    match tokio::time::timeout(stall, response.chunk()).await {
        Ok(Ok(Some(piece))) => {
            buffer.extend_from_slice(&piece);
            Ok(Some(crate::digest::len(&piece)))
        }
        Ok(Ok(None)) => Ok(None),
        Ok(Err(error)) => Err(format!("breaks off: {}", chain(error))),
        Err(_) => Err(format!("sends nothing for {stall:?}")),
    }
}

/// Tries of one address: how many failed in a row, and how long to wait.
pub(crate) struct Attempts<'a> {
    settings: &'a PullSettings,
    url: String,
    failed: u32,
}

impl<'a> Attempts<'a> {
    pub(crate) fn new(settings: &'a PullSettings, url: &Url) -> Attempts<'a> {
        Attempts { settings, url: shown(url), failed: 0 }
    }

    /// Takes note of a failed try and waits before the next, unless it was the last.
    pub(crate) async fn pause(&mut self, why: String, after: Option<Duration>, progressed: bool) -> Result<(), PullError> {
        self.failed = if progressed { 1 } else { self.failed.saturating_add(1) };
        if self.failed >= self.settings.tries {
            return Err(PullError::GaveUp { url: self.url.clone(), why, tries: self.failed });
        }
        let wait = after.map_or_else(|| self.backoff(), |after| after.min(MAX_RETRY_AFTER));
        tracing::info!(url = self.url, why, failed = self.failed, wait_ms = wait.as_millis(), "the download is tried again");
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Doubles with every failure; half of it is chance, so that many gateways do not come back at one moment.
    fn backoff(&self) -> Duration {
        let doublings = self.failed.saturating_sub(1).min(16);
        let whole = self.settings.backoff.saturating_mul(1 << doublings).min(self.settings.backoff_max);
        let chance = getrandom::u32().unwrap_or(u32::MAX);
        whole.mul_f64(0.5 + 0.5 * f64::from(chance) / f64::from(u32::MAX))
    }
}

/// What a status that carries no content asks us to do.
pub(crate) fn status_fault(url: &Url, status: StatusCode, headers: &HeaderMap) -> Fault {
    let (url, code) = (shown(url), status.as_u16());
    match code {
        401 | 403 => PullError::NotAllowed { url, status: code }.into(),
        404 | 410 => PullError::NotFound { url }.into(),
        408 | 425 | 429 | 500..=599 => Fault::Retry { why: format!("answers {code}"), after: retry_after(headers) },
        _ => PullError::Status { url, status: code }.into(),
    }
}

/// A body has to be the bytes themselves, and no page of a captive portal or a login.
pub(crate) fn check_body_kind(headers: &HeaderMap, html_allowed: bool) -> Result<(), Fault> {
    let encoding = text(headers, CONTENT_ENCODING).unwrap_or("identity");
    if !encoding.eq_ignore_ascii_case("identity") {
        return Err(Fault::retry(format!("sends the file encoded as {encoding:?}, though identity was asked for")));
    }
    let kind = text(headers, CONTENT_TYPE).unwrap_or_default();
    if !html_allowed && kind.get(..9).is_some_and(|kind| kind.eq_ignore_ascii_case("text/html")) {
        return Err(Fault::retry(
            "answers with a web page (text/html) where a file is expected; a login or a proxy may stand between",
        ));
    }
    Ok(())
}

/// `Content-Length`, where there is one that is a number.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    text(headers, CONTENT_LENGTH)?.parse().ok()
}

/// A header as text, where it is ASCII.
pub(crate) fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// A URL without its query, its fragment, its user and password: they may hold what opens a door.
pub(crate) fn shown(url: &Url) -> String {
    let mut plain = url.clone();
    plain.set_query(None);
    plain.set_fragment(None);
    // A URL that cannot have them has none.
    let _ = plain.set_username("");
    let _ = plain.set_password(None);
    plain.into()
}

/// `base` with `path` under its own path. `path` is made of checked names.
pub(crate) fn under(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{path}", base.path().trim_end_matches('/')));
    url
}

fn redirects() -> Policy {
    Policy::custom(|attempt| match refused_redirect(attempt.previous(), attempt.url()) {
        Some(why) => attempt.error(why),
        None => attempt.follow(),
    })
}

/// Why a redirect is not followed, if it is not. The first of the previous addresses is the one that was asked for.
pub(crate) fn refused_redirect(previous: &[Url], next: &Url) -> Option<&'static str> {
    if previous.len() > MAX_REDIRECTS {
        return Some("there are more than 10 redirects");
    }
    let was_https = previous.last().is_some_and(|url| url.scheme() == "https");
    (was_https && next.scheme() != "https").then_some("a redirect leads from https to an address without TLS")
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    text(headers, RETRY_AFTER)?.trim().parse().ok().map(Duration::from_secs)
}

/// `Link: <URL>; rel="next"` (RFC 8288), as the hub writes it.
fn next_page(headers: &HeaderMap, base: &Url) -> Option<Url> {
    text(headers, LINK)?.split(',').find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        if !parameters.split(';').any(|one| matches!(one.trim(), "rel=\"next\"" | "rel=next")) {
            return None;
        }
        base.join(target).ok()
    })
}

/// An error with its causes and without its URL, which after a redirect may be a signed one.
fn chain(error: reqwest::Error) -> String {
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
