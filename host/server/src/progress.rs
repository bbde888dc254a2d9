//! What a connection is doing between its requests, and when that has taken too long.
//!
//! One value per connection, shared by whoever sees a part of it: `gate` sees bytes and heads, `edge` sees
//! requests begin and end, `connection` asks whether a deadline has passed. It owns no timer.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::EdgeError;
use crate::limits::Limits;

/// The span over which an HTTP/2 client's cancelled requests are counted.
const CANCEL_SPAN: Duration = Duration::from_secs(10);

/// How long an HTTP/1 connection is silent after an answer before it rests.
const REST_AFTER: Duration = Duration::from_secs(1);

/// The protocol a connection speaks, decided by ALPN before the first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// Why a connection is closed by the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiry {
    FirstByte,
    Header,
    Idle,
    /// The client cancelled too many requests (rapid reset).
    Cancelled,
}

/// What is to be done about a connection now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// Nothing before that moment; earlier only if the connection makes progress.
    Wait(Instant),
    /// It has had its answer and says nothing: what is kept for a request can go. Said once after each request.
    Rest,
    Expired(Expiry),
}

/// The shared state of one connection.
#[derive(Debug)]
pub(crate) struct Progress {
    protocol: Protocol,
    opened: Instant,
    /// The gate waits for the first byte of a head. This and the next are used by the connection's own task alone.
    is_listening: AtomicBool,
    /// Bytes were written that are not flushed.
    is_unflushed: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// A byte has arrived, after the TLS handshake if there was one.
    has_bytes: bool,
    /// The head being received began then.
    head_since: Option<Instant>,
    /// A head was passed on and its request has not begun yet.
    is_head_passed: bool,
    /// Why the head that was passed on is not the client's but a stand-in.
    rejection: Option<EdgeError>,
    requests: u64,
    in_flight: u32,
    idle_since: Instant,
    /// It may rest once nothing is left of the last request.
    may_rest: bool,
    cancelled: u32,
    cancelled_since: Instant,
    /// The reader that waits for the request in flight to end.
    reader: Option<Waker>,
}

impl Progress {
    pub(crate) fn new(protocol: Protocol) -> Arc<Self> {
        let now = Instant::now();
        let state = State {
            has_bytes: false,
            head_since: None,
            is_head_passed: false,
            rejection: None,
            requests: 0,
            in_flight: 0,
            idle_since: now,
            may_rest: false,
            cancelled: 0,
            cancelled_since: now,
            reader: None,
        };
        let (is_listening, is_unflushed) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { protocol, opened: now, is_listening, is_unflushed, state: Mutex::new(state) })
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// A byte of the client arrived.
    pub(crate) fn byte_arrived(&self) {
        self.lock().has_bytes = true;
    }

    /// The gate waits for the first byte of a head.
    pub(crate) fn listens(&self) {
        self.is_listening.store(true, Relaxed);
    }

    /// Bytes were written, or all that were are flushed.
    pub(crate) fn flushed(&self, all: bool) {
        self.is_unflushed.store(!all, Relaxed);
    }

    /// A byte of an HTTP/1 head is there, the head is not.
    pub(crate) fn head_pending(&self) {
        let mut state = self.lock();
        if state.head_since.is_none() {
            state.head_since = Some(Instant::now());
        }
    }

    /// A whole head goes to hyper: the client's, or a stand-in for one that was rejected.
    pub(crate) fn head_passed(&self, rejection: Option<EdgeError>) {
        self.is_listening.store(false, Relaxed);
        let mut state = self.lock();
        state.head_since = None;
        state.is_head_passed = true;
        state.rejection = rejection;
    }

    /// Whether a request is with hyper or the service. If so, `waker` is woken when it ends.
    pub(crate) fn is_busy(&self, waker: &Waker) -> bool {
        let mut state = self.lock();
        let busy = state.is_busy();
        state.reader = busy.then(|| waker.clone());
        busy
    }

    /// A request begins; gives the reason if it is the stand-in for a rejected one.
    pub(crate) fn request_began(&self) -> Option<EdgeError> {
        let mut state = self.lock();
        state.is_head_passed = false;
        state.requests += 1;
        state.in_flight += 1;
        state.rejection.take()
    }

    /// A request ended; `cancelled` if its response was not whole.
    pub(crate) fn request_ended(&self, cancelled: bool) {
        let now = Instant::now();
        let reader = {
            let mut state = self.lock();
            state.in_flight = state.in_flight.saturating_sub(1);
            state.idle_since = now;
            state.may_rest = self.protocol == Protocol::Http1;
            if cancelled {
                if now.duration_since(state.cancelled_since) > CANCEL_SPAN {
                    state.cancelled = 0;
                    state.cancelled_since = now;
                }
                state.cancelled += 1;
            }
            if state.is_busy() { None } else { state.reader.take() }
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Whether a deadline between requests has passed.
    pub(crate) fn check(&self, limits: &Limits, now: Instant) -> Check {
        let mut state = self.lock();
        if self.protocol == Protocol::Http2 && state.cancelled > limits.h2_cancelled_streams {
            return Check::Expired(Expiry::Cancelled);
        }
        if state.is_busy() {
            // Requests may end on other tasks. Looking again within the idle time is never too late: the
            // idle time begins when they end.
            return Check::Wait(now + limits.idle);
        }
        let (deadline, expiry) = if !state.has_bytes {
            (self.opened + limits.first_byte, Expiry::FirstByte)
        } else if let Some(since) = state.head_since {
            (since.max(state.idle_since) + limits.header, Expiry::Header)
        } else if self.protocol == Protocol::Http2 && state.requests == 0 {
            (self.opened + limits.header, Expiry::Header)
        } else {
            (state.idle_since + limits.idle, Expiry::Idle)
        };
        if now >= deadline {
            return Check::Expired(expiry);
        }
        if expiry != Expiry::Idle || !state.may_rest {
            return Check::Wait(deadline);
        }
        let rest_at = state.idle_since + REST_AFTER;
        if now < rest_at {
            return Check::Wait(deadline.min(rest_at));
        }
        if self.is_listening.load(Relaxed) && !self.is_unflushed.load(Relaxed) {
            state.may_rest = false;
            return Check::Rest;
        }
        Check::Wait(deadline.min(now + REST_AFTER))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_busy(&self) -> bool {
        self.in_flight > 0 || self.is_head_passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { h2_cancelled_streams: 3, ..Limits::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn each_phase_has_its_deadline() {
        // P-E1.
        let limits = limits();
        let progress = Progress::new(Protocol::Http1);
        let opened = Instant::now();
        assert_eq!(progress.check(&limits, opened), Check::Wait(opened + limits.first_byte));
        assert_eq!(progress.check(&limits, opened + limits.first_byte), Check::Expired(Expiry::FirstByte));

        progress.byte_arrived();
        progress.head_pending();
        assert_eq!(progress.check(&limits, opened + limits.header), Check::Expired(Expiry::Header));

        progress.head_passed(None);
        assert!(matches!(progress.check(&limits, opened + limits.header), Check::Wait(_)));
        assert_eq!(progress.request_began(), None);
        let much_later = opened + Duration::from_secs(3600);
        assert!(matches!(progress.check(&limits, much_later), Check::Wait(_)));

        tokio::time::advance(Duration::from_secs(3600)).await;
        progress.request_ended(false);
        assert_eq!(progress.check(&limits, Instant::now()), Check::Wait(much_later + REST_AFTER));
        assert_eq!(progress.check(&limits, much_later + limits.idle), Check::Expired(Expiry::Idle));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_rests_once_after_each_answer_that_has_left() {
        let limits = limits();
        let progress = Progress::new(Protocol::Http1);
        progress.byte_arrived();
        for _ in 0..2 {
            progress.head_passed(None);
            progress.request_began();
            progress.flushed(false);
            progress.request_ended(false);
            let ended = Instant::now();
            tokio::time::advance(REST_AFTER).await;
            // The body is not read to its end, or the answer has not left.
            assert_eq!(progress.check(&limits, Instant::now()), Check::Wait(Instant::now() + REST_AFTER));
            progress.listens();
            assert_eq!(progress.check(&limits, Instant::now()), Check::Wait(Instant::now() + REST_AFTER));
            progress.flushed(true);
            assert_eq!(progress.check(&limits, Instant::now()), Check::Rest);
            assert_eq!(progress.check(&limits, Instant::now()), Check::Wait(ended + limits.idle));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_pipelined_head_does_not_end_the_request_before_it() {
        let limits = limits();
        let progress = Progress::new(Protocol::Http1);
        progress.byte_arrived();
        progress.head_passed(None);
        progress.request_began();
        progress.head_pending();
        tokio::time::advance(limits.header * 10).await;
        assert!(matches!(progress.check(&limits, Instant::now()), Check::Wait(_)));
        progress.request_ended(false);
        assert_eq!(progress.check(&limits, Instant::now()), Check::Wait(Instant::now() + limits.header));
    }

    #[tokio::test]
    async fn an_http2_client_must_ask_for_something_and_not_cancel_without_end() {
        // P-E1 (half preface) and P-E2.
        let limits = limits();
        let progress = Progress::new(Protocol::Http2);
        progress.byte_arrived();
        let later = Instant::now() + limits.header;
        assert_eq!(progress.check(&limits, later), Check::Expired(Expiry::Header));
        for _ in 0..4 {
            progress.request_began();
            progress.request_ended(true);
        }
        assert_eq!(progress.check(&limits, Instant::now()), Check::Expired(Expiry::Cancelled));
    }

    #[test]
    fn a_rejection_reaches_the_request_it_stands_for() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let progress = Progress::new(Protocol::Http1);
            progress.head_passed(Some(EdgeError::Malformed("x")));
            assert!(progress.is_busy(Waker::noop()));
            assert_eq!(progress.request_began(), Some(EdgeError::Malformed("x")));
            progress.request_ended(false);
            assert!(!progress.is_busy(Waker::noop()));
        });
    }
}
