//! The body of a request, which may be neither too large nor too slow (P-E1, P-E5).
//!
//! The clock runs only while somebody waits for bytes: a service that takes its time is no fault of the
//! client's.

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::unread::Unread;
use crate::limits::Limits;

/// The body of a request as it arrives.
#[derive(Debug)]
pub struct RequestBody {
    /// There until it is dropped.
    incoming: Option<Incoming>,
    limit: u64,
    received: u64,
    pace: Pace,
    is_over: bool,
    /// Where it goes if it is not read to its end.
    unread: Option<Unread>,
}

/// Why a request body could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// More bytes came than are allowed: 413.
    #[error("the request body is larger than {limit} bytes")]
    TooLarge {
        /// Bytes allowed.
        limit: u64,
    },
    /// It came more slowly than the minimum rate, or took too long in all: 408.
    #[error("the request body came too slowly")]
    TooSlow,
    /// Nothing came for too long: 408.
    #[error("the request body stopped coming")]
    Idle,
    /// Its chunks are malformed: 400.
    #[error("the request body is malformed")]
    Malformed(#[source] hyper::Error),
    /// The connection or the stream ended before the body did.
    #[error("the request body ended early")]
    Broken(#[source] hyper::Error),
}

/// How long the reader has waited for bytes, and how long it may.
#[derive(Debug)]
struct Pace {
    total: Duration,
    idle: Duration,
    bytes_per_s: u64,
    grace: Duration,
    waited: Duration,
    waiting_since: Option<Instant>,
    /// Made at the first wait: most bodies arrive with their head.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl RequestBody {
    /// A body that is left at `unread` if it is dropped before its end.
    pub(crate) fn new(incoming: Incoming, limits: &Limits, unread: Option<Unread>) -> Self {
        let pace = Pace {
            total: limits.body_total,
            idle: limits.body_idle,
            bytes_per_s: limits.body_min_bytes_per_s.max(1),
            grace: limits.body_grace,
            waited: Duration::ZERO,
            waiting_since: None,
            alarm: None,
        };
        Self { incoming: Some(incoming), limit: limits.body_bytes, received: 0, pace, is_over: false, unread }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        match Pin::new(incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.pace.arrived(Instant::now());
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.received = self.received.saturating_add(bytes);
                let too_large = self.received > self.limit;
                Poll::Ready(Some(if too_large { Err(BodyError::TooLarge { limit: self.limit }) } else { Ok(frame) }))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(classify(error)))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                let late = ready!(self.pace.poll_late(cx, self.received));
                // It had its time.
                self.unread = None;
                Poll::Ready(Some(Err(late)))
            }
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.is_over {
            return Poll::Ready(None);
        }
        let next = ready!(this.poll_next(cx));
        this.is_over = !matches!(next, Some(Ok(_)));
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.incoming {
            Some(incoming) if !self.is_over => incoming.size_hint(),
            _ => SizeHint::with_exact(0),
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let (Some(unread), Some(incoming)) = (self.unread.take(), self.incoming.take())
            && !incoming.is_end_stream()
        {
            unread.leave(incoming);
        }
    }
}

impl Pace {
    fn arrived(&mut self, now: Instant) {
        if let Some(since) = self.waiting_since.take() {
            self.waited += now.duration_since(since);
        }
    }

    /// How long the present wait may last, and what it is if it lasts longer.
    fn allowance(&self, received: u64) -> (Duration, BodyError) {
        let earned = Duration::from_millis(received.saturating_mul(1000) / self.bytes_per_s);
        let left = self.grace.saturating_add(earned).min(self.total).saturating_sub(self.waited);
        if left < self.idle { (left, BodyError::TooSlow) } else { (self.idle, BodyError::Idle) }
    }

    fn poll_late(&mut self, cx: &mut Context<'_>, received: u64) -> Poll<BodyError> {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let (wait, error) = self.allowance(received);
        let deadline = since + wait;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if alarm.deadline() != deadline {
            alarm.as_mut().reset(deadline);
        }
        alarm.as_mut().poll(cx).map(|()| error)
    }
}

/// Tells bytes that make no sense from a connection that ended: both come as an I/O error inside hyper's.
fn classify(error: hyper::Error) -> BodyError {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return match io.kind() {
                io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => BodyError::Malformed(error),
                _ => BodyError::Broken(error),
            };
        }
        source = cause.source();
    }
    BodyError::Broken(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> Pace {
        Pace {
            total: Duration::from_secs(300),
            idle: Duration::from_secs(30),
            bytes_per_s: 1024,
            grace: Duration::from_secs(5),
            waited: Duration::ZERO,
            waiting_since: None,
            alarm: None,
        }
    }

    #[test]
    fn bytes_earn_time_and_waiting_spends_it() {
        // P-E1: at least 1 KiB/s on average, after a grace.
        let mut pace = pace();
        assert!(matches!(pace.allowance(0), (wait, BodyError::TooSlow) if wait == Duration::from_secs(5)));
        pace.waited = Duration::from_secs(4);
        assert!(matches!(pace.allowance(2048), (wait, BodyError::TooSlow) if wait == Duration::from_secs(3)));
        pace.waited = Duration::from_secs(500);
        assert!(matches!(pace.allowance(2048), (wait, BodyError::TooSlow) if wait.is_zero()));
        pace.waited = Duration::from_secs(200);
        assert!(matches!(pace.allowance(u64::MAX), (wait, BodyError::Idle) if wait == pace.idle));
        // However fast it is, it ends.
        pace.waited = Duration::from_secs(290);
        assert!(matches!(pace.allowance(u64::MAX), (wait, BodyError::TooSlow) if wait == Duration::from_secs(10)));
        pace.waited = Duration::from_secs(301);
        assert!(matches!(pace.allowance(u64::MAX), (wait, BodyError::TooSlow) if wait.is_zero()));
    }

    #[tokio::test(start_paused = true)]
    async fn only_time_spent_waiting_counts() {
        let mut pace = pace();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(pace.poll_late(&mut cx, 0).is_pending());
        tokio::time::advance(Duration::from_secs(2)).await;
        pace.arrived(Instant::now());
        // The service is busy for an hour: nobody waits.
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert!(pace.poll_late(&mut cx, 10).is_pending());
        assert_eq!(pace.waited, Duration::from_secs(2));
        tokio::time::advance(Duration::from_secs(4)).await;
        assert!(matches!(pace.poll_late(&mut cx, 10), Poll::Ready(BodyError::TooSlow)));
    }
}
