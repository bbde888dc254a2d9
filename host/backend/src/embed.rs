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

    /// Tokens that a text may have, without those that [`Self::embed`] puts around it.
    fn max_tokens(&self) -> u32;

    /// Bytes it takes.
    fn memory(&self) -> Memory;

    /// One vector of length 1 for each text, in their order.
    ///
    /// # Errors
    /// A text has more than [`Self::max_tokens`] tokens or one that the model does not know, or the model fails.
    fn embed(&mut self, texts: &[Vec<Token>]) -> Result<Vec<Vec<f32>>, BackendError>;
}
