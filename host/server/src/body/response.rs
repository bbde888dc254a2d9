//! The body of a response, and the guard that knows when a request is over.
//!
//! Large pieces are cut so that what waits for one client stays small, and on HTTP/2 the stream that sends
//! the body is told when it is held up.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;

use crate::gauges::Gauges;
use crate::progress::Progress;
use crate::streams;

/// The error of a service's response body, of whatever type.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A service's response body, of whatever type.
pub(crate) type Payload = UnsyncBoxBody<Bytes, BoxError>;

/// The largest piece handed to hyper at once.
const PIECE_BYTES: usize = 16 * 1024;

/// The body that hyper sends.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    payload: Payload,
    /// What is left of a piece that was cut.
    rest: Bytes,
    guard: RequestGuard,
}

/// Counts a request from its head to the end of its response, and tells whether that was whole.
#[derive(Debug)]
pub(crate) struct RequestGuard {
    progress: Arc<Progress>,
    gauges: Arc<Gauges>,
    is_complete: bool,
}

impl ResponseBody {
    pub(crate) fn new(payload: Payload, guard: RequestGuard) -> Self {
        let mut body = Self { payload, rest: Bytes::new(), guard };
        body.note_end();
        body
    }

    fn note_end(&mut self) {
        if self.is_end_stream() {
            self.guard.is_complete = true;
        }
    }

    fn cut(&mut self, mut data: Bytes) -> Frame<Bytes> {
        if data.len() > PIECE_BYTES {
            self.rest = data.split_off(PIECE_BYTES);
        }
        Frame::data(data)
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        streams::moving();
        let frame = if this.rest.is_empty() {
            match ready!(Pin::new(&mut this.payload).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.cut(data),
                    Err(frame) => frame,
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    this.guard.is_complete = true;
                    return Poll::Ready(None);
                }
            }
        } else {
            let rest = std::mem::take(&mut this.rest);
            this.cut(rest)
        };
        // hyper asks no more after the last piece, so the end has to be seen here.
        this.note_end();
        streams::handed_over();
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.payload.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let payload = self.payload.size_hint();
        let mut hint = SizeHint::new();
        // The upper bound first: a lower bound above it would be refused.
        if let Some(upper) = payload.upper().and_then(|upper| upper.checked_add(rest)) {
            hint.set_upper(upper);
        }
        hint.set_lower(payload.lower().saturating_add(rest));
        hint
    }
}

impl RequestGuard {
    /// Counts a request whose head has been announced to `progress`.
    pub(crate) fn new(progress: Arc<Progress>, gauges: Arc<Gauges>) -> Self {
        gauges.request_started();
        Self { progress, gauges, is_complete: false }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.progress.request_ended(!self.is_complete);
        self.gauges.request_ended();
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Full};

    use super::*;
    use crate::progress::Protocol;

    fn body(text: Bytes, gauges: &Arc<Gauges>) -> ResponseBody {
        let progress = Progress::new(Protocol::Http1);
        progress.request_began();
        let payload = Payload::new(Full::new(text).map_err(BoxError::from));
        ResponseBody::new(payload, RequestGuard::new(progress, Arc::clone(gauges)))
    }

    #[tokio::test]
    async fn large_pieces_are_cut_and_nothing_is_lost() {
        // P-L4.
        let gauges = Arc::default();
        let text = Bytes::from((0..100_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
        let mut body = body(text.clone(), &gauges);
        assert_eq!(body.size_hint().exact(), Some(400_000));
        let mut read = Vec::new();
        while let Some(frame) = body.frame().await {
            let data = frame.unwrap().into_data().unwrap();
            assert!(data.len() <= PIECE_BYTES);
            read.extend_from_slice(&data);
            assert_eq!(body.size_hint().exact(), Some(400_000 - read.len() as u64));
        }
        assert_eq!(read, text);
        assert!(body.guard.is_complete);
    }

    #[tokio::test]
    async fn a_body_dropped_half_way_is_not_complete_and_is_counted_out() {
        let gauges: Arc<Gauges> = Arc::default();
        let mut body = body(Bytes::from(vec![0; 100_000]), &gauges);
        let _first = body.frame().await;
        assert!(!body.guard.is_complete);
        assert_eq!(gauges.requests(), 1);
        drop(body);
        assert_eq!(gauges.requests(), 0);
    }
}
