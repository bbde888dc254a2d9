//! Logs as JSON lines on standard error, request ids, and trace context.
//!
//! It sets up the `tracing` facade that everyone else writes to; nobody but the binary needs this crate.

mod ids;
mod log;

pub use ids::{TraceContext, request_id};
pub use log::{LevelHandle, LogError, init};
