//! `listeners/ID.toml`: an address with its TLS, dialects, authenticators and limits. Nothing is bound here.

use std::net::SocketAddr;
use std::ops::Deref;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::network::Network;
use crate::text::Id;

/// A place where clients connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Where to listen: an address with a port, or a list of them. Port 0 takes a free one.
    /// Default `["127.0.0.1:8443", "[::1]:8443"]`.
    #[serde(default)]
    pub address: Addresses,
    /// The certificate to show. Without it the gateway's own local CA signs one for `localhost`, `127.0.0.1` and `::1`.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// Speak plain HTTP instead of TLS; loopback addresses only. Default false.
    #[serde(default)]
    pub plain_http: bool,
    /// The public protocols served here. Default `["openai"]`.
    #[serde(default = "default_dialects")]
    #[schemars(length(min = 1, max = 16))]
    pub dialects: Vec<Dialect>,
    /// The plugins that say who asks, in order; the first answer wins, and where none answers the request is refused.
    #[schemars(length(min = 1, max = 16))]
    pub authenticators: Vec<Id>,
    /// Proxies whose `X-Forwarded-For` is believed, as addresses or ranges. Default none.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub trusted_proxies: Vec<Network>,
    /// Limits and deadlines of connections and requests.
    #[serde(default)]
    pub limits: ListenerLimits,
}

/// One address or several; never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Addresses(Vec<SocketAddr>);

/// A certificate of one's own. Both files are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate chain in PEM, leaf first; absolute or relative to the config directory.
    #[schemars(length(min = 1, max = 4_096))]
    pub certificate: PathBuf,
    /// The private key in PEM; absolute or relative to the config directory.
    #[schemars(length(min = 1, max = 4_096))]
    pub key: PathBuf,
}

/// A public wire protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Dialect {
    /// OpenAI's HTTP API under `/v1`.
    #[serde(rename = "openai")]
    OpenAi,
}

impl Dialect {
    /// The name used in config files, contexts and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
        }
    }
}

/// Limits and deadlines of connections and requests on one listener (P-E1 to P-E5, P-L4). What the promises do not name
/// follows Envoy's advice for an edge proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerLimits {
    /// Seconds for the TLS handshake, 1 to 60. Default 10.
    #[schemars(range(min = 1, max = 60))]
    pub tls_handshake_s: u32,
    /// Seconds until the first byte of a request (or of the HTTP/2 preface) on a new connection, 1 to 60. Default 5.
    #[schemars(range(min = 1, max = 60))]
    pub first_byte_s: u32,
    /// Seconds for a request's whole head, 1 to 60. Default 10.
    #[schemars(range(min = 1, max = 60))]
    pub header_s: u32,
    /// Bytes per second that a body has to bring on average, 1 to 1048576. Default 1024.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub body_min_bytes_per_s: u32,
    /// Seconds without a byte of a body that is not complete, 1 to 600. Default 30.
    #[schemars(range(min = 1, max = 600))]
    pub body_idle_s: u32,
    /// Seconds of waiting for one body in all, 1 to 3600. Default 300.
    #[schemars(range(min = 1, max = 3_600))]
    pub body_s: u32,
    /// Seconds that a connection may rest between requests, 1 to 3600. Default 60.
    #[schemars(range(min = 1, max = 3_600))]
    pub idle_s: u32,
    /// Connections at once, 1 to 100000. Default 10000.
    #[schemars(range(min = 1, max = 100_000))]
    pub connections: u32,
    /// Connections at once from one client address (one /64 for IPv6), 1 to 100000. Default 1000.
    #[schemars(range(min = 1, max = 100_000))]
    pub connections_per_ip: u32,
    /// A request's head in KiB, 8 to 1024; more is answered 431. Default 16.
    #[schemars(range(min = 8, max = 1_024))]
    pub header_kib: u32,
    /// Header fields of a request, 1 to 1000; more are answered 431. Default 100.
    #[schemars(range(min = 1, max = 1_000))]
    pub headers: u32,
    /// A request's body in MiB, 1 to 1024; more is answered 413. Default 10.
    #[schemars(range(min = 1, max = 1_024))]
    pub body_mib: u32,
    /// Concurrent HTTP/2 streams of a connection, 1 to 10000. Default 100.
    #[schemars(range(min = 1, max = 10_000))]
    pub h2_streams: u32,
    /// HTTP/2 streams reset by the client before they were taken up, per connection, 1 to 1000; more close it. Default 20.
    #[schemars(range(min = 1, max = 1_000))]
    pub h2_pending_reset_streams: u32,
    /// HTTP/2 streams that a client's errors made the server reset, per connection, 1 to 10000; more close it. Default 100.
    #[schemars(range(min = 1, max = 10_000))]
    pub h2_local_reset_streams: u32,
    /// The decoded HTTP/2 header list in KiB, 1 to 1024. Default 16.
    #[schemars(range(min = 1, max = 1_024))]
    pub h2_header_list_kib: u32,
    /// The HTTP/2 receive window of a stream in KiB, 64 to 16384. Default 64.
    #[schemars(range(min = 64, max = 16_384))]
    pub h2_stream_window_kib: u32,
    /// The HTTP/2 receive window of a connection in KiB, 64 to 65536. Default 1024.
    #[schemars(range(min = 64, max = 65_536))]
    pub h2_connection_window_kib: u32,
    /// The system's buffer towards a reader of a streamed reply that is slow, in KiB, 1 to 16384, and half as much for each stream
    /// of HTTP/2; then its decoding pauses. Default 64.
    #[schemars(range(min = 1, max = 16_384))]
    pub stream_buffer_kib: u32,
    /// Seconds that a reader may stall with its buffer full before it is closed, 1 to 600. Default 30.
    #[schemars(range(min = 1, max = 600))]
    pub stalled_reader_s: u32,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            tls_handshake_s: 10,
            first_byte_s: 5,
            header_s: 10,
            body_min_bytes_per_s: 1_024,
            body_idle_s: 30,
            body_s: 300,
            idle_s: 60,
            connections: 10_000,
            connections_per_ip: 1_000,
            header_kib: 16,
            headers: 100,
            body_mib: 10,
            h2_streams: 100,
            h2_pending_reset_streams: 20,
            h2_local_reset_streams: 100,
            h2_header_list_kib: 16,
            h2_stream_window_kib: 64,
            h2_connection_window_kib: 1_024,
            stream_buffer_kib: 64,
            stalled_reader_s: 30,
        }
    }
}

impl Addresses {
    /// The `format` of one address in the JSON schema.
    pub(crate) const FORMAT: &'static str = "socket-address";
}

impl Default for Addresses {
    fn default() -> Self {
        use std::net::{Ipv4Addr, Ipv6Addr};
        Self(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 8443)), SocketAddr::from((Ipv6Addr::LOCALHOST, 8443))])
    }
}

impl Deref for Addresses {
    type Target = [SocketAddr];

    fn deref(&self) -> &[SocketAddr] {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum OneOrMany {
            One(SocketAddr),
            Many(Vec<SocketAddr>),
        }

        let addresses = match OneOrMany::deserialize(deserializer)? {
            OneOrMany::One(address) => vec![address],
            OneOrMany::Many(addresses) => addresses,
        };
        if addresses.is_empty() {
            return Err(serde::de::Error::custom("no address"));
        }
        Ok(Self(addresses))
    }
}

impl JsonSchema for Addresses {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        std::borrow::Cow::Borrowed("Addresses")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string", "format": "socket-address" },
                {
                    "type": "array",
                    "items": { "type": "string", "format": "socket-address" },
                    "minItems": 1,
                    "maxItems": 16
                }
            ]
        })
    }
}

fn default_dialects() -> Vec<Dialect> {
    vec![Dialect::OpenAi]
}
