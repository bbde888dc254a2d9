//! What an engine is doing, readable from any thread.
//!
//! Plain atomics: a reader may see one number a step older than another.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// How many buckets [`Gauges::rows_per_step`] has.
pub const ROW_BUCKETS: usize = 10;

/// Counters and gauges of one engine.
#[derive(Debug, Default)]
pub struct Gauges {
    waiting: AtomicUsize,
    running: AtomicUsize,
    parked: AtomicUsize,
    cells: AtomicU64,
    steps: AtomicU64,
    decoded_tokens: AtomicU64,
    prefilled_tokens: AtomicU64,
    cached_tokens: AtomicU64,
    restored_tokens: AtomicU64,
    preemptions: AtomicU64,
    rows: [AtomicU64; ROW_BUCKETS],
    sampled: AtomicU64,
    served: AtomicU64,
    served_ms: AtomicU64,
}

impl Gauges {
    /// Requests that wait for a sequence, from their admission on.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Requests that hold a sequence and are being decoded.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.load(Relaxed)
    }

    /// Requests whose reader has stalled.
    #[must_use]
    pub fn parked(&self) -> usize {
        self.parked.load(Relaxed)
    }

    /// Cells of the key-value cache that requests hold or have reserved; idle prefixes are not counted.
    #[must_use]
    pub fn cells(&self) -> u64 {
        self.cells.load(Relaxed)
    }

    /// Steps decoded.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps.load(Relaxed)
    }

    /// Tokens of replies decoded.
    #[must_use]
    pub fn decoded_tokens(&self) -> u64 {
        self.decoded_tokens.load(Relaxed)
    }

    /// Tokens of prompts decoded, and of replies that had to be computed again.
    #[must_use]
    pub fn prefilled_tokens(&self) -> u64 {
        self.prefilled_tokens.load(Relaxed)
    }

    /// Tokens of prompts that were found in the cache.
    #[must_use]
    pub fn cached_tokens(&self) -> u64 {
        self.cached_tokens.load(Relaxed)
    }

    /// Tokens of requests that had lost their place in the cache and got what they had computed back, without computing it again.
    #[must_use]
    pub fn restored_tokens(&self) -> u64 {
        self.restored_tokens.load(Relaxed)
    }

    /// Times that a request lost its place in the cache to others.
    #[must_use]
    pub fn preemptions(&self) -> u64 {
        self.preemptions.load(Relaxed)
    }

    /// Steps by how many sequences had a token sampled in them: bucket `i` counts steps with 2^i to 2^(i+1) - 1 of them, the last
    /// one all above. Steps of nothing but prompt chunks are in none.
    #[must_use]
    pub fn rows_per_step(&self) -> [u64; ROW_BUCKETS] {
        let mut counts = [0; ROW_BUCKETS];
        for (count, bucket) in counts.iter_mut().zip(&self.rows) {
            *count = bucket.load(Relaxed);
        }
        counts
    }

    /// Tokens sampled, all steps together: what [`Gauges::rows_per_step`] adds up to.
    #[must_use]
    pub fn sampled(&self) -> u64 {
        self.sampled.load(Relaxed)
    }

    pub(crate) fn enter_queue(&self) {
        self.waiting.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_preemption(&self) {
        self.preemptions.fetch_add(1, Relaxed);
    }

    pub(crate) fn leave_queue(&self) {
        self.waiting.fetch_sub(1, Relaxed);
    }

    pub(crate) fn set_sequences(&self, running: usize, parked: usize, cells: u64) {
        self.running.store(running, Relaxed);
        self.parked.store(parked, Relaxed);
        self.cells.store(cells, Relaxed);
    }

    pub(crate) fn count_step(&self, sampled: usize, prefilled: u64) {
        self.steps.fetch_add(1, Relaxed);
        self.prefilled_tokens.fetch_add(prefilled, Relaxed);
        self.sampled.fetch_add(u64::try_from(sampled).unwrap_or(u64::MAX), Relaxed);
        if let Some(bucket) = sampled.checked_ilog2() {
            let bucket = usize::try_from(bucket).unwrap_or(ROW_BUCKETS).min(ROW_BUCKETS - 1);
            if let Some(bucket) = self.rows.get(bucket) {
                bucket.fetch_add(1, Relaxed);
            }
        }
    }

    pub(crate) fn count_decoded(&self, tokens: u64) {
        self.decoded_tokens.fetch_add(tokens, Relaxed);
    }

    pub(crate) fn count_cached(&self, tokens: u64) {
        self.cached_tokens.fetch_add(tokens, Relaxed);
    }

    pub(crate) fn count_restored(&self, tokens: u64) {
        self.restored_tokens.fetch_add(tokens, Relaxed);
    }

    pub(crate) fn count_served(&self, time: Duration) {
        self.served.fetch_add(1, Relaxed);
        self.served_ms.fetch_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    /// In how many seconds a place in the queue is likely, 1 to 60: what waits, at the mean time of a request, over `slots`.
    pub(crate) fn retry_after_s(&self, slots: u16) -> u32 {
        let mean_ms = self.served_ms.load(Relaxed).checked_div(self.served.load(Relaxed)).unwrap_or(1_000);
        let waiting = u64::try_from(self.waiting()).unwrap_or(u64::MAX);
        let seconds = waiting.saturating_mul(mean_ms).div_ceil(1_000 * u64::from(slots.max(1)));
        u32::try_from(seconds.clamp(1, 60)).unwrap_or(60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_counted_by_powers_of_two() {
        let gauges = Gauges::default();
        for sampled in [0, 1, 2, 3, 8, 15, 16, 5_000] {
            gauges.count_step(sampled, 0);
        }
        assert_eq!(gauges.steps(), 8);
        assert_eq!(gauges.rows_per_step(), [1, 2, 0, 2, 1, 0, 0, 0, 0, 1]);
        assert_eq!(gauges.sampled(), 5_045);
    }

    #[test]
    fn retry_after_has_a_range() {
        let gauges = Gauges::default();
        gauges.enter_queue();
        gauges.enter_queue();
        assert_eq!(gauges.retry_after_s(1), 2);
        gauges.count_served(Duration::from_secs(1_000));
        assert_eq!(gauges.retry_after_s(1), 60);
        gauges.leave_queue();
        gauges.leave_queue();
        assert_eq!(gauges.retry_after_s(16), 1);
    }
}
