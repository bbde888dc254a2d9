//! `GET /metrics`, for those who hold the scope `metrics`. The admin channel gives the same without a key.

use axum::body::Body;
use axum::response::Response;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use tollgate_domain::{Refusal, RefusalKind};
use tollgate_pipeline::Session;

use crate::failure::Failure;
use crate::state::ApiState;

/// What a key has to be for; `admin` is for everything.
const SCOPE: &str = "metrics";

/// Prometheus' text format.
const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

pub(crate) async fn metrics(api: &ApiState, session: Session) -> Result<Response, Failure> {
    let source = api.metrics.clone().ok_or_else(Failure::unknown_path)?;
    if !session.principal().has_scope(SCOPE) {
        return Err(Refusal::new(RefusalKind::Forbidden, "missing_scope", "This key has no scope `metrics`.").into());
    }
    drop(session);
    let made = tokio::task::spawn_blocking(move || (source.0)()).await;
    let text = made.map_err(|_| Failure::Internal("the metrics could not be collected"))?;
    let text = text.ok_or_else(|| Refusal::unavailable("starting", "The gateway is starting.", 1))?;
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, MEDIA_TYPE);
    Ok(response)
}
