//! The numbers a listener keeps about itself.
//!
//! Plain atomics: whoever exports metrics reads them, this crate knows no metrics library.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::error::EdgeError;

/// Live counts of one listener.
#[derive(Debug, Default)]
pub struct Gauges {
    connections: AtomicUsize,
    requests: AtomicUsize,
    accepted: AtomicU64,
    refused: AtomicU64,
    /// By [`EdgeError::CODES`].
    rejected: [AtomicU64; EdgeError::CODES.len()],
    /// By [`HandshakeFailure::ALL`].
    handshakes: [AtomicU64; HandshakeFailure::ALL.len()],
}

/// Why a TLS handshake came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandshakeFailure {
    /// It took too long.
    Timeout,
    /// The client left.
    Closed,
    /// No version or cipher in common.
    Incompatible,
    /// The client said that it does not like ours: mostly the certificate.
    Alert,
    /// What came was no TLS.
    Malformed,
    /// Anything else.
    Other,
}

impl HandshakeFailure {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Timeout, "timeout"),
        (Self::Closed, "closed"),
        (Self::Incompatible, "incompatible"),
        (Self::Alert, "alert"),
        (Self::Malformed, "malformed"),
        (Self::Other, "other"),
    ];

    /// What an error of the handshake means.
    pub(crate) fn of(error: &io::Error) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match tls {
            None => Self::Closed,
            Some(rustls::Error::PeerIncompatible(_)) => Self::Incompatible,
            Some(rustls::Error::AlertReceived(_)) => Self::Alert,
            Some(
                rustls::Error::InvalidMessage(_)
                | rustls::Error::InappropriateMessage { .. }
                | rustls::Error::InappropriateHandshakeMessage { .. }
                | rustls::Error::PeerMisbehaved(_)
                | rustls::Error::DecryptError
                | rustls::Error::PeerSentOversizedRecord,
            ) => Self::Malformed,
            Some(_) => Self::Other,
        }
    }
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

    /// Requests answered by the server itself because they were malformed or too large, by the code of the answer.
    pub fn rejected(&self) -> impl Iterator<Item = (&'static str, u64)> {
        EdgeError::CODES.into_iter().zip(&self.rejected).map(|(code, count)| (code, count.load(Ordering::Relaxed)))
    }

    /// TLS handshakes that came to nothing, by the reason.
    pub fn failed_handshakes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        HandshakeFailure::ALL.into_iter().zip(&self.handshakes).map(|((_, word), count)| (word, count.load(Ordering::Relaxed)))
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

    pub(crate) fn request_rejected(&self, error: EdgeError) {
        let at = EdgeError::CODES.iter().position(|code| *code == error.code());
        if let Some(count) = at.and_then(|at| self.rejected.get(at)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn handshake_failed(&self, failure: HandshakeFailure) {
        let at = HandshakeFailure::ALL.iter().position(|(known, _)| *known == failure);
        if let Some(count) = at.and_then(|at| self.handshakes.get(at)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejections_and_failed_handshakes_are_counted_by_name() {
        let gauges = Gauges::default();
        gauges.request_rejected(EdgeError::Malformed("x"));
        gauges.request_rejected(EdgeError::NotImplemented("x"));
        gauges.handshake_failed(HandshakeFailure::Timeout);
        gauges.handshake_failed(HandshakeFailure::of(&io::ErrorKind::UnexpectedEof.into()));
        gauges.handshake_failed(HandshakeFailure::of(&io::Error::other(rustls::Error::DecryptError)));
        let counted = |all: Vec<(&'static str, u64)>| all.into_iter().filter(|(_, count)| *count > 0).collect::<Vec<_>>();
        assert_eq!(counted(gauges.rejected().collect()), [("malformed_request", 1), ("not_implemented", 1)]);
        assert_eq!(counted(gauges.failed_handshakes().collect()), [("timeout", 1), ("closed", 1), ("malformed", 1)]);
    }
}
