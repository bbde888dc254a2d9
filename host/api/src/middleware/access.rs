//! The access log: one line per request, written when its answer's body is over or its client has gone; with it the request is
//! counted, and its span ends.
//!
//! Handlers note what they learn in the [`Access`] among the request's extensions. The line holds no prompt, no reply, no key
//! and no path as the client wrote it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::Method;
use http_body::{Body as _, Frame, SizeHint};
use tollgate_domain::{Principal, Refusal, Usage};
use tollgate_pipeline::RequestIds;

use crate::failure::Failure;
use crate::metrics::{self, Labels};
use crate::state::ClientInfo;

/// What handlers note about a request. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access(Arc<Mutex<Notes>>);

#[derive(Debug, Default)]
struct Notes {
    path: Option<&'static str>,
    tenant: Option<String>,
    principal: Option<String>,
    model: Option<String>,
    usage: Option<Usage>,
    code: Option<String>,
    detail: Option<String>,
    /// What kind of no it is, for metrics.
    kind: Option<&'static str>,
}

impl Access {
    /// The route that the path matched.
    pub(crate) fn path(&self, path: &'static str) {
        self.notes().path = Some(path);
    }

    /// Who asks.
    pub(crate) fn principal(&self, principal: &Principal) {
        let mut notes = self.notes();
        notes.tenant = Some(principal.tenant.clone());
        notes.principal = Some(principal.id.clone());
    }

    /// The model that answers.
    pub(crate) fn model(&self, model: &str) {
        self.notes().model = Some(model.to_owned());
    }

    /// What it cost.
    pub(crate) fn usage(&self, usage: Usage) {
        self.notes().usage = Some(usage);
    }

    /// Why there is no answer, or none that is whole.
    pub(crate) fn refusal(&self, refusal: &Refusal) {
        let mut notes = self.notes();
        notes.kind = Some(refusal.kind.as_str());
        notes.code = Some(refusal.code.clone());
        notes.detail = Some(refusal.detail.clone()).filter(|detail| !detail.is_empty());
    }

    /// The same, for what is no refusal too.
    pub(crate) fn failure(&self, failure: &Failure) {
        let (code, detail) = match failure {
            Failure::Refused(refusal) => return self.refusal(refusal),
            Failure::WrongMethod { .. } => ("method_not_allowed", None),
            Failure::NotJson => ("unsupported_media_type", None),
            Failure::TooSlow => ("body_too_slow", None),
            Failure::Internal(reason) => ("internal_error", Some(*reason)),
        };
        let mut notes = self.notes();
        notes.kind = Some(metrics::kind(failure));
        notes.code = Some(code.to_owned());
        notes.detail = detail.map(str::to_owned);
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        // Notes are whole at any time, so a panic elsewhere spoils nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) async fn access(mut request: Request, next: Next) -> Response {
    let access = Access::default();
    request.extensions_mut().insert(access.clone());
    let mut line = Line {
        access,
        began: Instant::now(),
        ids: request.extensions().get::<RequestIds>().cloned(),
        method: name_of(request.method()),
        counted_as: metrics::method(request.method()),
        scheme: request.extensions().get::<ClientInfo>().map_or("http", |client| client.scheme),
        status: None,
        // The body of an answer to HEAD is never read.
        is_whole: request.method() == Method::HEAD,
    };
    // Where the client leaves before there is an answer, this future is dropped and the line with it: it is written then.
    let response = next.run(request).await;
    line.status = Some(response.status().as_u16());
    response.map(|inner| {
        line.is_whole |= inner.is_end_stream();
        Body::new(Logged { inner, line })
    })
}

/// Written when it is dropped.
#[derive(Debug)]
struct Line {
    access: Access,
    began: Instant,
    ids: Option<RequestIds>,
    method: &'static str,
    counted_as: &'static str,
    scheme: &'static str,
    status: Option<u16>,
    is_whole: bool,
}

impl Line {
    /// By OpenTelemetry's conventions for HTTP servers.
    fn end_span(&self, route: Option<&'static str>, refusal: Option<&'static str>) {
        let Some(span) = self.ids.as_ref().map(|ids| &ids.span).filter(|span| !span.is_disabled()) else { return };
        // A span is not named by a word of the client's.
        let method = if self.counted_as == "_OTHER" { "HTTP" } else { self.counted_as };
        span.record("otel.name", route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}")));
        span.record("http.request.method", self.counted_as);
        if let Some(route) = route {
            span.record("http.route", route);
        }
        match self.status {
            Some(status) => span.record("http.response.status_code", i64::from(status)),
            None => span.record("error.type", "cancelled"),
        };
        if let Some(kind) = refusal {
            span.record("error.type", kind);
        }
        // What a client did wrong is no error of the server.
        if self.status.is_some_and(|status| status >= 500) {
            span.record("otel.status_code", "error");
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let notes = self.access.notes();
        let labels = Labels {
            method: self.counted_as,
            route: notes.path.unwrap_or(metrics::NO_ROUTE),
            status: self.status,
            scheme: self.scheme,
        };
        metrics::request(labels, self.began.elapsed(), notes.kind);
        self.end_span(notes.path, notes.kind);
        tracing::info!(
            target: "access",
            request_id = self.ids.as_ref().map(|ids| &*ids.request_id),
            traceparent = self.ids.as_ref().and_then(|ids| ids.traceparent.as_deref()),
            method = self.method,
            path = notes.path.unwrap_or("unknown"),
            status = self.status,
            duration_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            tenant = notes.tenant.as_deref(),
            principal = notes.principal.as_deref(),
            model = notes.model.as_deref(),
            prompt_tokens = notes.usage.map(|usage| usage.prompt),
            completion_tokens = notes.usage.map(|usage| usage.completion),
            code = notes.code.as_deref(),
            detail = notes.detail.as_deref(),
            whole = self.is_whole,
            "request"
        );
    }
}

/// A body that takes the line along.
#[derive(Debug)]
struct Logged {
    inner: Body,
    line: Line,
}

impl http_body::Body for Logged {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let next = Pin::new(&mut this.inner).poll_frame(cx);
        match &next {
            Poll::Ready(None) => this.line.is_whole = true,
            // The server does not ask again after the last frame of a body that knows its end.
            Poll::Ready(Some(Ok(_))) => this.line.is_whole = this.inner.is_end_stream(),
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The method, if it is one that RFC 9110 knows: any other is the client's own text.
fn name_of(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("OTHER")
}

#[cfg(test)]
mod tests {
    use tollgate_domain::RefusalKind;

    use super::*;

    fn noted(access: &Access) -> (Option<String>, Option<String>) {
        let notes = access.notes();
        (notes.code.clone(), notes.detail.clone())
    }

    #[test]
    fn a_refusal_leaves_its_code_and_its_detail() {
        let access = Access::default();
        access.refusal(&Refusal::new(RefusalKind::Forbidden, "no", "No.").detail("why"));
        assert_eq!(noted(&access), (Some("no".to_owned()), Some("why".to_owned())));
        access.failure(&Failure::TooSlow);
        assert_eq!(noted(&access), (Some("body_too_slow".to_owned()), None));
    }

    #[test]
    fn a_method_of_the_clients_own_making_is_not_repeated() {
        assert_eq!(name_of(&Method::GET), "GET");
        assert_eq!(name_of(&Method::from_bytes(b"SECRET").unwrap()), "OTHER");
    }
}
