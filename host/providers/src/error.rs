//! What goes wrong with a provider, and what that means: try again, let another model answer, leave the provider alone.
//!
//! The texts are for the log. No key, no address and nothing of an answer is in them but statuses and codes.

use std::path::PathBuf;

/// A provider cannot be used, or ends a reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// It failed too often of late.
    #[error("the provider failed again and again and is left alone for {retry_after_s} s more")]
    Open {
        /// Seconds until it is tried again, at least 1.
        retry_after_s: u32,
    },
    /// There is no connection, or it broke before there was an answer.
    #[error("the provider cannot be reached: {0}")]
    Unreachable(String),
    /// The first token was not there in time.
    #[error("the provider gave no first token in time: raise first_token_s under [provider], or look at what keeps it")]
    Late,
    /// The next piece was not there in time.
    #[error("the provider fell silent in its reply: raise idle_s under [provider], or look at what keeps it")]
    Stalled,
    /// The request has no time left.
    #[error("the request's deadline passed before the provider was done")]
    Deadline,
    /// A status that is none of success.
    #[error("the provider answered {status}{}", in_brackets(code.as_deref()))]
    Status {
        /// The HTTP status.
        status: u16,
        /// What the answer calls it, where that is a word.
        code: Option<String>,
        /// Seconds that the provider asks to wait.
        retry_after_s: Option<u32>,
    },
    /// An error in the middle of a reply.
    #[error("the provider reported an error in its reply{}", in_brackets(code.as_deref()))]
    Reported {
        /// What it calls it, where that is a word.
        code: Option<String>,
    },
    /// The connection ended before the reply did.
    #[error("the provider's reply broke off: {0}")]
    Cut(String),
    /// It is not what such a provider says.
    #[error("the provider's reply cannot be read: {0}")]
    Malformed(&'static str),
    /// It is longer than any reply.
    #[error("the provider's reply is longer than {limit} bytes")]
    TooLarge {
        /// In bytes.
        limit: usize,
    },
    /// JSON was asked for.
    #[error("the provider's reply is no JSON, which was asked for")]
    NotJson,
    /// The request has what a provider's model cannot keep.
    #[error("a model of a provider takes no `{field}`")]
    Unsupported {
        /// In the words of OpenAI's request.
        field: &'static str,
    },
    /// The key's file cannot be used.
    #[error("{}: {reason}: put the provider's key there, alone in the file", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The client cannot be made.
    #[error("{0}")]
    Setup(String),
}

impl ProviderError {
    /// One word for logs and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            ProviderError::Open { .. } => "breaker_open",
            ProviderError::Unreachable(_) | ProviderError::Cut(_) => "unreachable",
            ProviderError::Late | ProviderError::Stalled | ProviderError::Deadline => "timeout",
            ProviderError::Status { status: 429, .. } => "rate_limited",
            ProviderError::Status { status: 500..=599, .. } | ProviderError::Reported { .. } => "server_error",
            ProviderError::Status { .. } => "refused",
            ProviderError::Malformed(_) | ProviderError::TooLarge { .. } | ProviderError::NotJson => "malformed",
            ProviderError::Unsupported { .. } => "unsupported",
            ProviderError::Key { .. } | ProviderError::Setup(_) => "setup",
        }
    }

    /// Whether it is the request that is wrong, and not the provider.
    #[must_use]
    pub fn is_of_request(&self) -> bool {
        matches!(self, ProviderError::Unsupported { .. } | ProviderError::Status { status: 400 | 413 | 415 | 422, .. })
    }

    /// Whether another model may answer in its place, before the first token.
    #[must_use]
    pub fn may_fall_back(&self) -> bool {
        !self.is_of_request() && *self != ProviderError::Deadline
    }

    /// Whether another try may go better.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            ProviderError::Unreachable(_) | ProviderError::Late | ProviderError::Cut(_) | ProviderError::Reported { .. } => true,
            ProviderError::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
            _ => false,
        }
    }
}

/// A word from an answer, as far as it looks like one: anything else may hold what the log must not.
pub(crate) fn word(text: &str) -> Option<String> {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    let looks = !text.is_empty() && text.len() <= 48 && text.bytes().all(is_word);
    looks.then(|| text.to_owned())
}

fn in_brackets(code: Option<&str>) -> String {
    code.map(|code| format!(" ({code})")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(status: u16) -> ProviderError {
        ProviderError::Status { status, code: word("rate_limit_exceeded"), retry_after_s: None }
    }

    #[test]
    fn what_a_status_means() {
        for (code, may_pass, may_fall_back) in [
            (400, false, false),
            (401, false, true),
            (404, false, true),
            (408, true, true),
            (413, false, false),
            (429, true, true),
            (500, true, true),
            (503, true, true),
        ] {
            assert_eq!((status(code).may_pass(), status(code).may_fall_back()), (may_pass, may_fall_back), "{code}");
        }
        assert_eq!(status(429).to_string(), "the provider answered 429 (rate_limit_exceeded)");
    }

    #[test]
    fn only_words_are_repeated() {
        assert_eq!(word("context_length_exceeded").as_deref(), Some("context_length_exceeded"));
        for text in ["", "Incorrect API key provided: sk-1", "sk-abcdef", "a b", "key1", &"a".repeat(49)] {
            assert_eq!(word(text), None, "{text}");
        }
    }
}
