//! The layers around every answer, in one list. A layer does one thing and is one file; none decides anything.

mod access;
mod fixed_headers;
mod request_ids;

use axum::Router;
use axum::middleware::from_fn;

pub(crate) use access::Access;

/// `router` within its layers. Read from the bottom: the last is the outermost.
pub(crate) fn layered(router: Router) -> Router {
    router
        // What holds for every answer, whatever it is: not to be stored, not to be guessed at.
        .layer(from_fn(fixed_headers::fixed_headers))
        // One line in the log when the answer's body is over, however it ends.
        .layer(from_fn(access::access))
        // The request's id, for everything within and for the answer.
        .layer(from_fn(request_ids::request_ids))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::body::Body;
    use axum::extract::Request;
    use http::Response;
    use tollgate_pipeline::RequestIds;
    use tower::ServiceExt;

    use super::*;

    async fn answer(request: Request) -> Response<Body> {
        layered(Router::new().fallback(|| async { "hello" })).oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn every_answer_has_an_id_and_is_not_stored() {
        let response = answer(Request::new(Body::empty())).await;
        let headers = response.headers();
        assert_eq!(headers["cache-control"], "no-store");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        // A version 7 UUID in its usual form.
        assert_eq!(headers["x-request-id"].len(), 36);
        assert_eq!(headers["content-length"], "5");
        assert_eq!(axum::body::to_bytes(response.into_body(), 64).await.unwrap(), "hello");
    }

    #[tokio::test]
    async fn an_id_that_is_known_already_stays() {
        let mut request = Request::new(Body::empty());
        let ids = RequestIds {
            request_id: Arc::from("abc"),
            received_at_ms: 1,
            traceparent: Some("00-ab-cd-01".to_owned()),
            span: tracing::Span::none(),
        };
        request.extensions_mut().insert(ids);
        assert_eq!(answer(request).await.headers()["x-request-id"], "abc");
    }

    #[tokio::test]
    async fn head_has_the_headers_and_no_body() {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = http::Method::HEAD;
        let response = answer(request).await;
        assert_eq!(response.headers()["content-length"], "5");
        assert!(axum::body::to_bytes(response.into_body(), 64).await.unwrap().is_empty());
    }
}
