//! Whether threads that wait for each other spin for long before they sleep.
//!
//! Waking a thread that sleeps takes tens of microseconds where its core sleeps too, and the threads of a model wait for each other
//! some hundred times for a token: alone on a machine, decoding is nearly three times as fast when they spin. Where other programs
//! want the cores it is the other way round, since who spins takes time from the very thread it waits for. A wait that spun in vain
//! does not tell which it is (a virtual machine's host may have taken a core away, and spinning is still right), but the kernel
//! does: it counts the time in which a thread was ready and another ran on its core.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// After as many waits in vain the kernel is asked.
const STRIKES: u32 = 4;
/// How long what the kernel says is looked at. Less would let a moment's work of another program decide, more would hide it.
const LOOK: RangeInclusive<Duration> = Duration::from_millis(40)..=Duration::from_millis(400);
/// For how long waits are short then, at first; each time that the cores turn out to be still wanted, twice as long.
const SHORT_FOR: RangeInclusive<Duration> = Duration::from_millis(400)..=Duration::from_secs(3);

/// What the threads of a team know of the others on this machine.
#[derive(Debug)]
pub(crate) struct Patience {
    /// Whether it may ever be long.
    is_allowed: AtomicBool,
    is_long: AtomicBool,
    strikes: AtomicU32,
    cores: Mutex<Cores>,
}

/// What the kernel says of the threads' time.
#[derive(Debug)]
struct Cores {
    threads: Vec<Thread>,
    since: Instant,
    /// Until when waits are short, and for how long the next time.
    short_until: Instant,
    short_for: Duration,
}

#[derive(Debug)]
struct Thread {
    id: u32,
    /// How long it had waited for a core at [`Cores::since`].
    waited: Duration,
}

impl Patience {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        let cores = Cores { threads: Vec::new(), since: now, short_until: now, short_for: *SHORT_FOR.start() };
        Patience {
            is_allowed: AtomicBool::new(true),
            is_long: AtomicBool::new(true),
            strikes: AtomicU32::new(0),
            cores: Mutex::new(cores),
        }
    }

    /// Counts this thread's time from now on.
    pub(crate) fn join(&self) {
        let id = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        let mut cores = self.cores();
        cores.threads.push(Thread { id, waited: Duration::ZERO });
        cores.restart();
    }

    /// Whether to spin for long.
    pub(crate) fn is_long(&self) -> bool {
        self.is_long.load(Ordering::Relaxed) && self.is_allowed.load(Ordering::Relaxed)
    }

    /// Whether to spin for long at all from now on.
    pub(crate) fn allow(&self, is_allowed: bool) {
        self.is_allowed.store(is_allowed, Ordering::Relaxed);
    }

    /// A long wait had to sleep.
    pub(crate) fn in_vain(&self) {
        if (self.strikes.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(STRIKES) {
            let mut cores = self.cores();
            // Another may have asked while this one waited for the lock.
            if self.is_long() && cores.judge(Instant::now()) {
                self.is_long.store(false, Ordering::Relaxed);
            }
        }
    }

    /// Spins for long again if it did not for long enough. For the thread that leads.
    pub(crate) fn recover(&self) {
        if self.is_long.load(Ordering::Relaxed) {
            return;
        }
        let mut cores = self.cores();
        if Instant::now() >= cores.short_until {
            cores.restart();
            self.is_long.store(true, Ordering::Relaxed);
        }
    }

    fn cores(&self) -> MutexGuard<'_, Cores> {
        self.cores.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cores {
    /// Whether waits are to be short from `now` on.
    fn judge(&mut self, now: Instant) -> bool {
        let looked = now.saturating_duration_since(self.since);
        if looked < *LOOK.start() {
            return false;
        }
        if looked > *LOOK.end() {
            self.restart();
            return false;
        }
        // All wait for the slowest.
        let wait = self.threads.iter().map(|thread| waited(thread.id).saturating_sub(thread.waited)).max().unwrap_or_default();
        let is_wanted = self.decide(wait, looked, now);
        if !is_wanted {
            self.restart();
        }
        is_wanted
    }

    /// Whether a thread that waited for a core for `wait` of `looked` says that others want the cores: more than three tenths.
    /// Next to one busy program on two cores it is a third at least; clients on this machine make it a fifth at times.
    fn decide(&mut self, wait: Duration, looked: Duration, now: Instant) -> bool {
        let is_wanted = wait > looked * 3 / 10;
        if is_wanted {
            self.short_until = now + self.short_for;
            self.short_for = (self.short_for * 2).min(*SHORT_FOR.end());
        } else {
            self.short_for = *SHORT_FOR.start();
        }
        is_wanted
    }

    fn restart(&mut self) {
        for thread in &mut self.threads {
            thread.waited = waited(thread.id);
        }
        self.since = Instant::now();
    }
}

/// How long a thread of this process has waited for a core: the second of three numbers, in nanoseconds (Linux,
/// Documentation/scheduler/sched-stats.rst). Nothing where the kernel does not tell: then waits stay long.
fn waited(thread: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).unwrap_or_default();
    let nanoseconds = text.split_ascii_whitespace().nth(1).and_then(|word| word.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn waits_are_short_for_longer_each_time_that_the_cores_are_wanted() {
        let mut cores = Patience::new().cores.into_inner().expect("held by nobody");
        let now = Instant::now();
        assert!(!cores.decide(12 * MS, 40 * MS, now), "not more than three tenths");
        let short = [(); 5].map(|()| {
            assert!(cores.decide(13 * MS, 40 * MS, now));
            cores.short_until - now
        });
        assert_eq!(short, [400, 800, 1_600, 3_000, 3_000].map(Duration::from_millis));
        assert!(!cores.decide(MS, 40 * MS, now));
        assert_eq!(cores.short_for, *SHORT_FOR.start());
    }

    #[test]
    fn where_spinning_is_off_waits_are_short_until_it_is_on_again() {
        let patience = Patience::new();
        patience.allow(false);
        patience.recover();
        assert!(!patience.is_long());
        patience.allow(true);
        assert!(patience.is_long());
    }

    #[test]
    fn what_was_looked_at_too_short_or_too_long_says_nothing() {
        let patience = Patience::new();
        patience.join();
        let mut cores = patience.cores();
        // It has waited for all of its life.
        cores.threads.iter_mut().for_each(|thread| thread.waited = Duration::ZERO);
        let since = cores.since;
        assert!(!cores.judge(since + *LOOK.start() - MS));
        assert_eq!(cores.since, since, "it is looked at further");
        assert!(!cores.judge(since + *LOOK.end() + MS));
        assert_ne!(cores.since, since, "it begins anew");
    }

    #[test]
    fn short_waits_become_long_again_in_time() {
        let patience = Patience::new();
        patience.is_long.store(false, Ordering::Relaxed);
        patience.cores().short_until = Instant::now() + Duration::from_secs(3_600);
        patience.recover();
        assert!(!patience.is_long(), "not yet");
        patience.cores().short_until = Instant::now();
        patience.recover();
        assert!(patience.is_long());
    }

    /// More threads than cores, all of which want one: the kernel counts that some wait.
    #[test]
    fn the_kernel_counts_what_a_thread_waits() {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let until = Instant::now() + Duration::from_secs(60);
        std::thread::scope(|scope| {
            let spinning = (0..4 * cores).map(|_| {
                scope.spawn(|| {
                    let own = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
                    while waited(own) < 5 * MS && Instant::now() < until {
                        (0..100_000).for_each(|_| std::hint::spin_loop());
                    }
                    waited(own)
                })
            });
            let spinning = spinning.collect::<Vec<_>>();
            let waits = spinning.into_iter().map(|thread| thread.join().expect("no panic"));
            assert!(waits.max().unwrap_or_default() >= 5 * MS);
        });
    }
}
