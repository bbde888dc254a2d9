//! The OpenAI dialect's reader, taken in by path.

#[path = "../../host/api/src/openai/fields.rs"]
pub(crate) mod fields;
#[path = "../../host/api/src/openai/keep_alive.rs"]
pub(crate) mod keep_alive;
#[path = "../../host/api/src/openai/messages.rs"]
pub(crate) mod messages;
#[path = "../../host/api/src/openai/read.rs"]
pub(crate) mod read;
#[path = "../../host/api/src/openai/request.rs"]
pub(crate) mod request;
