//! JSON lines on standard error: time, level, target, message, fields. And where spans go, if anywhere.

use tracing_subscriber::filter::{FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt};

use crate::Traces;

/// The log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is malformed.
    #[error("the log level `{0}` is not known: use error, warn, info, debug or trace, or `target=level` separated by commas")]
    Level(String),
    /// It was set up before.
    #[error("the log was set up before")]
    Twice,
}

/// Changes the level of a running log.
#[derive(Clone)]
pub struct LevelHandle(Handle<EnvFilter, Registry>);

impl std::fmt::Debug for LevelHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LevelHandle(..)")
    }
}

impl LevelHandle {
    /// Sets another level.
    ///
    /// # Errors
    /// It is malformed; the old one stays.
    pub fn set(&self, level: &str) -> Result<(), LogError> {
        let filter = parse(level)?;
        self.0.reload(filter).map_err(|_| LogError::Twice)
    }
}

/// Sets up the process's log at `level`. Events become lines, spans become traces if there are any.
///
/// # Errors
/// The level is malformed, or there is a log already.
pub fn init(level: &str, traces: Option<&Traces>) -> Result<LevelHandle, LogError> {
    let (filter, handle) = reload::Layer::new(parse(level)?);
    let events = filter_fn(|metadata| metadata.is_event()).with_max_level_hint(LevelFilter::TRACE);
    let lines =
        fmt::layer().json().flatten_event(true).with_current_span(false).with_span_list(false).with_writer(std::io::stderr);
    tracing_subscriber::registry()
        .with(lines.with_filter(filter.and(events)))
        .with(traces.map(Traces::layer))
        .try_init()
        .map_err(|_| LogError::Twice)?;
    Ok(LevelHandle(handle))
}

/// What libraries say below a warning is theirs alone.
fn parse(level: &str) -> Result<EnvFilter, LogError> {
    let quiet =
        ["hyper", "h2", "rustls", "wasmtime", "cranelift", "llama-cpp-2"].map(|target| format!("{target}=warn")).join(",");
    EnvFilter::try_new(format!("{level},{quiet}")).map_err(|_| LogError::Level(level.to_owned()))
}
