//! Why an engine does not start, and why it does not take a job.

use crate::chat::TemplateError;
use crate::sampling::OutOfRange;

/// Why a job is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The queue is full, or the tenant has its share of it.
    #[error("the queue is full")]
    QueueFull {
        /// When a place is likely, in seconds, 1 to 60.
        retry_after_s: u32,
    },
    /// The engine is stopping or has stopped.
    #[error("the model is being stopped")]
    Stopped,
    /// The prompt leaves no room for a reply.
    #[error("the prompt has {tokens} tokens and {limit} is the most")]
    TooLong {
        /// What it has.
        tokens: usize,
        /// What it may have.
        limit: usize,
    },
    /// A number outside its range.
    #[error("{field} has to be {range}")]
    Parameter {
        /// Its name in [`Parameters`](tollgate_domain::Parameters) or [`Job`](super::Job).
        field: &'static str,
        /// What it may be.
        range: &'static str,
    },
    /// `logit_bias` names a token that the model does not have.
    #[error("there is no token {token}: the model has {tokens}, from 0")]
    UnknownToken {
        /// What it names.
        token: u32,
        /// How many there are.
        tokens: usize,
    },
}

impl From<OutOfRange> for SubmitError {
    fn from(OutOfRange { field, range }: OutOfRange) -> Self {
        SubmitError::Parameter { field, range }
    }
}

/// Why an engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A number in [`Settings`](super::Settings) or in what the backend says of itself is outside its range.
    #[error("{field} has to be {range}")]
    Setting {
        /// Its name.
        field: &'static str,
        /// What it may be.
        range: &'static str,
    },
    /// The model's chat template cannot be used.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The operating system has no thread for it.
    #[error("cannot start the model's thread: {0}")]
    Thread(#[source] std::io::Error),
}
