//! Requests that are refused before any service is called, and how such a refusal is answered.
//!
//! This module knows status codes and one plain sentence per error. It knows no dialect: who wants JSON
//! hands a [`ErrorResponder`] to the listener.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};

/// Makes the response to a refused request. The server adds `connection: close` where it must.
pub type ErrorResponder = fn(EdgeError) -> Response<Bytes>;

/// Why a request never reached the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EdgeError {
    /// The message could be read in more than one way, or not at all (RFC 9112; P-E4).
    #[error("{0}")]
    Malformed(&'static str),
    /// The request target is longer than the limit.
    #[error("the request target is longer than {limit} bytes")]
    UriTooLong {
        /// Bytes allowed.
        limit: usize,
    },
    /// The head is longer than the limit or has too many fields.
    #[error("the header fields are larger than {limit} bytes or too many")]
    HeadersTooLarge {
        /// Bytes allowed.
        limit: usize,
    },
    /// The announced body is longer than the limit.
    #[error("the request body is larger than {limit} bytes")]
    BodyTooLarge {
        /// Bytes allowed.
        limit: u64,
    },
    /// The request asks for `CONNECT`, for an upgrade or for a coding that is not served here.
    #[error("{0}")]
    NotImplemented(&'static str),
}

impl EdgeError {
    /// Every answer of [`EdgeError::code`].
    pub const CODES: [&'static str; 5] =
        ["malformed_request", "uri_too_long", "headers_too_large", "body_too_large", "not_implemented"];

    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::UriTooLong { .. } => StatusCode::URI_TOO_LONG,
            Self::HeadersTooLarge { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotImplemented(_) => StatusCode::NOT_IMPLEMENTED,
        }
    }

    /// A stable, machine-readable name.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed_request",
            Self::UriTooLong { .. } => "uri_too_long",
            Self::HeadersTooLarge { .. } => "headers_too_large",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::NotImplemented(_) => "not_implemented",
        }
    }
}

/// The default [`ErrorResponder`]: the status and one line of plain text.
#[must_use]
pub fn plain_text(error: EdgeError) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(format!("{error}\n")));
    *response.status_mut() = error.status();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_its_status_and_its_sentence() {
        // P-E5: 431, 413, 400 (and 414 and 501).
        let cases = [
            (EdgeError::Malformed("the host is missing"), 400, "the host is missing\n"),
            (EdgeError::UriTooLong { limit: 9 }, 414, "the request target is longer than 9 bytes\n"),
            (EdgeError::BodyTooLarge { limit: 7 }, 413, "the request body is larger than 7 bytes\n"),
            (EdgeError::NotImplemented("no"), 501, "no\n"),
        ];
        for (error, status, text) in cases {
            let response = plain_text(error);
            assert_eq!(response.status().as_u16(), status);
            assert_eq!(response.body().as_ref(), text.as_bytes());
        }
        assert_eq!(plain_text(EdgeError::HeadersTooLarge { limit: 1 }).status().as_u16(), 431);
    }
}
