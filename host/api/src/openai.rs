//! OpenAI's HTTP API: chat completions as JSON and as server-sent events, embeddings, and the list of models; and the ranking of
//! documents, which OpenAI does not have, as Cohere, Jina and llama-server shape it.
//!
//! What it does with each field of OpenAI's request is in one table, [`FIELDS`], which is also the reader and the docs
//! (`docs/openai-chat.md`). `error.rs` alone maps refusals to statuses.

mod chat;
mod embeddings;
mod error;
mod fields;
mod headers;
mod keep_alive;
mod logprobs;
mod messages;
mod models;
mod read;
mod request;
mod rerank;
mod response;
mod stream;

pub use fields::{FIELDS, Field, Treatment};

pub(crate) use chat::chat;
pub(crate) use embeddings::embeddings;
pub(crate) use error::response as error_response;
pub(crate) use models::{list as list_models, show as show_model};
pub(crate) use rerank::rerank;

/// The dialect's name in the config, in contexts and in logs.
pub(crate) const DIALECT: &str = "openai";
