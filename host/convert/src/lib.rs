//! Safetensors to GGUF, and adapters with them: what makes a model of Hugging Face's files servable by llama.cpp, once, when it is
//! installed.
//!
//! It reads and writes files and does nothing else: no network, no choice of where a model lies, no inference. It converts to 32 and 16 bits
//! and to q8_0; the smaller formats are llama.cpp's own work, from a file of this crate. What llama.cpp would compute otherwise than the
//! original is refused rather than converted, with the reason.

pub mod adapter;
mod config;
mod encoder;
mod error;
mod family;
mod files;
pub mod gguf;
mod metadata;
mod model;
mod quant;
mod shards;
mod tokenizer;

#[cfg(test)]
mod tests;

use std::path::Path;

pub use error::ConvertError;
use gguf::Kind;

/// How the matrices of the result are stored. Vectors are f32 always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// 32-bit floats.
    F32,
    /// 16-bit floats, llama.cpp's usual.
    F16,
    /// 16-bit floats with the range of 32-bit ones.
    Bf16,
    /// 8 bits a value and a scale for each 32: half of f16, nearly without loss. A matrix whose rows are no multiple of 32 is f16.
    Q8_0,
}

impl Target {
    fn kind(self) -> Kind {
        match self {
            Self::F32 => Kind::F32,
            Self::F16 => Kind::F16,
            Self::Bf16 => Kind::Bf16,
            Self::Q8_0 => Kind::Q8_0,
        }
    }
}

/// What the operator decides of a conversion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The model's name in the file: one line of 1 to 256 bytes.
    pub name: String,
    /// How the matrices are stored.
    pub target: Target,
}

/// What came of a conversion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// llama.cpp's name of the family, as in `qwen2`.
    pub architecture: String,
    /// Tensors in the file.
    pub tensors: usize,
    /// Values in all of them.
    pub parameters: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// What the operator should know of the result, a sentence each, without a full stop.
    pub notes: Vec<String>,
}

/// Converts the model in `folder` (`config.json`, `tokenizer.json`, safetensors and what stands beside them) to the new file `out`.
///
/// A few MiB of weights are held at a time. `progress` is told the bytes of tensors that are written, and how many there will be. The
/// file is synced and its header read back and checked before this returns; on any failure it is removed.
///
/// # Errors
/// The folder has no sound model of a family that is known (Llama and Mistral, Qwen 2 and 3, Gemma 1 to 3 in text, Phi 3, BERT as an
/// encoder or a reranker), llama.cpp would compute it wrongly, `out` exists already, or the disk fails.
pub fn convert(
    folder: &Path,
    out: &Path,
    options: &Options,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Converted, ConvertError> {
    model::convert(folder, out, options, progress)
}
