//! Models behind HTTP: a chat request to OpenAI's protocol or Ollama's, and a reply back as a bounded stream.
//!
//! It knows no policy, no route and no model of ours: who may ask, where requests may go and who answers instead was decided by
//! others. It is no backend either: it has no tokens, only text.
//!
//! # One request
//! [`Provider::chat`] asks the breaker, sends the request on a connection of the pool, and reads until the first piece
//! is there. What fails before that is tried again, after a wait that doubles and is half chance, as often as the config says; what
//! fails after it ends the reply, for what was said cannot be taken back. Everything has a deadline: a connection, the first token, the
//! next piece, the whole.
//!
//! # What a provider says
//! A provider is a stranger: lines, errors and replies have bounds, and nothing of an answer is repeated to clients or to the log
//! but statuses, and error codes that look like codes. The key is read from its file for each request, and is in no message.

mod breaker;
mod error;
mod key;
mod lines;
mod ollama;
mod openai;
mod parsed;
mod provider;
mod reply;
mod sse;
mod wait;

pub use breaker::BreakerState;
pub use error::ProviderError;
pub use provider::Provider;
pub use reply::{RemoteEvent, RemoteReply};
