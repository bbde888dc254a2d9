//! What the backends of Hugging Face folders share: the folder itself, its tokenizer, how vectors are pooled, and sequences for
//! models that know only one at a time; and how an adapter is read.
//!
//! Nothing here computes a model, and nothing here reads the weights of one.

mod config;
mod folder;
mod lora;
mod pooling;
mod serial;
mod tokenizer;
mod words;

pub use config::Config;
pub use folder::Folder;
pub use lora::{Lora, LoraHeader, LoraPair, LoraShape};
pub use pooling::Pooling;
pub use serial::{Limits, Part, Serial, Stepper};
pub use tokenizer::HfTokenizer;
