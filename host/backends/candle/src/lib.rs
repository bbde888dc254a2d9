//! Safetensors models through candle, in f32 on the CPU.
//!
//! A Hugging Face folder runs as it is: a decoder as a [`Candle`] backend, an encoder of the BERT family as a [`CandleEmbedder`].
//! That is for small models and for what llama.cpp does not know; where speed counts, a folder is converted to GGUF.

mod decoder;
mod embedder;
mod layers;
mod rope;
mod spec;
mod weights;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::{ThreadPool, ThreadPoolBuilder};
use tollgate_backend::{AdapterId, Backend, BackendError, Capabilities, DecodeError, Memory, Row, SequenceId, Tokenizer};
use tollgate_backend_hf::{Folder, HfTokenizer, Limits, Stepper};
pub use tollgate_backend_hf::{LoraHeader, LoraShape};

use crate::decoder::Decoder;
pub use crate::embedder::CandleEmbedder;
use crate::spec::Spec;
use crate::weights::Weights;

/// Tokens of all sequences, where nothing else is said.
const DEFAULT_CONTEXT: usize = 4_096;

/// How to load a model.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The Hugging Face folder.
    pub folder: PathBuf,
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
pub struct Candle {
    stepper: Stepper<Decoder>,
    tokenizer: Arc<HfTokenizer>,
    template: Option<String>,
    memory: Memory,
}

impl Candle {
    /// Loads a model. Takes as long as reading the files does, and twice their memory for a moment.
    ///
    /// # Errors
    /// The folder is no model, or of a family that is not computed here.
    pub fn load(settings: &Settings) -> Result<Self, BackendError> {
        let folder = Folder::open(&settings.folder)?;
        let spec = Spec::read(folder.config())?;
        let tokenizer = folder.tokenizer(Some(spec.words))?;
        let context = settings.context_tokens.map_or_else(|| spec.trained.min(DEFAULT_CONTEXT), to_usize).max(1);
        let sequence = context.min(spec.trained);
        let weights = Weights::load(&folder)?;
        let memory = memory(&spec, settings, weights.bytes(), context, sequence);
        let limits = Limits {
            sequences: settings.sequences,
            context_tokens: u32::try_from(context).unwrap_or(u32::MAX),
            sequence_tokens: u32::try_from(sequence).unwrap_or(u32::MAX),
            step_rows: settings.step_rows,
            words: spec.words,
            can_cut: true,
        };
        let decoder = Decoder::load(spec, &weights, sequence, pool(settings.threads)?)?;
        let template = folder.chat_template().map(str::to_owned);
        Ok(Candle { stepper: Stepper::new(decoder, limits), tokenizer, template, memory })
    }
}

/// Whether the model in `folder` is of a type that candle computes here, from weights that are not quantized.
///
/// # Errors
/// There is no `config.json`, or a file is not what it should be.
pub fn is_known(folder: &Path) -> Result<bool, BackendError> {
    Spec::is_known(Folder::open(folder)?.config())
}

/// Bytes that a model will take, from its config and the bytes of its weights at f32.
///
/// # Errors
/// Its config is not one of a model that candle runs here.
pub fn predict(settings: &Settings, weights: u64) -> Result<Memory, BackendError> {
    let folder = Folder::open(&settings.folder)?;
    let spec = Spec::read(folder.config())?;
    let context = settings.context_tokens.map_or_else(|| spec.trained.min(DEFAULT_CONTEXT), to_usize).max(1);
    let sequence = context.min(spec.trained);
    Ok(memory(&spec, settings, weights, context, sequence))
}

/// Bytes of a model: weights, keys and values at f32, and what a step of full length computes with at once.
fn memory(spec: &Spec, settings: &Settings, weights: u64, context: usize, sequence: usize) -> Memory {
    let product = |factors: &[usize]| {
        factors.iter().fold(4_u64, |bytes, factor| bytes.saturating_mul(u64::try_from(*factor).unwrap_or(u64::MAX)))
    };
    let rows = to_usize(settings.step_rows).min(sequence);
    // Scores before and after the mask and as probabilities; the feed-forward layer's halves and their product; a row of logits
    // for each sequence; sines and cosines of every position.
    let scores = product(&[3, spec.heads, rows, sequence]);
    let inner = product(&[3, rows, spec.inner.max(spec.hidden)]);
    let logits = product(&[usize::from(settings.sequences.max(1)), spec.words]);
    let pairs = spec.rope.inverse.len() + spec.local_rope.as_ref().map_or(0, |local| local.inverse.len());
    let ropes = product(&[2, pairs, sequence]);
    Memory {
        weights,
        cache: product(&[2, spec.windowed.len(), spec.kv_width(), context]),
        compute: [inner, logits, ropes].into_iter().fold(scores, u64::saturating_add),
    }
}

/// Threads of its own for a model that asks for a number of them.
fn pool(threads: Option<u16>) -> Result<Option<ThreadPool>, BackendError> {
    let Some(threads) = threads else { return Ok(None) };
    let builder =
        ThreadPoolBuilder::new().num_threads(usize::from(threads.max(1))).thread_name(|index| format!("candle-{index}"));
    let pool = builder.build().map_err(|error| BackendError::Load(format!("{threads} threads cannot be started: {error}")))?;
    Ok(Some(pool))
}

fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl Backend for Candle {
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
