//! What the headers of an answer say of the model that gave it.

use axum::response::Response;
use http::HeaderValue;
use http::header::HeaderName;

/// SHA-256 of the artifact that answered; `remote:NAME` of a provider's model.
const MODEL_DIGEST: HeaderName = HeaderName::from_static("x-tollgate-model-digest");
/// The model that answered in the place of the one that was meant.
const FALLBACK: HeaderName = HeaderName::from_static("x-tollgate-fallback");
/// Durations of the stages before the first byte (W3C Server Timing).
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// `response`, saying what answered and how long that took.
pub(super) fn described(mut response: Response, digest: &str, fallback: Option<&str>, timing: &str) -> Response {
    for (name, value) in [(MODEL_DIGEST, Some(digest)), (FALLBACK, fallback), (SERVER_TIMING, Some(timing))] {
        let Some(value) = value else { continue };
        // They are made of digits, letters and marks; what is not simply stays away.
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
