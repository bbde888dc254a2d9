//! What nobody reads of a request's body, on HTTP/2.
//!
//! A server may answer before the request has ended, and close the stream (RFC 9113, 8.1). Clients that are still sending then
//! lose the answer, though they should not: curl 7.88 nearly always, and httpx waits for a window that never opens. So the stream
//! stays open beside the answer, and what still comes is read and dropped, within bounds.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::timeout;

/// Bytes that are read for no use, at most.
const BYTES: usize = 16 * 1024 * 1024;
/// How long the stream stays open for them, at most.
const TIME: Duration = Duration::from_secs(1);

/// Where the service's side leaves a body that it does not read to its end. Clones are the same place.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unread(Arc<Mutex<Option<Incoming>>>);

impl Unread {
    pub(super) fn leave(&self, incoming: Incoming) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(incoming);
    }

    /// What was left there, if anything was.
    pub(crate) fn take(&self) -> Option<Incoming> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Reads a body for no use: to its end, unless that is too far or too long away.
pub(crate) async fn discard(mut incoming: Incoming) {
    let reading = async {
        let mut read = 0;
        while let Some(Ok(frame)) = incoming.frame().await {
            read += frame.data_ref().map_or(0, bytes::Bytes::len);
            if read > BYTES {
                return;
            }
        }
    };
    // What has not come by then is reset with the stream.
    let _ = timeout(TIME, reading).await;
}
