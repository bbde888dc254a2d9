//! Copies of what sequences hold, as llama.cpp writes them. It checks little of what it reads back: that they are its own is for the
//! caller to see to.

use llama_cpp_sys_2 as sys;
use tollgate_backend::{BackendError, SequenceId};

use super::{Context, raw_model};

impl Context {
    /// Whether the model's layers see only the last tokens, or some of them do.
    pub(crate) fn has_window(&self) -> bool {
        // SAFETY: the model is alive, and a number of it is read.
        unsafe { sys::llama_model_n_swa(raw_model(&self.model)) > 0 }
    }

    /// Tokens that a sequence holds.
    fn length(&self, sequence: SequenceId) -> u32 {
        // SAFETY: the caller has asked `has`; the memory belongs to this context.
        let last = unsafe { sys::llama_memory_seq_pos_max(self.memory(), i32::from(sequence.0)) };
        // -1 for an empty one.
        u32::try_from(last.saturating_add(1)).unwrap_or(0)
    }

    /// How many tokens a sequence has, and what it holds; `None` if that is more than `most` bytes.
    pub(crate) fn save(&mut self, sequence: SequenceId, most: usize) -> Result<Option<(u32, Vec<u8>)>, BackendError> {
        let tokens = self.length(sequence);
        if tokens == 0 {
            return Err(BackendError::Failed("an empty sequence cannot be saved".to_owned()));
        }
        let id = i32::from(sequence.0);
        // SAFETY: the caller has asked `has`; llama.cpp counts what it would write.
        let size = unsafe { sys::llama_state_seq_get_size(self.raw.as_ptr(), id) };
        if size > most {
            return Ok(None);
        }
        let mut bytes = vec![0; size];
        // SAFETY: as many bytes as it is told are there to be written to, and it stops at the last.
        let written = unsafe { sys::llama_state_seq_get_data(self.raw.as_ptr(), bytes.as_mut_ptr(), bytes.len(), id) };
        if size == 0 || written != size {
            return Err(BackendError::Failed(format!("llama.cpp saved {written} bytes of {size}")));
        }
        Ok(Some((tokens, bytes)))
    }

    /// Puts what [`Context::save`] of this very context wrote into an empty sequence.
    pub(crate) fn restore(&mut self, sequence: SequenceId, tokens: u32, bytes: &[u8]) -> Result<(), BackendError> {
        if self.length(sequence) > 0 {
            return Err(BackendError::Failed("a sequence is restored into one that is not empty".to_owned()));
        }
        // SAFETY: the caller has asked `has`. The bytes are this context's own, as its backend has checked, and nobody could change
        // them since; as many as it is told are there to be read, and it stops at the last.
        let read =
            unsafe { sys::llama_state_seq_set_data(self.raw.as_ptr(), bytes.as_ptr(), bytes.len(), i32::from(sequence.0)) };
        if read == bytes.len() && self.length(sequence) == tokens {
            return Ok(());
        }
        self.truncate(sequence, 0);
        Err(BackendError::Failed(format!("llama.cpp restored {read} bytes of {}", bytes.len())))
    }
}
