//! OpenAI's HTTP API: chat completions as JSON and as server-sent events, and the list of models.
//!
//! What it does with each field of OpenAI's request is in one table, [`FIELDS`], which is also the reader and the docs
//! (`docs/openai-chat.md`). `error.rs` alone maps refusals to statuses.

mod chat;
mod error;
mod fields;
mod logprobs;
mod messages;
mod models;
mod read;
mod request;
mod response;
mod stream;

pub use fields::{FIELDS, Field, Treatment};

pub(crate) use chat::chat;
pub(crate) use error::response as error_response;
pub(crate) use models::{list as list_models, show as show_model};

/// The dialect's name in the config, in contexts and in logs.
pub(crate) const DIALECT: &str = "openai";
