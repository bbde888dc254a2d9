//! The words that every part of Tollgate shares.
//!
//! Plain data and small pure functions. It knows no HTTP, no WIT, no model file and does no I/O; each edge has its own wire types
//! and converts by hand.

mod context;
mod logprobs;
mod message;
mod principal;
mod refusal;
mod request;
mod shares;

pub use context::{Context, Flag};
pub use logprobs::TokenLogprobs;
pub use message::{BlobRef, Content, Message, Origin, Part, Role, ToolCall, ToolSpec};
pub use principal::{Certificate, Principal, RequestHead};
pub use refusal::{Refusal, RefusalKind};
pub use request::{Attribute, ChatRequest, FinishReason, KeepAlive, Parameters, Piece, Usage};
pub use shares::{Share, Shares};
