//! What the host offers to an instance, and the state behind it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate_domain::Principal;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use crate::bindings::{credentials, log, types};
use crate::limits::{Limits, MemoryLimit};

/// Why a look-up gave no one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupError {
    /// No such key.
    Unknown,
    /// It was valid until then, in milliseconds since 1970-01-01T00:00:00Z.
    Expired(u64),
    /// It was revoked.
    Revoked,
    /// The store did not answer.
    Unavailable,
}

/// What a look-up comes to.
pub type Lookup<'a> = Pin<Box<dyn Future<Output = Result<Principal, LookupError>> + Send + 'a>>;

/// Keys, kept elsewhere.
pub trait Credentials: Send + Sync + 'static {
    /// Who holds `secret`.
    fn lookup<'a>(&'a self, secret: &'a str) -> Lookup<'a>;
}

/// What one call may draw at random: drawing cannot be interrupted.
const MAX_RANDOM_BYTES: u64 = 64 << 10;

/// What a line of the log has besides its text: time, level, plugin, request.
const LINE_BYTES: usize = 200;

/// One instance's host side.
pub(crate) struct State {
    pub(crate) memory: MemoryLimit,
    /// The plugin's id, for its log lines.
    plugin: Arc<str>,
    request_id: Arc<str>,
    log_left: usize,
    log_dropped: u32,
    /// Lines that are kept, for golden cases.
    kept: Option<Vec<String>>,
    credentials: Option<Arc<dyn Credentials>>,
    host_time_left: Duration,
    host_time_spent: bool,
    wasi: Option<Box<Wasi>>,
}

struct Wasi {
    ctx: WasiCtx,
    table: ResourceTable,
}

impl State {
    pub(crate) fn new(plugin: Arc<str>, request_id: Arc<str>, limits: &Limits, memory: u64) -> Self {
        State {
            memory: MemoryLimit::new(memory),
            plugin,
            request_id,
            log_left: limits.log_bytes,
            log_dropped: 0,
            kept: None,
            credentials: None,
            host_time_left: limits.host_time,
            host_time_spent: false,
            wasi: None,
        }
    }

    pub(crate) fn with_credentials(mut self, credentials: Option<Arc<dyn Credentials>>) -> Self {
        self.credentials = credentials;
        self
    }

    /// Adds the standard interfaces: clocks and chance are real, everything else is empty.
    pub(crate) fn with_wasi(self, handles: usize) -> Self {
        self.with_context(handles, &mut WasiCtx::builder())
    }

    /// The same for the build step, which keeps what is written to standard error: a language's runtime says there why it failed.
    pub(crate) fn with_wasi_heard(self, handles: usize, stderr: MemoryOutputPipe) -> Self {
        self.with_context(handles, WasiCtx::builder().stderr(stderr))
    }

    fn with_context(mut self, handles: usize, ctx: &mut WasiCtxBuilder) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(handles);
        self.wasi = Some(Box::new(Wasi { ctx: ctx.max_random_size(MAX_RANDOM_BYTES).build(), table }));
        self
    }

    /// Whether the guest holds anything of the host's, such as a standard stream that it has printed to.
    pub(crate) fn lends_handles(&self) -> bool {
        self.wasi.as_ref().is_some_and(|wasi| !wasi.table.is_empty())
    }

    /// A message as it may stand in the log, if there is room for it: `escape_debug` leaves no control character, so that a line
    /// stays a line. A line costs what it takes in the log, so that many short or much escaped ones are no way around the limit.
    fn admit(&mut self, message: &str) -> Option<String> {
        let escaped = || {
            let text = message.escape_debug().to_string();
            // These are escaped once more in the log's JSON.
            let again = text.bytes().filter(|byte| matches!(byte, b'\\' | b'"')).count();
            let cost = LINE_BYTES.saturating_add(text.len()).saturating_add(again);
            Some((self.log_left.checked_sub(cost)?, text))
        };
        let fits = self.log_left >= LINE_BYTES.saturating_add(message.len());
        let Some((left, text)) = fits.then(escaped).flatten() else {
            self.log_left = 0;
            self.log_dropped = self.log_dropped.saturating_add(1);
            return None;
        };
        self.log_left = left;
        Some(text)
    }

    /// Keeps lines from now on.
    pub(crate) fn keep_log(&mut self) {
        self.kept = Some(Vec::new());
    }

    /// The lines that were kept since the last call.
    pub(crate) fn logged(&mut self) -> Vec<String> {
        self.kept.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Whether the host's time for this instance ran out.
    pub(crate) fn host_time_spent(&self) -> bool {
        self.host_time_spent
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if self.log_dropped > 0 {
            tracing::warn!(plugin = %self.plugin, request_id = %self.request_id, lines = self.log_dropped, "plugin log lines dropped");
        }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = self.wasi.as_deref_mut().expect("the standard interfaces are linked only where the state has them");
        WasiCtxView { ctx: &mut wasi.ctx, table: &mut wasi.table }
    }
}

impl types::Host for State {}

impl log::Host for State {
    async fn write(&mut self, level: log::Level, message: String) {
        let Some(text) = self.admit(&message) else { return };
        if let Some(kept) = &mut self.kept {
            kept.push(message);
        }
        let (plugin, request_id) = (&*self.plugin, &*self.request_id);
        match level {
            log::Level::Debug => tracing::debug!(target: "plugin", plugin, request_id, "{text}"),
            log::Level::Info => tracing::info!(target: "plugin", plugin, request_id, "{text}"),
            log::Level::Warn => tracing::warn!(target: "plugin", plugin, request_id, "{text}"),
            log::Level::Error => tracing::error!(target: "plugin", plugin, request_id, "{text}"),
        }
    }
}

impl credentials::Host for State {
    async fn lookup(&mut self, secret: String) -> Result<types::Principal, credentials::LookupError> {
        let Some(store) = self.credentials.clone() else {
            return Err(credentials::LookupError::Unavailable);
        };
        let began = Instant::now();
        let found = tokio::time::timeout(self.host_time_left, store.lookup(&secret)).await;
        self.host_time_left = self.host_time_left.saturating_sub(began.elapsed());
        match found {
            Ok(Ok(principal)) => Ok(principal.into()),
            Ok(Err(LookupError::Unknown)) => Err(credentials::LookupError::Unknown),
            Ok(Err(LookupError::Expired(at_ms))) => Err(credentials::LookupError::Expired(at_ms)),
            Ok(Err(LookupError::Revoked)) => Err(credentials::LookupError::Revoked),
            Ok(Err(LookupError::Unavailable)) => Err(credentials::LookupError::Unavailable),
            Err(_) => {
                self.host_time_spent = true;
                Err(credentials::LookupError::Unavailable)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(message: &str) -> usize {
        let mut state = State::new("p".into(), "r".into(), &Limits::default(), 0);
        (0..10_000).take_while(|_| state.admit(message).is_some()).count()
    }

    /// P-W1: 64 KiB are 64 KiB, whatever the lines are made of.
    #[test]
    fn a_line_costs_what_it_takes_in_the_log() {
        assert_eq!(lines(""), 327);
        assert_eq!(lines(&"x".repeat(1_024)), 53);
        // `\\u{1b}` in the log's JSON.
        assert_eq!(lines(&"\u{1b}".repeat(1_024)), 8);
        assert_eq!(lines(&"x".repeat(65_536)), 0);
    }
}
