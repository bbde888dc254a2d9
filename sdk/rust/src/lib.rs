//! Write a Tollgate plugin in Rust: implement a trait per hook, name them once in [`export!`].
//!
//! ```
//! use tollgate_sdk::{Authenticate, Decision, Plugin, Principal, RequestHead};
//!
//! #[derive(serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Config { header: String }
//!
//! struct Gate { header: String }
//!
//! impl Plugin for Gate {
//!     type Config = Config;
//!     fn new(config: Config) -> Result<Self, String> {
//!         Ok(Gate { header: config.header.to_ascii_lowercase() })
//!     }
//! }
//!
//! impl Authenticate for Gate {
//!     fn authenticate(&self, head: RequestHead) -> Decision {
//!         match head.header(&self.header) {
//!             Some(name) => Decision::Identity(Principal::user(name)),
//!             None => Decision::Abstain,
//!         }
//!     }
//! }
//!
//! tollgate_sdk::export!(Gate: authenticate);
//! # fn main() {}
//! ```
//!
//! **One instance per request.** [`Plugin::new`] runs once, when the gateway builds the plugin, and its result is baked into the
//! compiled plugin. A request gets a fresh copy of it that all hooks of the plugin share during that request and that is dropped
//! afterwards: a field in a `RefCell` is per-request state, and nothing leaks from one request to the next.
//!
//! **Time and chance** come from the host: [`time::now_ms`] and [`random`]. The standard clock and random sources do not exist in
//! this target, and a number drawn in `new` would be the same in every request.
//!
//! **Tests** of a plugin's logic are ordinary `cargo test`s: construct the plugin, call its hooks. [`testing`] stands in for the host.
//! **Golden cases** (`cases/*.toml`, see `docs/plugin-cases.md`) say what the plugin has to do in files that travel with it:
//! [`cases::check`] runs them under `cargo test`, and the gateway runs them before the plugin may serve.

pub mod bindings;
#[cfg(not(target_arch = "wasm32"))]
pub mod cases;
mod config;
pub mod credentials;
mod export;
pub mod log;
pub mod random;
pub mod testing;
pub mod time;
mod words;

pub use bindings::types::{
    Attribute, BlobRef, Certificate, ChatRequest, Content, Context, Flag, Json, JsonSchema, Message, Origin, Parameters, Part,
    PartContent, Piece, Principal, Refusal, RefusalKind, RequestHead, Role, ToolCall, ToolSpec,
};
pub use bindings::{Decision, Outcome, Step, Verdict};
#[doc(hidden)]
pub use export::{Hooks, Instance, Reply, manifest_bytes};

use serde::de::DeserializeOwned;

/// What every plugin is: something built from its config.
pub trait Plugin: Sized + 'static {
    /// The plugin's `[config]` table. Derive `Deserialize` and `deny_unknown_fields`; `()` takes none.
    type Config: DeserializeOwned;

    /// Builds the plugin. Runs once, at build time; compile what is costly here, and use it once so that its caches are warm.
    ///
    /// # Errors
    /// The text is shown to the operator, who then knows what to change.
    fn new(config: Self::Config) -> Result<Self, String>;
}

/// Decides who asks. See `authenticate` in the contract.
pub trait Authenticate: Plugin {
    /// Only the head of the request is there; its body is not read for a stranger.
    fn authenticate(&self, head: RequestHead) -> Decision;
}

/// Changes the request before it is screened.
pub trait Compose: Plugin {
    /// Returns the request to go on with.
    ///
    /// # Errors
    /// A refusal ends the request with its message.
    fn compose(&self, ctx: Context, request: ChatRequest) -> Result<ChatRequest, Refusal>;
}

/// Screens the composed request.
pub trait FilterPrompt: Plugin {
    /// Passes, replaces, blocks or answers in the model's place.
    fn filter_prompt(&self, ctx: Context, request: ChatRequest) -> Outcome;
}

/// Screens the reply, piece by piece.
pub trait FilterReply: Plugin {
    /// What is remembered between pieces of one reply.
    type Reply: 'static;

    /// A reply begins. `choice` counts from 0.
    fn start(&self, ctx: Context, choice: u32) -> Self::Reply;
    /// A piece came from the model: say what may leave.
    fn push(&self, reply: &mut Self::Reply, piece: Piece) -> Step;
    /// Nothing follows: release or drop what is held. By default nothing was held.
    fn finish(&self, _reply: &mut Self::Reply) -> Step {
        Step::default()
    }
}

/// Shapes the whole reply.
pub trait Format: Plugin {
    /// What the model's reply has to match; by default anything goes.
    fn constraint(&self, _ctx: Context) -> Option<JsonSchema> {
        None
    }
    /// Returns the content in place of the model's text.
    ///
    /// # Errors
    /// A refusal ends the request with its message.
    fn format(&self, ctx: Context, reply: String) -> Result<Content, Refusal>;
}
