//! The rows of a step as llama.cpp wants them.

use llama_cpp_sys_2 as sys;
use tollgate_backend::{DecodeError, Row};

/// Parallel arrays, and pointers into them for llama.cpp.
pub(crate) struct Batch {
    tokens: Vec<sys::llama_token>,
    positions: Vec<sys::llama_pos>,
    sequences: Vec<sys::llama_seq_id>,
    sequence_pointers: Vec<*mut sys::llama_seq_id>,
    counts: Vec<i32>,
    wants_logits: Vec<i8>,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Batch {
            tokens: Vec::new(),
            positions: Vec::new(),
            sequences: Vec::new(),
            sequence_pointers: Vec::new(),
            counts: Vec::new(),
            wants_logits: Vec::new(),
        }
    }

    /// Takes these rows in the place of those before.
    pub(crate) fn fill(&mut self, rows: &[Row]) -> Result<(), DecodeError> {
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

    /// Whether a row that it has wants logits.
    pub(crate) fn wants_logits(&self, row: usize) -> bool {
        self.wants_logits.get(row) == Some(&1)
    }

    /// What llama.cpp is given: good until the rows change.
    pub(crate) fn as_raw(&mut self) -> sys::llama_batch {
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
