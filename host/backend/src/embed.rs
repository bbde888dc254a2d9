//! The trait of a model that turns texts into vectors.

use std::sync::Arc;

use crate::{BackendError, Memory, Token, Tokenizer};

/// A loaded model that turns texts into vectors. Like a [`crate::Backend`] it has no thread of its own.
pub trait Embedder: Send {
    /// How many numbers a vector has.
    fn dimensions(&self) -> u32;

    /// Its tokenizer, to be shared with other threads. It adds nothing to a text; what the model wants around one, [`Self::embed`]
    /// puts there.
    fn tokenizer(&self) -> Arc<dyn Tokenizer>;

    /// Tokens that a text may have, or a query and a document together, without those that are put around them.
    fn max_tokens(&self) -> u32;

    /// Bytes it takes.
    fn memory(&self) -> Memory;

    /// One vector of length 1 for each text, in their order.
    ///
    /// # Errors
    /// A text has more than [`Self::max_tokens`] tokens or one that the model does not know, or the model fails.
    fn embed(&mut self, texts: &[Vec<Token>]) -> Result<Vec<Vec<f32>>, BackendError>;

    /// Whether [`Self::rank`] works; [`Self::embed`] does not then.
    fn ranks(&self) -> bool {
        false
    }

    /// How near each document is to the query, in their order: what the model's head says, as it is. Higher is nearer.
    ///
    /// # Errors
    /// The model has no such head (see [`Self::ranks`]), the query and a document have more than [`Self::max_tokens`] tokens
    /// together or one that the model does not know, or the model fails.
    fn rank(&mut self, query: &[Token], documents: &[Vec<Token>]) -> Result<Vec<f32>, BackendError> {
        let _ = (query, documents);
        Err(BackendError::Unsupported("ranking documents"))
    }
}
