//! How long threads that wait for each other spin before they sleep.
//!
//! Waking a thread that sleeps takes tens of microseconds where its core sleeps too, and the threads of a model wait for each other
//! some hundred times for a token: alone on a machine, decoding is nearly three times as fast when they spin. Where other programs
//! want the cores it is the other way round, since who spins takes time from the very thread it waits for. A wait that spun in vain
//! does not tell which it is (a virtual machine's host may have taken a core away, and spinning is still right), but the kernel
//! does: it counts the time in which a thread was ready and another ran on its core.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a wait looks before it sleeps, about 1 ms.
const LONG: u32 = 60_000;
/// The same while the cores are wanted by others.
const SHORT: u32 = 100;
/// After as many waits in vain the kernel is asked.
const STRIKES: u32 = 4;
/// For how long spinning is short then, at first; each time that the cores turn out to be still wanted, twice as long.
const SHORT_FOR: std::ops::RangeInclusive<Duration> = Duration::from_millis(400)..=Duration::from_secs(3);
/// What the kernel says is looked at over this long at least, so that a moment's work of another program changes nothing.
const LOOK: Duration = Duration::from_millis(40);

/// How long the threads of a team spin. All of them use it.
#[derive(Debug)]
pub(crate) struct Patience {
    spins: AtomicU32,
    strikes: AtomicU32,
    cores: Mutex<Cores>,
}

/// What the kernel says of the threads' time.
#[derive(Debug)]
struct Cores {
    /// `/proc/thread-self/schedstat` of each thread, opened by itself.
    threads: Vec<File>,
    since: Instant,
    /// What all of them had waited for a core until `since`.
    waited: Duration,
    /// Until when spinning is short, and for how long the next time.
    short_until: Instant,
    short_for: Duration,
}

impl Patience {
    pub(crate) fn new() -> Self {
        let (waited, since) = (Duration::ZERO, Instant::now());
        let cores = Cores { threads: Vec::new(), since, waited, short_until: since, short_for: *SHORT_FOR.start() };
        Patience { spins: AtomicU32::new(LONG), strikes: AtomicU32::new(0), cores: Mutex::new(cores) }
    }

    /// Counts the time of this thread from now on. Where the kernel tells nothing, spinning stays long.
    pub(crate) fn join(&self) {
        if let Ok(file) = File::open("/proc/thread-self/schedstat") {
            let mut cores = self.cores();
            cores.threads.push(file);
            cores.restart();
        }
    }

    /// How often a wait looks before it sleeps.
    pub(crate) fn spins(&self) -> u32 {
        self.spins.load(Ordering::Relaxed)
    }

    /// A wait that looked `spins` times had to sleep.
    pub(crate) fn in_vain(&self, spins: u32) {
        if spins != LONG || !(self.strikes.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(STRIKES) {
            return;
        }
        let mut cores = self.cores();
        if cores.since.elapsed() < LOOK {
            return;
        }
        if cores.are_wanted() {
            self.spins.store(SHORT, Ordering::Relaxed);
            cores.short_until = Instant::now() + cores.short_for;
            cores.short_for = (cores.short_for * 2).min(*SHORT_FOR.end());
        } else {
            cores.short_for = *SHORT_FOR.start();
            cores.restart();
        }
    }

    /// Spins long again if it was short for long enough. For the thread that leads.
    pub(crate) fn recover(&self) {
        if self.spins() == LONG {
            return;
        }
        let mut cores = self.cores();
        if Instant::now() >= cores.short_until {
            cores.restart();
            self.spins.store(LONG, Ordering::Relaxed);
        }
    }

    fn cores(&self) -> std::sync::MutexGuard<'_, Cores> {
        self.cores.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cores {
    /// Whether the threads waited for a core for more than a fifth of the time since it was last asked.
    fn are_wanted(&self) -> bool {
        let threads = u32::try_from(self.threads.len()).unwrap_or(u32::MAX);
        self.all_waited().saturating_sub(self.waited) > self.since.elapsed() * threads / 5
    }

    fn restart(&mut self) {
        self.waited = self.all_waited();
        self.since = Instant::now();
    }

    fn all_waited(&self) -> Duration {
        self.threads.iter().filter_map(waited).sum()
    }
}

/// The second of the file's three numbers: nanoseconds in the queue of a core (Linux, Documentation/scheduler/sched-stats.rst).
fn waited(schedstat: &File) -> Option<Duration> {
    let mut bytes = [0; 96];
    let length = schedstat.read_at(&mut bytes, 0).ok()?;
    let text = std::str::from_utf8(bytes.get(..length)?).ok()?;
    Some(Duration::from_nanos(text.split_ascii_whitespace().nth(1)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn strike(patience: &Patience) {
        (0..STRIKES).for_each(|_| patience.in_vain(LONG));
    }

    /// Threads that sleep want no core; more threads than cores, that all want one, wait.
    #[test]
    fn spinning_is_short_while_the_cores_are_wanted() {
        let patience = Patience::new();
        patience.join();
        std::thread::sleep(LOOK);
        strike(&patience);
        assert_eq!(patience.spins(), LONG);

        let patience = Patience::new();
        let over = AtomicBool::new(false);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..4 * cores {
                scope.spawn(|| {
                    patience.join();
                    while !over.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            let until = Instant::now() + Duration::from_secs(60);
            while patience.spins() == LONG && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(50));
                strike(&patience);
            }
            over.store(true, Ordering::Relaxed);
        });
        assert_eq!(patience.spins(), SHORT);
        patience.recover();
        assert_eq!(patience.spins(), SHORT, "not yet");
        patience.cores().short_until = Instant::now();
        patience.recover();
        assert_eq!(patience.spins(), LONG);
    }

    #[test]
    fn the_kernel_counts_what_a_thread_waits() {
        assert!(waited(&File::open("/proc/thread-self/schedstat").expect("Linux")).is_some());
    }
}
