//! Why a request ends without the answer it asked for.

use std::fmt;

/// What kind of "no" it is. One file per dialect maps it to a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// No valid key.
    Unauthenticated,
    /// A valid key that may not do this.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// The request is wrong.
    Invalid,
    /// A policy stopped it.
    Blocked,
    /// Bigger than what is taken.
    TooLarge,
    /// Too many; later is fine.
    RateLimited,
    /// Not now.
    Unavailable,
}

impl RefusalKind {
    /// Every kind there is.
    pub const ALL: [RefusalKind; 8] = [
        RefusalKind::Unauthenticated,
        RefusalKind::Forbidden,
        RefusalKind::NotFound,
        RefusalKind::Invalid,
        RefusalKind::Blocked,
        RefusalKind::TooLarge,
        RefusalKind::RateLimited,
        RefusalKind::Unavailable,
    ];

    /// One word for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            RefusalKind::Unauthenticated => "unauthenticated",
            RefusalKind::Forbidden => "forbidden",
            RefusalKind::NotFound => "not-found",
            RefusalKind::Invalid => "invalid",
            RefusalKind::Blocked => "blocked",
            RefusalKind::TooLarge => "too-large",
            RefusalKind::RateLimited => "rate-limited",
            RefusalKind::Unavailable => "unavailable",
        }
    }
}

/// Why a request ends here. `message` is for the client, `detail` for the log alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What kind of "no".
    pub kind: RefusalKind,
    /// Stable and machine-readable.
    pub code: String,
    /// For the client.
    pub message: String,
    /// For the log; never leaves the gateway.
    pub detail: String,
    /// The request's field that is wrong, in the dialect's own words.
    pub field: Option<String>,
    /// In seconds.
    pub retry_after: Option<u32>,
}

impl Refusal {
    /// A refusal with nothing more to say.
    #[must_use]
    pub fn new(kind: RefusalKind, code: impl Into<String>, message: impl Into<String>) -> Self {
        Refusal { kind, code: code.into(), message: message.into(), detail: String::new(), field: None, retry_after: None }
    }

    /// The request is wrong.
    #[must_use]
    pub fn invalid(code: impl Into<String>, message: impl Into<String>) -> Self {
        Refusal::new(RefusalKind::Invalid, code, message)
    }

    /// Not now; the client may come back after `seconds`.
    #[must_use]
    pub fn unavailable(code: impl Into<String>, message: impl Into<String>, seconds: u32) -> Self {
        Refusal { retry_after: Some(seconds), ..Refusal::new(RefusalKind::Unavailable, code, message) }
    }

    /// Adds what the log should know and the client should not.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Names the request's field that is wrong.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for Refusal {}
