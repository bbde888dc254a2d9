//! The request's body, read only after its sender is known. Its size and pace are bounded where it comes from.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt;
use tollgate_domain::{Refusal, RefusalKind, Share};

use crate::BodyFailure;
use crate::failure::Failure;
use crate::json::{self, Json};
use crate::state::ApiState;

/// A longer body is parsed off the async workers, which should not be held up for milliseconds.
const PARSED_INLINE_BYTES: usize = 64 * 1024;

/// The body as one JSON value, and the memory that it holds, which grew out of `memory`.
///
/// # Errors
/// There is no memory for it, it is too large, too slow, broken, of another media type, or not JSON as [`json::parse`] wants it.
pub(crate) async fn read_json(api: &ApiState, headers: &HeaderMap, body: Body, memory: Share) -> Result<(Json, Share), Failure> {
    let (bytes, memory) = read(api, body, memory).await?;
    if !is_json(headers) {
        return Err(Failure::NotJson);
    }
    let parsed = if bytes.len() <= PARSED_INLINE_BYTES {
        json::parse(&bytes)
    } else {
        let parsing = tokio::task::spawn_blocking(move || json::parse(&bytes));
        parsing.await.map_err(|_| Failure::Internal("the JSON parser panicked"))?
    };
    let json = parsed.map_err(|error| Failure::Refused(Refusal::invalid(error.code(), error.to_string())))?;
    Ok((json, memory))
}

async fn read(api: &ApiState, mut body: Body, mut memory: Share) -> Result<(Bytes, Share), Failure> {
    // One buffer: a list of frames would cost a client's one-byte chunks many times their size.
    let mut whole = BytesMut::new();
    let error = loop {
        match body.frame().await {
            None => return Ok((whole.freeze(), memory)),
            Some(Ok(frame)) => {
                let data = frame.data_ref().map(|data| &**data).unwrap_or_default();
                memory = memory.grown(data.len() as u64).ok_or_else(no_memory)?;
                whole.extend_from_slice(data);
            }
            Some(Err(error)) => break error.into_inner(),
        }
    };
    Err(match (api.body_failure)(&*error) {
        BodyFailure::TooLarge { limit } => {
            let message = format!("The request's body is larger than {limit} bytes.");
            Failure::Refused(Refusal::new(RefusalKind::TooLarge, "body_too_large", message))
        }
        BodyFailure::TooSlow => Failure::TooSlow,
        BodyFailure::Broken => {
            Failure::Refused(Refusal::invalid("body_broken", "The request's body is malformed or incomplete."))
        }
    })
}

fn no_memory() -> Failure {
    let message = "The gateway holds as many request bodies as it takes. Try again in a moment.";
    Failure::Refused(Refusal::unavailable("overloaded", message, 1).detail("[requests] bodies_mib is used up"))
}

/// Whether the body says that it is JSON; parameters such as `charset` change nothing (RFC 8259, 11).
fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_json_is_json() {
        let cases = [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/json ;charset=utf-8", true),
            ("application/jsonl", false),
            ("text/json", false),
            ("", false),
        ];
        for (value, expected) in cases {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(value))]);
            assert_eq!(is_json(&headers), expected, "{value}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
