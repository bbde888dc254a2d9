//! Strict readers for the headers of model files: what llama.cpp, candle and onnxruntime are given has passed one of these (P-M4, P-M5).
//!
//! A reader takes bytes that anyone may have written. Every count is bounded before it is used, nothing is allocated from a number that
//! was not checked against the file, every span lies inside the file, and the work is in proportion to the header. A reader does not
//! touch the weights, and opens no file itself.

mod error;
pub mod gguf;
mod json;
pub mod onnx;
pub mod safetensors;
mod source;
#[cfg(test)]
mod testing;
pub mod tokenizer;

pub use error::FormatError;
pub use gguf::Gguf;
pub use onnx::Onnx;
pub use safetensors::Safetensors;
pub use tokenizer::Tokenizer;
