//! A llama.cpp context that owns its model.
#![allow(unsafe_code, reason = "calls into llama.cpp; each block says why it is sound")]

use std::ptr::NonNull;
use std::sync::Arc;

use llama_cpp_2::model::LlamaModel;
use llama_cpp_sys_2 as sys;
use tollgate_backend::{BackendError, DecodeError, Row, SequenceId};

use crate::openmp;

/// How big a context is.
pub(crate) struct Shape {
    /// Tokens of all sequences together.
    pub(crate) tokens: u32,
    /// Sequences.
    pub(crate) sequences: u16,
    /// Rows of a step.
    pub(crate) rows: u32,
    /// Rows that are computed at once.
    pub(crate) micro: u32,
    /// Threads.
    pub(crate) threads: i32,
    /// Whether each sequence has cells of its own, an equal part of all.
    pub(crate) apart: bool,
}

/// The rows of a step as llama.cpp wants them: parallel arrays that point into this.
struct Batch {
    tokens: Vec<sys::llama_token>,
    positions: Vec<sys::llama_pos>,
    sequences: Vec<sys::llama_seq_id>,
    sequence_pointers: Vec<*mut sys::llama_seq_id>,
    counts: Vec<i32>,
    wants_logits: Vec<i8>,
}

pub(crate) struct Context {
    raw: NonNull<sys::llama_context>,
    batch: Batch,
    vocabulary: usize,
    tokens: u32,
    sequence_tokens: u32,
    rows: usize,
    /// Rows of a step that may want logits: llama.cpp ends the process over one more.
    outputs: usize,
    /// Declared last: a context must not outlive its model.
    _model: Arc<LlamaModel>,
}

// SAFETY: a llama.cpp context is bound to no thread; it must not be used from two at once, which `&mut self` and the absence of
// `Sync` rule out.
unsafe impl Send for Context {}

impl Context {
    pub(crate) fn new(model: Arc<LlamaModel>, shape: &Shape) -> Result<Self, BackendError> {
        let vocabulary = usize::try_from(model.n_vocab()).map_err(|_| BackendError::Load("it has no vocabulary".to_owned()))?;
        openmp::provide();
        // SAFETY: plain data without arguments.
        let mut params = unsafe { sys::llama_context_default_params() };
        params.n_ctx = shape.tokens;
        params.n_batch = shape.rows;
        params.n_ubatch = shape.micro.min(shape.rows);
        params.n_seq_max = u32::from(shape.sequences);
        // Buffers for logits are made for as many rows: by default for all of a step, which is hundreds of MiB with a big vocabulary.
        params.n_outputs_max = u32::from(shape.sequences);
        params.n_threads = shape.threads;
        params.n_threads_batch = shape.threads;
        params.kv_unified = !shape.apart;
        params.no_perf = true;
        // SAFETY: `LlamaModel` is `repr(transparent)` over the pointer to llama.cpp's model, and the exact pin in Cargo.toml keeps
        // it so; the `Arc` keeps the model alive for as long as this context.
        let raw_model = unsafe { *std::ptr::from_ref::<LlamaModel>(&model).cast::<*mut sys::llama_model>() };
        // SAFETY: the model is valid (above) and the parameters are llama.cpp's own with numbers changed.
        let raw = unsafe { sys::llama_init_from_model(raw_model, params) };
        let raw = NonNull::new(raw).ok_or_else(|| {
            BackendError::Load(format!("llama.cpp makes no context of {} tokens (is there memory for it?)", shape.tokens))
        })?;
        // SAFETY: the context was just made.
        let (tokens, sequence_tokens) = unsafe { (sys::llama_n_ctx(raw.as_ptr()), sys::llama_n_ctx_seq(raw.as_ptr())) };
        Ok(Context {
            raw,
            batch: Batch::new(),
            vocabulary,
            tokens,
            sequence_tokens,
            rows: 0,
            outputs: usize::from(shape.sequences),
            _model: model,
        })
    }

    /// Tokens that all sequences together can hold; llama.cpp rounds what was asked for.
    pub(crate) fn tokens(&self) -> u32 {
        self.tokens
    }

    /// Tokens that one sequence can hold.
    pub(crate) fn sequence_tokens(&self) -> u32 {
        self.sequence_tokens
    }

    pub(crate) fn decode(&mut self, rows: &[Row]) -> Result<(), DecodeError> {
        self.rows = 0;
        if rows.is_empty() {
            return Ok(());
        }
        let outputs = rows.iter().filter(|row| row.wants_logits).count();
        if outputs > self.outputs {
            return Err(DecodeError::Failed(format!("{outputs} rows want logits, and {} may", self.outputs)));
        }
        self.batch.fill(rows)?;
        let batch = self.batch.as_raw();
        // SAFETY: the arrays of the batch have `n_tokens` elements each and live until the call returns; llama.cpp checks tokens,
        // positions and sequences against its own limits and returns a code.
        let code = unsafe { sys::llama_decode(self.raw.as_ptr(), batch) };
        match code {
            0 => {
                self.rows = rows.len();
                Ok(())
            }
            1 => Err(DecodeError::Full { rows: rows.len() }),
            2 => Err(DecodeError::Failed("aborted".to_owned())),
            code => Err(DecodeError::Failed(format!("llama_decode returned {code}"))),
        }
    }

    pub(crate) fn logits(&self, row: usize) -> Option<&[f32]> {
        if row >= self.rows || self.batch.wants_logits.get(row) != Some(&1) {
            return None;
        }
        let index = i32::try_from(row).ok()?;
        // SAFETY: this row of the last step asked for logits, and the step succeeded.
        let logits = unsafe { sys::llama_get_logits_ith(self.raw.as_ptr(), index) };
        if logits.is_null() {
            return None;
        }
        // SAFETY: llama.cpp keeps one float per word of the vocabulary there until the next decode, which needs `&mut self`.
        Some(unsafe { std::slice::from_raw_parts(logits, self.vocabulary) })
    }

    pub(crate) fn copy_prefix(&mut self, from: SequenceId, to: SequenceId, length: u32) {
        let end = i32::try_from(length).unwrap_or(i32::MAX);
        // SAFETY: sequence ids beyond the context's are checked by llama.cpp; the memory belongs to this context.
        unsafe { sys::llama_memory_seq_cp(self.memory(), i32::from(from.0), i32::from(to.0), 0, end) }
    }

    pub(crate) fn truncate(&mut self, sequence: SequenceId, length: u32) -> bool {
        let start = i32::try_from(length).unwrap_or(i32::MAX);
        // SAFETY: as in `copy_prefix`; an end of -1 means to the last.
        unsafe { sys::llama_memory_seq_rm(self.memory(), i32::from(sequence.0), start, -1) }
    }

    fn memory(&self) -> sys::llama_memory_t {
        // SAFETY: the context is alive.
        unsafe { sys::llama_get_memory(self.raw.as_ptr()) }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made by `llama_init_from_model`, freed once; the model is dropped after it.
        unsafe { sys::llama_free(self.raw.as_ptr()) }
    }
}

impl Batch {
    fn new() -> Self {
        Batch {
            tokens: Vec::new(),
            positions: Vec::new(),
            sequences: Vec::new(),
            sequence_pointers: Vec::new(),
            counts: Vec::new(),
            wants_logits: Vec::new(),
        }
    }

    fn fill(&mut self, rows: &[Row]) -> Result<(), DecodeError> {
        self.tokens.clear();
        self.positions.clear();
        self.sequences.clear();
        self.counts.clear();
        self.wants_logits.clear();
        for row in rows {
            let fits =
                |number: u32| i32::try_from(number).map_err(|_| DecodeError::Failed(format!("{number} is no token or position")));
            self.tokens.push(fits(row.token)?);
            self.positions.push(fits(row.position)?);
            self.sequences.push(i32::from(row.sequence.0));
            self.counts.push(1);
            self.wants_logits.push(i8::from(row.wants_logits));
        }
        // The pointers are taken when the vector no longer grows.
        self.sequence_pointers.clear();
        self.sequence_pointers.extend(self.sequences.iter_mut().map(std::ptr::from_mut));
        Ok(())
    }

    fn as_raw(&mut self) -> sys::llama_batch {
        sys::llama_batch {
            n_tokens: i32::try_from(self.tokens.len()).unwrap_or(i32::MAX),
            token: self.tokens.as_mut_ptr(),
            embd: std::ptr::null_mut(),
            pos: self.positions.as_mut_ptr(),
            n_seq_id: self.counts.as_mut_ptr(),
            seq_id: self.sequence_pointers.as_mut_ptr(),
            logits: self.wants_logits.as_mut_ptr(),
        }
    }
}
