//! What one instance may use.

use std::time::Duration;

use wasmtime::ResourceLimiter;

use crate::engine::{MAX_MEMORY_BYTES, MAX_TABLE_ELEMENTS};

/// What one instance may use. The defaults are P-W1's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Memory over the snapshot's own size, in bytes; 64 MiB in all at most.
    pub memory_over_snapshot: u64,
    /// Its own CPU time per call, not counting what others used meanwhile.
    pub cpu: Duration,
    /// All its calls to the host together.
    pub host_time: Duration,
    /// Bytes it may return from a call, all values together.
    pub output_bytes: usize,
    /// Resource handles.
    pub handles: usize,
    /// Bytes that it may add to the log per request, lines as they stand there.
    pub log_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            memory_over_snapshot: 16 << 20,
            cpu: Duration::from_millis(50),
            host_time: Duration::from_secs(5),
            output_bytes: 8 << 20,
            handles: 1_000,
            log_bytes: 64 << 10,
        }
    }
}

/// Counts an instance's memory and says no at the limit.
#[derive(Debug)]
pub(crate) struct MemoryLimit {
    limit: usize,
    used: usize,
    refused: bool,
}

impl MemoryLimit {
    pub(crate) fn new(limit: u64) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(MAX_MEMORY_BYTES);
        MemoryLimit { limit, used: 0, refused: false }
    }

    /// Whether more was wanted than allowed.
    pub(crate) fn refused(&self) -> bool {
        self.refused
    }

    /// Bytes of all memories together.
    pub(crate) fn used(&self) -> usize {
        self.used
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let used = self.used.saturating_add(desired.saturating_sub(current));
        if used > self.limit {
            self.refused = true;
            return Ok(false);
        }
        self.used = used;
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= MAX_TABLE_ELEMENTS)
    }
}
