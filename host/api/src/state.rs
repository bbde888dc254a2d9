//! What the composition root hands in: per listener an [`ApiState`], per request a [`ClientInfo`].

use std::error::Error;
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
    /// Says what an error of the request's body means. The body comes from a crate that this one does not know.
    pub body_failure: fn(&(dyn Error + 'static)) -> BodyFailure,
}

/// Who is at the other end. The composition root puts it into each request's extensions; a request without it is answered 500.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientInfo {
    /// The peer, or what a trusted proxy says.
    pub ip: IpAddr,
    /// The listener's id.
    pub listener: Arc<str>,
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
