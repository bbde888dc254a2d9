//! The way back from the model thread: one answer to one who waits.

use std::fmt;

use tokio::sync::oneshot;

/// What a job comes to.
#[derive(Debug, Clone, PartialEq)]
pub enum Embedded {
    /// A vector of length 1 for each text, in their order.
    Vectors(Vec<Vec<f32>>),
    /// What the model's head says of each document, in their order, as it is: higher is nearer to the query.
    Scores(Vec<f32>),
}

/// Why a job comes to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EmbedError {
    /// A text is longer than the model reads, or a document with the query is.
    #[error("text {index} has {tokens} tokens and {most} is the most")]
    TooLong {
        /// Which text or document, from 0.
        index: usize,
        /// What it has, with the query's.
        tokens: usize,
        /// What it may have.
        most: u32,
    },
    /// The model does not do such work.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
    /// The deadline passed.
    #[error("the deadline has passed")]
    Late,
    /// The engine is stopping.
    #[error("the model is being stopped")]
    Stopped,
    /// The model could not compute it.
    #[error("the model failed: {0}")]
    Failed(String),
}

/// A job that is on its way. Dropping it ends the job: what has not begun is not computed.
pub struct Embedding(oneshot::Receiver<Result<Embedded, EmbedError>>);

/// The model thread's end.
pub(super) struct Answer(oneshot::Sender<Result<Embedded, EmbedError>>);

impl Embedding {
    /// What the job comes to.
    ///
    /// # Errors
    /// See [`EmbedError`].
    pub async fn outcome(self) -> Result<Embedded, EmbedError> {
        // The thread's end is dropped without an answer where the thread ends.
        self.0.await.unwrap_or(Err(EmbedError::Stopped))
    }
}

impl fmt::Debug for Embedding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Embedding")
    }
}

impl Answer {
    pub(super) fn new() -> (Self, Embedding) {
        let (sender, receiver) = oneshot::channel();
        (Answer(sender), Embedding(receiver))
    }

    /// Whether nobody waits any more.
    pub(super) fn is_unwanted(&self) -> bool {
        self.0.is_closed()
    }

    pub(super) fn give(self, outcome: Result<Embedded, EmbedError>) {
        // Who has left need not be told.
        let _ = self.0.send(outcome);
    }
}
