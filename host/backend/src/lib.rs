//! The step-level trait of an inference backend, and its token words.
//!
//! A backend decodes one batch at a time and knows nothing of requests, sampling, chat or HTTP: those are one implementation in
//! `inference`, the same for every backend. It has no async runtime and no thread of its own; its owner calls it from one thread.

mod embed;
mod state;
mod vocabulary;

pub use embed::Embedder;
pub use state::{Owner, State};
pub use vocabulary::{Token, TokenKind, Vocabulary};

use std::path::Path;
use std::sync::Arc;

/// One sequence's place in the backend's memory, from 0 to [`Capabilities::max_sequences`] - 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId(pub u16);

/// An adapter (LoRA) that was loaded beside a model, with how strongly it counts. Numbered from 1; no number is used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AdapterId(pub u32);

/// One token of one sequence in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// What to decode.
    pub token: Token,
    /// Its place in the sequence, from 0.
    pub position: u32,
    /// The sequence.
    pub sequence: SequenceId,
    /// Whether the next token will be sampled from this row.
    pub wants_logits: bool,
}

/// What a loaded model can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// Sequences that can be alive at once; 1 to 256.
    pub max_sequences: u16,
    /// Tokens that all sequences together can hold.
    pub context_tokens: u32,
    /// Tokens that one sequence can hold: what the model was trained for, or the context if that is less.
    pub sequence_tokens: u32,
    /// Rows that one step may have.
    pub step_rows: u32,
    /// Whether [`Backend::copy_prefix`] works.
    pub prefix_copy: bool,
    /// Whether a copy counts once with what it was copied from; else it counts in full against [`Self::context_tokens`].
    pub copies_share: bool,
    /// Whether [`Backend::truncate`] works at any position, not only at 0.
    pub partial_remove: bool,
    /// Whether [`Backend::load_adapter`] and [`Backend::select_adapter`] work.
    pub adapters: bool,
    /// Whether [`Backend::save`] and [`Backend::restore`] work.
    pub state: bool,
    /// Whether image parts can be decoded.
    pub images: bool,
}

/// Bytes that a model takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Weights, mapped or resident.
    pub weights: u64,
    /// The key-value cache at its full size.
    pub cache: u64,
    /// Compute buffers.
    pub compute: u64,
}

impl Memory {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.cache).saturating_add(self.compute)
    }
}

/// Text to tokens, from any thread.
pub trait Tokenizer: Send + Sync {
    /// The words.
    fn vocabulary(&self) -> &Vocabulary;

    /// Splits `text`. Control tokens written out in the text become control tokens only with `parse_special`: text from outside
    /// is tokenized without.
    ///
    /// # Errors
    /// The text cannot be tokenized (it is too long for the backend's integers).
    fn tokenize(&self, text: &str, parse_special: bool) -> Result<Vec<Token>, BackendError>;
}

/// A loaded model that decodes a batch.
pub trait Backend: Send {
    /// What it can do.
    fn capabilities(&self) -> &Capabilities;

    /// Its tokenizer, to be shared with other threads.
    fn tokenizer(&self) -> Arc<dyn Tokenizer>;

    /// The chat template that came with the model, in Jinja.
    fn chat_template(&self) -> Option<&str>;

    /// Bytes it takes.
    fn memory(&self) -> Memory;

    /// Decodes one step: at most [`Capabilities::step_rows`] rows, those of one sequence in the order of their positions. As many rows
    /// as there are sequences may want logits.
    ///
    /// # Errors
    /// After [`DecodeError::Full`] nothing was decoded; after [`DecodeError::Failed`] the rows' sequences are in an unknown state
    /// and have to be truncated to 0.
    fn decode(&mut self, rows: &[Row]) -> Result<(), DecodeError>;

    /// The logits of a row of the last step that wanted them, one for each word of the vocabulary; `row` is its index in that
    /// step. `None` for a row that did not want them.
    fn logits(&self, row: usize) -> Option<&[f32]>;

    /// Makes the first `length` tokens of `from` those of `to` as well, sharing memory where [`Capabilities::copies_share`] says
    /// so. `to` is empty before, and after an error.
    ///
    /// # Errors
    /// The backend cannot (see [`Capabilities::prefix_copy`]), or there is no room for a copy that counts in full.
    fn copy_prefix(&mut self, from: SequenceId, to: SequenceId, length: u32) -> Result<(), BackendError>;

    /// Forgets what `sequence` holds from `length` on; 0 frees it.
    ///
    /// # Errors
    /// The backend cannot (see [`Capabilities::partial_remove`]).
    fn truncate(&mut self, sequence: SequenceId, length: u32) -> Result<(), BackendError>;

    /// Copies what `sequence` holds out of the backend's memory, if that takes `most_bytes` at most; `None` if it takes more. The
    /// sequence stays as it is.
    ///
    /// # Errors
    /// The backend cannot (see [`Capabilities::state`]), or the sequence is empty.
    fn save(&mut self, sequence: SequenceId, most_bytes: usize) -> Result<Option<State>, BackendError> {
        let _ = (sequence, most_bytes);
        Err(BackendError::Unsupported("saving a sequence"))
    }

    /// Makes `sequence` hold what was saved of it or another, as if it had just been decoded, in cells of its own. It is empty before,
    /// and after an error.
    ///
    /// # Errors
    /// The backend cannot (see [`Capabilities::state`]), another loaded model saved it, or there is no room.
    fn restore(&mut self, sequence: SequenceId, state: &State) -> Result<(), BackendError> {
        let _ = (sequence, state);
        Err(BackendError::Unsupported("restoring a sequence"))
    }

    /// Loads an adapter beside the model, which counts as much as `scale` says: 0 is nothing, 1 as it was trained. The path is that of
    /// a file or of a folder, as the backend has it, and is not needed afterwards.
    ///
    /// # Errors
    /// The backend cannot (see [`Capabilities::adapters`]), or this is no adapter of its model.
    fn load_adapter(&mut self, path: &Path, scale: f32) -> Result<AdapterId, BackendError> {
        let _ = (path, scale);
        Err(BackendError::Unsupported("an adapter"))
    }

    /// Frees an adapter. If steps are decoded with it, they are decoded with none from now on.
    fn drop_adapter(&mut self, adapter: AdapterId) {
        let _ = adapter;
    }

    /// Which adapter the next steps are decoded with, all their rows; `None`, as in the beginning, is the model alone. A sequence
    /// holds what its adapter made of its tokens: all its rows have to be decoded with the same one. Cheap where nothing changes.
    ///
    /// # Errors
    /// There is no such adapter.
    fn select_adapter(&mut self, adapter: Option<AdapterId>) -> Result<(), BackendError> {
        adapter.map_or(Ok(()), |_| Err(BackendError::Unsupported("an adapter")))
    }
}

/// A step failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No room in the key-value cache; make room or send fewer rows.
    #[error("no room for {rows} tokens in the key-value cache")]
    Full {
        /// How many rows the step had.
        rows: usize,
    },
    /// The backend could not decode.
    #[error("the backend failed: {0}")]
    Failed(String),
}

/// Anything else failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The model cannot be loaded; the text says what is wrong with it.
    #[error("cannot load the model: {0}")]
    Load(String),
    /// This backend or model has no such ability.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
    /// The text cannot be tokenized.
    #[error("cannot tokenize the text: {0}")]
    Tokenize(String),
    /// The backend could not do it.
    #[error("the backend failed: {0}")]
    Failed(String),
}
