//! A llama.cpp context that gives one vector for each sequence of a batch, and owns its model.
#![allow(unsafe_code, reason = "calls into llama.cpp; each block says why it is sound")]

use std::ptr::NonNull;
use std::sync::Arc;

use llama_cpp_2::model::LlamaModel;
use llama_cpp_sys_2 as sys;
use tollgate_backend::{BackendError, Row, SequenceId, Token};

use crate::batch::Batch;
use crate::context::raw_model;
use crate::openmp;

/// How big a context is.
pub(super) struct Shape {
    /// Tokens of a batch.
    pub(super) rows: u32,
    /// Texts of a batch.
    pub(super) sequences: u16,
    /// Threads.
    pub(super) threads: i32,
    /// How rows become one vector: never `NONE`, which gives no vector for a sequence.
    pub(super) pooling: sys::llama_pooling_type,
}

pub(super) struct EmbedContext {
    raw: NonNull<sys::llama_context>,
    batch: Batch,
    /// Tokens that a batch may have: llama.cpp ends the process over one more.
    rows: u32,
    /// Texts that a batch may have.
    sequences: u16,
    /// Numbers of a vector.
    dimensions: usize,
    /// Numbers that are read of a sequence: fewer from a head that ranks.
    outputs: usize,
    /// Whether the model has no decoder.
    only_encodes: bool,
    /// Declared last: a context must not outlive its model.
    _model: Arc<LlamaModel>,
}

// SAFETY: a llama.cpp context is bound to no thread; it must not be used from two at once, which `&mut self` and the absence of
// `Sync` rule out. The batch's pointers are into its own vectors.
unsafe impl Send for EmbedContext {}

impl EmbedContext {
    pub(super) fn new(model: Arc<LlamaModel>, shape: &Shape) -> Result<Self, BackendError> {
        let no_width = |_| BackendError::Load("the model's vectors have no numbers".to_owned());
        let dimensions = usize::try_from(model.n_embd_out()).map_err(no_width)?;
        let outputs = match shape.pooling {
            sys::LLAMA_POOLING_TYPE_RANK => usize::try_from(model.n_cls_out()).map_err(no_width)?,
            _ => dimensions,
        };
        openmp::provide();
        // SAFETY: plain data without arguments.
        let mut params = unsafe { sys::llama_context_default_params() };
        // Where there is a cache, it holds one batch.
        params.n_ctx = shape.rows;
        params.n_batch = shape.rows;
        // A text is computed as a whole: llama.cpp ends the process where one that looks both ways is not, and pools only what is
        // computed together.
        params.n_ubatch = shape.rows;
        params.n_seq_max = u32::from(shape.sequences);
        params.n_threads = shape.threads;
        params.n_threads_batch = shape.threads;
        params.pooling_type = shape.pooling;
        params.embeddings = true;
        params.kv_unified = true;
        params.no_perf = true;
        // SAFETY: the model is valid, the `Arc` keeps it alive for as long as this context, and the parameters are llama.cpp's own
        // with numbers changed.
        let raw = unsafe { sys::llama_init_from_model(raw_model(&model), params) };
        let raw = NonNull::new(raw).ok_or_else(|| {
            BackendError::Load(format!("llama.cpp makes no context of {} tokens (is there memory for it?)", shape.rows))
        })?;
        // SAFETY: the context was just made, and the model is alive.
        let (rows, micro, has_decoder) = unsafe {
            let (rows, micro) = (sys::llama_n_batch(raw.as_ptr()), sys::llama_n_ubatch(raw.as_ptr()));
            (rows, micro, sys::llama_model_has_decoder(raw_model(&model)))
        };
        Ok(EmbedContext {
            raw,
            batch: Batch::new(),
            rows: rows.min(micro).min(shape.rows),
            sequences: shape.sequences,
            dimensions,
            outputs,
            only_encodes: !has_decoder,
            _model: model,
        })
    }

    /// Tokens that a batch may have.
    pub(super) fn rows(&self) -> u32 {
        self.rows
    }

    /// Numbers of a vector.
    pub(super) fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// Cells of the key-value cache; `None` for a model that has none.
    pub(super) fn cells(&self) -> Option<u32> {
        // SAFETY: the context is alive.
        unsafe { (!self.memory().is_null()).then(|| sys::llama_n_ctx(self.raw.as_ptr())) }
    }

    /// How many of these texts, from the first, fit into one batch.
    pub(super) fn fitting(&self, texts: &[Vec<Token>]) -> usize {
        let rows = usize::try_from(self.rows).unwrap_or(usize::MAX);
        let mut held = 0_usize;
        let fits = |text: &&Vec<Token>| {
            held = held.saturating_add(text.len());
            held <= rows
        };
        texts.iter().take(usize::from(self.sequences)).take_while(fits).count()
    }

    /// What the model makes of each text, as it is: a vector, or what its head says.
    pub(super) fn compute(&mut self, texts: &[Vec<Token>]) -> Result<Vec<Vec<f32>>, BackendError> {
        if self.fitting(texts) < texts.len() {
            let most = (self.rows, self.sequences);
            return Err(BackendError::Failed(format!("a batch has more than {} tokens or {} texts", most.0, most.1)));
        }
        if texts.iter().any(Vec::is_empty) {
            return Err(BackendError::Failed("a text is empty, and this model puts nothing around it".to_owned()));
        }
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let rows = as_rows(texts)?;
        self.batch.fill(&rows).map_err(|error| BackendError::Failed(error.to_string()))?;
        let batch = self.batch.as_raw();
        // SAFETY: the arrays of the batch have `n_tokens` elements each and live until the call returns. How many rows and sequences
        // there are was checked above; llama.cpp checks tokens and positions itself and returns a code. The memory belongs to this
        // context, and may be none.
        let code = unsafe {
            sys::llama_memory_clear(self.memory(), false);
            if self.only_encodes {
                sys::llama_encode(self.raw.as_ptr(), batch)
            } else {
                sys::llama_decode(self.raw.as_ptr(), batch)
            }
        };
        if code != 0 {
            return Err(BackendError::Failed(format!("llama.cpp could not compute the texts (code {code})")));
        }
        (0..self.sequences).take(texts.len()).map(|sequence| self.output(sequence)).collect()
    }

    fn output(&self, sequence: u16) -> Result<Vec<f32>, BackendError> {
        // SAFETY: the context is alive, and the last batch succeeded.
        let numbers = unsafe { sys::llama_get_embeddings_seq(self.raw.as_ptr(), i32::from(sequence)) };
        if numbers.is_null() {
            return Err(BackendError::Failed("llama.cpp has no vector for a text".to_owned()));
        }
        // SAFETY: llama.cpp keeps so many numbers there for each sequence until the next batch, which needs `&mut self`: the width of
        // the model's output, or of its head's where it ranks.
        Ok(unsafe { std::slice::from_raw_parts(numbers, self.outputs) }.to_vec())
    }

    fn memory(&self) -> sys::llama_memory_t {
        // SAFETY: the context is alive.
        unsafe { sys::llama_get_memory(self.raw.as_ptr()) }
    }
}

impl Drop for EmbedContext {
    fn drop(&mut self) {
        // SAFETY: made by `llama_init_from_model`, freed once; the model is dropped after it.
        unsafe { sys::llama_free(self.raw.as_ptr()) }
    }
}

/// Whether a model is made of both, so that neither half has a vector for a text.
pub(super) fn is_encoder_and_decoder(model: &LlamaModel) -> bool {
    // SAFETY: the model is alive, and both calls read a constant of its architecture.
    unsafe { sys::llama_model_has_encoder(raw_model(model)) && sys::llama_model_has_decoder(raw_model(model)) }
}

/// Each text as a sequence of its own.
fn as_rows(texts: &[Vec<Token>]) -> Result<Vec<Row>, BackendError> {
    let mut rows = Vec::with_capacity(texts.iter().map(Vec::len).sum());
    for (number, text) in texts.iter().enumerate() {
        let many = |_| BackendError::Failed("a batch has too many texts or tokens".to_owned());
        let sequence = SequenceId(u16::try_from(number).map_err(many)?);
        for (position, &token) in text.iter().enumerate() {
            rows.push(Row { token, position: u32::try_from(position).map_err(many)?, sequence, wants_logits: true });
        }
    }
    Ok(rows)
}
