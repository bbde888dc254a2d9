//! The llama.cpp backend: GGUF models on the CPU.
//!
//! Model, vocabulary and tokenizer are llama-cpp-2's; the context is our own thin type over the sys crate ([`context`]), since the
//! safe one borrows its model and hides calls that the scheduler needs. A [`LlamaEmbedder`] has one of its own kind. ggml's threads are ours as well ([`openmp`]). Nothing here
//! samples, streams or knows of chat.

mod batch;
mod cache;
mod context;
mod embedder;
mod openmp;
mod patience;
mod quantize;
mod team;
mod tokenizer;
mod tuning;
mod weights;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::{LogOptions, send_logs_to_tracing};
use tollgate_backend::{
    AdapterId, Backend, BackendError, Capabilities, DecodeError, Memory, Owner, Row, SequenceId, State, Tokenizer,
};

pub use crate::cache::KvCache;
use crate::context::Context;
pub use crate::embedder::LlamaEmbedder;
pub use crate::quantize::{Quantization, quantize};
use crate::tokenizer::LlamaTokenizer;
pub use crate::tuning::{Spin, Tuning};
pub use crate::weights::{repacks, version};

/// llama.cpp's own limit.
const MAX_SEQUENCES: u16 = 256;
/// A step over fewer bytes of weights than this is done by one thread before a second one has been woken.
const ONE_THREAD_BYTES: u64 = 32 << 20;

/// How to load a model.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The GGUF file.
    pub path: PathBuf,
    /// Whether the file is mapped rather than read: it must then never be written to.
    pub mapped: bool,
    /// Tokens that all sequences together can hold; by default what the model was trained for, 4,096 at most. An embedder holds
    /// none.
    pub context_tokens: Option<u32>,
    /// Sequences alive at once, 1 to 256; of an embedder, texts that are computed at once.
    pub sequences: u16,
    /// Rows of a step, 16 to 8,192; of an embedder, tokens that are computed at once, and so what the longest text may have.
    pub step_rows: u32,
    /// Threads that compute; by default the machine's cores, or one for a model so small that waking others takes longer.
    pub threads: Option<u16>,
    /// Whether each sequence has cells of its own, an equal part of all (in steps of 256), rather than any that are free. Then what
    /// a sequence computes cannot depend on where others lie; it cannot take over a live prefix, nor grow at the others' expense.
    pub apart: bool,
    /// How the key-value cache is stored.
    pub kv_cache: KvCache,
    /// How it is computed on this machine.
    pub tuning: Tuning,
}

/// A loaded model.
pub struct Llama {
    context: Context,
    tokenizer: Arc<LlamaTokenizer>,
    template: Option<String>,
    capabilities: Capabilities,
    memory: Memory,
    /// Of what it saves.
    owner: Owner,
}

impl Llama {
    /// Loads a model. Takes as long as reading the file does.
    ///
    /// # Errors
    /// The file is no model, or there is no memory for it.
    pub fn load(settings: &Settings) -> Result<Self, BackendError> {
        let model = Arc::new(load_model(settings)?);
        let tokenizer = Arc::new(LlamaTokenizer::new(Arc::clone(&model)));
        Self::over(&model, tokenizer, settings)
    }

    /// The same weights in another context, without reading them again: what `settings` say of their file and of `repack` does not
    /// count. What was computed and the adapters are gone.
    ///
    /// # Errors
    /// There is no memory for the context.
    pub fn reshaped(self, settings: &Settings) -> Result<Self, BackendError> {
        let Llama { context, tokenizer, .. } = self;
        let model = context.model();
        drop(context);
        Self::over(&model, tokenizer, settings)
    }

    fn over(model: &Arc<LlamaModel>, tokenizer: Arc<LlamaTokenizer>, settings: &Settings) -> Result<Self, BackendError> {
        let trained = model.n_ctx_train();
        let context_tokens = settings.context_tokens.unwrap_or_else(|| trained.min(4_096));
        let sequences = settings.sequences.clamp(1, MAX_SEQUENCES);
        let threads = settings.threads.map_or_else(|| default_threads(model.size()), i32::from);
        let shape = context::Shape {
            tokens: context_tokens,
            sequences,
            rows: settings.step_rows,
            micro: settings.tuning.micro_batch,
            spin: settings.tuning.spin == Spin::Auto,
            threads,
            apart: settings.apart,
            kv_cache: settings.kv_cache,
        };
        let context = Context::new(Arc::clone(model), &shape)?;
        let cache = cache_bytes(model, context.tokens(), settings.kv_cache);
        let capabilities = Capabilities {
            max_sequences: sequences,
            context_tokens: context.tokens(),
            sequence_tokens: context.sequence_tokens().min(trained.max(1)),
            step_rows: settings.step_rows.min(context.step_rows()),
            prefix_copy: !settings.apart && !model.is_recurrent() && !model.is_hybrid(),
            copies_share: true,
            partial_remove: !model.is_recurrent() && !model.is_hybrid(),
            adapters: true,
            // Of a model with a window of attention, what lies before the window is not saved, and would be missed after a cut.
            state: !model.is_recurrent() && !model.is_hybrid() && !context.has_window(),
            images: false,
        };
        let template = model.chat_template(None).ok().and_then(|template| template.to_string().ok());
        let memory = Memory { weights: model.size(), cache, compute: 0 };
        Ok(Llama { context, tokenizer, template, capabilities, memory, owner: Owner::unique() })
    }
}

/// Reads the file's weights.
fn load_model(settings: &Settings) -> Result<LlamaModel, BackendError> {
    library()?;
    weights::load(&settings.path, settings.mapped, settings.tuning.repack)
}

fn default_threads(model_bytes: u64) -> i32 {
    if model_bytes < ONE_THREAD_BYTES {
        return 1;
    }
    std::thread::available_parallelism().ok().and_then(|cores| i32::try_from(cores.get()).ok()).unwrap_or(1)
}

/// The key-value cache: two vectors per layer and token.
fn cache_bytes(model: &LlamaModel, tokens: u32, kv_cache: KvCache) -> u64 {
    let heads = u64::from(model.n_head()).max(1);
    let width = u64::try_from(model.n_embd()).unwrap_or(0) / heads * u64::from(model.n_head_kv());
    kv_cache.bytes(u64::from(model.n_layer()) * width * 2 * u64::from(tokens))
}

/// llama.cpp is set up once in a process.
fn library() -> Result<&'static LlamaBackend, BackendError> {
    static LIBRARY: OnceLock<Result<LlamaBackend, String>> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| {
        send_logs_to_tracing(LogOptions::default());
        LlamaBackend::init().map_err(|error| error.to_string())
    });
    library.as_ref().map_err(|error| BackendError::Load(error.clone()))
}

impl Backend for Llama {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
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
        self.context.decode(rows)
    }

    fn logits(&self, row: usize) -> Option<&[f32]> {
        self.context.logits(row)
    }

    fn copy_prefix(&mut self, from: SequenceId, to: SequenceId, length: u32) -> Result<(), BackendError> {
        if !self.capabilities.prefix_copy {
            return Err(BackendError::Unsupported("copying a prefix"));
        }
        if !self.context.has(from) || !self.context.has(to) {
            return Err(BackendError::Unsupported("a sequence beyond the last"));
        }
        self.context.copy_prefix(from, to, length);
        Ok(())
    }

    fn truncate(&mut self, sequence: SequenceId, length: u32) -> Result<(), BackendError> {
        if !self.context.has(sequence) {
            return Err(BackendError::Unsupported("a sequence beyond the last"));
        }
        if self.context.truncate(sequence, length) {
            Ok(())
        } else {
            Err(BackendError::Unsupported("removing a part of a sequence"))
        }
    }

    fn save(&mut self, sequence: SequenceId, most_bytes: usize) -> Result<Option<State>, BackendError> {
        if !self.capabilities.state || !self.context.has(sequence) {
            return Err(BackendError::Unsupported("saving this sequence"));
        }
        let saved = self.context.save(sequence, most_bytes)?;
        Ok(saved.map(|(tokens, bytes)| State::new(self.owner, tokens, bytes)))
    }

    fn restore(&mut self, sequence: SequenceId, state: &State) -> Result<(), BackendError> {
        if !self.capabilities.state || !self.context.has(sequence) {
            return Err(BackendError::Unsupported("restoring this sequence"));
        }
        let bytes = state.bytes(self.owner).ok_or(BackendError::Unsupported("restoring what another model saved"))?;
        self.context.restore(sequence, state.tokens(), bytes)
    }

    fn load_adapter(&mut self, path: &Path, scale: f32) -> Result<AdapterId, BackendError> {
        self.context.load_adapter(path, scale)
    }

    fn drop_adapter(&mut self, adapter: AdapterId) {
        self.context.drop_adapter(adapter);
    }

    fn select_adapter(&mut self, adapter: Option<AdapterId>) -> Result<(), BackendError> {
        self.context.select_adapter(adapter)
    }
}
