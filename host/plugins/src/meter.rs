//! CPU time of one call, by the thread's own clock: a busy machine does not make a plugin look slow.
//!
//! Every epoch tick the guest gives the thread back, so a call is a row of short runs. The first run is at most a tick long;
//! from the second on each is measured by the thread's CPU clock. Short calls, which are nearly all, never read that clock.
//!
//! One instruction may fill all of a memory, and nothing interrupts it: in a guest with a large memory the first run can be ten
//! ticks long, so there it is measured as well.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Sleep;
use wasmtime::{StoreContextMut, UpdateDeadline};

use crate::Limits;
use crate::engine::TICK;

/// A guest that may have more memory than this is measured from a call's first run on.
const LARGE_MEMORY: u64 = 32 << 20;

/// The CPU time of the call under way. Shared by the call's future and its store; both run on one thread at a time, so that
/// relaxed atomics only satisfy the type system.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    used_ns: AtomicU64,
    /// Thread CPU time when the present run began; 0 while no tick has come.
    run_began_ns: AtomicU64,
    ticked: AtomicU64,
    limit_ns: AtomicU64,
    from_first: bool,
}

/// The guest used up its CPU time.
#[derive(Debug)]
pub(crate) struct CpuSpent;

impl std::fmt::Display for CpuSpent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the CPU time is used up")
    }
}

impl std::error::Error for CpuSpent {}

impl Meter {
    /// For a guest that may have `memory` bytes.
    pub(crate) fn new(memory: u64) -> Self {
        Meter { from_first: memory > LARGE_MEMORY, ..Meter::default() }
    }

    fn begin(&self, limit: Duration) {
        self.used_ns.store(0, Ordering::Relaxed);
        self.run_began_ns.store(0, Ordering::Relaxed);
        self.ticked.store(0, Ordering::Relaxed);
        self.limit_ns.store(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn run_begins(&self) {
        if self.from_first || self.ticked.load(Ordering::Relaxed) != 0 {
            self.run_began_ns.store(thread_cpu_ns(), Ordering::Relaxed);
        }
    }

    fn run_ends(&self) {
        let began = self.run_began_ns.swap(0, Ordering::Relaxed);
        if began != 0 {
            self.used_ns.fetch_add(thread_cpu_ns().saturating_sub(began), Ordering::Relaxed);
        }
    }

    /// What the store does at an epoch tick.
    pub(crate) fn on_tick<T>(&self, _store: StoreContextMut<'_, T>, call_began: Instant) -> wasmtime::Result<UpdateDeadline> {
        self.ticks(call_began);
        if self.used_ns.load(Ordering::Relaxed) > self.limit_ns.load(Ordering::Relaxed) {
            return Err(CpuSpent.into());
        }
        Ok(UpdateDeadline::Yield(1))
    }

    fn ticks(&self, call_began: Instant) {
        if self.ticked.fetch_add(1, Ordering::Relaxed) == 0 && !self.from_first {
            let first = call_began.elapsed().min(TICK);
            self.used_ns.fetch_add(u64::try_from(first.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        } else {
            self.run_ends();
        }
    }
}

/// The guest waited for the host for too long.
#[derive(Debug)]
pub(crate) struct HostTimeSpent;

impl std::fmt::Display for HostTimeSpent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the time for calls to the host is used up")
    }
}

impl std::error::Error for HostTimeSpent {}

/// A call whose CPU time is counted, and whose waiting for the host has an end.
pub(crate) struct Metered<F> {
    meter: Arc<Meter>,
    call: F,
    host_time: Duration,
    /// Runs from the first wait for the host on.
    wait: Option<Pin<Box<Sleep>>>,
}

impl<F> Metered<F> {
    pub(crate) fn new(meter: Arc<Meter>, limits: &Limits, call: F) -> Self {
        meter.begin(limits.cpu);
        Metered { meter, call, host_time: limits.host_time, wait: None }
    }
}

impl<T, F: Future<Output = wasmtime::Result<T>> + Unpin> Future for Metered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let ticks = self.meter.ticked.load(Ordering::Relaxed);
        self.meter.run_begins();
        let polled = Pin::new(&mut self.call).poll(cx);
        self.meter.run_ends();
        // A guest that yielded at a tick goes on by itself; any other wait is for the host.
        if polled.is_pending() && self.meter.ticked.load(Ordering::Relaxed) == ticks {
            let host_time = self.host_time;
            let wait = self.wait.get_or_insert_with(|| Box::pin(tokio::time::sleep(host_time)));
            if wait.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(HostTimeSpent.into()));
            }
        }
        polled
    }
}

/// The CPU time of this thread so far, in nanoseconds.
pub(crate) fn thread_cpu_ns() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    // Never 0, which stands for "not measured".
    (seconds.saturating_mul(1_000_000_000).saturating_add(nanos)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CPU time that is counted at the first tick after a run of 20 ms.
    fn counted(memory: u64) -> Duration {
        let meter = Meter::new(memory);
        let began = Instant::now();
        meter.begin(Duration::from_millis(50));
        meter.run_begins();
        let until = thread_cpu_ns() + 20_000_000;
        while thread_cpu_ns() < until {}
        meter.ticks(began);
        Duration::from_nanos(meter.used_ns.load(Ordering::Relaxed))
    }

    /// P-W1: an instruction that fills 64 MiB is no free ride.
    #[test]
    fn a_large_guest_is_measured_from_its_first_run_on() {
        assert_eq!(counted(LARGE_MEMORY), TICK);
        assert!(counted(LARGE_MEMORY + 1) >= Duration::from_millis(20));
    }
}
