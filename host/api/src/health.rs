//! The two public routes. They say whether, never why: reasons are for those who may see them.

use axum::response::Response;
use http::StatusCode;
use tollgate_pipeline::Pipeline;

use crate::respond;

/// `GET /health`: 200 as long as the process answers.
pub(crate) fn health(pipeline: &Pipeline) -> Response {
    let status = if pipeline.is_healthy() { "ok" } else { "degraded" };
    respond::json(StatusCode::OK, format!(r#"{{"status":"{status}"}}"#))
}

/// `GET /ready`: 200 when requests are served, else 503.
pub(crate) fn ready(pipeline: &Pipeline) -> Response {
    let (code, status) =
        if pipeline.is_ready() { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") };
    respond::json(code, format!(r#"{{"status":"{status}"}}"#))
}
