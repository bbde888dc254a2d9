//! Logs as JSON lines on standard error, metrics for Prometheus, traces for OpenTelemetry, request ids, and trace context.
//!
//! It sets up the `tracing` and `metrics` facades that everyone else writes to; nobody but the binary needs this crate.

mod ids;
mod log;
mod process;
mod prometheus;
mod traces;

pub use ids::{TraceContext, request_id};
pub use log::{LevelHandle, LogError, init};
pub use prometheus::{FAMILIES, Family, Installed, Kind, Metrics, Scrape};
pub use traces::{RequestTrace, Tracer, Traces, TracesError};
