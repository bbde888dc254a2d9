//! A llama.cpp context that owns its model.
#![allow(unsafe_code, reason = "calls into llama.cpp; each block says why it is sound")]

mod state;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

use llama_cpp_2::model::LlamaModel;
use llama_cpp_sys_2 as sys;
use tollgate_backend::{AdapterId, BackendError, DecodeError, Row, SequenceId};

use crate::batch::Batch;
use crate::{KvCache, openmp};

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
    /// Whether the threads may spin for long.
    pub(crate) spin: bool,
    /// Whether each sequence has cells of its own, an equal part of all.
    pub(crate) apart: bool,
    /// How the key-value cache is stored.
    pub(crate) kv_cache: KvCache,
}

/// An adapter in llama.cpp's memory, and how strongly it counts.
struct Adapter {
    raw: NonNull<sys::llama_adapter_lora>,
    scale: f32,
}

pub(crate) struct Context {
    raw: NonNull<sys::llama_context>,
    /// Those that were loaded and not dropped.
    adapters: BTreeMap<AdapterId, Adapter>,
    /// What the context computes with.
    selected: Option<AdapterId>,
    /// The number that was given last.
    last_adapter: u32,
    batch: Batch,
    vocabulary: usize,
    tokens: u32,
    sequence_tokens: u32,
    /// Rows that a step may have: llama.cpp ends the process over one more.
    step_rows: u32,
    /// Sequences, which are numbered from 0.
    sequences: u16,
    /// Rows of the last step.
    rows: usize,
    /// Rows of a step that may want logits: llama.cpp ends the process over one more.
    outputs: usize,
    /// Whether the threads of a step may spin for long.
    spin: bool,
    /// Declared last: a context and its adapters must not outlive their model.
    model: Arc<LlamaModel>,
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
        params.n_ubatch = shape.micro.clamp(1, shape.rows.max(1));
        params.n_seq_max = u32::from(shape.sequences);
        // Buffers for logits are made for as many rows: by default for all of a step, which is hundreds of MiB with a big vocabulary.
        params.n_outputs_max = u32::from(shape.sequences);
        params.n_threads = shape.threads;
        params.n_threads_batch = shape.threads;
        params.kv_unified = !shape.apart;
        // Flash attention stays `auto`: llama.cpp turns it on for values that are quantized, and makes no context where it cannot, nor
        // where a block does not divide the heads.
        params.type_k = shape.kv_cache.as_raw();
        params.type_v = shape.kv_cache.as_raw();
        params.no_perf = true;
        // SAFETY: the model is valid, the `Arc` keeps it alive for as long as this context, and the parameters are llama.cpp's own
        // with numbers changed.
        let raw = unsafe { sys::llama_init_from_model(raw_model(&model), params) };
        let raw = NonNull::new(raw).ok_or_else(|| {
            BackendError::Load(format!("llama.cpp makes no context of {} tokens (is there memory for it?)", shape.tokens))
        })?;
        // SAFETY: the context was just made.
        let (tokens, sequence_tokens, step_rows) =
            unsafe { (sys::llama_n_ctx(raw.as_ptr()), sys::llama_n_ctx_seq(raw.as_ptr()), sys::llama_n_batch(raw.as_ptr())) };
        Ok(Context {
            raw,
            adapters: BTreeMap::new(),
            selected: None,
            last_adapter: 0,
            batch: Batch::new(),
            vocabulary,
            tokens,
            sequence_tokens,
            step_rows,
            sequences: shape.sequences,
            rows: 0,
            outputs: usize::from(shape.sequences),
            spin: shape.spin,
            model,
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

    /// The weights.
    pub(crate) fn model(&self) -> Arc<LlamaModel> {
        Arc::clone(&self.model)
    }

    /// Rows that a step may have, which are fewer than was asked for where the context is smaller.
    pub(crate) fn step_rows(&self) -> u32 {
        self.step_rows
    }

    /// Whether there is such a sequence. llama.cpp ends the process over another where it copies or removes.
    pub(crate) fn has(&self, sequence: SequenceId) -> bool {
        sequence.0 < self.sequences
    }

    pub(crate) fn decode(&mut self, rows: &[Row]) -> Result<(), DecodeError> {
        self.rows = 0;
        if rows.is_empty() {
            return Ok(());
        }
        if u32::try_from(rows.len()).map_or(true, |count| count > self.step_rows) {
            return Err(DecodeError::Failed(format!("a step has {} rows, and may have {}", rows.len(), self.step_rows)));
        }
        if let Some(row) = rows.iter().find(|row| !self.has(row.sequence)) {
            return Err(DecodeError::Failed(format!("there is no sequence {}", row.sequence.0)));
        }
        let outputs = rows.iter().filter(|row| row.wants_logits).count();
        if outputs > self.outputs {
            return Err(DecodeError::Failed(format!("{outputs} rows want logits, and {} may", self.outputs)));
        }
        self.batch.fill(rows)?;
        openmp::allow_spinning(self.spin);
        let batch = self.batch.as_raw();
        // SAFETY: the arrays of the batch have `n_tokens` elements each and live until the call returns. How many rows there are, how
        // many want logits, and that their sequences exist was checked above; llama.cpp checks tokens and positions itself and returns
        // a code.
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
        if row >= self.rows || !self.batch.wants_logits(row) {
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
        // SAFETY: the caller has asked `has` for both sequences; the memory belongs to this context.
        unsafe { sys::llama_memory_seq_cp(self.memory(), i32::from(from.0), i32::from(to.0), 0, end) }
    }

    pub(crate) fn truncate(&mut self, sequence: SequenceId, length: u32) -> bool {
        let start = i32::try_from(length).unwrap_or(i32::MAX);
        // SAFETY: as in `copy_prefix`; an end of -1 means to the last.
        unsafe { sys::llama_memory_seq_rm(self.memory(), i32::from(sequence.0), start, -1) }
    }

    /// Reads an adapter's file into memory.
    pub(crate) fn load_adapter(&mut self, path: &Path, scale: f32) -> Result<AdapterId, BackendError> {
        let load = |what: &str| BackendError::Load(format!("{}: {what}", path.display()));
        if !scale.is_finite() {
            return Err(load("the adapter's scale is not a number"));
        }
        let number = self.last_adapter.checked_add(1).ok_or_else(|| load("too many adapters were loaded"))?;
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| load("the name has a zero byte in it"))?;
        // SAFETY: the model is alive and the name ends in zero. llama.cpp notes the adapter in the model, which only this thread
        // does: what others do with the model is reading its vocabulary.
        let raw = unsafe { sys::llama_adapter_lora_init(raw_model(&self.model), name.as_ptr()) };
        let raw = NonNull::new(raw).ok_or_else(|| load("llama.cpp does not take it as an adapter of this model"))?;
        let id = AdapterId(number);
        self.last_adapter = number;
        self.adapters.insert(id, Adapter { raw, scale });
        Ok(id)
    }

    pub(crate) fn drop_adapter(&mut self, id: AdapterId) {
        if self.selected == Some(id) {
            self.select_none();
        }
        if let Some(adapter) = self.adapters.remove(&id) {
            // SAFETY: made by `llama_adapter_lora_init`, freed once, and the context does not compute with it any more.
            unsafe { sys::llama_adapter_lora_free(adapter.raw.as_ptr()) }
        }
    }

    /// Steps from now on are computed with this adapter. A change makes llama.cpp lay its graph out anew with the next step.
    pub(crate) fn select_adapter(&mut self, id: Option<AdapterId>) -> Result<(), BackendError> {
        if self.selected == id {
            return Ok(());
        }
        let Some(id) = id else {
            self.select_none();
            return Ok(());
        };
        let found = self.adapters.get(&id).ok_or_else(|| BackendError::Failed(format!("there is no adapter {}", id.0)))?;
        let (mut raw, mut scale) = (found.raw.as_ptr(), found.scale);
        // SAFETY: one adapter and one scale, as the count says; llama.cpp copies both. The adapter lives until it is dropped, and
        // is not selected then.
        let code = unsafe { sys::llama_set_adapters_lora(self.raw.as_ptr(), &raw mut raw, 1, &raw mut scale) };
        if code != 0 {
            self.select_none();
            return Err(BackendError::Failed(format!("llama_set_adapters_lora returned {code}")));
        }
        self.selected = Some(id);
        Ok(())
    }

    fn select_none(&mut self) {
        self.selected = None;
        // SAFETY: no adapters, as the count says: the pointers are not read.
        unsafe { sys::llama_set_adapters_lora(self.raw.as_ptr(), std::ptr::null_mut(), 0, std::ptr::null_mut()) };
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
        for adapter in self.adapters.values() {
            // SAFETY: made by `llama_adapter_lora_init`, freed once; what computed with it is gone, and the model is dropped after it.
            unsafe { sys::llama_adapter_lora_free(adapter.raw.as_ptr()) }
        }
    }
}

/// llama.cpp's own pointer to the model, good for as long as the model.
pub(crate) fn raw_model(model: &LlamaModel) -> *mut sys::llama_model {
    // SAFETY: `LlamaModel` is `repr(transparent)` over this pointer, and the exact pin in Cargo.toml keeps it so.
    unsafe { *std::ptr::from_ref::<LlamaModel>(model).cast::<*mut sys::llama_model>() }
}
