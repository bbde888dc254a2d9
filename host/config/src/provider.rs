//! `[provider]` of a model: another server that answers for it, over HTTP. Nothing is sent here.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::telemetry::Endpoint;
use crate::text::{Malformed, text_type};

/// Who answers for a model that does not run here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// The protocol that it speaks.
    pub kind: ProviderKind,
    /// Where it is: `https://api.example.com/v1`, `http://127.0.0.1:11434`. For `openai`, `/chat/completions` is added, and `/v1`
    /// before it where there is no path; for `ollama`, `/api/chat`. `[models] egress` in `tollgate.toml` has to grant it.
    pub endpoint: Endpoint,
    /// What it calls the model, 1 to 256 characters.
    #[schemars(length(min = 1, max = 256))]
    pub model: String,
    /// A file with the key alone, sent as `Authorization: Bearer KEY`; absolute or relative to the config directory, mode 0600. It
    /// is read for every request, so that a new key counts at once.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// The authorities to trust for an `https` endpoint, in PEM; absolute or relative to the config directory. Default the system's.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// Whether prompts may go unencrypted to an `http` endpoint that is neither on loopback nor an address of a private range.
    /// Default false.
    #[serde(default)]
    pub insecure: bool,
    /// Seconds for a connection, 1 to 60. Default 5.
    #[serde(default = "default_connect_s")]
    #[schemars(range(min = 1, max = 60))]
    pub connect_s: u32,
    /// Seconds for one try from its begin to the first token, 1 to 3600. Default 60.
    #[serde(default = "default_first_token_s")]
    #[schemars(range(min = 1, max = 3_600))]
    pub first_token_s: u32,
    /// Seconds between two pieces of a reply, 1 to 3600. Default 30.
    #[serde(default = "default_idle_s")]
    #[schemars(range(min = 1, max = 3_600))]
    pub idle_s: u32,
    /// Tries before the first token, 1 to 5; none after it. Default 2.
    #[serde(default = "default_tries")]
    #[schemars(range(min = 1, max = 5))]
    pub tries: u32,
}

/// A protocol of providers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProviderKind {
    /// OpenAI's chat completions, which vLLM, llama-server and Tollgate speak as well.
    OpenAi,
    /// Ollama's own protocol.
    Ollama,
}

fn default_connect_s() -> u32 {
    5
}

fn default_first_token_s() -> u32 {
    60
}

fn default_idle_s() -> u32 {
    30
}

fn default_tries() -> u32 {
    2
}

/// A host and a port that requests may go to: `api.example.com:443`, `10.0.0.5:11434`, `[fd00::5]:11434`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    host: String,
    port: u16,
}

impl HostPort {
    /// Where requests to `endpoint` go.
    #[must_use]
    pub fn of(endpoint: &Endpoint) -> Self {
        Self { host: endpoint.host().to_ascii_lowercase(), port: endpoint.port() }
    }
}

impl FromStr for HostPort {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let endpoint = format!("http://{text}").parse::<Endpoint>().map_err(|_| Self::MALFORMED)?;
        // The port has to be written: which of two was meant cannot be known.
        let is_whole = endpoint.path().is_empty() && text.ends_with(&format!(":{}", endpoint.port()));
        if is_whole { Ok(Self::of(&endpoint)) } else { Err(Self::MALFORMED) }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

text_type!(
    HostPort,
    "host-port",
    "a host with its port",
    "write one such as `api.example.com:443` or `[fd00::5]:11434`, without a scheme and a path"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_of_one_host_and_one_port() {
        for text in ["api.example.com:443", "127.0.0.1:11434", "[fd00::5]:80"] {
            let granted = text.parse::<HostPort>().expect(text);
            assert_eq!(granted.to_string(), text);
        }
        let endpoint = "https://API.example.com/v1".parse::<Endpoint>().expect("valid");
        assert_eq!(Ok(HostPort::of(&endpoint)), "api.example.com:443".parse::<HostPort>());
        assert_ne!(Ok(HostPort::of(&endpoint)), "api.example.com:80".parse::<HostPort>());
        for bad in ["", "api.example.com", "https://a:443", "a:443/v1", "a:443/", "a:0", "*:443", "user@a:443", "a:080", "::1:80"]
        {
            assert_eq!(bad.parse::<HostPort>(), Err(HostPort::MALFORMED), "{bad}");
        }
    }
}
