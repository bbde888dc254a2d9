//! Who asks, and the head of what they send.

use std::net::IpAddr;

use crate::Attribute;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Unique within the tenant.
    pub id: String,
    /// `default` if none is given; part of every cache key, path and limit.
    pub tenant: String,
    /// E.g. `user`, `admin`.
    pub roles: Vec<String>,
    /// What may be done: `chat`, `models`, `admin`.
    pub scopes: Vec<String>,
    /// Models by name; `*` is all of them.
    pub models: Vec<String>,
    /// Taken where a request names no model.
    pub default_model: Option<String>,
    /// What an authenticator adds.
    pub attributes: Vec<Attribute>,
}

impl Principal {
    /// The tenant of those who have none.
    pub const DEFAULT_TENANT: &'static str = "default";

    /// Whether `scope` is among the scopes. `admin` includes every scope.
    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|held| held == scope || held == "admin")
    }

    /// Whether one of `names` (a model's id and aliases) may be used.
    pub fn may_use<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> bool {
        let mut names = names.into_iter();
        self.models.iter().any(|held| held == "*") || names.any(|name| self.models.iter().any(|held| held == name))
    }
}

/// A client's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// SHA-256 of the DER, 64 lower-case hex digits.
    pub fingerprint: String,
    /// The subject's distinguished name.
    pub subject: String,
    /// DNS names among the alternative names.
    pub dns_names: Vec<String>,
}

/// A request before its body: what an authenticator sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// Upper case.
    pub method: String,
    /// As sent, without the query.
    pub path: String,
    /// Names in lower case; what is not UTF-8 in a value is U+FFFD.
    pub headers: Vec<(String, String)>,
    /// The peer, or what a trusted proxy says.
    pub client_ip: IpAddr,
    /// The listener's id.
    pub listener: String,
    /// The client's certificate, if it showed one.
    pub peer_cert: Option<Certificate>,
}
