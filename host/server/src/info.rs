//! What a service may know about the connection a request came by.
//!
//! It travels in the request's extensions. It says who is at the other end of the socket, not who the
//! client is: behind a proxy that is [`client_ip`](crate::client_ip())'s answer.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;

/// The connection of a request, the same value for all of its requests.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    /// The other end of the socket.
    pub peer: SocketAddr,
    /// Our end of the socket.
    pub local: SocketAddr,
    /// The name of the listener.
    pub listener: Arc<str>,
    /// What TLS agreed on; none on a plain listener.
    pub tls: Option<Arc<TlsInfo>>,
    /// Counts up from 1 per process; names the connection in the log.
    pub id: u64,
}

/// What a TLS handshake agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsInfo {
    /// The protocol version.
    pub version: TlsVersion,
    /// The protocol chosen by ALPN (RFC 7301), such as `h2`; none if the client offered nothing.
    pub alpn: Option<Vec<u8>>,
    /// The client's certificate chain, end entity first; empty if it sent none.
    pub peer_certificates: Vec<CertificateDer<'static>>,
}

/// The TLS versions that are served (P-E6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2, with authenticated encryption only.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl TlsInfo {
    /// Reads the outcome of a finished handshake.
    pub(crate) fn of(session: &rustls::ServerConnection) -> Self {
        let version = match session.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => TlsVersion::Tls13,
            // The server is configured with these two versions only.
            _ => TlsVersion::Tls12,
        };
        Self {
            version,
            alpn: session.alpn_protocol().map(<[u8]>::to_vec),
            peer_certificates: session.peer_certificates().map(<[_]>::to_vec).unwrap_or_default(),
        }
    }
}
