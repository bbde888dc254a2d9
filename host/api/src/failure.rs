//! Why a request gets no answer: a refusal in the words of `domain`, or one of the few reasons that only HTTP has.
//!
//! It names reasons, not statuses: each dialect maps them in one file (`openai/error.rs`).

use tollgate_domain::{Refusal, RefusalKind};
use tollgate_pipeline::Denied;

/// Why a request gets no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// In the words that all dialects share.
    Refused(Refusal),
    /// The path exists, but not for this method (RFC 9110, 15.5.6).
    WrongMethod {
        /// The value of `Allow`.
        allow: &'static str,
    },
    /// The body's media type is not JSON (RFC 9110, 15.5.16).
    NotJson,
    /// The body did not come in time (RFC 9110, 15.5.9).
    TooSlow,
    /// The gateway's own fault; the reason is for the log.
    Internal(&'static str),
}

impl Failure {
    /// There is nothing at this path. The path is not repeated: it may hold anything.
    pub(crate) fn unknown_path() -> Self {
        Failure::Refused(Refusal::new(RefusalKind::NotFound, "unknown_url", "There is nothing at this path."))
    }

    /// A reply that ended without saying so.
    pub(crate) fn unfinished() -> Self {
        Failure::Internal("the reply ended without its last event")
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Failure::Refused(refusal)
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        Failure::Refused(denied.refusal)
    }
}
