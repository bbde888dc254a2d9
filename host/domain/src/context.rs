//! What is known of a request around the calls made for it.

use crate::{Attribute, Principal};

/// What every hook but `authenticate` is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// The request's id, also in the answer's `x-request-id`.
    pub request_id: String,
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub received_at_ms: u64,
    /// The same clock; the request ends with an error after it.
    pub deadline_ms: u64,
    /// The listener's id.
    pub listener: String,
    /// E.g. `openai`.
    pub dialect: String,
    /// The route's id.
    pub route: String,
    /// Who asks.
    pub principal: Principal,
    /// The model that will answer.
    pub model: String,
    /// Whether the client asked for a stream.
    pub is_stream: bool,
    /// The conversation, where the dialect has one.
    pub conversation: Option<String>,
    /// What the route says.
    pub attributes: Vec<Attribute>,
}

/// Something worth counting that a filter saw; never the text itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// What was seen.
    pub name: String,
    /// How often.
    pub count: u32,
}
