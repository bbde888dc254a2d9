//! The request's id and its place in a trace. The composition root's telemetry sets [`RequestIds`]; where nobody did, an id is made here, so that no
//! answer is without one. A client's own id is not believed.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderValue;
use http::header::HeaderName;
use tollgate_pipeline::RequestIds;
use uuid::Uuid;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// W3C Trace Context: the trace that the client began, or a new one, with this gateway's span.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

pub(crate) async fn request_ids(mut request: Request, next: Next) -> Response {
    let ids = request.extensions_mut().get_or_insert_with(fresh);
    let id = HeaderValue::from_str(&ids.request_id).ok();
    let trace = ids.traceparent.as_deref().and_then(|trace| HeaderValue::from_str(trace).ok());
    let mut response = next.run(request).await;
    for (name, value) in [(REQUEST_ID, id), (TRACEPARENT, trace)] {
        if let Some(value) = value {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn fresh() -> RequestIds {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    RequestIds {
        request_id: Arc::from(Uuid::now_v7().to_string()),
        received_at_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        traceparent: None,
        span: tracing::Span::none(),
    }
}
