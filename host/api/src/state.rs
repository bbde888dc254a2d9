//! What the composition root hands in: per listener an [`ApiState`], per request a [`ClientInfo`].

use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use tollgate_pipeline::Pipeline;

/// What a listener's router works with. Clones share it.
#[derive(Debug, Clone)]
pub struct ApiState {
    /// Serves the requests.
    pub pipeline: Pipeline,
    /// The dialects that this listener speaks, by their names in the config; the routes of others do not exist on it.
    pub dialects: Arc<[&'static str]>,
    /// What `/metrics` answers; `None` where the path does not exist, which is on every listener that others can reach (P-E9).
    pub metrics: Option<MetricsSource>,
    /// Says what an error of the request's body means. The body comes from a crate that this one does not know.
    pub body_failure: fn(&(dyn Error + 'static)) -> BodyFailure,
}

/// Makes the text of `/metrics`, in Prometheus' format; `None` while the process is not complete. It reads files, so it is called
/// where that is allowed.
#[derive(Clone)]
pub struct MetricsSource(pub Arc<dyn Fn() -> Option<String> + Send + Sync>);

impl fmt::Debug for MetricsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MetricsSource")
    }
}

/// Who is at the other end. The composition root puts it into each request's extensions; a request without it is answered 500.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientInfo {
    /// The peer, or what a trusted proxy says.
    pub ip: IpAddr,
    /// The listener's id.
    pub listener: Arc<str>,
    /// `https`, or `http` on a plain listener.
    pub scheme: &'static str,
}

/// Why a request's body could not be read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFailure {
    /// More came than is taken.
    TooLarge {
        /// Bytes that are taken.
        limit: u64,
    },
    /// It came too slowly, or stopped coming.
    TooSlow,
    /// It is malformed, or the connection ended first.
    Broken,
}
