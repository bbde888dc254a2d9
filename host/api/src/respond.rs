//! Responses from what the handlers have made.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderValue, StatusCode};
use http_body::{Frame, SizeHint};
use tollgate_domain::Share;

/// The generation of policies that served the request.
const GENERATION: HeaderName = HeaderName::from_static("x-tollgate-generation");

/// A response of one JSON text.
pub(crate) fn json(status: StatusCode, text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// `response`, whose body takes `memory` until it is sent.
pub(crate) fn holding(response: Response, memory: Share) -> Response {
    response.map(|inner| Body::new(Holding { inner, _memory: memory }))
}

/// A body that gives memory back when it is gone.
struct Holding {
    inner: Body,
    _memory: Share,
}

impl http_body::Body for Holding {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.get_mut().inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// `response`, saying which generation served it.
pub(crate) fn by_generation(mut response: Response, generation: u64) -> Response {
    response.headers_mut().insert(GENERATION, HeaderValue::from(generation));
    response
}
