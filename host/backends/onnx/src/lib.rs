//! ONNX models through ONNX Runtime, on the CPU.
//!
//! A folder that optimum exported runs as it is: a decoder with `past_key_values` as an [`Onnx`] backend, an encoder as an
//! [`OnnxEmbedder`]. The runtime is a library of its own, loaded when the first model is ([`find_library`]): nothing of it is in
//! the binary, and a gateway without ONNX models does without.

mod decoder;
mod embedder;
mod graph;
mod library;
mod session;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tollgate_backend::{AdapterId, Backend, BackendError, Capabilities, DecodeError, Memory, Row, SequenceId, Tokenizer};
use tollgate_backend_hf::{Folder, HfTokenizer, Limits, Stepper};

use crate::decoder::Decoder;
pub use crate::embedder::OnnxEmbedder;
pub use crate::library::find_library;

/// Tokens of all sequences, where nothing else is said.
const DEFAULT_CONTEXT: usize = 4_096;

/// How to load a model.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The folder with `config.json`, `tokenizer.json` and the model.
    pub folder: PathBuf,
    /// The model's file in the folder, as in `onnx/model.onnx`.
    pub graph: PathBuf,
    /// Whether nobody but the gateway writes in the folder. Its files get names more and less then, and stay what they are.
    pub is_ours: bool,
    /// ONNX Runtime, 1.24 or later; see [`find_library`].
    pub library: PathBuf,
    /// Tokens that all sequences together can hold; by default what the model was trained for, 4,096 at most. An encoder has
    /// none.
    pub context_tokens: Option<u32>,
    /// Sequences alive at once, 1 to 256.
    pub sequences: u16,
    /// Rows of a step.
    pub step_rows: u32,
    /// Threads that compute; by default the machine's cores.
    pub threads: Option<u16>,
}

/// A loaded decoder.
pub struct Onnx {
    stepper: Stepper<Decoder>,
    tokenizer: Arc<HfTokenizer>,
    template: Option<String>,
    memory: Memory,
}

impl Onnx {
    /// Loads a model.
    ///
    /// # Errors
    /// The folder is no decoder, or ONNX Runtime is not there; the text says what to do.
    pub fn load(settings: &Settings) -> Result<Self, BackendError> {
        let folder = Folder::open(&settings.folder)?;
        let trained = trained(&folder)?;
        let source = session::Source::of(settings);
        let (session, weights) = session::open(settings)?;
        let decoder = Decoder::new(session, source, folder.config())?;
        let words = decoder.words();
        let tokenizer = folder.tokenizer(Some(words))?;
        let context = match settings.context_tokens {
            Some(tokens) => usize::try_from(tokens).unwrap_or(usize::MAX).max(1),
            None => trained.unwrap_or(DEFAULT_CONTEXT).min(DEFAULT_CONTEXT),
        };
        let cells = u64::try_from(context).unwrap_or(u64::MAX);
        let logits = u64::from(settings.step_rows).saturating_mul(u64::try_from(words).unwrap_or(u64::MAX)).saturating_mul(4);
        let memory = Memory { weights, cache: decoder.token_bytes().saturating_mul(cells), compute: logits };
        let limits = Limits {
            sequences: settings.sequences,
            context_tokens: u32::try_from(context).unwrap_or(u32::MAX),
            sequence_tokens: u32::try_from(trained.unwrap_or(context).min(context)).unwrap_or(u32::MAX),
            step_rows: settings.step_rows,
            words,
            can_cut: decoder.can_cut(),
        };
        let template = folder.chat_template().map(str::to_owned);
        Ok(Onnx { stepper: Stepper::new(decoder, limits), tokenizer, template, memory })
    }
}

/// Positions that the model was trained for, where its config says so.
fn trained(folder: &Folder) -> Result<Option<usize>, BackendError> {
    for key in ["max_position_embeddings", "n_positions", "n_ctx"] {
        if let Some(positions) = folder.config().count(key, 1..=16_777_216)? {
            return Ok(Some(positions));
        }
    }
    Ok(None)
}

impl Backend for Onnx {
    fn capabilities(&self) -> &Capabilities {
        self.stepper.capabilities()
    }

    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        Arc::clone(&self.tokenizer) as _
    }

    fn chat_template(&self) -> Option<&str> {
        self.template.as_deref()
    }

    fn memory(&self) -> Memory {
        self.memory
    }

    fn decode(&mut self, rows: &[Row]) -> Result<(), DecodeError> {
        self.stepper.decode(rows)
    }

    fn logits(&self, row: usize) -> Option<&[f32]> {
        self.stepper.logits(row)
    }

    fn copy_prefix(&mut self, from: SequenceId, to: SequenceId, length: u32) -> Result<(), BackendError> {
        self.stepper.copy_prefix(from, to, length)
    }

    fn truncate(&mut self, sequence: SequenceId, length: u32) -> Result<(), BackendError> {
        self.stepper.truncate(sequence, length)
    }

    fn load_adapter(&mut self, path: &Path, scale: f32) -> Result<AdapterId, BackendError> {
        self.stepper.load_adapter(path, scale)
    }

    fn drop_adapter(&mut self, adapter: AdapterId) {
        self.stepper.drop_adapter(adapter);
    }

    fn select_adapter(&mut self, adapter: Option<AdapterId>) -> Result<(), BackendError> {
        self.stepper.select_adapter(adapter)
    }
}
