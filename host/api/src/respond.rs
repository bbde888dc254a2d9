//! Responses from what the handlers have made.

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderValue, StatusCode};

/// The generation of policies that served the request.
const GENERATION: HeaderName = HeaderName::from_static("x-tollgate-generation");

/// A response of one JSON text.
pub(crate) fn json(status: StatusCode, text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// `response`, saying which generation served it.
pub(crate) fn by_generation(mut response: Response, generation: u64) -> Response {
    response.headers_mut().insert(GENERATION, HeaderValue::from(generation));
    response
}
