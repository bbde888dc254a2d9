//! `[telemetry]` of `tollgate.toml`: where traces go. Nothing is sent here.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::{Malformed, text_type};

/// Traces, sent by OTLP over HTTP. Off without an endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// The collector, such as `http://127.0.0.1:4318`; where it has no path, `/v1/traces` is added. Without it there are no traces.
    pub endpoint: Option<Endpoint>,
    /// The share of traces that is kept, 0 to 1, told by the trace's id. Default 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sampling: f64,
    /// A caller's `traceparent` says whether its trace is kept, instead of `sampling`. Default false.
    pub follow_parent: bool,
    /// What the gateway is called in traces. Default `tollgate`.
    #[schemars(length(min = 1, max = 128))]
    pub service_name: String,
    /// A file with a `name: value` per line, sent as headers: for collectors that want a key. Absolute or relative to the config
    /// directory. Refused where the endpoint is neither `https` nor on loopback.
    pub headers_file: Option<PathBuf>,
    /// The authorities to trust for an `https` endpoint, in PEM; absolute or relative to the config directory. Default the system's.
    pub ca: Option<PathBuf>,
    /// Spans that may wait to be sent, 64 to 65536; what comes when they are full is dropped and counted. Default 4096.
    #[schemars(range(min = 64, max = 65_536))]
    pub queue: u32,
    /// Seconds until what waits is sent, 1 to 300. Default 5.
    #[schemars(range(min = 1, max = 300))]
    pub interval_s: u32,
    /// Seconds that sending may take, tries included, 1 to 60. Default 10.
    #[schemars(range(min = 1, max = 60))]
    pub timeout_s: u32,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            endpoint: None,
            sampling: 1.0,
            follow_parent: false,
            service_name: "tollgate".to_owned(),
            headers_file: None,
            ca: None,
            queue: 4_096,
            interval_s: 5,
            timeout_s: 10,
        }
    }
}

/// An `http` or `https` URL without user, query and fragment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    is_tls: bool,
    host: String,
    port: u16,
    path: String,
}

impl Endpoint {
    /// Whether it is `https`.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// The host name or address; an IPv6 address without its brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 80 or 443 where none is written.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path, beginning with `/`; empty where none is written.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether it is this machine, or an address of a private range (RFC 1918, RFC 4193). A name may lead anywhere.
    #[must_use]
    pub fn is_private(&self) -> bool {
        let is_private = |address: IpAddr| match address.to_canonical() {
            IpAddr::V4(address) => address.is_private(),
            IpAddr::V6(address) => address.is_unique_local(),
        };
        self.is_loopback() || self.host.parse::<IpAddr>().is_ok_and(is_private)
    }

    /// Whether it is this machine, by an address of loopback or the name `localhost`.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl FromStr for Endpoint {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let (is_tls, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            _ => return Err(Self::MALFORMED),
        };
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (host, port) = match authority.strip_prefix('[') {
            Some(bracketed) => bracketed.split_once(']').ok_or(Self::MALFORMED)?,
            None => authority.find(':').map_or((authority, ""), |at| authority.split_at(at)),
        };
        let is_bracketed = authority.starts_with('[');
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        let is_host =
            if is_bracketed { host.parse::<std::net::Ipv6Addr>().is_ok() } else { !host.is_empty() && host.bytes().all(is_name) };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() && is_tls => 443,
            None if port.is_empty() => 80,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|port| *port != 0).ok_or(Self::MALFORMED)?
            }
            _ => return Err(Self::MALFORMED),
        };
        let is_path = path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte));
        if text.len() > 2_048 || !is_host || !is_path {
            return Err(Self::MALFORMED);
        }
        let path = if path == "/" { "" } else { path };
        Ok(Self { is_tls, host: host.to_owned(), port, path: path.to_owned() })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{scheme}://{open}{}{close}:{}{}", self.host, self.port, self.path)
    }
}

text_type!(
    Endpoint,
    "http-endpoint",
    "an HTTP address",
    "write one such as `http://127.0.0.1:4318` or `https://collector.example/v1/traces`, without user, query and fragment"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_taken_apart() {
        for (text, shown) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318"),
            ("http://collector:4318/", "http://collector:4318"),
            ("https://otlp.example.org/v1/traces", "https://otlp.example.org:443/v1/traces"),
            ("http://[::1]:4318/x", "http://[::1]:4318/x"),
            ("http://localhost", "http://localhost:80"),
        ] {
            let endpoint = text.parse::<Endpoint>().expect(text);
            assert_eq!(endpoint.to_string(), shown);
            assert_eq!(endpoint.to_string().parse::<Endpoint>().as_ref(), Ok(&endpoint));
        }
        assert!("http://[::1]:4318".parse::<Endpoint>().expect("valid").is_loopback());
        assert!(!"http://localhost.example.org".parse::<Endpoint>().expect("valid").is_loopback());
        for (host, is_private) in
            [("10.1.2.3", true), ("[fd00::1]", true), ("[::1]", true), ("8.8.8.8", false), ("ollama", false)]
        {
            let endpoint = format!("http://{host}:11434").parse::<Endpoint>().expect("valid");
            assert_eq!(endpoint.is_private(), is_private, "{host}");
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        for bad in [
            "",
            "collector:4318",
            "grpc://collector:4317",
            "http://",
            "http://:80",
            "http://a:0",
            "http://a:65536",
            "http://a:+1",
            "http://user:password@a",
            "http://a/?key=x",
            "http://a/b c",
            "http://a b",
            "http://[::1",
            "http://[a]",
            "http://[::1]x",
            "http://::1",
        ] {
            assert_eq!(bad.parse::<Endpoint>(), Err(Endpoint::MALFORMED), "{bad}");
        }
    }
}
