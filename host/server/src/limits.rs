//! The limits of a listener: how long a phase may last, how many and how large things may be.
//!
//! Plain data with documented defaults. It is not the configuration file's shape: the composition root
//! converts. Nothing here enforces anything; each limit names the module that does.

use std::time::Duration;

/// The smallest read and write buffer that hyper accepts for an HTTP/1 connection.
const HYPER_MINIMUM_BUFFER: usize = 8 * 1024;

/// What one listener allows its clients (promises P-E1 to P-E5 and the write side of P-L4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// From accept to the end of the TLS handshake.
    pub tls_handshake: Duration,
    /// From accept (plain) or handshake (TLS) to the first byte of a request.
    pub first_byte: Duration,
    /// From the first byte of a head to its end; on HTTP/2 from the handshake to the first request.
    pub header: Duration,
    /// A connection without a request in flight is closed after this long.
    pub idle: Duration,
    /// The longest wait for the next piece of a request body that somebody reads.
    pub body_idle: Duration,
    /// All waiting for one request body.
    pub body_total: Duration,
    /// The average rate, in bytes per second of waiting, below which a request body is given up.
    pub body_min_bytes_per_s: u64,
    /// Waiting that the minimum rate does not count, so that a slow start is no offence.
    pub body_grace: Duration,
    /// The longest a client may take nothing while there is something to write to it.
    pub stalled_reader: Duration,
    /// Open connections of the listener.
    pub connections: usize,
    /// Open connections of one address (IPv6: of one /64).
    pub connections_per_ip: usize,
    /// The request target of an HTTP/1 request, in bytes.
    pub uri_bytes: usize,
    /// The head of an HTTP/1 request (request line and fields) and its trailers, in bytes.
    pub header_bytes: usize,
    /// Fields of one head.
    pub headers: usize,
    /// A request body, in bytes.
    pub body_bytes: u64,
    /// The system's send buffer towards one client, in bytes; a stream of HTTP/2 has half as much besides. HTTP/1 keeps no more of an
    /// answer than of a head.
    pub stream_buffer_bytes: usize,
    /// Concurrent HTTP/2 streams of one connection.
    pub h2_streams: u32,
    /// HTTP/2 streams that the client reset before they were accepted; one more ends the connection.
    pub h2_pending_reset_streams: usize,
    /// HTTP/2 streams that the server had to reset for the client's errors; one more ends the connection.
    pub h2_local_reset_streams: usize,
    /// Requests of an HTTP/2 connection that the client may cancel in any ten seconds.
    pub h2_cancelled_streams: u32,
    /// Frames of an HTTP/2 connection that carry no request (PING, SETTINGS, PRIORITY, unknown kinds) in any ten seconds.
    pub h2_control_frames: u32,
    /// The decoded header list of an HTTP/2 request, in bytes (RFC 9113, 6.5.2).
    pub h2_header_list_bytes: u32,
    /// What one HTTP/2 stream may send before the service has read it, in bytes.
    pub h2_stream_window_bytes: u32,
    /// What all HTTP/2 streams of a connection together may send before the service has read it, in bytes.
    pub h2_connection_window_bytes: u32,
    /// Time between two keep-alive pings on an HTTP/2 connection, and for the answer to one.
    pub h2_ping: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tls_handshake: Duration::from_secs(10),
            first_byte: Duration::from_secs(5),
            header: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            body_idle: Duration::from_secs(30),
            body_total: Duration::from_secs(300),
            body_min_bytes_per_s: 1024,
            body_grace: Duration::from_secs(5),
            stalled_reader: Duration::from_secs(30),
            connections: 10_000,
            connections_per_ip: 1_000,
            uri_bytes: 8 * 1024,
            header_bytes: 16 * 1024,
            headers: 100,
            body_bytes: 10 * 1024 * 1024,
            stream_buffer_bytes: 64 * 1024,
            h2_streams: 100,
            h2_pending_reset_streams: 20,
            h2_local_reset_streams: 100,
            h2_cancelled_streams: 100,
            h2_control_frames: 1_000,
            h2_header_list_bytes: 16 * 1024,
            h2_stream_window_bytes: 64 * 1024,
            h2_connection_window_bytes: 1024 * 1024,
            h2_ping: Duration::from_secs(20),
        }
    }
}

impl Limits {
    /// The buffer size handed to hyper for HTTP/1: it holds one whole head and never less than hyper needs. What more there is of an
    /// answer waits where it is made.
    pub(crate) fn http1_buffer_bytes(&self) -> usize {
        self.header_bytes.max(HYPER_MINIMUM_BUFFER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_promises() {
        // P-E1, P-E3, P-E5, P-L4.
        let limits = Limits::default();
        assert_eq!(limits.tls_handshake.as_secs(), 10);
        assert_eq!(limits.first_byte.as_secs(), 5);
        assert_eq!(limits.header.as_secs(), 10);
        assert_eq!(limits.idle.as_secs(), 60);
        assert!(limits.body_min_bytes_per_s >= 1024);
        assert!(limits.h2_header_list_bytes <= 16 * 1024);
        assert_eq!(limits.stream_buffer_bytes, 64 * 1024);
        assert_eq!(limits.stalled_reader.as_secs(), 30);
    }

    #[test]
    fn a_buffer_is_never_smaller_than_a_head_or_than_hyper_allows() {
        let small = Limits { header_bytes: 1, ..Limits::default() };
        assert_eq!(small.http1_buffer_bytes(), HYPER_MINIMUM_BUFFER);
        let wide = Limits { header_bytes: 100_000, ..Limits::default() };
        assert_eq!(wide.http1_buffer_bytes(), 100_000);
    }
}
