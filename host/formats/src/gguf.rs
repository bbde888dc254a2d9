//! GGUF: the header of a model for llama.cpp, or of an adapter to one. The weights themselves are not read.
//!
//! [`read()`] holds a file to the format as ggml's own reader understands it; [`check_model`] and [`check_adapter`] hold it to what
//! llama.cpp asserts, where a wrong value would end the process.

mod adapter;
pub(crate) mod charsmap;
mod check;
mod kind;
mod read;
#[cfg(test)]
mod tests;
mod value;
mod vocabulary;

use std::collections::BTreeMap;

pub use adapter::check_adapter;
pub use check::check_model;
pub use kind::TensorType;
pub use read::read;
pub use value::{Array, Kind, Value, Values};

/// What the header of a GGUF file says, with every tensor inside the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Gguf {
    /// 2 or 3.
    pub version: u32,
    /// The keys and their values, 65,536 keys at most.
    pub metadata: BTreeMap<String, Value>,
    /// The tensors in the order of their data, which has no holes but for alignment; 131,072 at most.
    pub tensors: Vec<Tensor>,
    /// Bytes that the data of every tensor is aligned to: a power of two, 8 to 65,536.
    pub alignment: u64,
    /// Bytes from the start of the file to the data.
    pub data_offset: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
}

/// One tensor of a GGUF file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its name, 1 to 63 bytes, unique in the file.
    pub name: String,
    /// Its dimensions in ggml's order, the innermost first: 1 to 4 of them, none of them 0.
    pub shape: Vec<u64>,
    /// How its elements are stored.
    pub kind: TensorType,
    /// Bytes from [`Gguf::data_offset`] to its data.
    pub offset: u64,
    /// Bytes of its data.
    pub bytes: u64,
}

/// Architectures that llama.cpp keeps no cache for and samples nothing from: their models embed texts or rank them.
const ENCODERS: [&str; 10] = [
    "bert",
    "modern-bert",
    "nomic-bert",
    "nomic-bert-moe",
    "neo-bert",
    "jina-bert-v2",
    "jina-bert-v3",
    "eurobert",
    "gemma-embedding",
    "t5encoder",
];

impl Gguf {
    /// The value of a key, if it is a text.
    #[must_use]
    pub fn string(&self, key: &str) -> Option<&str> {
        match self.metadata.get(key)? {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The value of a key, if it is an integer of any width and not negative.
    #[must_use]
    pub fn u64(&self, key: &str) -> Option<u64> {
        self.metadata.get(key)?.as_u64()
    }

    /// The value of a key, if it is a float of either width.
    #[must_use]
    pub fn f64(&self, key: &str) -> Option<f64> {
        self.metadata.get(key)?.as_f64()
    }

    /// The value of a key, if it is a bool.
    #[must_use]
    pub fn bool(&self, key: &str) -> Option<bool> {
        match self.metadata.get(key)? {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The value of a key, if it is an array.
    #[must_use]
    pub fn array(&self, key: &str) -> Option<&Array> {
        match self.metadata.get(key)? {
            Value::Array(array) => Some(array),
            _ => None,
        }
    }

    /// `general.architecture`, as in `llama`.
    #[must_use]
    pub fn architecture(&self) -> Option<&str> {
        self.string("general.architecture")
    }

    /// [`Gguf::u64`] of a key of the file's architecture: `block_count` for `llama.block_count`.
    #[must_use]
    pub fn of_architecture(&self, suffix: &str) -> Option<u64> {
        self.u64(&format!("{}.{suffix}", self.architecture()?))
    }

    /// Whether it is an encoder, which says nothing.
    #[must_use]
    pub fn is_encoder(&self) -> bool {
        self.architecture().is_some_and(|architecture| ENCODERS.contains(&architecture))
    }

    /// Whether it was made to embed texts or to rank them: it is an encoder, or says how its rows become a vector.
    #[must_use]
    pub fn is_embedder(&self) -> bool {
        self.is_encoder() || self.of_architecture("pooling_type").is_some_and(|pooling| pooling != 0)
    }

    /// The tensor with this name.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// Bytes of all tensors together, without padding; never more than the file has.
    #[must_use]
    pub fn tensor_bytes(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.bytes).sum()
    }
}
