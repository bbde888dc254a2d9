//! Threads that run the same function together and wait for each other in it, some hundred times for one token.
#![allow(unsafe_code, reason = "calls what C gave it to run; each block says why it is sound")]

use std::cell::RefCell;
use std::num::Wrapping;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::thread::futex;

use crate::patience::Patience;

/// How long a wait looks before it sleeps, and how often between two looks at the clock.
const LONG: Duration = Duration::from_millis(1);
const LOOKS: u32 = 1_000;
/// How often it looks while others want the cores.
const SHORT: u32 = 100;

/// Threads of a team at most: the low bits of [`Shared::region`].
const MAX_THREADS: u32 = (1 << REGION_SHIFT) - 1;
const REGION_SHIFT: u32 = 10;

/// What the threads of a team run: a function of C and its argument.
pub(crate) type Task = unsafe extern "C" fn(*mut std::ffi::c_void);

thread_local! {
    /// Where this thread is in a region.
    static PLACE: RefCell<Option<Place>> = const { RefCell::new(None) };
}

/// A team, held by the thread that leads it.
pub(crate) struct Team {
    shared: Arc<Shared>,
    /// Threads that follow.
    followers: u32,
    /// Threads that there can be: the system gave no more.
    most: u32,
}

/// A thread's place in a region, from its beginning to its end.
pub(crate) struct Place {
    team: Arc<Shared>,
    /// 0 for the leader.
    pub(crate) index: u32,
    /// How many run the region.
    pub(crate) threads: u32,
    /// The `single` blocks and loops that it came to.
    singles: Wrapping<u32>,
    loops: u32,
}

/// What all threads of a team see.
struct Shared {
    /// Which region is under way, and in the low bits how many threads run it: 0 once the team is over. In one word, so that one
    /// who takes no part in a region, and therefore is not waited for, never sees parts of two.
    region: Word,
    task: AtomicPtr<()>,
    argument: AtomicPtr<std::ffi::c_void>,
    arrived: Padded,
    barrier: Word,
    singles: AtomicU32,
    now: Mutex<Loop>,
    patience: Patience,
}

/// A number on a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct Padded(AtomicU32);

/// A number that threads wait for to change.
#[derive(Default)]
#[repr(align(64))]
struct Word {
    value: AtomicU32,
    sleepers: AtomicU32,
}

/// What is left of a loop whose threads take the next part when they are done with one.
#[derive(Default)]
struct Loop {
    /// Which loop of the region.
    number: u32,
    next: i64,
    end: i64,
    step: i64,
    chunk: i64,
}

impl Word {
    /// Waits until the value is another than `seen`: looks for it, for about a millisecond if `is_long`, then sleeps; whether it
    /// slept.
    fn wait(&self, seen: u32, is_long: bool) -> bool {
        if self.look(seen, SHORT) {
            return false;
        }
        if is_long {
            let began = Instant::now();
            while began.elapsed() < LONG {
                if self.look(seen, LOOKS) {
                    return false;
                }
                // One who is ready goes first: it may be the very thread that is waited for.
                std::thread::yield_now();
            }
        }
        // Either the one who changes the value sees the sleeper, or the sleeper sees the change: both are sequentially
        // consistent, and the kernel looks at the value once more.
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while self.value.load(Ordering::SeqCst) == seen {
            // An error is a value that changed or a signal: it is looked at again.
            let _ = futex::wait(&self.value, futex::Flags::PRIVATE, seen, None);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        true
    }

    fn look(&self, seen: u32, times: u32) -> bool {
        (0..times).any(|_| {
            std::hint::spin_loop();
            self.value.load(Ordering::Acquire) != seen
        })
    }

    fn set(&self, value: u32) {
        self.value.store(value, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) != 0 {
            let _ = futex::wake(&self.value, futex::Flags::PRIVATE, u32::MAX >> 1);
        }
    }
}

impl Shared {
    fn new() -> Self {
        Shared {
            region: Word::default(),
            task: AtomicPtr::default(),
            argument: AtomicPtr::default(),
            arrived: Padded::default(),
            barrier: Word::default(),
            singles: AtomicU32::new(0),
            now: Mutex::default(),
            patience: Patience::new(),
        }
    }

    /// Waits until all `threads` are here.
    fn meet(&self, threads: u32) {
        let seen = self.barrier.value.load(Ordering::Acquire);
        if self.arrived.0.fetch_add(1, Ordering::AcqRel) + 1 == threads {
            self.arrived.0.store(0, Ordering::Relaxed);
            self.barrier.set(seen.wrapping_add(1));
            return;
        }
        let is_long = self.patience.is_long();
        if self.barrier.wait(seen, is_long) && is_long {
            self.patience.in_vain();
        }
    }

    fn task(&self) -> Option<Task> {
        let task = self.task.load(Ordering::Relaxed);
        // SAFETY: null or what `Team::run` stored, a pointer to a function of this type.
        (!task.is_null()).then(|| unsafe { std::mem::transmute::<*mut (), Task>(task) })
    }
}

impl Place {
    fn new(team: Arc<Shared>, index: u32, threads: u32) -> Self {
        Place { team, index, threads, singles: Wrapping(0), loops: 0 }
    }

    /// Asks this thread's place; there is none outside of a region.
    pub(crate) fn here<T>(ask: impl FnOnce(Option<&mut Place>) -> T) -> T {
        PLACE.with_borrow_mut(|place| ask(place.as_mut()))
    }

    /// Runs a region within a region, with one thread.
    pub(crate) fn alone(run: impl FnOnce()) {
        Place::new(Arc::new(Shared::new()), 0, 1).hold(run);
    }

    /// Is this thread's place while `run` runs.
    fn hold(self, run: impl FnOnce()) {
        let outer = PLACE.replace(Some(self));
        run();
        PLACE.set(outer);
    }

    /// Waits for all threads of the region.
    pub(crate) fn meet(&self) {
        self.team.meet(self.threads);
    }

    /// Whether this thread runs the next `single` block: the first that comes to it does.
    pub(crate) fn is_chosen(&mut self) -> bool {
        let number = self.singles.0;
        self.singles += 1;
        self.team.singles.compare_exchange(number, self.singles.0, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Comes to a loop from `next` to before `end` in steps of `step`, of which each thread takes `chunk` at a time. All threads of
    /// the region come to the same loops.
    pub(crate) fn begin_loop(&mut self, next: i64, end: i64, step: i64, chunk: i64) {
        self.loops += 1;
        let mut now = self.team.now.lock().unwrap_or_else(PoisonError::into_inner);
        if now.number != self.loops {
            *now = Loop { number: self.loops, next, end, step, chunk: chunk.max(1) };
        }
    }

    /// Where the next part of the loop begins, and where it ends; `None` when nothing is left.
    pub(crate) fn next_part(&self) -> Option<(i64, i64)> {
        let mut now = self.team.now.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = now.next;
        let is_over = if now.step > 0 { begin >= now.end } else { begin <= now.end };
        if is_over || now.step == 0 {
            return None;
        }
        let end = begin.saturating_add(now.step.saturating_mul(now.chunk));
        now.next = if now.step > 0 { end.min(now.end) } else { end.max(now.end) };
        Some((begin, now.next))
    }
}

impl Team {
    pub(crate) fn new() -> Self {
        let shared = Shared::new();
        shared.patience.join();
        Team { shared: Arc::new(shared), followers: 0, most: MAX_THREADS }
    }

    /// Whether its threads may spin for long from now on.
    pub(crate) fn allow_spinning(&self, is_allowed: bool) {
        self.shared.patience.allow(is_allowed);
    }

    /// Runs `task` on `threads` threads, or fewer if the system gives no more, and returns when all are done.
    ///
    /// # Safety
    /// `task` may be called with `argument` on any thread until this returns.
    pub(crate) unsafe fn run(&mut self, task: Task, argument: *mut std::ffi::c_void, threads: u32) {
        let threads = self.grow(threads.clamp(1, self.most));
        self.shared.patience.recover();
        self.shared.singles.store(0, Ordering::Relaxed);
        self.shared.now.lock().unwrap_or_else(PoisonError::into_inner).number = 0;
        self.shared.task.store(task as *mut (), Ordering::Relaxed);
        self.shared.argument.store(argument, Ordering::Relaxed);
        let region = self.shared.region.value.load(Ordering::Relaxed) >> REGION_SHIFT;
        self.shared.region.set((region.wrapping_add(1) << REGION_SHIFT) | threads);
        take_part(&self.shared, 0, threads);
    }

    /// Has followers for `threads` threads; returns how many threads there are for a region.
    fn grow(&mut self, threads: u32) -> u32 {
        while self.followers + 1 < threads {
            let (shared, index) = (Arc::clone(&self.shared), self.followers + 1);
            // What is there now is over: the first region that it sees is the next.
            let seen = self.shared.region.value.load(Ordering::Relaxed);
            let made = std::thread::Builder::new().name(format!("ggml-{index}")).spawn(move || follow(&shared, index, seen));
            if let Err(error) = made {
                self.most = index;
                tracing::warn!(%error, asked = threads, threads = self.most, "no more threads for a model");
                break;
            }
            self.followers += 1;
        }
        threads.min(self.followers + 1)
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        let region = self.shared.region.value.load(Ordering::Relaxed) >> REGION_SHIFT;
        self.shared.region.set(region.wrapping_add(1) << REGION_SHIFT);
    }
}

/// A follower's life.
fn follow(shared: &Arc<Shared>, index: u32, mut seen: u32) {
    shared.patience.join();
    loop {
        shared.region.wait(seen, shared.patience.is_long());
        seen = shared.region.value.load(Ordering::Acquire);
        let threads = seen & MAX_THREADS;
        if threads == 0 {
            return;
        }
        if index < threads {
            take_part(shared, index, threads);
        }
    }
}

/// Runs a thread's part of the region under way, and waits for the others at its end.
fn take_part(shared: &Arc<Shared>, index: u32, threads: u32) {
    Place::new(Arc::clone(shared), index, threads).hold(|| {
        if let Some(task) = shared.task() {
            // SAFETY: the caller of `Team::run` vouches for it, and `Team::run` returns after all have met below.
            unsafe { task(shared.argument.load(Ordering::Relaxed)) };
        }
    });
    shared.meet(threads);
}

#[cfg(test)]
mod tests {
    use std::ffi::c_void;

    use super::*;

    /// What the threads of the regions below work on.
    #[derive(Default)]
    struct Sums {
        /// Each thread's own number, which the others read after a barrier.
        own: Vec<AtomicU32>,
        singles: AtomicU32,
        parts: AtomicU32,
        wrong: AtomicU32,
    }

    const ROUNDS: u32 = 300;
    const STEPS: i64 = 37;

    /// Every round: write, meet, read what all wrote, meet, one of all counts, meet, share a loop, meet.
    unsafe extern "C" fn rounds(argument: *mut c_void) {
        // SAFETY: `run` below passes this.
        let sums = unsafe { &*argument.cast::<Sums>() };
        let at = |ask: fn(&mut Place) -> u32| Place::here(|place| ask(place.expect("in a region")));
        let meet = || Place::here(|place| place.expect("in a region").meet());
        let (index, threads) = (at(|place| place.index), at(|place| place.threads));
        for round in 1..=ROUNDS {
            sums.own[index as usize].store(round, Ordering::Relaxed);
            meet();
            let is_late = |own: &AtomicU32| own.load(Ordering::Relaxed) != round;
            if sums.own.iter().take(threads as usize).any(is_late) {
                sums.wrong.fetch_add(1, Ordering::Relaxed);
            }
            meet();
            if Place::here(|place| place.expect("in a region").is_chosen()) {
                sums.singles.fetch_add(1, Ordering::Relaxed);
            }
            meet();
            Place::here(|place| place.expect("in a region").begin_loop(0, STEPS, 1, 5));
            while let Some((begin, end)) = Place::here(|place| place.expect("in a region").next_part()) {
                sums.parts.fetch_add(u32::try_from(end - begin).expect("few"), Ordering::Relaxed);
            }
            meet();
        }
    }

    fn run(team: &mut Team, threads: u32) {
        let mut sums = Sums { own: (0..threads).map(|_| AtomicU32::new(0)).collect(), ..Sums::default() };
        // SAFETY: `rounds` takes this, and shares it by references alone.
        unsafe { team.run(rounds, std::ptr::from_mut(&mut sums).cast(), threads) };
        assert_eq!(sums.wrong.into_inner(), 0);
        assert_eq!(sums.singles.into_inner(), ROUNDS);
        assert_eq!(sums.parts.into_inner(), ROUNDS * u32::try_from(STEPS).expect("few"));
        assert!(Place::here(|place| place.is_none()), "the place is given back");
    }

    /// More threads than cores, so that most waits spin in vain, and sizes that go up and down.
    #[test]
    fn threads_meet_whatever_their_number() {
        let mut team = Team::new();
        for threads in [1, 2, 7, 3, 16, 1, 2, 16] {
            run(&mut team, threads);
        }
    }

    #[test]
    fn teams_run_beside_each_other() {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10).for_each(|_| run(&mut Team::new(), 3)));
            }
        });
    }

    #[test]
    fn a_loop_goes_down_as_well() {
        Place::alone(|| {
            Place::here(|place| place.expect("in a region").begin_loop(10, 0, -3, 2));
            let next = || Place::here(|place| place.expect("in a region").next_part());
            assert_eq!([next(), next(), next()], [Some((10, 4)), Some((4, 0)), None]);
        });
    }
}
