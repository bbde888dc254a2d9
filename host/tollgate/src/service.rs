//! Between the server's requests and the dialects' router: who is at the other end, and what the request is called.

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use tollgate_api::{BodyFailure, ClientInfo};
use tollgate_pipeline::RequestIds;
use tollgate_server::{BodyError, Cidr, ConnectionInfo, EdgeError, RequestBody, client_ip};
use tollgate_telemetry::{Tracer, request_id};
use tower_service::Service;

use crate::credentials::now_ms;

/// One listener's service.
#[derive(Clone)]
pub(crate) struct Front {
    pub(crate) router: Router,
    pub(crate) trusted: Arc<[Cidr]>,
    pub(crate) tracer: Tracer,
}

impl Service<Request<RequestBody>> for Front {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = <Router as Service<Request<RequestBody>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<RequestBody>>::poll_ready(&mut self.router, cx)
    }

    fn call(&mut self, mut request: Request<RequestBody>) -> Self::Future {
        let mut scheme = "http";
        if let Some(connection) = request.extensions().get::<ConnectionInfo>() {
            let ip = client_ip(connection.peer.ip(), request.headers(), &self.trusted);
            let listener = Arc::clone(&connection.listener);
            scheme = if connection.tls.is_some() { "https" } else { "http" };
            request.extensions_mut().insert(ClientInfo { ip, listener, scheme });
        }
        let request_id = request_id();
        // The client's trace with a span of our own, or a new trace.
        let client = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
        let trace = self.tracer.begin(client, &request_id, scheme);
        request.extensions_mut().insert(RequestIds {
            request_id: request_id.into(),
            received_at_ms: now_ms(),
            traceparent: trace.traceparent,
            span: trace.span,
        });
        self.router.call(request)
    }
}

/// What an error of the server's request body means to a dialect.
pub(crate) fn body_failure(error: &(dyn Error + 'static)) -> BodyFailure {
    let mut cause = Some(error);
    while let Some(error) = cause {
        match error.downcast_ref::<BodyError>() {
            Some(BodyError::TooLarge { limit }) => return BodyFailure::TooLarge { limit: *limit },
            Some(BodyError::TooSlow | BodyError::Idle) => return BodyFailure::TooSlow,
            Some(BodyError::Malformed(_) | BodyError::Broken(_)) => return BodyFailure::Broken,
            None => cause = error.source(),
        }
    }
    BodyFailure::Broken
}

/// What the server itself has to refuse, in the shape that clients of the dialects expect.
pub(crate) fn edge_error(error: EdgeError) -> Response<Bytes> {
    let body = serde_json::json!({
        "error": { "message": error.to_string(), "type": "invalid_request_error", "param": null, "code": error.code() }
    });
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = error.status();
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}
