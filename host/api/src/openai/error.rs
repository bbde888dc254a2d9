//! Why there is no answer, in OpenAI's shape: the one place where a refusal becomes a status, a type and a code.
//!
//! A client sees a refusal's message and code, never its detail (P-E11).

use axum::response::Response;
use http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use tollgate_domain::{Refusal, RefusalKind};

use crate::failure::Failure;
use crate::respond;

/// `{"error": {...}}`
#[derive(Debug, Serialize)]
struct Envelope<'a> {
    error: Error<'a>,
}

#[derive(Debug, Serialize)]
struct Error<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<&'a str>,
    code: &'a str,
}

/// The answer to a request that failed before its first byte.
pub(crate) fn response(failure: &Failure) -> Response {
    let (status, error) = describe(failure);
    let mut response = respond::json(status, text_of(error));
    let headers = response.headers_mut();
    if status == StatusCode::UNAUTHORIZED {
        // RFC 9110, 15.5.2: a 401 says how to do better.
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    match failure {
        Failure::WrongMethod { allow } => {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        Failure::Refused(Refusal { retry_after: Some(seconds), .. }) => {
            headers.insert(RETRY_AFTER, HeaderValue::from(*seconds));
        }
        _ => {}
    }
    response
}

/// The event that ends a stream which fails after its first byte, as one JSON text.
pub(crate) fn event(failure: &Failure) -> String {
    text_of(describe(failure).1)
}

fn text_of(error: Error<'_>) -> String {
    serde_json::to_string(&Envelope { error }).expect("an error can be written")
}

fn describe(failure: &Failure) -> (StatusCode, Error<'_>) {
    let (status, kind, code, message) = match failure {
        Failure::Refused(refusal) => {
            let (status, kind) = shape_of(refusal.kind);
            let error = Error { message: &refusal.message, kind, param: refusal.field.as_deref(), code: &refusal.code };
            return (status, error);
        }
        Failure::WrongMethod { .. } => {
            (StatusCode::METHOD_NOT_ALLOWED, INVALID, "method_not_allowed", "This path does not take this method.")
        }
        Failure::NotJson => (
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            INVALID,
            "unsupported_media_type",
            "The body has to be JSON, with `Content-Type: application/json`.",
        ),
        Failure::TooSlow => (StatusCode::REQUEST_TIMEOUT, INVALID, "body_too_slow", "The request's body came too slowly."),
        Failure::Internal(_) => {
            (StatusCode::INTERNAL_SERVER_ERROR, SERVER, "internal_error", "The gateway could not serve this request.")
        }
    };
    (status, Error { message, kind, param: None, code })
}

const INVALID: &str = "invalid_request_error";
const SERVER: &str = "server_error";

/// The status and OpenAI's type of each kind.
fn shape_of(kind: RefusalKind) -> (StatusCode, &'static str) {
    match kind {
        RefusalKind::Unauthenticated => (StatusCode::UNAUTHORIZED, "authentication_error"),
        RefusalKind::Forbidden => (StatusCode::FORBIDDEN, "permission_error"),
        RefusalKind::NotFound => (StatusCode::NOT_FOUND, INVALID),
        // OpenAI answers 400 for what its own policies stop, and its clients expect it.
        RefusalKind::Invalid | RefusalKind::Blocked => (StatusCode::BAD_REQUEST, INVALID),
        RefusalKind::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, INVALID),
        RefusalKind::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error"),
        RefusalKind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, SERVER),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_kind_has_its_status_and_its_type() {
        let cases = [
            (RefusalKind::Unauthenticated, 401, "authentication_error"),
            (RefusalKind::Forbidden, 403, "permission_error"),
            (RefusalKind::NotFound, 404, "invalid_request_error"),
            (RefusalKind::Invalid, 400, "invalid_request_error"),
            (RefusalKind::Blocked, 400, "invalid_request_error"),
            (RefusalKind::TooLarge, 413, "invalid_request_error"),
            (RefusalKind::RateLimited, 429, "rate_limit_error"),
            (RefusalKind::Unavailable, 503, "server_error"),
        ];
        for (kind, status, name) in cases {
            let failure = Failure::from(Refusal::new(kind, "a_code", "A message.").detail("/home/x 0x7f").field("f"));
            assert_eq!(response(&failure).status().as_u16(), status, "{kind:?}");
            let event = serde_json::from_str::<serde_json::Value>(&event(&failure)).unwrap();
            // P-E11: the detail is for the log.
            let expected = json!({"error": {"message": "A message.", "type": name, "param": "f", "code": "a_code"}});
            assert_eq!(event, expected);
        }
    }

    #[test]
    fn what_only_http_knows_has_its_status() {
        let cases = [
            (Failure::WrongMethod { allow: "GET, HEAD" }, 405, "method_not_allowed"),
            (Failure::NotJson, 415, "unsupported_media_type"),
            (Failure::TooSlow, 408, "body_too_slow"),
            (Failure::Internal("a lock is poisoned"), 500, "internal_error"),
        ];
        for (failure, status, code) in cases {
            assert_eq!(response(&failure).status().as_u16(), status);
            let event = event(&failure);
            assert!(event.contains(code) && event.contains(r#""param":null"#) && !event.contains("poisoned"), "{event}");
        }
    }

    #[test]
    fn headers_say_how_to_do_better() {
        let unauthenticated = response(&Refusal::new(RefusalKind::Unauthenticated, "missing_key", "A key is needed.").into());
        assert_eq!(unauthenticated.headers()["www-authenticate"], "Bearer");
        assert_eq!(unauthenticated.headers()["content-type"], "application/json");
        let wrong_method = response(&Failure::WrongMethod { allow: "POST" });
        assert_eq!(wrong_method.headers()["allow"], "POST");
        let later = response(&Refusal::unavailable("queue_full", "Later.", 7).into());
        assert_eq!(later.headers()["retry-after"], "7");
        assert!(!wrong_method.headers().contains_key("retry-after"));
    }
}
