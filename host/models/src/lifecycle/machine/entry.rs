//! One model's state.

use super::{Facts, Incarnation};

/// How long a failed load is not tried again: doubled with each failure, up to the longest.
const FIRST_REST_MS: u64 = 1_000;
const LONGEST_REST_MS: u64 = 300_000;
/// A model that was loaded serves at least so long before it has to make room, if it is in use: as many times as long as its load
/// took, within bounds.
const TURN_LOADS: u64 = 4;
const SHORTEST_TURN_MS: u64 = 500;
const LONGEST_TURN_MS: u64 = 30_000;
/// A model within its turn counts as in use for so long after its last lease: the next request may be on its way.
const GRACE_MS: u64 = 100;
/// What a request counts for halves in this time.
const HALF_LIFE_MS: f64 = 300_000.0;
/// What a load is taken to cost before it was ever measured: a second for each GiB, and something for beginning at all.
const BYTES_PER_MS: u64 = 1 << 20;
const LOAD_BASE_MS: u64 = 20;

/// Where a model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Cold,
    Loading,
    Ready(Ready),
    Leaving,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ready {
    /// Since when.
    since: u64,
    /// Since when it has had no lease; meaningless while it has one.
    idle_since: u64,
    /// Whether its bytes are claimed: nobody new is let in.
    pub(super) is_draining: bool,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) facts: Facts,
    /// How long it stays without a lease: what was asked for last since it was loaded, within what is in the facts.
    keep_alive_ms: Option<u64>,
    /// Bytes of its adapters.
    pub(super) adapters: u64,
    pub(super) phase: Phase,
    pub(super) leases: u32,
    incarnation: Incarnation,
    pub(super) is_forgotten: bool,
    load_ms: u64,
    heat: f64,
    heat_at: u64,
    failures: u32,
    pub(super) rests_until: u64,
}

impl Entry {
    pub(super) fn new(facts: Facts) -> Self {
        Entry {
            load_ms: LOAD_BASE_MS + facts.bytes / BYTES_PER_MS,
            keep_alive_ms: facts.keep_alive_ms,
            facts,
            adapters: 0,
            phase: Phase::Cold,
            leases: 0,
            incarnation: Incarnation(0),
            is_forgotten: false,
            heat: 0.0,
            heat_at: 0,
            failures: 0,
            rests_until: 0,
        }
    }

    /// Bytes that it takes with its adapters.
    pub(super) fn bytes(&self) -> u64 {
        self.facts.bytes.saturating_add(self.adapters)
    }

    /// Stays so long without a lease, if it may.
    pub(super) fn keep_alive(&mut self, ms: Option<u64>) {
        self.keep_alive_ms = [ms, self.facts.keep_alive_ms].into_iter().flatten().min();
    }

    /// Counts a request.
    pub(super) fn used(&mut self, now: u64) {
        (self.heat, self.heat_at) = (self.heat_now(now) + 1.0, now);
    }

    fn heat_now(&self, now: u64) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "a weight")]
        let passed = now.saturating_sub(self.heat_at) as f64;
        self.heat * (-passed / HALF_LIFE_MS).exp2()
    }

    /// What its going costs: its load again, times how much it is used.
    pub(super) fn cost(&self, now: u64) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "a weight")]
        let load_ms = self.load_ms as f64;
        load_ms * (self.heat_now(now) + 0.01)
    }

    /// A lease, if it may be given.
    pub(super) fn lease(&mut self) -> Option<Incarnation> {
        let is_open = matches!(self.phase, Phase::Ready(ready) if !ready.is_draining);
        is_open.then(|| {
            self.leases += 1;
            self.incarnation
        })
    }

    /// Takes a lease back; whether it was the last one.
    pub(super) fn returned(&mut self, incarnation: Incarnation, now: u64) -> bool {
        if incarnation != self.incarnation || self.leases == 0 {
            return false;
        }
        self.leases -= 1;
        if let (0, Phase::Ready(ready)) = (self.leases, &mut self.phase) {
            ready.idle_since = now;
        }
        self.leases == 0
    }

    /// `bytes` is what its backend says it takes; buffers that its first long step will touch are only in what was predicted.
    pub(super) fn loaded(&mut self, bytes: u64, took_ms: u64, now: u64) {
        self.phase = Phase::Ready(Ready { since: now, idle_since: now, is_draining: false });
        self.incarnation = Incarnation(self.incarnation.0.wrapping_add(1));
        // What somebody asked for ends with the incarnation: who wanted it gone at once does not decide for those who come later.
        self.keep_alive_ms = self.facts.keep_alive_ms;
        (self.leases, self.facts.bytes, self.load_ms) = (0, bytes.max(self.facts.bytes), took_ms.max(1));
    }

    /// Begins to unload it, in good health.
    pub(super) fn leave(&mut self) {
        (self.phase, self.failures) = (Phase::Leaving, 0);
    }

    /// After a load that failed.
    pub(super) fn failed(&mut self, now: u64) {
        self.phase = Phase::Cold;
        self.failures = self.failures.saturating_add(1);
        self.rest(now, self.failures);
    }

    /// After its end. The first time it is loaded again at once; what had served for longer than the longest rest begins anew.
    pub(super) fn died(&mut self, now: u64) {
        if matches!(self.phase, Phase::Ready(ready) if now.saturating_sub(ready.since) > LONGEST_REST_MS) {
            self.failures = 0;
        }
        self.phase = Phase::Leaving;
        self.failures = self.failures.saturating_add(1);
        self.rest(now, self.failures - 1);
    }

    fn rest(&mut self, now: u64, failures: u32) {
        let rest = failures.checked_sub(1).map_or(0, |doublings| FIRST_REST_MS.saturating_mul(1 << doublings.min(20)));
        self.rests_until = now.saturating_add(rest.min(LONGEST_REST_MS));
    }

    /// How long it still rests after a failure.
    pub(super) fn rests_for(&self, now: u64) -> Option<u64> {
        self.rests_until.checked_sub(now).filter(|ms| *ms > 0 && self.phase == Phase::Cold)
    }

    pub(super) fn is_held(&self) -> bool {
        self.phase != Phase::Cold
    }

    /// Whether it is pinned, and somebody may still ask for it.
    pub(super) fn stays(&self) -> bool {
        self.facts.is_pinned && !self.is_forgotten
    }

    /// From when on its bytes may be taken, as it is now; `None` if they may not.
    pub(super) fn free_from(&self) -> Option<u64> {
        let Phase::Ready(ready) = self.phase else { return None };
        if self.stays() {
            return None;
        }
        let turn = self.load_ms.saturating_mul(TURN_LOADS).clamp(SHORTEST_TURN_MS, LONGEST_TURN_MS);
        let turn_ends = ready.since.saturating_add(turn);
        if self.leases > 0 { Some(turn_ends) } else { Some(turn_ends.min(ready.idle_since.saturating_add(GRACE_MS))) }
    }

    /// When it is unloaded for want of use.
    pub(super) fn expires(&self) -> Option<u64> {
        let Phase::Ready(ready) = self.phase else { return None };
        if self.leases > 0 || self.stays() {
            return None;
        }
        if self.is_forgotten { Some(0) } else { self.keep_alive_ms.map(|ms| ready.idle_since.saturating_add(ms)) }
    }

    /// The next time after `seen` at which something may change by itself.
    pub(super) fn next_event(&self, is_waited_for: bool, seen: u64) -> Option<u64> {
        let free = if is_waited_for { self.free_from() } else { None };
        [free, self.expires()].into_iter().flatten().filter(|at| *at > seen).min()
    }

    pub(super) fn word(&self, now: u64) -> &'static str {
        match self.phase {
            Phase::Cold if self.rests_for(now).is_some() => "failed",
            Phase::Cold => "cold",
            Phase::Loading => "loading",
            Phase::Ready(ready) if ready.is_draining => "draining",
            Phase::Ready(_) => "ready",
            Phase::Leaving => "unloading",
        }
    }
}
