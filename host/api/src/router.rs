//! Every route, in one table, and the one function that all requests go through.
//!
//! The table is matched here and not by axum's router, so that one function holds the rule: who asks is known before anything
//! is said about what is there (P-A1). Paths are compared as they were sent: `//`, `%2f`, `;x` and another case are another path.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::Method;
use http::request::Parts;
use tollgate_domain::RequestHead;
use tollgate_pipeline::{RequestIds, Session};

use crate::failure::Failure;
use crate::middleware::{self, Access};
use crate::openai;
use crate::state::{ApiState, ClientInfo};
use crate::{health, metrics, observe, respond};

/// One route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteInfo {
    /// `GET` also takes `HEAD`.
    pub method: &'static str,
    /// The path; a last segment of `{*id}` stands for one character or more, slashes included.
    pub path: &'static str,
    /// Whether it answers those who show no key.
    pub public: bool,
    /// The dialect it belongs to; it exists on listeners that speak it. `None`: on all, but for `/metrics`, which is on loopback only.
    pub dialect: Option<&'static str>,
    endpoint: Endpoint,
}

/// What answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Health,
    Ready,
    Metrics,
    Chat,
    Embeddings,
    Rerank,
    Models,
    Model,
}

const TAIL: &str = "{*id}";

static ROUTES: [RouteInfo; 8] = [
    RouteInfo { method: "GET", path: "/health", public: true, dialect: None, endpoint: Endpoint::Health },
    RouteInfo { method: "GET", path: "/ready", public: true, dialect: None, endpoint: Endpoint::Ready },
    RouteInfo { method: "GET", path: "/metrics", public: false, dialect: None, endpoint: Endpoint::Metrics },
    private("POST", "/v1/chat/completions", Endpoint::Chat),
    private("POST", "/v1/embeddings", Endpoint::Embeddings),
    private("POST", "/v1/rerank", Endpoint::Rerank),
    private("GET", "/v1/models", Endpoint::Models),
    private("GET", "/v1/models/{*id}", Endpoint::Model),
];

/// Every route of every dialect. What is not here does not exist.
#[must_use]
pub fn routes() -> &'static [RouteInfo] {
    &ROUTES
}

/// The service of one listener.
pub fn router(state: ApiState) -> Router {
    metrics::begin();
    middleware::layered(Router::new().fallback(answer).with_state(state))
}

const fn private(method: &'static str, path: &'static str, endpoint: Endpoint) -> RouteInfo {
    RouteInfo { method, path, public: false, dialect: Some(openai::DIALECT), endpoint }
}

impl RouteInfo {
    /// What the path has in the place of `{*id}` (empty for a route without one), if it is this route's.
    fn tail<'a>(&self, path: &'a str) -> Option<&'a str> {
        match self.path.strip_suffix(TAIL) {
            Some(prefix) => path.strip_prefix(prefix).filter(|tail| !tail.is_empty()),
            None => (self.path == path).then_some(""),
        }
    }

    fn takes(&self, method: &Method) -> bool {
        self.method == method.as_str() || (self.method == "GET" && method == Method::HEAD)
    }

    /// The value of `Allow`.
    fn allow(&self) -> &'static str {
        if self.method == "GET" { "GET, HEAD" } else { self.method }
    }
}

/// The route of `path` among those of `dialects`, and what stands for its `{*id}`. A path has one method at most.
fn find<'a>(dialects: &[&'static str], path: &'a str) -> Option<(&'static RouteInfo, &'a str)> {
    let served = |route: &&RouteInfo| route.dialect.is_none_or(|dialect| dialects.contains(&dialect));
    ROUTES.iter().filter(served).find_map(|route| route.tail(path).map(|tail| (route, tail)))
}

/// What belongs to the operator exists only where nobody else comes (P-E9).
fn is_here(api: &ApiState, route: &RouteInfo) -> bool {
    route.endpoint != Endpoint::Metrics || api.metrics.is_some()
}

async fn answer(State(api): State<ApiState>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let access = parts.extensions.get::<Access>().cloned().unwrap_or_default();
    let found = find(&api.dialects, parts.uri.path()).filter(|(route, _)| is_here(&api, route));
    if let Some((route, _)) = found {
        access.path(route.path);
        if route.takes(&parts.method)
            && let Some(response) = public(&api, route.endpoint)
        {
            return respond::by_generation(response, api.pipeline.generation());
        }
    }
    let (result, generation) = match identify(&api, &parts).await {
        Ok(session) => {
            access.principal(session.principal());
            let generation = session.generation();
            (serve(&api, session, found, &parts, body, &access).await, generation)
        }
        Err((failure, generation)) => (Err(failure), generation),
    };
    let response = result.unwrap_or_else(|failure| {
        access.failure(&failure);
        openai::error_response(&failure)
    });
    respond::by_generation(response, generation)
}

/// The answer of a public endpoint. This is the list of them; the table says the same, and a test compares the two.
fn public(api: &ApiState, endpoint: Endpoint) -> Option<Response> {
    match endpoint {
        Endpoint::Health => Some(health::health(&api.pipeline)),
        Endpoint::Ready => Some(health::ready(&api.pipeline)),
        Endpoint::Metrics | Endpoint::Chat | Endpoint::Embeddings | Endpoint::Rerank | Endpoint::Models | Endpoint::Model => None,
    }
}

/// Who asks, by the head alone; else why not, and which generation says so.
async fn identify(api: &ApiState, parts: &Parts) -> Result<Session, (Failure, u64)> {
    let internal = |reason| (Failure::Internal(reason), api.pipeline.generation());
    let client = parts.extensions.get::<ClientInfo>().ok_or_else(|| internal("the request came without its client"))?;
    let ids = parts.extensions.get::<RequestIds>().ok_or_else(|| internal("the request came without its ids"))?;
    let identified = api.pipeline.identify(head_of(parts, client), ids.clone()).await;
    identified.map_err(|denied| {
        let generation = denied.generation;
        (denied.into(), generation)
    })
}

/// The answer for somebody who is known.
async fn serve(
    api: &ApiState,
    session: Session,
    found: Option<(&'static RouteInfo, &str)>,
    parts: &Parts,
    body: Body,
    access: &Access,
) -> Result<Response, Failure> {
    let (route, tail) = found.ok_or_else(Failure::unknown_path)?;
    if !route.takes(&parts.method) {
        return Err(Failure::WrongMethod { allow: route.allow() });
    }
    match route.endpoint {
        Endpoint::Metrics => observe::metrics(api, session).await,
        Endpoint::Chat => openai::chat(api, session, parts, body, access).await,
        Endpoint::Embeddings => openai::embeddings(api, session, parts, body, access).await,
        Endpoint::Rerank => openai::rerank(api, session, parts, body, access).await,
        Endpoint::Models => openai::list_models(&session),
        Endpoint::Model => openai::show_model(&session, tail),
        Endpoint::Health | Endpoint::Ready => Err(Failure::unknown_path()),
    }
}

/// The head in the words of `domain`.
fn head_of(parts: &Parts, client: &ClientInfo) -> RequestHead {
    // A header that is no UTF-8 is passed on as well as can be: left out, two credentials would look like one.
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    RequestHead {
        method: parts.method.as_str().to_owned(),
        path: parts.uri.path().to_owned(),
        headers: parts.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value.as_bytes()))).collect(),
        client_ip: client.ip,
        listener: client.listener.as_ref().to_owned(),
        peer_cert: None,
    }
}

#[cfg(test)]
mod tests;
