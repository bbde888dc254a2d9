//! The numbers a listener keeps about itself.
//!
//! Plain atomics: whoever exports metrics reads them, this crate knows no metrics library.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Live counts of one listener.
#[derive(Debug, Default)]
pub struct Gauges {
    connections: AtomicUsize,
    requests: AtomicUsize,
    accepted: AtomicU64,
    refused: AtomicU64,
    rejected: AtomicU64,
}

impl Gauges {
    /// Open connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Requests in flight: from their head to the last byte of their response, or until the client left.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Connections accepted since the start.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections closed at once because a cap was reached.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Requests answered by the server itself because they were malformed or too large.
    #[must_use]
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    pub(crate) fn connection_opened(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn connection_closed(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn connection_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn request_started(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn request_ended(&self) {
        self.requests.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn request_rejected(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }
}
